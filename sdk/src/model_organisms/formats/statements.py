"""In-toto Statement v1: what is signed about a version, and the review that a reviewer signs. Envelopes are `dsse.py`'s.

A review is read strictly: a field that is not known refuses it, because an approval must never mean more than its signer saw.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from model_organisms import names
from model_organisms.errors import InvalidArgument, InvalidProvenance
from model_organisms.formats import strict_json
from model_organisms.formats.conditions import parse_condition, print_condition
from model_organisms.records import (
    BUDGET_FIELDS,
    Budget,
    Condition,
    Level,
    Modifier,
    Purpose,
    Request,
    Rung,
    Stated,
    VersionRef,
)

PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PROVENANCE_TYPE = "https://model-organisms.dev/attestation/provenance/v1"
REVIEW_TYPE = "https://model-organisms.dev/attestation/review/v1"
EVALUATION_TYPE = "https://model-organisms.dev/attestation/evaluation/v1"
MAX_STATEMENT = 3 << 20
TIME = "%Y-%m-%dT%H:%M:%SZ"
"""Form of a time in a statement: whole seconds, UTC."""
_TEXTS = ("request", "level", "rung", "purpose", "words", "reason", "expires", "nonce")
_REVIEW_FIELDS = frozenset({*_TEXTS, "revision", "budget", "duration_s", "approve", "conditions", "stated"})
_STATED_FIELDS = frozenset({"project", "accepts", "declines", "until", "asserted"})
_NONCE = re.compile(r"[0-9a-f]{32}", re.ASCII)
_MAX_REASON = 2000
_MAX_REVISION = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Statement:
    """A statement before its predicate is understood."""

    predicate_type: str
    subjects: tuple[VersionRef, ...]
    predicate: dict[str, Any]

    @property
    def digests(self) -> tuple[str, ...]:
        """Digests of its subjects."""
        return tuple(subject.digest for subject in self.subjects)


@dataclass(frozen=True, slots=True)
class Review:
    """A reviewer's yes or no to one request as it stood: what exactly they signed."""

    request: str
    revision: int
    versions: tuple[VersionRef, ...]
    level: Level
    rung: Rung
    purpose: Purpose
    budget: Budget
    duration_s: int
    """How long the grant shall last, in seconds."""
    words: str
    """Digest of what the requester says of it, as `words_digest` gives it."""
    stated: Stated
    """What the requester states of their work."""
    conditions: tuple[Condition, ...]
    """What it was asked under, and the grant will be given under."""
    approve: bool
    reason: str
    expires: datetime
    """After this the statement counts for nothing; whole seconds, UTC."""
    nonce: str
    """16 random bytes in lower-case hex: no statement is handed in twice."""


def words_digest(justification: str, need: str) -> str:
    """SHA-256, in hex, of the canonical JSON of an object of the two texts: what a review says of the requester's words."""
    return strict_json.digest({"justification": justification, "need": need})


def review_of(request: Request, *, approve: bool, reason: str, expires: datetime, nonce: str) -> Review:
    """State a yes or no to all that a request asks for, as it stands in this record."""
    return Review(
        request=request.name,
        revision=request.revision,
        versions=request.versions,
        level=Level(request.level),
        rung=request.rung,
        purpose=request.purpose,
        budget=request.budget,
        duration_s=request.duration_s,
        words=words_digest(request.justification, request.need),
        stated=request.stated,
        conditions=request.conditions,
        approve=approve,
        reason=reason,
        expires=expires,
        nonce=nonce,
    )


def print_statement(statement: Statement) -> bytes:
    """Print a statement as canonical JSON.

    Raises:
        InvalidProvenance: It holds what JSON cannot carry.
    """
    raw = {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": subject.name, "digest": {"sha256": subject.digest}} for subject in statement.subjects],
        "predicateType": statement.predicate_type,
        "predicate": statement.predicate,
    }
    try:
        return strict_json.canonical(raw)
    except ValueError as error:
        raise _malformed("it holds a number or a text that JSON cannot carry") from error


def parse_statement(data: bytes) -> Statement:
    """Read a statement.

    Raises:
        InvalidProvenance: It is not an in-toto Statement v1 about at least one SHA-256 digest.
    """
    raw = strict_json.parse(data, what="The statement", limit=MAX_STATEMENT, error=InvalidProvenance)
    if not isinstance(raw, dict) or raw.keys() != {"_type", "subject", "predicateType", "predicate"}:
        raise _malformed("it has not exactly the fields of an in-toto Statement v1")
    subjects = raw["subject"]
    if raw["_type"] != STATEMENT_TYPE or not isinstance(subjects, list) or not subjects:
        raise _malformed("its type or its subject is missing")
    if not isinstance(raw["predicateType"], str) or not isinstance(raw["predicate"], dict):
        raise _malformed("its predicate is missing")
    return Statement(raw["predicateType"], tuple(_subject(item) for item in subjects), raw["predicate"])


def print_review(review: Review) -> bytes:
    """Print a review's statement, to be signed."""
    predicate = {
        "request": review.request,
        "revision": review.revision,
        "level": review.level.name,
        "rung": review.rung.name.lower(),
        "purpose": review.purpose.value,
        "budget": {field: getattr(review.budget, field) for field in BUDGET_FIELDS},
        "duration_s": review.duration_s,
        "words": review.words,
        "stated": {
            "project": review.stated.project,
            "accepts": [print_condition(condition) for condition in review.stated.accepts],
            "declines": [modifier.value for modifier in review.stated.declines],
            "until": _printed(review.stated.until),
            "asserted": _printed(review.stated.assert_time),
        },
        "conditions": [print_condition(condition) for condition in review.conditions],
        "approve": review.approve,
        "reason": review.reason,
        "expires": _printed(review.expires),
        "nonce": review.nonce,
    }
    return print_statement(Statement(REVIEW_TYPE, review.versions, predicate))


def parse_review(data: bytes) -> Review:
    """Read a review; only the canonical bytes are one.

    Raises:
        InvalidProvenance: It is not a review, has a field that is not known, or is written in another form.
    """
    statement = parse_statement(data)
    fields = statement.predicate
    if statement.predicate_type != REVIEW_TYPE or fields.keys() != _REVIEW_FIELDS:
        raise _malformed("it is not a review of this version")
    budget = fields["budget"]
    if (
        not all(isinstance(fields[name], str) for name in _TEXTS)
        or type(fields["approve"]) is not bool
        or not isinstance(budget, dict)
        or budget.keys() != set(BUDGET_FIELDS)
        or not all(type(number) is int and number >= 0 for number in (*budget.values(), fields["duration_s"]))
        or type(fields["revision"]) is not int
        or not 0 < fields["revision"] <= _MAX_REVISION
    ):
        raise _malformed("a field of the review has no value it can have")
    if fields["level"] not in Level.__members__ or fields["rung"] not in {rung.name.lower() for rung in Rung}:
        raise _malformed("its level or rung is unknown")
    if fields["purpose"] not in set(Purpose):
        raise _malformed("its purpose is unknown")
    if not _NONCE.fullmatch(fields["nonce"]):
        raise _malformed("its nonce is not 16 bytes in lower-case hex")
    if len(fields["reason"]) > _MAX_REASON:
        raise _malformed(f"its reason is longer than {_MAX_REASON} characters")
    review = Review(
        request=names.check("request", fields["request"]),
        revision=fields["revision"],
        versions=statement.subjects,
        level=Level[fields["level"]],
        rung=Rung[fields["rung"].upper()],
        purpose=Purpose(fields["purpose"]),
        budget=Budget(**budget),
        duration_s=fields["duration_s"],
        words=fields["words"],
        stated=_stated(fields["stated"]),
        conditions=_conditions(fields["conditions"]),
        approve=fields["approve"],
        reason=fields["reason"],
        expires=parse_time(fields["expires"]),
        nonce=fields["nonce"],
    )
    if print_review(review) != data:
        raise _malformed("it is not in its canonical form, in which nothing can be written in two ways")
    return review


def _stated(raw: object) -> Stated:
    if (
        not isinstance(raw, dict)
        or raw.keys() != _STATED_FIELDS
        or not all(isinstance(raw[name], str) for name in ("project", "until", "asserted"))
        or not isinstance(raw["declines"], list)
        or not all(isinstance(word, str) and word in set(Modifier) - {Modifier.UNSPECIFIED} for word in raw["declines"])
    ):
        raise _malformed("what is stated has no form it can have")
    return Stated(
        project=raw["project"],
        accepts=_conditions(raw["accepts"]),
        declines=tuple(Modifier(word) for word in raw["declines"]),
        until=parse_time(raw["until"]) if raw["until"] else None,
        assert_time=parse_time(raw["asserted"]) if raw["asserted"] else None,
    )


def _conditions(raw: object) -> tuple[Condition, ...]:
    if not isinstance(raw, list) or not all(isinstance(text, str) for text in raw):
        raise _malformed("its conditions are no list of texts")
    try:
        return tuple(parse_condition(text) for text in raw)
    except InvalidArgument as error:
        raise _malformed("it has a condition that is not understood") from error


def _printed(time: datetime | None) -> str:
    return time.astimezone(UTC).strftime(TIME) if time else ""


def parse_time(text: str) -> datetime:
    """Read a time of a statement.

    Raises:
        InvalidProvenance: It is none.
    """
    try:
        return datetime.strptime(text, TIME).replace(tzinfo=UTC)
    except ValueError as error:
        raise _malformed("one of its times is none") from error


def _subject(item: object) -> VersionRef:
    if not isinstance(item, dict) or item.keys() != {"name", "digest"} or not isinstance(item["digest"], dict):
        raise _malformed("a subject is not a name and a digest")
    digest = item["digest"].get("sha256")
    if item["digest"].keys() != {"sha256"} or not isinstance(digest, str) or not isinstance(item["name"], str):
        raise _malformed("a subject has no SHA-256")
    if len(digest) != 64 or set(digest) - set("0123456789abcdef"):  # noqa: PLR2004 - SHA-256 in hex
        raise _malformed("a subject's SHA-256 is not 64 lower-case hex digits")
    return VersionRef(item["name"], digest)


def _malformed(why: str) -> InvalidProvenance:
    return InvalidProvenance(f"This statement cannot be used: {why}; make it with the SDK.")
