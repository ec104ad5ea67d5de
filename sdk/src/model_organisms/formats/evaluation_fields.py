"""Reads single values of an evaluation strictly. Which there are, and what of them can be true, is for `evaluation.py` to say.

Nobody else should need this. Each raises `InvalidProvenance` where a value is none of its kind.
"""

from __future__ import annotations

import re
from dataclasses import fields
from typing import Any, TypeGuard

from model_organisms.errors import InvalidProvenance
from model_organisms.formats import strict_json

_DIGEST = re.compile(r"(?:[0-9a-f]{64})?", re.ASCII)
_WORD = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}", re.ASCII)
_MAX_TEXT = 500
_MAX_COUNT = 2**53 - 1


def fields_of(raw: object, kind: type) -> dict[str, Any]:
    """Read an object that has exactly the fields of a dataclass."""
    if not isinstance(raw, dict) or raw.keys() != {one.name for one in fields(kind)}:
        raise malformed(f"its {kind.__name__.lower()} has not exactly the fields of one")
    return raw


def listed(raw: object, *, most: int) -> list[Any]:
    """Read a list."""
    if not isinstance(raw, list) or len(raw) > most:
        raise malformed(f"its figures and scores are lists, of at most {most:,}")
    return raw


def text(raw: object) -> str:
    """Read a text."""
    if not isinstance(raw, str) or len(raw) > _MAX_TEXT:
        raise malformed(f"a text in it is none, or has more than {_MAX_TEXT} characters")
    return raw


def texts(raw: object) -> dict[str, str]:
    """Read texts by name."""
    if not isinstance(raw, dict):
        raise malformed("its settings and software are texts by name")
    return {text(name): text(value) for name, value in raw.items()}


def word(raw: object) -> str:
    """Read a name of a suite, a figure or a scorer."""
    if not isinstance(raw, str) or not _WORD.fullmatch(raw):
        raise malformed("a name in it has other characters than a-z, 0-9, '_', '.' and '-', or more than 64")
    return raw


def digest(raw: object) -> str:
    """Read a SHA-256, or nothing."""
    if not isinstance(raw, str) or not _DIGEST.fullmatch(raw):
        raise malformed("a digest in it is no SHA-256 in lower-case hex")
    return raw


def number(raw: object) -> float:
    """Read a finite number."""
    if not strict_json.safe_number(raw):
        raise malformed("a number in it is none")
    return float(raw)  # type: ignore[arg-type] # just looked at


def is_count(raw: object) -> TypeGuard[int]:
    """Say whether it is a whole number from 0 up."""
    return type(raw) is int and 0 <= raw <= _MAX_COUNT


def counted(raw: object) -> int:
    """Read a whole number from 0 up."""
    if not is_count(raw):
        raise malformed("a count in it is none")
    return raw


def malformed(why: str) -> InvalidProvenance:
    """Make the error that says why it cannot be used."""
    return InvalidProvenance(f"This evaluation cannot be used: {why}; make it with the SDK.")
