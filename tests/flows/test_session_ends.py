"""How sessions end that nobody ends: late in the ledger, idle, out of time; and what that costs who shares their cell."""

from __future__ import annotations

import os
import signal
import time
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta

import pytest
from model_organisms.cells import calls
from model_organisms.errors import CellUnavailable, Conflict, LedgerUnavailable
from model_organisms.records import SamplingParameters, SessionState
from model_organisms_registry.config import Limits
from model_organisms_registry.inspection import inspect
from model_organisms_registry.reconciling import reconcile
from model_organisms_registry.storage.catalog import sandbox as rows
from model_organisms_registry.testing import running, settings

from tests.support.cells import eventually
from tests.support.processes import innermost
from tests.support.registries import PEOPLE
from tests.support.stories import WHY, provenance
from tests.support.tiny import tiny_base, tiny_organism

BASE = "test/tiny"
LONG = SamplingParameters(max_tokens=4000, temperature=0)
MINUTE = timedelta(minutes=1)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    base = tiny_base(tmp_path_factory.mktemp("base"), talkative=True)
    config = settings(tmp_path_factory.mktemp("ends") / "data", base_models={BASE: base}, limits=Limits(release_s=0.02))
    with running(config, people=PEOPLE) as running_world:
        pia, rosa = running_world.person("pia"), running_world.person("rosa")
        pia.organisms.create("organisms/toy", level="CL1", base_model=BASE)
        version = pia.organisms.publish("organisms/toy", tiny_organism(base), provenance=provenance())
        rosa.access.request(version.name, "sample", purpose="replication", justification=WHY)
        yield running_world


@pytest.fixture
def opened(world):
    """Opens sessions, and closes them after the test."""
    sessions = []

    def open_():
        sessions.append(world.person("rosa").sandbox.open("organisms/toy/versions/1", purpose="replication"))
        return sessions[-1]

    yield open_
    for session in sessions:
        if state(world, session) is SessionState.OPEN:
            session.close()


def state(world, session):
    return world.person("ravi").sandbox.get(session.name).state


@contextmanager
def halted(sandbox, session):
    """Hold a session's cell in the step that it is in."""
    process = innermost(sandbox.living.cell(session.name).cell.process.pid)
    os.kill(process, signal.SIGSTOP)
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGCONT)


def open_of(world):
    with world.registry.storage.database.read() as tx:
        return rows.open_of(tx, "users/rosa")


@pytest.mark.parametrize("ends", ["committed", "undone"])
def test_a_session_whose_opening_was_not_acknowledged_in_time_is_lost_and_counts_no_longer(world, opened, monkeypatch, ends):
    before, changes, late = {one.name for one in world.person("rosa").sandbox.list()}, world.registry.changes, []
    wait, write = changes.log.wait, changes.database.write

    def fail():
        late.append(ends)
        raise LedgerUnavailable("The ledger did not answer in time; try again.")

    @contextmanager
    def written():
        with write() as tx:
            yield tx
            if not late and rows.open_of(tx, "users/rosa"):
                fail()

    if ends == "committed":
        monkeypatch.setattr(changes.log, "wait", lambda *told, **named: wait(*told, **named) if late else fail())
    else:
        monkeypatch.setattr(changes.database, "write", written)
    with pytest.raises(LedgerUnavailable):
        opened()
    left = [one for one in world.person("rosa").sandbox.list() if one.name not in before]
    assert len(left) == (ends == "committed")
    assert eventually(lambda: not world.registry.sandbox._unwritten)
    assert [state(world, one) for one in left] == [SessionState.LOST] * len(left)
    assert open_of(world) == 0
    entries = [entry for _, entry in world.person("aud").audit.entries() if left and entry.subject == left[0].name]
    assert [entry.facts["state"] for entry in entries if entry.type == "sandbox.end"] == ["lost"] * len(left)
    assert inspect(world.registry.config).findings == ()
    assert reconcile(world.registry.config).agree


def test_who_is_being_answered_is_not_idle_until_the_sessions_time_is_over(world, opened):
    sandbox, session = world.registry.sandbox, opened()
    stream = session.stream("Tell me.", LONG)
    next(stream)
    later = datetime.now(UTC) + sandbox.idle + MINUTE
    assert later < session.record.expire_time
    with halted(sandbox, session):
        sandbox.end_due(later)
        assert state(world, session) is SessionState.OPEN
    assert next(stream)
    stream.close()
    assert eventually(lambda: not sandbox.living.asking)
    sandbox.end_due(later)
    assert state(world, session) is SessionState.EXPIRED
    again = opened()
    stream = again.stream("Tell me.", LONG)
    next(stream)
    with halted(sandbox, again):
        sandbox.end_due(again.record.expire_time)
        assert state(world, again) is SessionState.EXPIRED
    with pytest.raises((Conflict, CellUnavailable)):  # by the clock of who streams, its time is not over yet
        list(stream)


@pytest.mark.parametrize("end", list(SessionState)[1:])
def test_no_end_costs_a_neighbour_the_cell_when_a_step_takes_long(world, opened, monkeypatch, end):
    monkeypatch.setattr(calls, "GRACE_S", 0.5)
    ending, neighbour = opened(), opened()
    sandbox = world.registry.sandbox
    cell = sandbox.living.cell(ending.name).cell
    assert sandbox.living.cell(neighbour.name).cell is cell
    with halted(sandbox, ending):  # a step that takes long
        began = time.monotonic()
        sandbox.end(ending.record, end, "the test says so", datetime.now(UTC))
        assert time.monotonic() - began < 2.0  # the clockwork waits for nobody
        assert state(world, ending) is end
        time.sleep(2.0)
    assert neighbour.sample("Go on.", max_tokens=2).receipt.tokens
    assert cell.tenants == (sandbox.living.cell(neighbour.name),)
