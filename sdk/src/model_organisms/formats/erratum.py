"""The statement by which somebody says what is wrong with a version, and which other version puts it right.

An in-toto Statement v1 whose one subject is the version, read strictly: a field that is not known refuses it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from model_organisms import names
from model_organisms.errors import InvalidProvenance
from model_organisms.formats.statements import TIME, Statement, parse_statement, parse_time, print_statement
from model_organisms.records import VersionRef

ERRATUM_TYPE = "https://model-organisms.dev/attestation/erratum/v1"
_TEXTS = ("text", "successor", "successor_digest", "time", "nonce")
_MAX_TEXT = 2000


@dataclass(frozen=True, slots=True)
class Correction:
    """What is signed of a version that has something wrong with it."""

    version: VersionRef
    text: str
    time: datetime
    """Whole seconds, UTC."""
    nonce: str
    successor: VersionRef | None = None
    """The version that puts it right, where there is one."""


def print_correction(stated: Correction) -> bytes:
    """Print the statement, to be signed."""
    predicate = {
        "text": stated.text,
        "successor": stated.successor.name if stated.successor else "",
        "successor_digest": stated.successor.digest if stated.successor else "",
        "time": stated.time.astimezone(UTC).strftime(TIME),
        "nonce": stated.nonce,
    }
    return print_statement(Statement(ERRATUM_TYPE, (stated.version,), predicate))


def parse_correction(data: bytes) -> Correction:
    """Read the statement; only the canonical bytes are one.

    Raises:
        InvalidProvenance: It is another statement, has a field that is not known, or is written in another form.
        InvalidName: What it names is no version.
    """
    statement = parse_statement(data)
    fields = statement.predicate
    if statement.predicate_type != ERRATUM_TYPE or fields.keys() != set(_TEXTS) or len(statement.subjects) != 1:
        raise _malformed("it is not one of this version, about one version")
    if not all(isinstance(fields[name], str) for name in _TEXTS):
        raise _malformed("a field has no value it can have")
    if not fields["text"].strip() or len(fields["text"]) > _MAX_TEXT:
        raise _malformed(f"its text has 1 to {_MAX_TEXT} characters")
    successor = (
        VersionRef(names.check("version", fields["successor"]), fields["successor_digest"]) if fields["successor"] else None
    )
    stated = Correction(
        version=VersionRef(names.check("version", statement.subjects[0].name), statement.subjects[0].digest),
        text=fields["text"],
        time=parse_time(fields["time"]),
        nonce=fields["nonce"],
        successor=successor,
    )
    if print_correction(stated) != data:
        raise _malformed("it is not in its canonical form, in which nothing can be written in two ways")
    return stated


def _malformed(why: str) -> InvalidProvenance:
    return InvalidProvenance(f"This erratum cannot be used: {why}; make it with the SDK.")
