"""Sessions stay within their grants, costs within what is left, and a session ends once."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st
from model_organisms.errors import (
    BudgetExhausted,
    Conflict,
    Destroyed,
    GrantExpired,
    GrantRequired,
    GrantRevoked,
    InvalidArgument,
    JailMissing,
    Quarantined,
    Withdrawn,
)
from model_organisms.records import (
    BUDGET_FIELDS,
    Budget,
    GrantState,
    Level,
    Message,
    Purpose,
    Rung,
    SamplingParameters,
    SessionState,
    VersionState,
)
from model_organisms_registry.domain import sandbox

from tests.domain.cast import DAY, HOUR, NOW, PLENTY, grant, opaque, session, subject, user, version

AMOUNT = st.integers(0, 10**6)
BUDGET = st.builds(Budget, **dict.fromkeys(BUDGET_FIELDS, AMOUNT))


def opened(under=None, **changes):
    under = under or grant()
    asked = {
        "user": user(),
        "version": subject().ref,
        "state": VersionState.PUBLISHED,
        "level": Level.CL2,
        "grant": under,
        "purpose": under.purpose,
        "now": NOW,
    }
    return sandbox.open_session(opaque("sessions"), **(asked | changes))


@given(BUDGET, BUDGET, st.one_of(st.none(), BUDGET), st.sampled_from([Rung.SAMPLE, Rung.PROBE, Rung.PULL]))
def test_a_session_gets_no_more_than_was_asked_and_the_grant_has_left(budget, extra, asked, rung):
    under = grant(rung=rung, budget=budget.plus(extra), spent=extra)
    try:
        share = opened(under, budget=asked).budget
    except BudgetExhausted:
        wanted = asked or budget
        talks = min(budget.tokens, wanted.tokens) and min(budget.output_bytes, wanted.output_bytes)
        probes = rung > Rung.SAMPLE and min(budget.probe_values, wanted.probe_values)
        assert not budget.sessions or not (talks or probes)
        return
    for field in ("tokens", "output_bytes", "probe_values"):
        assert getattr(share, field) <= getattr(budget, field)
        assert asked is None or getattr(share, field) <= getattr(asked, field)
    assert (share.sessions, share.pulls) == (0, 0)
    assert rung > Rung.SAMPLE or share.probe_values == 0


@pytest.mark.parametrize(
    ("asked", "left", "lasts"),
    [
        (None, DAY, HOUR),
        (8 * HOUR, DAY, 8 * HOUR),
        (8 * HOUR, 2 * HOUR, 2 * HOUR),
        (timedelta(seconds=1), DAY, timedelta(seconds=1)),
    ],
)
def test_a_session_ends_in_time_and_never_after_its_grant(asked, left, lasts):
    made = opened(grant(expire_time=NOW + left), duration=asked)
    assert made.expire_time - NOW == lasts


@pytest.mark.parametrize("asked", [timedelta(0), timedelta(seconds=-1), 8 * HOUR + timedelta(seconds=1)])
def test_a_session_of_no_or_too_long_a_time_is_refused(asked):
    with pytest.raises(InvalidArgument):
        opened(duration=asked)


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"user": user("eve")}, GrantRequired),
        ({"purpose": Purpose.TEACHING}, GrantRequired),
        ({"state": VersionState.WITHDRAWN}, Withdrawn),
        ({"state": VersionState.QUARANTINED}, Quarantined),
        ({"now": NOW + DAY}, GrantExpired),
        ({"grant": grant(state=GrantState.REVOKED)}, GrantRevoked),
        ({"grant": grant(spent=PLENTY)}, BudgetExhausted),
        ({"budget": Budget(tokens=-1)}, InvalidArgument),
        ({"budget": Budget()}, BudgetExhausted),
        ({"missing_walls": ["network"]}, JailMissing),
        ({"missing_walls": ["network"], "level": 9}, JailMissing),
    ],
)
def test_what_opens_no_session(changes, error):
    with pytest.raises(error):
        opened(**changes)


def test_at_cl1_a_missing_wall_is_told_and_not_refused():
    made = opened(level=Level.CL1, walls=["files"], missing_walls=["network"])
    assert made.walls == ("files",)


@pytest.mark.parametrize(
    ("made", "under", "state", "now", "error"),
    [
        (session(state=SessionState.KILLED), grant(), VersionState.PUBLISHED, NOW, Conflict),
        (session(), grant(), VersionState.WITHDRAWN, NOW, Withdrawn),
        (session(state=SessionState.KILLED), grant(), VersionState.QUARANTINED, NOW, Quarantined),
        (session(), grant(state=GrantState.REVOKED), VersionState.PUBLISHED, NOW, GrantRevoked),
        (session(), grant(), VersionState.PUBLISHED, NOW + DAY, GrantExpired),
        (session(), grant(), VersionState.PUBLISHED, NOW + HOUR, Conflict),
    ],
)
def test_a_session_goes_on_only_while_everything_stands(made, under, state, now, error):
    last = NOW + HOUR - timedelta(seconds=1)
    sandbox.standing(session(), grant=grant(), state=VersionState.PUBLISHED, level=Level.CL4, now=last)
    with pytest.raises(error):
        sandbox.standing(made, grant=under, state=state, level=Level.CL1, now=now)


def test_a_session_does_not_go_on_above_the_level_of_its_grant():
    low = grant(level=Level.CL2)
    sandbox.standing(session(), grant=low, state=VersionState.PUBLISHED, level=Level.CL2, now=NOW)
    with pytest.raises(GrantRequired, match="raised to CL3"):
        sandbox.standing(session(), grant=low, state=VersionState.PUBLISHED, level=Level.CL3, now=NOW)


@pytest.mark.parametrize("state", [state for state in SessionState if state is not SessionState.OPEN])
@pytest.mark.parametrize("again", list(SessionState))
def test_a_session_ends_once(state, again):
    ended = sandbox.end(session(), state, reason="stopped by a reviewer")
    assert (ended.state, ended.reason) == (state, "stopped by a reviewer")
    with pytest.raises((Conflict, InvalidArgument)):
        sandbox.end(ended, again, reason="again")


def test_an_end_says_what_the_session_rested_on():
    assert sandbox.fallen(Destroyed("Its key is gone.")) == "the version was withdrawn"
    assert sandbox.fallen(GrantExpired("The grant has expired.")) == "The grant has expired."


def test_a_kill_says_why():
    with pytest.raises(InvalidArgument):
        sandbox.end(session(), SessionState.KILLED, reason="  ")


def test_the_end_that_has_come_is_named():
    opened_ = session()
    due = partial(sandbox.due, idle=timedelta(minutes=30))
    assert due(opened_, now=NOW, last_used=NOW) is None
    assert due(opened_, now=NOW + HOUR, last_used=NOW + HOUR) is SessionState.EXPIRED
    assert due(opened_, now=NOW + timedelta(minutes=30), last_used=NOW) is SessionState.EXPIRED
    talked_out = replace(opened_, spent=replace(Budget(), output_bytes=PLENTY.output_bytes))
    assert due(talked_out, now=NOW, last_used=NOW) is None  # numbers are left
    few = replace(talked_out, budget=replace(PLENTY, probe_values=10))
    assert due(few, now=NOW, last_used=NOW) is SessionState.EXHAUSTED  # but not for one probe
    assert due(replace(opened_, spent=PLENTY), now=NOW, last_used=NOW) is SessionState.EXHAUSTED
    assert due(replace(opened_, state=SessionState.LOST, spent=PLENTY), now=NOW, last_used=NOW) is None
    assert due(replace(opened_, spent=PLENTY), now=NOW + timedelta(minutes=59), last_used=NOW, busy=True) is None
    assert due(opened_, now=NOW + HOUR, last_used=NOW, busy=True) is SessionState.EXPIRED


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 0},
        {"seed": 7},
        {"max_tokens": 0},
        {"max_tokens": sandbox.MOST_TOKENS + 1},
        {"temperature": -0.1},
        {"temperature": float("nan")},
        {"temperature": float("inf")},
        {"top_p": 0.0},
        {"top_p": 1.01},
        {"top_p": float("nan")},
        {"top_k": -1},
        {"stop": ("",)},
        {"stop": ("x" * 65,)},
        {"stop": ("x",) * 9},
    ],
)
def test_parameters_out_of_bounds_and_chosen_seeds_are_refused(changes):
    with pytest.raises(InvalidArgument):
        sandbox.check_parameters(replace(SamplingParameters(), **changes))


def test_ordinary_parameters_pass_and_there_is_no_logit_bias_to_pass():
    for good in (SamplingParameters(), SamplingParameters(max_tokens=1, temperature=0.0, top_p=0.9, top_k=50, stop=("\n",))):
        assert sandbox.check_parameters(good) is good
    assert not [field for field in SamplingParameters.__dataclass_fields__ if "bias" in field]


@pytest.mark.parametrize(
    "messages",
    [
        [],
        [Message("user", "x")] * 257,
        [Message("user", "x" * (256 * 1024 + 1))],
        [Message("tool", "x")],
        [Message("", "x")],
    ],
)
def test_conversations_out_of_bounds_are_refused(messages):
    with pytest.raises(InvalidArgument):
        sandbox.check_messages(messages)


def test_a_conversation_is_measured_in_bytes():
    assert sandbox.check_messages([Message("system", "é"), Message("user", "hi")]) == 4


@given(st.integers(1, sandbox.MOST_TOKENS), BUDGET)
def test_a_sample_takes_what_it_may_use_and_no_more_than_is_left(tokens, left):
    try:
        cost = sandbox.sample_cost(SamplingParameters(max_tokens=tokens), left)
    except BudgetExhausted:
        assert not left.tokens or not left.output_bytes
        return
    assert 1 <= cost.tokens <= min(tokens, left.tokens)
    assert 1 <= cost.output_bytes <= left.output_bytes
    assert left.minus(cost).exceeded() == ()


@given(BUDGET, BUDGET)
def test_what_was_taken_and_not_used_goes_back(taken, used):
    try:
        rest = sandbox.settle(taken, used)
    except BudgetExhausted:
        assert any(getattr(used, field) > getattr(taken, field) for field in BUDGET_FIELDS)
    else:
        assert rest.plus(used) == taken


@given(BUDGET, st.lists(BUDGET, max_size=6))
def test_however_it_is_spent_the_sum_stays_within_the_budget(budget, costs):
    spent = Budget()
    for cost in costs:
        try:
            spent = sandbox.spend(budget, spent, cost)
        except BudgetExhausted as error:
            field = error.details["field"]
            assert getattr(spent, field) + getattr(cost, field) > getattr(budget, field)
        assert budget.minus(spent).exceeded() == ()


def test_a_negative_cost_is_not_a_way_to_earn():
    with pytest.raises(InvalidArgument):
        sandbox.spend(PLENTY, Budget(), Budget(tokens=-1))


def test_the_version_sampled_is_the_one_asked_for():
    of = version(number=3)
    assert opened(grant(of), version=subject(number=3).ref).version.digest == of.digest
