"""The database is killed, stopped, cut off or frozen under a registry at work: it fails closed, and goes on when it is back.

What was acknowledged is there afterwards; what was refused may be or not; nothing left without its entry. The same under SQLite
and a failing disk is `tests/faults`.
"""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path

import psycopg
import pytest
from model_organisms import errors
from model_organisms.client.client import connect
from model_organisms_registry.inspection import inspect
from model_organisms_registry.testing import running, settings

from tests.support.databases import PostgresServer
from tests.support.stories import BASE, granted, published

PEOPLE = (
    ("pia", "publisher", "nursery-lab"),
    ("rosa", "researcher", "lab"),
    ("ravi", "reviewer", "lab"),
    ("aud", "auditor", "office"),
)
TIMEOUT_S = 6.0
BACK_S = 60.0


@pytest.fixture(scope="module")
def server():
    folder = Path(tempfile.mkdtemp(prefix="mo-pg-killed-"))
    server = PostgresServer(folder)
    try:
        server.serve()
        server.execute("CREATE DATABASE killed")
        yield server
    finally:
        with suppress(Exception):
            server.signal(signal.SIGCONT)
        server.stop()
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def world(server, tmp_path_factory):
    config = settings(tmp_path_factory.mktemp("killed") / "data", database=server.url("killed"))
    with running(config, people=PEOPLE) as running_world:
        yield running_world


def backends(server, act):
    """Do something to every connection that the registry has."""
    with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
        found = connection.execute("SELECT pid FROM pg_stat_activity WHERE datname = 'killed'").fetchall()
    for (pid,) in found:
        with suppress(ProcessLookupError):
            act(pid)
    assert found


def terminated(server):
    def end(pid):
        with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
            connection.execute("SELECT pg_terminate_backend(%s)", [pid])

    for _ in range(3):
        backends(server, end)
        time.sleep(0.15)


def killed(server):
    backends(server, lambda pid: os.kill(pid, signal.SIGKILL))  # the server then ends every other connection, and recovers
    time.sleep(0.5)


def power_cut(server):
    server.signal(signal.SIGKILL)
    time.sleep(1.0)
    server.stop()
    server.serve()


def frozen(server):
    server.signal(signal.SIGSTOP)
    time.sleep(2.5)
    server.signal(signal.SIGCONT)


FAULTS = {
    "terminated": terminated,
    "killed": killed,
    "power-cut": power_cut,
    "frozen": frozen,
}


class Working(threading.Thread):
    """Somebody who creates organisms all the while, and remembers what they were told of each."""

    def __init__(self, identity, prefix):
        super().__init__()
        self._identity, self._prefix, self._over = identity, prefix, threading.Event()
        self.acknowledged, self.refused, self.broke, self.slowest = [], [], [], 0.0

    def run(self):
        with connect(self._identity, timeout_s=TIMEOUT_S) as client:
            number = 0
            while not self._over.is_set():
                number += 1
                began = time.monotonic()
                try:
                    client.organisms.create(f"{self._prefix}-{number}", level="CL1", base_model=BASE)
                    self.acknowledged.append(f"organisms/{self._prefix}-{number}")
                except errors.ModelOrganismsError as error:
                    self.refused.append(error)
                    time.sleep(0.02)
                except Exception as error:  # noqa: BLE001 - any other is what this looks for
                    self.broke.append(error)
                self.slowest = max(self.slowest, time.monotonic() - began)

    def end(self):
        self._over.set()
        self.join(30)
        assert not self.is_alive()


def back(act):
    """Wait until an act succeeds again, in the registry that never stopped."""
    until = time.monotonic() + BACK_S
    while True:
        try:
            return act()
        except errors.ModelOrganismsError:
            assert time.monotonic() < until, "it does not come back"
            time.sleep(0.1)


def begun(world):
    version, _ = published(world)
    return version, granted(world, version)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_registry_fails_closed_and_goes_on_when_its_database_is(world, server, fault):
    version, grant = back(lambda: begun(world))  # a lock that the last fault took may be missed only now
    workers = [Working(world.folder / "pia.json", f"{fault}-{number}") for number in range(3)]
    for worker in workers:
        worker.start()
    time.sleep(0.4)
    FAULTS[fault](server)
    pulled = []
    with (
        suppress(errors.ModelOrganismsError),
        world.person("rosa").organisms.pull(version.name, grant=grant, timeout_s=10) as copy,
    ):
        pulled.append(copy.receipt)
    numbers = itertools.count()
    back(lambda: world.person("pia").organisms.create(f"{fault}-back-{next(numbers)}", level="CL1", base_model=BASE))
    for worker in workers:
        worker.end()
    assert not [error for worker in workers for error in worker.broke]
    refusals = [error for worker in workers for error in worker.refused]
    allowed = (errors.Unavailable, errors.DeadlineExceeded, errors.AlreadyExists, errors.Conflict)
    assert all(isinstance(error, allowed) for error in refusals), refusals
    assert max(worker.slowest for worker in workers) < TIMEOUT_S + 10
    acknowledged = {name for worker in workers for name in worker.acknowledged}
    assert acknowledged
    entries = dict(world.person("aud").audit.entries())
    assert acknowledged <= {entry.subject for entry in entries.values() if entry.type == "organisms.create"}
    assert acknowledged <= {organism.name for organism in world.person("pia").organisms.list(owner="users/pia")}
    for receipt in pulled:
        assert entries[receipt.index].type.startswith("organisms.pull")
    world.person("aud").audit.verify_ledger()
    assert inspect(world.registry.config).findings == ()
