"""The statement by which a holder attests that their copies of a version are destroyed.

An in-toto Statement v1 whose one subject is the version. It is read strictly: a field that is not known refuses it, because a
signature must never mean more than its signer saw.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from model_organisms import names
from model_organisms.errors import InvalidProvenance
from model_organisms.formats.statements import TIME, Statement, parse_statement, parse_time, print_statement
from model_organisms.records import VersionRef

DESTRUCTION_TYPE = "https://model-organisms.dev/attestation/destruction/v1"
_TEXTS = ("grant", "how", "time", "nonce")
_FIELDS = frozenset({*_TEXTS, "pulls"})
_MAX_HOW = 2000
_MAX_PULLS = 1000


@dataclass(frozen=True, slots=True)
class Destruction:
    """What a holder signs at the end of a grant, or after a recall."""

    grant: str
    version: VersionRef
    pulls: tuple[str, ...]
    """The copies, each by the pull it came with; sorted."""
    how: str
    """How they were destroyed, in the holder's words."""
    time: datetime
    """When it was done; whole seconds, UTC."""
    nonce: str


def print_destruction(stated: Destruction) -> bytes:
    """Print the statement, to be signed."""
    predicate = {
        "grant": stated.grant,
        "pulls": list(stated.pulls),
        "how": stated.how,
        "time": stated.time.astimezone(UTC).strftime(TIME),
        "nonce": stated.nonce,
    }
    return print_statement(Statement(DESTRUCTION_TYPE, (stated.version,), predicate))


def parse_destruction(data: bytes) -> Destruction:
    """Read the statement; only the canonical bytes are one.

    Raises:
        InvalidProvenance: It is another statement, has a field that is not known, or is written in another form.
        InvalidName: What it names as grant or pull is none.
    """
    statement = parse_statement(data)
    fields = statement.predicate
    if statement.predicate_type != DESTRUCTION_TYPE or fields.keys() != _FIELDS or len(statement.subjects) != 1:
        raise _malformed("it is not one of this version, about one version")
    pulls = fields["pulls"]
    if not all(isinstance(fields[name], str) for name in _TEXTS) or not isinstance(pulls, list):
        raise _malformed("a field has no value it can have")
    if not 1 <= len(pulls) <= _MAX_PULLS or not all(isinstance(name, str) for name in pulls):
        raise _malformed(f"it names no copy, or more than {_MAX_PULLS}")
    if not fields["how"].strip() or len(fields["how"]) > _MAX_HOW:
        raise _malformed(f"how it was done takes 1 to {_MAX_HOW} characters")
    stated = Destruction(
        grant=names.check("grant", fields["grant"]),
        version=VersionRef(names.check("version", statement.subjects[0].name), statement.subjects[0].digest),
        pulls=tuple(sorted({names.check("pull", name) for name in pulls})),
        how=fields["how"],
        time=parse_time(fields["time"]),
        nonce=fields["nonce"],
    )
    if print_destruction(stated) != data:
        raise _malformed("it is not in its canonical form, in which nothing can be written in two ways")
    return stated


def _malformed(why: str) -> InvalidProvenance:
    return InvalidProvenance(f"This attestation of destruction cannot be used: {why}; make it with the SDK.")
