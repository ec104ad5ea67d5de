"""A request states what a reviewer needs to judge it, binds what it is about, and moves only while it is pending."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from model_organisms.errors import Conflict, Denied, GrantRevoked, InvalidArgument, Withdrawn
from model_organisms.records import BUDGET_FIELDS, Budget, GrantState, Level, Purpose, RequestState, Rung, VersionState
from model_organisms_registry.domain import access, budgets
from model_organisms_registry.domain.hazard import TABLE, tightened

from tests.domain.cast import DAY, NOW, WHY, grant, opaque, subject, user

LEVEL = st.sampled_from(Level)
RUNG = st.sampled_from([Rung.SAMPLE, Rung.PROBE, Rung.PULL])
SECOND = timedelta(seconds=1)


def opened(level=Level.CL1, rung=Rung.SAMPLE, *subjects, **changes):
    asked = {
        "requester": user(),
        "subjects": subjects or [subject(level)],
        "rung": rung,
        "purpose": Purpose.REPLICATION,
        "justification": WHY,
        "need": WHY,
        "now": NOW,
    }
    return access.open_request(opaque("requests"), **(asked | changes))


@given(LEVEL, RUNG)
def test_a_request_waits_for_what_the_table_demands(level, rung):
    if TABLE.of(level, rung).forbidden:
        with pytest.raises(Denied):
            opened(level, rung)
        return
    made = opened(level, rung)
    assert (made.state, made.revision, made.needed) == (RequestState.PENDING, 1, TABLE.of(level, rung).approvals)
    assert made.versions == (subject(level).ref,)
    assert made.level == level


def test_the_worst_version_sets_the_level():
    made = opened(None, Rung.SAMPLE, subject(Level.CL1, name="tame"), subject(Level.CL3, name="wild"))
    assert (made.level, made.needed) == (Level.CL3, 2)


def test_cl1_sampling_is_complete_as_it_is_asked_and_probing_is_not():
    assert access.complete(opened(Level.CL1, Rung.SAMPLE), now=NOW, reviewers=())
    assert not access.complete(opened(Level.CL1, Rung.PROBE), now=NOW, reviewers=())
    strict = tightened(TABLE, {"CL1.sample": {"approvals": 1}})
    assert not access.complete(opened(Level.CL1, Rung.SAMPLE, table=strict), now=NOW, reviewers=(), table=strict)


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"rung": Rung.DESCRIBE}, InvalidArgument),
        ({"subjects": []}, InvalidArgument),
        ({"subjects": [subject(), subject()]}, InvalidArgument),
        ({"subjects": [subject(number=n) for n in range(1, 66)]}, InvalidArgument),
        ({"subjects": [subject(state=VersionState.WITHDRAWN)]}, Withdrawn),
        ({"subjects": [subject(Level.CL2)], "justification": "Please."}, InvalidArgument),
        ({"subjects": [subject(Level.CL2)], "justification": " " * 80}, InvalidArgument),
        ({"justification": "x" * 10_001}, InvalidArgument),
        ({"justification": "\x1b[2J" + WHY}, InvalidArgument),
        ({"subjects": [subject(Level.CL3)], "rung": Rung.PULL, "need": ""}, InvalidArgument),
        ({"subjects": [subject(Level.CL4)], "rung": Rung.PULL}, Denied),
        ({"duration": timedelta(seconds=59)}, InvalidArgument),
        ({"duration": timedelta(days=365, seconds=1)}, InvalidArgument),
        ({"subjects": [subject(Level.CL3)], "duration": 91 * DAY}, InvalidArgument),
        ({"budget": Budget(tokens=-1)}, InvalidArgument),
        ({"budget": Budget(pulls=1)}, InvalidArgument),
        ({"budget": Budget(probe_values=1)}, InvalidArgument),
        ({"budget": Budget(tokens=10**12)}, InvalidArgument),
    ],
)
def test_what_is_no_request(changes, error):
    with pytest.raises(error):
        opened(**changes)


def test_cl1_asks_for_no_essay_and_cl3_sampling_for_no_need():
    assert opened(justification="").justification == ""
    assert opened(Level.CL3, Rung.SAMPLE, need="").need == ""


@given(LEVEL, RUNG, st.integers(0, 10**8), st.integers(0, 10**8))
def test_by_default_less_than_half_of_an_adapter_leaves(level, rung, weights, parameters):
    given_ = budgets.default_budget(level, rung, weights=weights, parameters=parameters)
    assert given_.output_bytes == 0 or 2 * given_.output_bytes < weights
    assert given_.probe_values == 0 or 2 * given_.probe_values < parameters
    assert rung is not Rung.SAMPLE or given_.probe_values == 0
    assert rung is Rung.PULL or given_.pulls == 0
    assert budgets.check_budget(given_, level, rung, weights=weights, parameters=parameters) == given_


@given(st.sampled_from([Level.CL3, Level.CL4]), RUNG, st.integers(0, 10**8), st.integers(0, 10**8))
def test_from_cl3_nobody_may_ask_for_more_than_that(level, rung, weights, parameters):
    most = budgets.most_budget(level, rung, weights=weights, parameters=parameters)
    assert most.output_bytes == 0 or 2 * most.output_bytes < weights
    assert most.probe_values == 0 or 2 * most.probe_values < parameters


@given(LEVEL, RUNG, st.sampled_from(BUDGET_FIELDS))
def test_the_most_may_be_asked_for_and_one_more_may_not(level, rung, field):
    size = {"weights": 10**7, "parameters": 10**7}
    most = budgets.most_budget(level, rung, **size)
    assert budgets.check_budget(most, level, rung, **size) == most
    with pytest.raises(InvalidArgument, match=field):
        budgets.check_budget(replace(most, **{field: getattr(most, field) + 1}), level, rung, **size)


def test_the_smallest_adapter_of_a_request_sets_its_budget():
    made = opened(None, Rung.PROBE, subject(number=1), subject(number=2, size=1001, parameters=501))
    assert (made.budget.output_bytes, made.budget.probe_values) == (500, 250)


def amended(request, *subjects, **changes):
    asked = {"revision": request.revision, "subjects": subjects or [subject(request.level)], "now": NOW + DAY}
    return access.amend(request, **(asked | changes))


def test_an_amendment_counts_up_voids_approvals_and_keeps_the_rest():
    first = replace(opened(Level.CL2), approvals=("a",))
    second = amended(first, duration=2 * DAY)
    assert (second.revision, second.approvals, second.duration_s) == (2, (), 2 * 86_400)
    assert (second.justification, second.budget, second.rung) == (first.justification, first.budget, first.rung)
    assert second.expire_time == NOW + DAY + access.PENDING_LIFETIME


def test_an_amendment_answers_for_the_level_of_today():
    first = opened(Level.CL1)
    assert (first.needed, amended(first, subject(Level.CL3)).needed) == (0, 2)


def test_an_amendment_is_of_what_was_seen_and_of_the_same_bytes():
    first = opened(Level.CL2)
    with pytest.raises(Conflict):
        amended(first, revision=2)
    with pytest.raises(Conflict):
        amended(first, subject(Level.CL2, number=2))
    with pytest.raises(InvalidArgument):
        amended(first, justification="short")


@pytest.mark.parametrize("state", [state for state in RequestState if state is not RequestState.PENDING])
def test_only_a_pending_request_moves(state):
    over = replace(opened(), state=state)
    for move in (lambda: amended(over), lambda: access.withdraw(over, now=NOW), lambda: access.pending(over, now=NOW)):
        with pytest.raises(Conflict):
            move()
    assert access.lapse(over, now=over.expire_time) is over


def test_a_request_lapses_after_its_time_and_not_before():
    made = opened()
    assert access.lapse(made, now=made.expire_time - SECOND) is made
    assert access.lapse(made, now=made.expire_time).state is RequestState.EXPIRED
    with pytest.raises(Conflict):
        access.withdraw(made, now=made.expire_time)
    assert access.withdraw(made, now=made.expire_time - SECOND).state is RequestState.WITHDRAWN


def renewed(old, *subjects, **changes):
    asked = {"requester": user(), "subjects": subjects or [subject()], "justification": WHY, "now": NOW}
    return access.renew(old, opaque("requests", 9), **(asked | changes))


def test_a_renewal_is_a_new_request_for_the_same():
    old = grant(rung=Rung.PULL, expire_time=NOW - SECOND, create_time=NOW - SECOND - 3 * DAY)
    made = renewed(old)
    assert (made.state, made.rung, made.purpose, made.versions) == (RequestState.PENDING, old.rung, old.purpose, old.versions)
    assert (made.needed, made.duration_s, made.budget) == (1, 3 * 86_400, old.budget)


def test_a_renewal_fits_the_level_of_today():
    old = grant(rung=Rung.SAMPLE, budget=Budget(tokens=10**7, sessions=1, output_bytes=10**8), create_time=NOW - 200 * DAY)
    made = renewed(old, subject(Level.CL3))
    assert made.duration_s == 90 * 86_400
    assert made.budget.tokens < 10**7
    assert 2 * made.budget.output_bytes < subject().weights


def test_what_is_not_renewed():
    with pytest.raises(Denied):
        renewed(grant(holder="eve"))
    with pytest.raises(GrantRevoked):
        renewed(grant(state=GrantState.REVOKED))
    with pytest.raises(Conflict):
        renewed(grant(), subject(number=2))
