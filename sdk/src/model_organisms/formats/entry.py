"""Ledger entries as bytes: canonical JSON (RFC 8785), at most 4 KiB, written once and hashed as written; no content, no I/O.

An entry says who did what to which name, and why it was allowed or not. Prompts, completions and reasons are kept elsewhere,
encrypted, and only committed to here (`commitment`).

- What `encode` writes, `parse` reads back as the same entry; what `parse` accepts, `encode` writes back as the same bytes.
- Optional fields that say nothing are left out, never written empty.
- All text is printable: an entry can be shown in a terminal without escaping.
"""

from __future__ import annotations

import hashlib
import json
import re
from datetime import UTC, datetime
from typing import Any

from model_organisms.errors import InvalidArgument
from model_organisms.records import Entry

VERSION = 1
MAX_SIZE = 4096
MAX_WORDS = 512
"""Characters of one value."""

NONCE_SIZE = 32
_COMMITMENT = b"model-organisms/commit/v1\x00"
_TYPE = re.compile(r"[a-z][a-z0-9_-]{0,31}(?:\.[a-z][a-z0-9_-]{0,31}){1,3}", re.ASCII)
_FACT = re.compile(r"[a-z][a-z0-9_.-]{0,63}", re.ASCII)
_SEQ = re.compile(r"[0-7][0-9a-f]{15}", re.ASCII)
_TIME = "%Y-%m-%dT%H:%M:%S.%fZ"
_DECISIONS = {"", "allow", "deny"}
_DIGEST = re.compile(r"[0-9a-f]{64}", re.ASCII)
_MAX_INTENT = 2**53 - 1
_OPTIONAL = ("decision", "key", "grant", "policies", "commit")
_WORDS = ("actor", "subject", "key", "grant", "policies")
_FIELDS = {"v", "seq", "time", "type", "actor", "subject", "reasons", "intent", "facts", *_OPTIONAL}
_REQUIRED = {"v", "seq", "time", "type", "actor", "subject"}

# Keys are ASCII and all numbers are small integers, so sorting by code point and the C encoder's escapes are RFC 8785 here
# (a test compares with a full implementation); it is ten times as fast, and every call of the registry waits for it.
_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, check_circular=False)


def encode(entry: Entry) -> bytes:
    """Print an entry as the ledger stores it.

    Raises:
        InvalidArgument: A field is not well formed, or the whole is longer than 4 KiB.
    """
    _check(entry)
    fields: dict[str, object] = {
        "v": VERSION,
        "seq": f"{entry.seq:016x}",
        "time": _print_time(entry.time),
        "type": entry.type,
        "actor": entry.actor,
        "subject": entry.subject,
    }
    for name in _OPTIONAL:
        if value := getattr(entry, name):
            fields[name] = value
    if entry.reasons:
        fields["reasons"] = entry.reasons
    if entry.intent >= 0:
        fields["intent"] = entry.intent
    if entry.facts:
        fields["facts"] = entry.facts
    data = _ENCODER.encode(fields).encode("utf-8")
    if len(data) > MAX_SIZE:
        raise InvalidArgument(
            f"The ledger entry is {len(data)} bytes; {MAX_SIZE} is the limit: commit to content, do not log it."
        )
    return data


def parse(data: bytes) -> Entry:
    """Read an entry, strictly: nothing unknown, nothing missing, nothing written in another way than `encode` writes it.

    Raises:
        InvalidArgument: It is no entry of this version.
    """
    if len(data) > MAX_SIZE:
        raise InvalidArgument(f"The bytes are no ledger entry: they are longer than {MAX_SIZE} bytes.")
    try:
        fields: Any = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError):
        raise InvalidArgument("The bytes are no ledger entry: they are not JSON in UTF-8.") from None
    if not isinstance(fields, dict) or not set(fields) >= _REQUIRED or not set(fields) <= _FIELDS:
        raise InvalidArgument("The bytes are no ledger entry: a field is missing or unknown.")
    if fields.pop("v") != VERSION:
        raise InvalidArgument("The ledger entry is of a version not known here; use a newer program to read it.")
    entry = Entry(**_typed(fields))
    if encode(entry) != data:
        raise InvalidArgument("The bytes are no ledger entry: they are not canonical, or a field is there twice.")
    return entry


def commitment(nonce: bytes, payload: bytes) -> str:
    """Commit to content without showing it (design of the entry's `commit` field).

    Args:
        nonce: 32 random bytes, kept with the encrypted content; without them, short content could be guessed.
        payload: The content.

    Returns:
        SHA-256, lower-case hex.

    Raises:
        InvalidArgument: The nonce is not 32 bytes.
    """
    if len(nonce) != NONCE_SIZE:
        raise InvalidArgument(f"A commitment needs {NONCE_SIZE} random bytes, not {len(nonce)}.")
    return hashlib.sha256(_COMMITMENT + nonce + payload).hexdigest()


def _typed(fields: dict[str, Any]) -> dict[str, Any]:
    """Turn JSON values into the record's types; what they may hold is `_check`'s."""
    texts = [fields[name] for name in fields if name not in {"reasons", "intent", "facts"}]
    reasons, facts, intent = fields.pop("reasons", []), fields.pop("facts", {}), fields.pop("intent", -1)
    if not isinstance(reasons, list) or not isinstance(facts, dict) or type(intent) is not int:
        raise InvalidArgument("The bytes are no ledger entry: a field is of the wrong type.")
    if not all(isinstance(value, str) for value in (*texts, *reasons, *facts.values())) or not _SEQ.fullmatch(fields["seq"]):
        raise InvalidArgument("The bytes are no ledger entry: a field is of the wrong type.")
    try:
        time = datetime.strptime(fields.pop("time"), _TIME).replace(tzinfo=UTC)
    except ValueError:
        raise InvalidArgument("The bytes are no ledger entry: its time is not written as 2026-01-31T12:00:00.000000Z.") from None
    return {**fields, "seq": int(fields["seq"], 16), "time": time, "reasons": tuple(reasons), "facts": facts, "intent": intent}


def _check(entry: Entry) -> None:
    """Refuse what no entry may hold. The messages name the field, not its value: it may be content."""
    for well_formed, rule in (
        (0 <= entry.seq < 1 << 63, "seq is a random number of 63 bits"),
        (entry.time.tzinfo is not None, "time needs a time zone"),
        (_TYPE.fullmatch(entry.type), "type is written like access.approve"),
        (entry.decision in _DECISIONS, "decision is allow, deny or empty"),
        (-1 <= entry.intent <= _MAX_INTENT, "intent is an index of this ledger, or -1"),
        (not entry.commit or _DIGEST.fullmatch(entry.commit), "commit is made by `commitment`: SHA-256 in lower-case hex"),
        (all(map(_FACT.fullmatch, entry.facts)), "facts have names like version_digest, at most 64 characters"),
    ):
        if not well_formed:
            raise InvalidArgument(f"An entry's {rule}.")
    for name in _WORDS:
        _check_words(name, getattr(entry, name))
    for value in (*entry.reasons, *entry.facts.values()):
        _check_words("reasons and facts", value)


def _check_words(name: str, value: str) -> None:
    if len(value) > MAX_WORDS or not value.isprintable():
        raise InvalidArgument(
            f"Printable characters, at most {MAX_WORDS}, in an entry's {name}: commit to content, do not log it."
        )


def _print_time(time: datetime) -> str:
    utc = time.astimezone(UTC)
    return f"{utc.year:04d}-{utc.month:02d}-{utc.day:02d}T{utc.hour:02d}:{utc.minute:02d}:{utc.second:02d}.{utc.microsecond:06d}Z"
