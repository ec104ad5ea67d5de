"""A grant covers these bytes, this person, this rung, until then, and not above the level it was approved for."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from model_organisms.errors import Conflict, Denied, GrantExpired, GrantRequired, GrantRevoked, InvalidArgument
from model_organisms.records import Budget, GrantState, Level, Purpose, Rung, VersionRef
from model_organisms_registry.domain import grants as rules

from tests.domain.cast import DAY, NOW, PLENTY, grant, subject, version

REF = subject().ref
GRANT = st.builds(
    lambda number, rung, state, ends, level, holder, other: grant(
        version(number=2) if other else version(),
        rung,
        number=number,
        state=state,
        expire_time=NOW + ends * DAY,
        create_time=NOW - 10 * DAY + number * timedelta(minutes=1),
        level=level,
        holder=holder,
    ),
    st.integers(1, 99),
    st.sampled_from([Rung.SAMPLE, Rung.PROBE, Rung.PULL]),
    st.sampled_from([GrantState.ACTIVE, GrantState.ACTIVE, GrantState.REVOKED]),
    st.integers(-1, 2),
    st.sampled_from(Level),
    st.sampled_from(["ada", "ada", "eve"]),
    st.booleans(),
)


def plainly_covers(held, level, rung):
    """The rule, written as one sentence."""
    return (
        held.user == "users/ada"
        and held.versions[0] == REF
        and held.state.value == "active"
        and held.expire_time > NOW
        and held.rung >= rung
        and held.level >= level
    )


@given(st.lists(GRANT, max_size=5), st.sampled_from(Level), st.sampled_from([Rung.SAMPLE, Rung.PROBE, Rung.PULL]))
def test_a_grant_is_found_exactly_where_one_covers(held, level, rung):
    covering = [item for item in held if plainly_covers(item, level, rung)]
    try:
        found = rules.require(held, REF, user="users/ada", level=level, rung=rung, now=NOW)
    except Denied:
        assert not covering
    else:
        assert found in covering


@given(st.lists(GRANT, max_size=4, unique_by=lambda item: item.name), st.sampled_from(Level))
def test_the_answer_does_not_hang_on_the_order_of_grants(held, level):
    found = {
        rules.nearest(list(order), REF, user="users/ada", level=level, rung=Rung.PROBE, now=NOW) for order in permutations(held)
    }
    assert len(found) <= 1 or not held


def refusal(*held, level=Level.CL2, rung=Rung.PROBE, now=NOW):
    with pytest.raises(Denied) as caught:
        rules.require(held, REF, user="users/ada", level=level, rung=rung, now=now)
    return caught.value


def test_each_shortcoming_has_its_class_and_says_what_to_do():
    good = grant(rung=Rung.PROBE)
    assert rules.require([good], REF, user="users/ada", level=Level.CL2, rung=Rung.PROBE, now=NOW) == good
    told = {
        "none": refusal(),
        "low": refusal(grant(rung=Rung.SAMPLE)),
        "raised": refusal(replace(good, level=Level.CL1)),
        "expired": refusal(good, now=good.expire_time),
        "revoked": refusal(replace(good, state=GrantState.REVOKED, reason="Project ended.")),
    }
    assert {key: type(error) for key, error in told.items()} == {
        "none": GrantRequired,
        "low": GrantRequired,
        "raised": GrantRequired,
        "expired": GrantExpired,
        "revoked": GrantRevoked,
    }
    assert "client.access.request" in told["none"].message
    assert "gives sample, not probe" in told["low"].message
    assert "raised to CL2" in told["raised"].message
    assert "renew" in told["expired"].message
    assert "Project ended." in told["revoked"].message


def test_the_newest_of_those_that_would_do_speaks():
    old = grant(rung=Rung.PULL, number=1, state=GrantState.REVOKED, create_time=NOW - 3 * DAY)
    new = grant(rung=Rung.PULL, number=2, create_time=NOW - 2 * DAY, expire_time=NOW - DAY)
    assert isinstance(refusal(old, new), GrantExpired)
    assert isinstance(refusal(replace(old, create_time=NOW - DAY), new), GrantRevoked)


def test_other_bytes_of_the_same_name_are_not_covered():
    held = replace(grant(rung=Rung.PULL), versions=(VersionRef(REF.name, "0" * 64),))
    assert isinstance(refusal(held), GrantRequired)


def test_one_with_something_left_is_used_before_one_that_is_spent():
    spent = grant(rung=Rung.PULL, number=1, spent=PLENTY, expire_time=NOW + 9 * DAY)
    fresh = grant(rung=Rung.PULL, number=2, expire_time=NOW + DAY)
    assert rules.require([spent, fresh], REF, user="users/ada", level=1, rung=Rung.PULL, now=NOW) == fresh
    only_pulls = replace(fresh, spent=Budget(sessions=PLENTY.sessions))
    assert rules.require([spent, only_pulls], REF, user="users/ada", level=1, rung=Rung.PULL, now=NOW) == only_pulls


@pytest.mark.parametrize("gone", ["sessions", "tokens", "output_bytes"])
def test_a_session_is_opened_under_the_grant_that_has_something_to_say(gone):
    lasting = grant(number=1, spent=replace(Budget(), **{gone: getattr(PLENTY, gone)}), expire_time=NOW + 9 * DAY)
    fresh = grant(number=2, expire_time=NOW + DAY)
    assert rules.require([lasting, fresh], REF, user="users/ada", level=1, rung=Rung.SAMPLE, now=NOW) == fresh
    numbers = replace(lasting, rung=Rung.PROBE)
    found = rules.require([numbers, fresh], REF, user="users/ada", level=1, rung=Rung.SAMPLE, now=NOW)
    assert found == (fresh if gone == "sessions" else numbers)


def test_the_purpose_and_the_name_say_which_grants_are_offered():
    mine, other = grant(number=1), grant(number=2, purpose=Purpose.REPLICATION)
    over = grant(number=3, purpose=Purpose.INTERPRETABILITY, expire_time=NOW)
    held = (mine, other, over)
    assert rules.offered(held, grant="", purpose=mine.purpose, now=NOW) == (mine,)
    assert rules.offered(held, grant=other.name, purpose=mine.purpose, now=NOW) == (other,)
    assert rules.offered(held, grant="", purpose=over.purpose, now=NOW) == held
    assert rules.offered(held, grant="grants/none", purpose=mine.purpose, now=NOW) == ()


def test_one_that_reaches_the_level_is_used_before_one_that_only_lasts_longer():
    low = grant(rung=Rung.PULL, number=1, level=Level.CL1, expire_time=NOW + 9 * DAY)
    high = grant(rung=Rung.PULL, number=2, level=Level.CL3)
    assert rules.require([low, high], REF, user="users/ada", level=3, rung=Rung.PULL, now=NOW) == high


def test_an_unknown_level_is_covered_only_by_a_cl4_grant():
    assert isinstance(refusal(grant(rung=Rung.PROBE, level=Level.CL3), level="secret"), GrantRequired)
    held = grant(rung=Rung.PROBE, level=Level.CL4)
    assert rules.require([held], REF, user="users/ada", level="secret", rung=Rung.PROBE, now=NOW) == held


def test_a_grant_is_taken_back_once_and_with_a_reason():
    taken = rules.revoke(grant(), reason=" Left the lab. ", now=NOW)
    assert (taken.state, taken.reason) == (GrantState.REVOKED, "Left the lab.")
    for held in (taken, grant(expire_time=NOW)):
        with pytest.raises(Conflict):
            rules.revoke(held, reason="again", now=NOW)
    for reason in ("", "  ", "x" * 2001):
        with pytest.raises(InvalidArgument):
            rules.revoke(grant(), reason=reason, now=NOW)
