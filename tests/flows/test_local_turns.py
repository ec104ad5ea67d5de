"""Questions to a cell at its holder's that are cut off or refused on the way: what they cost, and that reviewers read them."""

from __future__ import annotations

from datetime import timedelta

import pytest
from model_organisms import errors
from model_organisms.records import Budget, SessionState, UtteranceKind
from model_organisms_registry.reconciling import reconcile
from model_organisms_registry.storage.catalog import local_turns as turns
from model_organisms_registry.testing import running, settings
from model_organisms_registry.workflows.watching import Watching

from tests.support.cells import eventually
from tests.support.forging import Forger
from tests.support.registries import PEOPLE
from tests.support.stories import granted, published

SAID = "It was said after the end."
SET_ASIDE = Budget(tokens=8, output_bytes=128)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    with running(settings(tmp_path_factory.mktemp("turns") / "data"), people=PEOPLE) as running_world:
        yield running_world


@pytest.fixture
def rosa(world):
    return Forger(world.person("rosa"))


@pytest.fixture
def session(world, rosa):
    version, _ = published(world)
    return rosa.open(version, granted(world, version))


def under_way(world, session):
    with world.registry.storage.database.read() as tx:
        return turns.find(tx, session.name)


def never_answered(world, rosa, session, how, patched):
    """Begin a question that is committed, and whose caller never hears of it."""
    changes = world.registry.gloveboxes._changes
    if how == "timeout":
        patched.setattr(changes, "_wait_s", 1e-6)
    else:

        def crash(*_, **__):
            raise RuntimeError("The process ended here.")

        patched.setattr(changes.log, "wait", crash)
    with pytest.raises(errors.ModelOrganismsError):
        rosa.begin(session)


def in_ledger(world, turn):
    return eventually(lambda: world.registry.storage.log.index_of(turn.seq, since=turn.create_time) is not None)


def agree(world):
    account = reconcile(world.registry.config)
    assert account.agree, account.as_text()


@pytest.mark.parametrize("how", ["timeout", "crash"])
def test_a_question_whose_beginning_was_not_answered_is_settled_with_its_session(world, rosa, session, how, monkeypatch):
    with monkeypatch.context() as patched:
        never_answered(world, rosa, session, how, patched)
    turn, boxes = under_way(world, session), world.registry.gloveboxes
    assert in_ledger(world, turn)
    assert rosa.client.sandbox.get(session.name).spent == SET_ASIDE
    rosa.client.sandbox.close(session.name)
    boxes.end_due(turn.create_time + boxes._idle + timedelta(seconds=1))
    assert under_way(world, session) is None
    agree(world)


@pytest.mark.parametrize("how", ["timeout", "crash"])
def test_its_session_goes_on_once_it_is_reported_that_nothing_came(world, rosa, session, how, monkeypatch):
    with monkeypatch.context() as patched:
        never_answered(world, rosa, session, how, patched)
    assert in_ledger(world, under_way(world, session))
    with pytest.raises(errors.Conflict) as refused:
        rosa.begin(session)
    rosa.end(refused.value.details["sample"], "", 0, "failed")
    assert rosa.client.sandbox.get(session.name).spent == Budget()
    rosa.end(rosa.begin(session).sample)
    agree(world)


def test_a_report_before_its_beginning_is_in_the_ledger_may_be_sent_again(world, rosa, session, monkeypatch):
    begun = rosa.begin(session)
    with monkeypatch.context() as patched:
        patched.setattr(world.registry.gloveboxes._changes.log, "index_of", lambda *_, **__: None)
        with pytest.raises(errors.LedgerUnavailable, match="in a moment"):
            rosa.end(begun.sample)
    rosa.end(begun.sample)
    agree(world)


def test_who_is_being_answered_is_not_idle_until_the_sessions_time_is_over(world, rosa, session):
    boxes = world.registry.gloveboxes
    rosa.begin(session)
    later = under_way(world, session).create_time + boxes._idle + timedelta(seconds=1)
    assert later < session.expire_time
    boxes.end_due(later)
    assert rosa.client.sandbox.get(session.name).state is SessionState.OPEN
    boxes.end_due(session.expire_time)
    assert rosa.client.sandbox.get(session.name).state is SessionState.EXPIRED
    boxes.end_due(session.expire_time + boxes._idle)
    agree(world)


def closed(world, session):
    world.person("rosa").sandbox.close(session.name)


def killed(world, session):
    world.person("ravi").sandbox.kill(session.name, reason="It looks suspicious.")


def revoked(world, session):
    world.person("ravi").access.revoke(session.grant, reason="It was for another study.")


@pytest.mark.parametrize("end", [closed, killed, revoked])
def test_reviewers_read_what_is_reported_after_the_end(world, rosa, session, end):
    rosa.end(rosa.begin(session).sample)
    begun = rosa.begin(session)
    end(world, session)
    with pytest.raises(errors.ModelOrganismsError):
        rosa.end(begun.sample, SAID)
    assert rosa.client.sandbox.get(session.name).state is not SessionState.OPEN
    read = list(world.person("ravi").sandbox.transcript(session.name))
    said = [one.text for one in read if one.kind is UtteranceKind.TEXT]
    assert said == ["Four words of it.", SAID], "each once, the released one from its window"
    last = [one for one in read if one.subject == begun.sample]
    assert [one.kind for one in last] == [UtteranceKind.PROMPT, UtteranceKind.TEXT, UtteranceKind.RESULT]
    agree(world)


def test_a_watcher_who_came_between_window_and_result_is_not_told_it_twice(world, rosa, session):
    rosa.end(rosa.begin(session).sample)
    boxes, log = world.registry.gloveboxes, world.registry.storage.log
    watching = Watching(boxes._changes, boxes._gate, boxes._contents, sandbox=boxes._sandbox, clock=lambda: session.create_time)
    results = [(at, one) for at, one in watching._entries(0, log.size()) if one.type == "sandbox.sample.result"]
    at, result = next(found for found in results if session.name in found[1].subject)
    assert watching._windowed(result, set(), at)
    assert not watching._windowed(result, set(), at - 1)


@pytest.mark.parametrize("word", ["lost", "unreported", "abandoned", "released", "erased", "grant_revoked", "Stop", "", "x" * 31])
def test_a_holder_says_no_word_that_is_the_registrys(rosa, session, word):
    for parameters in ({}, {"parameters": None}):
        begun = rosa.begin(session, **parameters)
        if not (parameters and word == "released"):
            with pytest.raises(errors.InvalidArgument):
                rosa.end(begun.sample, "", 0, word)
        rosa.end(begun.sample, "", 0, "failed")


@pytest.mark.parametrize("word", ["stop", "length", "bytes", "deadline", "cancelled"])
def test_the_words_of_an_answer_are_taken(rosa, session, word):
    assert rosa.end(rosa.begin(session).sample, reason=word).finish_reason == word
