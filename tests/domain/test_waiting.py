"""Whose move it is on a request, told by the same rules that decide, and without a name."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from itertools import product

import pytest
from model_organisms.errors import ApprovalRefused, Conflict, Denied
from model_organisms.records import Condition, Level, Modifier, RequestState, Role, Rung, Stated, Turn, UserState
from model_organisms_registry.domain import access
from model_organisms_registry.domain.waiting import clock

from tests.domain.cast import DAY, HOUR, NOW, WHY, opaque, request, statement, subject, user

PEOPLE = [
    user("rex", Role.REVIEWER, organisation="lab-x"),
    user("roy", Role.REVIEWER, organisation="lab-x"),
    user("kim", Role.REVIEWER, organisation="lab-a"),
    user("olga", Role.REVIEWER, organisation="lab-o"),
    user("carl", Role.REVIEWER, organisation="lab-c"),
    user("ada", Role.REVIEWER, Role.RESEARCHER),
    user("sue", Role.REVIEWER, organisation="lab-s", state=UserState.SUSPENDED),
    user("adam", Role.ADMIN, organisation="lab-d"),
]


def of(level):
    return [subject(level, owner="olga", co_authors=["carl"])]


def told(asked, *, now=NOW, subjects=None, people=PEOPLE, **more):
    return clock(asked, subjects=of(asked.level) if subjects is None else subjects, people=people, now=now, **more)


def approved(asked, by, *, now=NOW, lives=DAY):
    signed = statement(asked, expires=now + lives)
    return access.review(asked, signed, by, reviewers=PEOPLE, envelope=b"", subjects=of(asked.level), now=now)


@pytest.mark.parametrize(("level", "rung"), list(product([1, 2, 3], [Rung.SAMPLE, Rung.PROBE, Rung.PULL])))
def test_as_many_are_told_as_would_be_taken(level, rung):
    asked = request(Level(level), rung, needed={1: 1, 2: 1, 3: 2}[level])
    stands, taken = told(asked), []
    for person in PEOPLE:
        try:
            taken.append(approved(asked, person).approvals[-1].organisation)
        except ApprovalRefused:
            continue
    assert (stands.turn, stands.reviewers, stands.organisations) == (Turn.REVIEWERS, len(taken), tuple(sorted(set(taken))))
    assert stands.reviewers == 3
    assert (stands.given, stands.missing, stands.lapses) == (0, asked.needed, asked.expire_time)


def test_what_was_said_is_counted_while_it_counts_and_narrows_who_can_add():
    asked = approved(request(Level.CL3, needed=2), PEOPLE[0], lives=HOUR)
    early, late = told(asked), told(asked, now=NOW + HOUR)
    assert (early.given, early.missing, early.reviewers, early.organisations) == (1, 1, 1, ("organisations/lab-a",))
    assert (late.given, late.missing, late.reviewers) == (0, 2, 2)


def test_nobody_is_named():
    text = repr(told(request(Level.CL2, needed=1)))
    assert not any(person.name in text for person in PEOPLE)


def test_nobody_who_can_is_said_in_words():
    alone = told(request(Level.CL2, needed=1), people=PEOPLE[3:])
    assert (alone.reviewers, alone.turn) == (0, Turn.REVIEWERS)
    assert "ask the registry's admins" in alone.why


@pytest.mark.parametrize(
    "now_stands",
    [
        [subject(Level.CL3)],
        [subject(Level.CL2, number=2)],
        [replace(of(2)[0], organism=replace(of(2)[0].organism, purposes=("x",)))],
    ],
)
def test_what_is_no_longer_as_asked_waits_for_its_requester(now_stands):
    stands = told(request(Level.CL2, needed=1), subjects=now_stands)
    assert (stands.turn, stands.reviewers) == (Turn.REQUESTER, 0)


def test_what_was_stated_and_is_over_too_soon_waits_for_its_requester():
    asked = request(Level.CL2, needed=1, stated=Stated("probe", until=NOW + 2 * DAY), duration_s=86_400)
    assert told(asked).turn is Turn.REVIEWERS
    stands = told(asked, now=NOW + DAY)
    assert stands.turn is Turn.REQUESTER
    assert "state it anew" in stands.why


def test_cl4_waits_for_the_witness_and_then_for_reviewers():
    asked = request(Level.CL4, needed=2)
    assert told(asked).turn is Turn.WITNESS
    assert told(asked, witnessed=True).turn is Turn.REVIEWERS
    assert told(asked, witnessed=True).organisations == ("organisations/lab-x",)


@pytest.mark.parametrize("state", [state for state in RequestState if state is not RequestState.PENDING])
def test_what_is_over_waits_for_nobody(state):
    stands = told(request(state=state, state_time=NOW + HOUR))
    assert (stands.turn, stands.since, stands.lapses) == (Turn.NOBODY, NOW + HOUR, None)


def test_each_move_notes_its_time():
    asked = access.open_request(
        opaque("requests"), requester=user(), subjects=of(2), rung=Rung.PROBE, purpose="teaching", justification=WHY, now=NOW
    )
    later = NOW + DAY
    amended = access.amend(asked, revision=1, subjects=of(2), now=later)
    moves = [asked, amended, access.withdraw(asked, now=later), access.lapse(asked, now=NOW + 40 * DAY)]
    granted = approved(asked, PEOPLE[0], now=later)
    grant = access.grant_from(granted, opaque("grants"), now=later, reviewers=PEOPLE)
    no = access.review(
        asked, statement(asked, approve=False), PEOPLE[0], reviewers=PEOPLE, envelope=b"", subjects=of(2), now=NOW + HOUR
    )
    moves += [access.settled(granted, grant), no]
    assert [move.state_time - NOW for move in moves] == [timedelta(0), DAY, DAY, 30 * DAY, DAY, HOUR]


# asking again


def again(old, *subjects, by="ada", **changes):
    return access.reapply(
        old, opaque("requests", 9), requester=user(by), subjects=subjects or of(old.level), now=NOW + 40 * DAY, **changes
    )


@pytest.mark.parametrize("state", [RequestState.REJECTED, RequestState.WITHDRAWN, RequestState.PENDING])
def test_what_was_refused_withdrawn_or_left_to_lapse_is_asked_again_with_its_words(state):
    merge = Condition(Modifier.NO_MERGE)
    old = request(Level.CL2, Rung.PULL, state=state, need="Weights.", stated=Stated("probe", (merge,), assert_time=NOW))
    made = again(old)
    for field in ("versions", "rung", "purpose", "justification", "need", "budget", "duration_s", "stated", "requester"):
        assert getattr(made, field) == getattr(old, field)
    assert (made.previous, made.state, made.revision, made.approvals) == (old.name, RequestState.PENDING, 1, ())
    told_more = again(old, justification=WHY + " Now with a control.", duration=2 * DAY, stated=Stated("other"))
    assert (told_more.justification[-8:], told_more.duration_s, told_more.stated.project) == ("control.", 172_800, "other")


def test_what_is_not_asked_again():
    over = request(Level.CL2, state=RequestState.REJECTED)
    for old, error, changes in (
        (request(Level.CL2, expire_time=NOW + 50 * DAY), Conflict, {}),
        (request(Level.CL2, state=RequestState.GRANTED), Conflict, {}),
        (over, Denied, {"by": "eve"}),
    ):
        with pytest.raises(error):
            again(old, **changes)
    with pytest.raises(Conflict):
        again(over, subject(Level.CL2, number=2))
