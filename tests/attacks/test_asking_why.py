"""Attacks by asking why: whoever asks for the reason of a denial learns nothing of what they may not know of."""

from __future__ import annotations

import threading

import pytest
from model_organisms import errors
from model_organisms_registry.gate.cedar import SCHEMA, PolicySet, shipped_folder
from sqlalchemy import event

from tests.support.stories import published


class Counting(PolicySet):
    """The shipped set, which counts how often it is asked."""

    asked = 0

    def decide(self, *args, **options):
        self.asked += 1
        return super().decide(*args, **options)


@pytest.fixture
def steps(world, monkeypatch):
    """Run something, and count its decisions and its statements to the database."""
    counting = Counting(PolicySet.read().texts, (shipped_folder() / SCHEMA).read_text())
    monkeypatch.setattr(world.registry.gate, "_policies", counting)
    statements = []
    engine = world.registry.storage.database._reader

    def note(*args):
        if threading.current_thread().name.startswith("call"):  # not what the registry does by itself meanwhile
            statements.append(args[2])

    event.listen(engine, "before_cursor_execute", note)

    def run(ask):
        counting.asked = 0
        statements.clear()
        return ask(), counting.asked, list(statements)

    yield run
    event.remove(engine, "before_cursor_execute", note)


ON_VERSION = ["describe", "attest", "withdrawVersion", "request", "pull", "openSession", "openLocalSession", "sample", "probe"]
ON_ORGANISM = ["describe", "publish", "setLevel"]


@pytest.mark.parametrize(("action", "version"), [*((a, True) for a in ON_VERSION), *((a, False) for a in ON_ORGANISM)])
def test_names_of_hidden_organisms_are_guessed_by_asking_why(world, steps, action, version):
    hidden = published(world, hidden=True)[0].name
    absent = "organisms/toy-of-nobody/versions/1"
    other = hidden.rpartition("/")[0] + "/7"  # no such version of a hidden organism
    asked = [hidden, absent, other] if version else [name.rpartition("/versions/")[0] for name in (hidden, absent)]
    rosa = world.person("rosa")
    told = [steps(lambda name=name: rosa.access.explain(action, name)) for name in asked]
    for name, (explanation, decisions, statements) in zip(asked, told, strict=True):
        assert (explanation.allowed, explanation.reason) == (False, "NOT_FOUND")
        assert (explanation.policies, explanation.changes) == ((), ())
        assert explanation.message == errors.NotFound.named(name).message
        assert (decisions, statements) == told[0][1:]


def test_asking_why_as_an_admin_tells_nothing_of_what_an_admin_may_not_see(world):
    hidden = published(world, hidden=True)[0].name
    for name in (hidden, "organisms/toy-of-nobody/versions/1"):
        assert world.admin.access.explain("withdrawVersion", name).reason == "NOT_FOUND"


def test_a_strangers_request_grant_and_session_are_explained_like_none(world):
    version, _ = published(world)
    asked = world.person("rosa").access.request(version.name, "sample", purpose="replication", justification="A toy, again.")
    eve = world.person("eve", "researcher", organisation="elsewhere")
    other = asked.name[:-4] + "zzzz"
    for action in ("viewRequest", "amendRequest", "review"):
        mine, nobodys = (eve.access.explain(action, name) for name in (asked.name, other))
        assert (mine.reason, mine.policies, mine.changes) == (nobodys.reason, nobodys.policies, nobodys.changes)
        assert mine.message.replace(asked.name, other) == nobodys.message
    assert eve.access.explain("viewGrant", asked.grant).reason == "NOT_FOUND"
