"""Who may decide at which level and rung, as a table; what a statement must say; when there are enough."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from itertools import product

import pytest
from model_organisms.errors import ApprovalRefused, Conflict, InvalidArgument, Withdrawn
from model_organisms.formats.dsse import key_id
from model_organisms.formats.statements import words_digest
from model_organisms.records import GrantState, Level, Purpose, RequestState, Role, Rung, UserState, VersionRef, VersionState
from model_organisms_registry.domain import access
from model_organisms_registry.domain.hazard import TABLE, tightened

from tests.domain.cast import DAY, HOUR, NOW, PLENTY, WHY, opaque, request, statement, subject, user

ASKED = [Rung.SAMPLE, Rung.PROBE, Rung.PULL]
PEOPLE = {
    "stranger": user("rex", Role.REVIEWER, organisation="lab-x"),
    "colleague of the requester": user("kim", Role.REVIEWER, organisation="lab-a"),
    "owner": user("olga", Role.REVIEWER, Role.PUBLISHER, organisation="lab-o"),
    "publisher": user("pat", Role.REVIEWER, Role.PUBLISHER, organisation="lab-p"),
    "co-author": user("carl", Role.REVIEWER, organisation="lab-c"),
    "requester": user("ada", Role.RESEARCHER, Role.REVIEWER, organisation="lab-a"),
    "suspended": user("sue", Role.REVIEWER, organisation="lab-s", state=UserState.SUSPENDED),
    "admin": user("adam", Role.ADMIN, Role.AUDITOR, Role.PUBLISHER, organisation="lab-d"),
}
TWINS = [user("x", Role.REVIEWER), user("ada", Role.REVIEWER)]
KNOWN = [*PEOPLE.values(), *TWINS, *(user(f"rev-{number}", Role.REVIEWER) for number in range(3))]
"""Whose signatures count."""
NOBODY = {"requester", "suspended", "admin"}

# who may approve, by level and rung, besides the stranger; the requester, the suspended and those without the role never
MAY = {
    1: {"sample": "colleague", "probe": "same", "pull": "same"},
    2: {"sample": "colleague", "probe": "same", "pull": "same"},
    3: {"sample": "colleague", "probe": "same", "pull": "same"},
    4: {"sample": "", "probe": "same"},
}


def may(level, rung, who):
    row = MAY[level]
    if rung not in row:
        return False
    allowed = row["sample"] if row[rung] == "same" else row[rung]
    return who == "stranger" or who.split()[0] in allowed.split()


def about(level, **more):
    return [subject(level, owner="olga", publisher="pat", co_authors=["carl"], **more)]


def decide(of, who, *, now=NOW, subjects=None, table=TABLE, **said):
    reviewer = PEOPLE[who] if isinstance(who, str) else who
    stands = about(of.level) if subjects is None else subjects
    signed = statement(of, **said)
    return access.review(of, signed, reviewer, reviewers=KNOWN, envelope=b"signed", subjects=stands, now=now, table=table)


def complete(of, *, now=NOW, reviewers=None, **more):
    return access.complete(of, now=now, reviewers=KNOWN if reviewers is None else reviewers, **more)


def grant_from(of, name, *, now=NOW, **more):
    return access.grant_from(of, name, now=now, reviewers=KNOWN, **more)


def other(number, organisation):
    return user(f"rev-{number}", Role.REVIEWER, organisation=organisation)


@pytest.mark.parametrize(("level", "rung", "who"), list(product(Level, ASKED, PEOPLE)))
def test_the_approval_matrix(level, rung, who):
    of = request(level, rung)
    if may(level, rung.name.lower(), who):
        decided = decide(of, who)
        assert decided.state is RequestState.PENDING
        assert [(item.reviewer, item.approve) for item in decided.approvals] == [(PEOPLE[who].name, True)]
    else:
        with pytest.raises(ApprovalRefused):
            decide(of, who)


@pytest.mark.parametrize(("level", "rung"), [cell for cell in product(Level, ASKED) if cell != (Level.CL4, Rung.PULL)])
def test_it_takes_as_many_as_the_mission_says(level, rung):
    of = request(level, rung)
    needed = {1: 0 if rung is Rung.SAMPLE else 1, 2: 1, 3: 2, 4: 2}[level]
    for number in range(3):
        assert complete(of, now=NOW, witnessed=True) == (number >= needed)
        of = decide(of, other(number, f"house-{number}"))


def test_two_of_one_house_are_one_where_houses_must_differ():
    of = decide(request(Level.CL3), other(1, "house"))
    with pytest.raises(ApprovalRefused, match="organisation"):
        decide(of, other(2, "house"))
    strict = tightened(TABLE, {"CL2.sample": {"approvals": 2}})
    of = decide(decide(request(Level.CL2), other(1, "house"), table=strict), other(2, "house"), table=strict)
    assert complete(of, now=NOW, table=strict)


def test_the_count_trusts_no_list_it_is_given():
    of = decide(request(Level.CL3), other(1, "house"))
    twin = replace(of.approvals[0], reviewer="users/x", key_id=key_id(TWINS[0].identity_key))
    assert not complete(replace(of, approvals=(of.approvals[0], twin)), now=NOW)
    moved = replace(twin, organisation="organisations/x")
    assert complete(replace(of, approvals=(of.approvals[0], moved)), now=NOW)
    own = replace(moved, reviewer=of.requester, key_id=key_id(TWINS[1].identity_key))
    assert not complete(replace(of, approvals=(of.approvals[0], own)), now=NOW)


def test_the_requesters_house_may_give_one_approval_at_cl3_and_never_both():
    of = decide(request(Level.CL3), "colleague of the requester")
    with pytest.raises(ApprovalRefused):
        decide(of, other(1, "lab-a"))
    assert complete(decide(of, "stranger"), now=NOW)


def test_nobody_counts_twice_whatever_they_say_first():
    of = decide(request(Level.CL3), "stranger")
    for approve in (True, False):
        with pytest.raises(ApprovalRefused, match="already"):
            decide(of, "stranger", approve=approve)
    doubled = replace(of, approvals=of.approvals * 2)
    assert not complete(doubled, now=NOW)
    shared_key = replace(of.approvals[0], reviewer="users/x", organisation="organisations/x")
    sharing = [*KNOWN, replace(TWINS[0], identity_key=PEOPLE["stranger"].identity_key)]
    assert not complete(replace(of, approvals=(of.approvals[0], shared_key)), reviewers=sharing)


def test_a_signature_counts_while_its_signer_is_an_active_reviewer_with_that_key():
    rex = PEOPLE["stranger"]
    of = decide(request(Level.CL2), rex)
    assert complete(of, reviewers=[rex])
    changed = {"state": UserState.SUSPENDED}, {"roles": frozenset({Role.RESEARCHER})}, {"identity_key": bytes(32)}
    for now in ([], *([replace(rex, **change)] for change in changed)):
        assert access.counted(of, now=NOW, reviewers=now) == ()
        assert not complete(of, reviewers=now)
        with pytest.raises(Conflict, match="0 of 1"):
            access.grant_from(of, opaque("grants"), now=NOW, reviewers=now)


def test_a_colleague_may_take_the_place_of_a_reviewer_who_was_suspended():
    gone = replace(other(1, "house"), state=UserState.SUSPENDED)
    of = decide(request(Level.CL3), other(1, "house"))
    of = access.review(of, statement(of), other(2, "house"), reviewers=[gone], envelope=b"", subjects=about(Level.CL3), now=NOW)
    assert [item.reviewer for item in access.counted(of, now=NOW, reviewers=[gone, other(2, "house")])] == ["users/rev-2"]


@pytest.mark.parametrize(
    "said",
    [
        {"request": opaque("requests", 2)},
        {"revision": 2},
        {"revision": 0},
        {"level": Level.CL1},
        {"rung": Rung.SAMPLE},
        {"purpose": Purpose.TEACHING},
        {"budget": replace(PLENTY, tokens=PLENTY.tokens + 1)},
        {"budget": replace(PLENTY, sessions=PLENTY.sessions - 1)},
        {"budget": replace(PLENTY, output_bytes=0)},
        {"budget": replace(PLENTY, probe_values=1)},
        {"budget": replace(PLENTY, pulls=4)},
        {"duration_s": 86_401},
        {"words": words_digest(WHY + " More.", "")},
        {"words": words_digest(WHY, "Weights.")},
        {"words": words_digest("", WHY)},
        {"versions": ()},
        {"versions": (VersionRef(subject().ref.name, "0" * 64),)},
        {"versions": (subject().ref, subject(number=2).ref)},
        {"expires": NOW},
        {"expires": NOW - DAY},
        {"expires": NOW + timedelta(hours=72, minutes=6)},
    ],
)
@pytest.mark.parametrize("approve", [True, False])
def test_a_statement_about_anything_else_counts_for_nothing(said, approve):
    with pytest.raises(ApprovalRefused):
        decide(request(Level.CL2, Rung.PULL), "stranger", approve=approve, **said)


@pytest.mark.parametrize(
    ("subjects", "error"),
    [
        (about(Level.CL2, state=VersionState.WITHDRAWN), Withdrawn),
        (about(Level.CL3), Conflict),
        (about(Level.CL1), Conflict),
        (about(Level.CL2, number=2), Conflict),
        (about(Level.CL2) + about(Level.CL2, number=2), Conflict),
    ],
)
def test_what_is_no_longer_as_it_was_asked_for_is_not_approved(subjects, error):
    with pytest.raises(error):
        decide(request(Level.CL2), "stranger", subjects=subjects)


@pytest.mark.parametrize("state", [state for state in RequestState if state is not RequestState.PENDING])
def test_what_is_decided_stays_decided(state):
    with pytest.raises(Conflict):
        decide(request(state=state), "stranger")


def test_a_lapsed_request_is_not_decided():
    of = request(expire_time=NOW)
    with pytest.raises(Conflict):
        decide(of, "stranger")
    assert not complete(of, now=NOW)


def test_one_no_with_its_reason_ends_a_request():
    rejected = decide(decide(request(Level.CL3), "stranger"), other(1, "house"), approve=False, reason="Name the detector first.")
    assert (rejected.state, rejected.reason) == (RequestState.REJECTED, "Name the detector first.")
    assert [item.approve for item in rejected.approvals] == [True, False]
    assert not complete(rejected, now=NOW)
    for reason in ("", "no", " " * 20, "\x1b[2J" * 5):
        with pytest.raises(InvalidArgument):
            decide(request(Level.CL3), "stranger", approve=False, reason=reason)


def test_a_pull_of_cl4_is_rejected_but_never_approved():
    of = request(Level.CL4, Rung.PULL)
    assert decide(of, "stranger", approve=False).state is RequestState.REJECTED
    enough = decide(decide(request(Level.CL4), other(1, "house-1")), other(2, "house-2"))
    assert complete(enough, now=NOW, witnessed=True)
    forced = replace(of, approvals=enough.approvals)
    assert not complete(forced, now=NOW, witnessed=True)


def test_approvals_that_lapsed_before_the_last_one_came_do_not_count():
    of = decide(request(Level.CL3), "stranger", expires=NOW + HOUR)
    of = decide(of, other(1, "house"), now=NOW + HOUR, expires=NOW + DAY)
    assert not complete(of, now=NOW + HOUR)
    assert complete(of, now=NOW + HOUR - timedelta(seconds=1))
    assert not complete(replace(of, approvals=tuple(replace(a, expire_time=None) for a in of.approvals)), now=NOW)


def test_cl4_waits_for_the_witness():
    of = decide(decide(request(Level.CL4), other(1, "house-1")), other(2, "house-2"))
    assert not complete(of, now=NOW)
    with pytest.raises(Conflict, match="witness"):
        grant_from(of, opaque("grants"), now=NOW)
    assert grant_from(of, opaque("grants"), now=NOW, witnessed=True).level is Level.CL4


def test_the_grant_is_what_was_asked_for_from_now_on():
    of = decide(request(Level.CL2, Rung.PROBE, justification=WHY), "stranger")
    later = NOW + HOUR
    made = grant_from(of, opaque("grants"), now=later)
    assert (made.user, made.request, made.versions, made.rung, made.purpose, made.budget, made.level) == (
        of.requester,
        of.name,
        of.versions,
        of.rung,
        of.purpose,
        of.budget,
        of.level,
    )
    assert (made.state, made.create_time, made.expire_time) == (GrantState.ACTIVE, later, later + DAY)
    done = access.settled(of, made)
    assert (done.state, done.grant) == (RequestState.GRANTED, made.name)
    with pytest.raises(Conflict):
        access.settled(done, made)
    with pytest.raises(Conflict):
        access.settled(request(number=2), made)
    with pytest.raises(Conflict):
        grant_from(done, opaque("grants", 2), now=later)


def test_a_table_tightened_after_the_asking_counts():
    of = decide(request(Level.CL1, Rung.PULL), "stranger")
    strict = tightened(TABLE, {"CL1.pull": {"approvals": 2}, "CL1": {"max_duration_s": 60}})
    assert complete(of, now=NOW)
    assert not complete(of, now=NOW, table=strict)
    of = decide(of, other(1, "house"), table=strict)
    assert grant_from(of, opaque("grants"), now=NOW, table=strict).expire_time == NOW + timedelta(seconds=60)
