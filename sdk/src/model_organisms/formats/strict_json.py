"""JSON from strangers, read in bounded time and memory; JSON of ours, printed canonically (RFC 8785). What it means: its reader.

The standard parser takes duplicate keys, `NaN`, integers of any length and nesting until it breaks; two readers of the same
bytes may then see different things. Here each is refused.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections import Counter
from typing import TYPE_CHECKING, Any, NoReturn

import rfc8785

if TYPE_CHECKING:
    from collections.abc import Sequence

    from model_organisms.errors import ModelOrganismsError

MAX_DEPTH = 16
MAX_DIGITS = 18
"""Decimal digits of an integer: every one fits 64 bits."""
_MAX_SAFE = 2**53 - 1

# An unterminated string matches to the end, so that no attempt ever fails and the scan stays linear.
_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*(?:"|\\?\Z)', re.DOTALL)
_BRACKET = re.compile(rb"[\[\]{}]")
_SURROGATE = re.compile(r"[\ud800-\udfff]")


class _Refused(ValueError):
    """Something that is JSON, and that we do not take; `args[0]` is a clause for the message."""


def parse(data: bytes | memoryview, *, what: str, limit: int, error: type[ModelOrganismsError]) -> Any:  # noqa: ANN401 - JSON is any of six types, and callers check
    """Read one JSON value.

    Steps, cheapest first: 1. size, 2. depth, 3. UTF-8 and grammar, 4. duplicate keys, numbers, lone surrogates.
    What the value means is the caller's to check.

    Args:
        data: The bytes.
        what: What they should be, for the message: "adapter_config.json".
        limit: Most bytes taken.
        error: Class to raise.

    Raises:
        ModelOrganismsError: As `error`: the bytes are not such JSON.
    """
    if len(data) > limit:
        _refuse(error, what, f"it has {len(data):,} bytes and at most {limit:,} are read")
    raw = bytes(data)
    if _depth(raw) > MAX_DEPTH:
        _refuse(error, what, f"it nests deeper than {MAX_DEPTH}")
    try:
        value = json.loads(
            raw.decode("utf-8"), object_pairs_hook=_unique, parse_int=_integer, parse_float=_float, parse_constant=_constant
        )
    except _Refused as refused:
        raise error(f"{what} is refused: {refused.args[0]}; write it again with plain JSON.") from None
    except (ValueError, RecursionError):  # UnicodeDecodeError and JSONDecodeError are ValueErrors; their texts quote the input
        raise error(f"{what} is not JSON in UTF-8; write it again with an ordinary JSON writer.") from None
    if b"\\u" in raw and _SURROGATE.search(json.dumps(value, ensure_ascii=False)):
        _refuse(error, what, "it holds half of a surrogate pair")
    return value


def canonical(value: Any) -> bytes:  # noqa: ANN401 - see parse
    """Print `value` as RFC 8785 has it: sorted keys, shortest numbers, no spaces, UTF-8.

    Raises:
        ValueError: A number is not finite, an integer is beyond 2**53, or the value is not JSON; `safe_number` tells before.
    """
    printed: bytes = rfc8785.dumps(value)
    return printed


def digest(value: Any) -> str:  # noqa: ANN401 - see parse
    """Give SHA-256 of `value` as `canonical` prints it, in hex: one name for all who hold the same value.

    Raises:
        ValueError: As `canonical`.
    """
    return hashlib.sha256(canonical(value)).hexdigest()


def safe_number(value: object) -> bool:
    """Tell whether `value` is a number that survives printing and reading: no bool, finite, within 2**53.

    RFC 8785 prints a float such as 2e16 without a point, so a reader with integers would see one it cannot print again.
    """
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= _MAX_SAFE  # false for NaN too


def _depth(raw: bytes) -> int:
    """Count the nesting outside strings without building anything."""
    deepest = depth = 0
    for bracket in _BRACKET.findall(_STRING.sub(b"", raw)):
        depth += 1 if bracket in b"[{" else -1
        deepest = max(deepest, depth)
    return deepest


def _unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        counts = Counter(key for key, _ in pairs)
        twice = counts.most_common(1)[0][0]
        raise _Refused(f"it has the key {twice[:80]!a} more than once")
    return found


def _integer(text: str) -> int:
    if len(text.lstrip("-")) > MAX_DIGITS:
        raise _Refused(f"it has an integer of more than {MAX_DIGITS} digits")
    return int(text)


def _float(text: str) -> float:
    value = float(text)
    if len(text) > 64 or not math.isfinite(value):  # noqa: PLR2004 - no double needs 64 characters
        raise _Refused("it has a number beyond a 64-bit float")
    return value


def _constant(text: str) -> NoReturn:
    raise _Refused(f"it has {text}, which is not JSON")


def _refuse(error: type[ModelOrganismsError], what: str, why: str) -> NoReturn:
    raise error(f"{what} is refused: {why}.")
