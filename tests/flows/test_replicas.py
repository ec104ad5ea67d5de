"""Two registry processes on one PostgreSQL: what a dead one left is ended once, and what one takes back holds at the other."""

from __future__ import annotations

import json
import threading
import time
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest
from model_organisms import errors
from model_organisms.bases import base_digest
from model_organisms.client.client import connect, login
from model_organisms.client.sandbox import Session
from model_organisms.formats.provenance import BaseModel, Provenance
from model_organisms.records import Budget, SamplingParameters, SessionState
from model_organisms_registry.founding import found, free_ports
from model_organisms_registry.inspection import inspect
from model_organisms_registry.testing import settings

from tests.support.cells import eventually
from tests.support.serving import Serving
from tests.support.tiny import tiny_base, tiny_organism

PEOPLE = (("pia", "publisher"), ("rosa", "researcher"), ("ravi", "reviewer"), ("aud", "auditor"))
VERSION = "organisms/talker/versions/1"
LONG = SamplingParameters(max_tokens=3000, temperature=0)
DEAD_S = 3.0


def named(config, name):
    """Give a replica its name, and a silence short enough for a test."""
    text = (
        f'\n[replica]\nname = "{name}"\nheartbeat_s = 0.5\ndead_s = {DEAD_S}\n\n[limits]\nrelease_s = 0.1\n\n[cells]\nlimit = 6\n'
    )
    path = config.folder / "registry.toml"
    models = path.read_text().partition("[cells.base_models]")
    path.write_text(models[0] + text + "[cells.base_models]" + models[2])


def beside(config):
    """A second replica: a folder of its own, with the keys, the database and the blobs of the first."""
    folder = config.folder.with_name("second")
    folder.mkdir()
    (folder / "keys").symlink_to(config.folder / "keys")
    other = free_ports(replace(config, folder=folder))
    text = (config.folder / "registry.toml").read_text()
    for was, now in ((config.listen, other.listen), (config.enrol_listen, other.enrol_listen), ('"a"', '"b"')):
        text = text.replace(was, now)
    (folder / "registry.toml").write_text(text)
    return other


@pytest.fixture(scope="module")
def two(tmp_path_factory, postgresql_server):
    """Two replicas, the people known to both, and a version that answers for seconds."""
    tmp_path, database = tmp_path_factory.mktemp("replicas"), postgresql_server.create()
    base = tiny_base(tmp_path / "base", talkative=True)
    blobs = f"file://{tmp_path / 'blobs'}"
    config = settings(
        tmp_path / "data", base_models={"test/talkative": base}, database=postgresql_server.url(database), blobs=blobs
    )
    ticket = found(config, now=datetime.now(UTC))
    named(config, "a")
    with ExitStack() as stack:
        stack.callback(postgresql_server.drop, database)
        first = Serving(config)
        stack.callback(first.kill)
        with login(str(ticket), tmp_path / "admin.json") as admin:
            for name, role in PEOPLE:
                login(admin.users.invite(name, organisation="lab", roles=[role]).ticket, tmp_path / f"{name}.json").close()
        second = Serving(beside(config))
        stack.callback(second.kill)
        world = SimpleNamespace(a=first, b=second, folder=tmp_path, config=config)
        with at(world, "a", "pia") as pia:
            pia.organisms.create("organisms/talker", level="CL1", base_model="test/talkative")
            stated = Provenance(BaseModel("test/talkative", digest=base_digest(base)))
            pia.organisms.publish("organisms/talker", tiny_organism(base), provenance=stated)
        yield world


@contextmanager
def at(world, replica, who):
    """Somebody, at one of the replicas."""
    path = world.folder / f"{who}-{replica}.json"
    there = (world.a if replica == "a" else world.b).config.listen
    path.write_text(json.dumps(json.loads((world.folder / f"{who}.json").read_text()) | {"registry": there}))
    path.chmod(0o600)
    with connect(path) as client:
        yield client


def clients(stack, world, *whose):
    """Several people, each as `replica name`."""
    return [stack.enter_context(at(world, *who.split())) for who in whose]


def granted(rosa, ravi, **budget):
    asked = Budget(**{"tokens": 8000, "output_bytes": 64_000, "sessions": 9} | budget)
    request = rosa.access.request(VERSION, "sample", purpose="replication", justification="A toy.", budget=asked)
    return request.grant or ravi.access.approve(request.name).grant


def same(client, session):
    """A session as another replica is asked about it."""
    return Session(client.sandbox, session.record, client.sandbox._channel, client.sandbox._audit)


@pytest.fixture(autouse=True)
def nothing_left(two):
    """End what a test has left open, so that the next finds room."""
    yield
    with at(two, "b", "ravi") as ravi:
        for session in list(ravi.sandbox.list(state="open")):
            with suppress(errors.Conflict):
                ravi.sandbox.kill(session.name, reason="The test is over.")


def test_of_a_replica_that_is_killed_the_other_ends_what_it_left_and_nothing_else(two):
    with ExitStack() as stack:
        rosa_a, rosa_b, ravi, aud = clients(stack, two, "a rosa", "b rosa", "b ravi", "b aud")
        grant = granted(rosa_b, ravi)
        doomed = rosa_a.sandbox.open(VERSION, purpose="replication", grant=grant)
        spared = rosa_b.sandbox.open(VERSION, purpose="replication", grant=grant)
        heard = []
        with suppress(errors.ModelOrganismsError):
            for text in doomed.stream("Go on.", LONG):
                heard.append(text)
                two.a.kill()
        assert heard
        assert rosa_b.sandbox.get(doomed.name).state is SessionState.OPEN
        assert eventually(lambda: rosa_b.sandbox.get(doomed.name).state is SessionState.LOST, within_s=20)
        assert rosa_b.sandbox.get(doomed.name).reason == "its replica is gone"
        assert spared.sample("Go on.", max_tokens=4).receipt.tokens == 4
        told = [(index, entry) for index, entry in aud.audit.entries() if doomed.name in entry.subject]
        (intent,) = (index for index, entry in told if entry.type == "sandbox.sample.intent")
        (lost,) = (entry for _, entry in told if entry.type == "registry.lost")
        windows = [entry for _, entry in told if entry.type == "sandbox.sample.release"]
        assert [entry.facts["state"] for _, entry in told if entry.type == "sandbox.end"] == ["lost"]
        assert (lost.intent, lost.facts["kind"]) == (intent, "sample")
        released = {name: sum(int(entry.facts[name]) for entry in windows) for name in ("tokens", "bytes")}
        assert {name: int(lost.facts[name]) for name in released} == released
        assert released["bytes"] >= len("".join(heard).encode())
        ended = rosa_b.sandbox.get(doomed.name)
        assert (ended.spent.tokens, ended.spent.output_bytes) == (released["tokens"], released["bytes"])
        assert rosa_b.access.grant(grant).spent.tokens == released["tokens"] + 4
        spared.close()
        two.a.start()
        assert not inspect(two.config).unfinished
        assert sum(entry.type == "registry.lost" and doomed.name in entry.subject for _, entry in aud.audit.entries()) == 1


def test_a_session_is_killed_at_one_replica_while_its_cell_is_at_the_other(two):
    with ExitStack() as stack:
        rosa, ravi, aud = clients(stack, two, "a rosa", "b ravi", "b aud")
        grant = granted(rosa, ravi)
        session = rosa.sandbox.open(VERSION, purpose="replication", grant=grant)
        cells = two.a.cells()
        heard, error = [], []

        def listen():
            try:
                heard.extend(session.stream("Go on.", LONG))
            except errors.ModelOrganismsError as told:
                error.append(told)

        listening = threading.Thread(target=listen)
        listening.start()
        assert eventually(lambda: heard)
        killed = ravi.sandbox.kill(session.name, reason="Enough.")
        assert killed.state is SessionState.KILLED
        listening.join(timeout=20)
        assert isinstance(error[0], errors.Conflict)
        assert eventually(lambda: not [cell for cell in cells if cell.is_running() and cell.status() != "zombie"], within_s=10)
        told = [entry for _, entry in aud.audit.entries() if session.name in entry.subject]
        types = [entry.type for entry in told]
        assert "sandbox.sample.release" not in types[types.index("sandbox.end") :]
        assert types[-1] == "sandbox.sample.result"


def test_what_is_taken_back_at_one_replica_ends_sessions_at_the_other(two):
    with ExitStack() as stack:
        rosa, ravi = clients(stack, two, "a rosa", "b ravi")
        grant = granted(rosa, ravi)
        session = rosa.sandbox.open(VERSION, purpose="replication", grant=grant)
        ravi.access.revoke(grant, reason="No longer.")
        assert eventually(lambda: rosa.sandbox.get(session.name).state is SessionState.KILLED, within_s=10)
        assert eventually(lambda: not two.a.cells(), within_s=10)


def test_a_question_that_comes_to_the_wrong_replica_is_told_which_has_the_cell(two):
    with ExitStack() as stack:
        here, there, ravi = clients(stack, two, "a rosa", "b rosa", "b ravi")
        grant = granted(here, ravi)
        with here.sandbox.open(VERSION, purpose="replication", grant=grant) as session:
            with pytest.raises(errors.CellElsewhere, match="at replica a, and this is b") as told:
                same(there, session).sample("Hello?", max_tokens=4)
            assert told.value.details["replica"] == "a"
            assert session.sample("Hello?", max_tokens=4).receipt.tokens == 4


def test_all_replicas_together_give_a_user_as_many_sessions_as_one_may_have(two):
    with ExitStack() as stack:
        here, there, ravi = clients(stack, two, "a rosa", "b rosa", "b ravi")
        grant = granted(here, ravi)
        opened, refused = [], []

        def open_(client):
            try:
                opened.append(client.sandbox.open(VERSION, purpose="replication", grant=grant))
            except errors.CellUnavailable as error:
                refused.append(error.message)

        openings = [threading.Thread(target=open_, args=(client,)) for client in (here, there) * 3]
        for opening in openings:
            opening.start()
        for opening in openings:
            opening.join()
        assert len(opened) == 3  # half of six
        assert len(refused) == 3
        assert all("as many sessions open" in message for message in refused)
        opened[0].close()
        with there.sandbox.open(VERSION, purpose="replication", grant=grant):
            pass


def test_of_many_questions_at_two_replicas_only_as_many_pass_as_the_budget_has(two):
    with ExitStack() as stack:
        here, there, ravi = clients(stack, two, "a rosa", "b rosa", "b ravi")
        grant = granted(here, ravi, tokens=1, output_bytes=64)
        sessions = [client.sandbox.open(VERSION, purpose="replication", grant=grant) for client in (here, there)]
        passed, refused = [], []

        def ask(session):
            for _ in range(12):
                try:
                    passed.append(session.sample("Go on.", max_tokens=1))
                except errors.BudgetExhausted:
                    refused.append(session)
                except errors.Conflict:  # the session has ended as spent
                    refused.append(session)

        asking = [threading.Thread(target=ask, args=(session,)) for session in sessions * 8]
        for one in asking:
            one.start()
        for one in asking:
            one.join()
        assert (len(passed), len(refused)) == (1, 191)
        assert here.access.grant(grant).spent.tokens == 1


def test_one_that_was_only_slow_finds_its_sessions_ended_and_goes_on(two):
    with ExitStack() as stack:
        rosa, watching, ravi = clients(stack, two, "a rosa", "b rosa", "b ravi")
        grant = granted(watching, ravi)
        session = rosa.sandbox.open(VERSION, purpose="replication", grant=grant)
        two.b.process.poll()
        stop, go_on = 19, 18  # SIGSTOP, SIGCONT
        two.a.process.send_signal(stop)
        try:
            assert eventually(lambda: watching.sandbox.get(session.name).state is SessionState.LOST, within_s=30)
        finally:
            two.a.process.send_signal(go_on)
        time.sleep(2 * DEAD_S)
        with pytest.raises((errors.Conflict, errors.CellUnavailable)):
            session.sample("Hello?", max_tokens=4)
        with rosa.sandbox.open(VERSION, purpose="replication", grant=grant) as again:
            assert again.sample("Hello?", max_tokens=4).receipt.tokens == 4


def test_several_processes_do_not_share_a_file(tmp_path):
    config = settings(tmp_path / "data")
    found(config, now=datetime.now(UTC))
    named(config, "a")
    with pytest.raises(AssertionError, match="only on PostgreSQL"):
        Serving(config)
