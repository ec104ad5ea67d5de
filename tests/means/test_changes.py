"""A change that is undone leaves nothing sealed behind, and one that was only acknowledged late loses nothing."""

from __future__ import annotations

import pytest
from model_organisms.errors import Conflict, LedgerUnavailable
from model_organisms_registry.domain.audit import Event, entry
from model_organisms_registry.storage.catalog import organisms
from model_organisms_registry.storage.catalog import sandbox as rows
from model_organisms_registry.testing import running, settings
from model_organisms_registry.workflows.changes import seq

from tests.support.catalog import NOW
from tests.support.registries import PEOPLE
from tests.support.stories import published

OWNER = "users/admin"


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    with running(settings(tmp_path_factory.mktemp("changes") / "data"), people=PEOPLE) as running_world:
        yield running_world


def sealed(world):
    return sorted(path for path in (world.folder / "blobs" / "contents").rglob("*") if path.is_file())


def stopping(commit):
    return entry(Event.END_SESSION, None, time=NOW, seq=seq(), subject="sessions/x", commit=commit, facts={"state": "closed"})


def attempt(world, commits, error=None):
    changes = world.registry.changes
    with changes.open() as change:
        commits.append(change.commit(world.registry.contents, OWNER, "A reason."))
        change.enter(stopping(commits[0]))
        if error:
            assert sealed(world)
            raise error


def found(world, commit):
    with world.registry.changes.database.read() as tx:
        return rows.content(tx, commit)


def test_what_was_sealed_for_a_change_that_is_undone_is_gone(world):
    before, commits = sealed(world), []
    with pytest.raises(Conflict):
        attempt(world, commits, Conflict("Another was faster."))
    assert sealed(world) == before
    assert found(world, commits[0]) is None


def test_what_was_committed_and_not_acknowledged_in_time_stays(world, monkeypatch):
    def late(*_, **__):
        raise LedgerUnavailable("Too late; try again.")

    commits = []
    monkeypatch.setattr(world.registry.changes.log, "wait", late)
    with pytest.raises(LedgerUnavailable):
        attempt(world, commits)
    assert world.registry.contents.read(found(world, commits[0])) == b"A reason."


def test_a_start_finds_in_the_ledger_where_it_tells_of_a_version_that_a_crash_left_without(world):
    version, _ = published(world)
    other, _ = published(world)
    database = world.registry.changes.database
    with database.write() as tx:
        organisms.set_ledger_index(tx, version.name, -1)
    world.registry.publishing.recover()
    with database.read() as tx:
        assert [organisms.version(tx, one.name).ledger_index for one in (version, other)] == [
            version.ledger_index,
            other.ledger_index,
        ]
    assert version.ledger_index >= 0
