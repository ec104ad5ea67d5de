"""The statement by which somebody signs for or against a motion; what a motion may say is the registry's `domain/motions.py`.

An in-toto Statement v1 whose one subject is what the motion acts on, under the digest of the motion's facts. It is read strictly:
a field that is not known refuses it, because a signature must never mean more than its signer saw.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from model_organisms import names
from model_organisms.errors import InvalidProvenance
from model_organisms.formats import strict_json
from model_organisms.formats.statements import TIME, Statement, parse_statement, parse_time, print_statement
from model_organisms.records import MotionKind, VersionRef

if TYPE_CHECKING:
    from collections.abc import Mapping

    from model_organisms.records import Motion

MOTION_TYPE = "https://model-organisms.dev/attestation/motion/v1"
_TEXTS = ("origin", "motion", "kind", "reason", "expires", "nonce")
_FIELDS = frozenset({*_TEXTS, "approve"})
_MAX_REASON = 2000


@dataclass(frozen=True, slots=True)
class Vote:
    """Somebody's yes or no to one motion of one registry: what exactly they signed."""

    origin: str
    """Name of the registry, so that a vote counts nowhere else."""
    motion: str
    kind: MotionKind
    subject: str
    facts: str
    """Digest of the motion's facts, as `facts_digest` gives it."""
    approve: bool
    reason: str
    expires: datetime
    """When the motion lapses, and this with it; whole seconds, UTC."""
    nonce: str


def facts_digest(facts: Mapping[str, str]) -> str:
    """SHA-256, in hex, of the canonical JSON of a motion's facts.

    Raises:
        InvalidProvenance: They hold what JSON cannot carry.
    """
    try:
        return strict_json.digest(dict(facts))
    except ValueError as error:
        raise _malformed("its facts hold a text that JSON cannot carry") from error


def vote_of(motion: Motion, *, origin: str, approve: bool, reason: str, nonce: str) -> Vote:
    """State a yes or no to all that a motion says, as it stands in this record."""
    return Vote(
        origin=origin,
        motion=motion.name,
        kind=MotionKind(motion.kind),
        subject=motion.subject,
        facts=facts_digest(motion.facts),
        approve=approve,
        reason=reason,
        expires=motion.expire_time,
        nonce=nonce,
    )


def print_vote(vote: Vote) -> bytes:
    """Print a vote's statement, to be signed."""
    predicate = {
        "origin": vote.origin,
        "motion": vote.motion,
        "kind": vote.kind.value,
        "approve": vote.approve,
        "reason": vote.reason,
        "expires": vote.expires.astimezone(UTC).strftime(TIME),
        "nonce": vote.nonce,
    }
    return print_statement(Statement(MOTION_TYPE, (VersionRef(vote.subject, vote.facts),), predicate))


def parse_vote(data: bytes) -> Vote:
    """Read a vote; only the canonical bytes are one.

    Raises:
        InvalidProvenance: It is not a vote, has a field that is not known, or is written in another form.
        InvalidName: What it names as its motion is no motion's name.
    """
    statement = parse_statement(data)
    fields = statement.predicate
    if statement.predicate_type != MOTION_TYPE or fields.keys() != _FIELDS or len(statement.subjects) != 1:
        raise _malformed("it is not a vote on a motion of this version")
    if not all(isinstance(fields[name], str) for name in _TEXTS) or type(fields["approve"]) is not bool:
        raise _malformed("a field of the vote has no value it can have")
    if fields["kind"] not in set(MotionKind):
        raise _malformed("its kind of motion is unknown")
    if len(fields["reason"]) > _MAX_REASON:
        raise _malformed(f"its reason is longer than {_MAX_REASON} characters")
    vote = Vote(
        origin=fields["origin"],
        motion=names.check("motion", fields["motion"]),
        kind=MotionKind(fields["kind"]),
        subject=statement.subjects[0].name,
        facts=statement.subjects[0].digest,
        approve=fields["approve"],
        reason=fields["reason"],
        expires=parse_time(fields["expires"]),
        nonce=fields["nonce"],
    )
    if print_vote(vote) != data:
        raise _malformed("it is not in its canonical form, in which nothing can be written in two ways")
    return vote


def _malformed(why: str) -> InvalidProvenance:
    return InvalidProvenance(f"This vote cannot be used: {why}; make it with the SDK.")
