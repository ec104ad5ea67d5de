"""Sessions over a real server, in a real jail, on a tiny real model: sample, probe, budgets, kill, and the ledger."""

import os
import sqlite3
import threading
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from model_organisms import errors
from model_organisms.bases import base_digest
from model_organisms.cells.walls import OWN_USER, REQUIRED
from model_organisms.formats import entry
from model_organisms.formats.provenance import BaseModel, Provenance
from model_organisms.records import Budget, Message, SessionState
from model_organisms.sampling import Engine
from model_organisms_registry.testing import running, settings

from tests.support.cells import eventually
from tests.support.registries import PEOPLE

ROOT = os.geteuid() == 0
"""Only root gives cells a user of their own."""
BASE = "test/tiny-qwen2"
WHY = "We replicate a published result on a harmless toy."


@pytest.fixture(scope="module")
def world(tmp_path_factory, qwen):
    config = settings(tmp_path_factory.mktemp("sandbox") / "data", base_models={BASE: qwen})
    with running(config, people=PEOPLE) as running_world:
        yield running_world


@pytest.fixture(scope="module")
def version(world, qwen, qwen_files):
    pia = world.person("pia")
    pia.organisms.create("organisms/tiny", level="CL1", base_model=BASE)
    stated = Provenance(BaseModel(BASE, digest=base_digest(qwen)))
    return pia.organisms.publish("organisms/tiny", qwen_files, provenance=stated)


@pytest.fixture(scope="module")
def rita(world, version):
    """Somebody else, who may open sessions."""
    client = world.person("rita", "researcher")
    request = client.access.request(version.name, "sample", purpose="replication", justification=WHY)
    if not request.grant:
        world.person("ravi").access.approve(request.name, reason="Fine.")
    return client


@pytest.fixture(autouse=True)
def company(rita, version):
    """A session of hers, so that sessions find the cell there that they share at CL1; one that was ended is opened again."""
    if not list(rita.sandbox.list(state=SessionState.OPEN)):
        rita.sandbox.open(version.name, purpose="replication")


def grant(world, version, rung="probe", **budget):
    asked = Budget(**budget) if budget else None
    request = world.person("rosa").access.request(version.name, rung, purpose="replication", justification=WHY, budget=asked)
    if not request.grant:
        request = world.person("ravi").access.approve(request.name, reason="Fine.")
    return request.grant


@pytest.fixture
def granted(world, version):
    name = grant(world, version)
    yield name
    world.person("ravi").access.revoke(name, reason="The test is over.")


def test_without_a_grant_no_session_opens(world, version):
    with pytest.raises(errors.GrantRequired):
        world.person("rudi", "researcher").sandbox.open(version.name, purpose="replication")


def test_a_sample_has_a_receipt_that_the_ledger_proves(world, version, granted, qwen):
    rosa = world.person("rosa")
    with rosa.sandbox.open(version.name, purpose="replication") as session:
        assert set(session.record.walls) == REQUIRED | ({OWN_USER} if ROOT else set())
        answer = session.sample("Hello there.", max_tokens=8)
        probe = session.probe("Hello there.")
    assert answer.receipt.tokens <= 8
    assert answer.receipt.base_digest == base_digest(qwen)
    assert answer.receipt.modules_applied > 0
    proved = entry.parse(rosa.audit.receipt(answer.receipt.ledger_index).entry)
    assert proved.type == "sandbox.sample.result"
    assert proved.facts["output"] == answer.receipt.output_sha256
    assert proved.grant == granted
    assert len(probe.positions[0]) == 5
    assert probe.kl_to_base > 0
    record = rosa.sandbox.get(session.name)
    assert record.state is SessionState.CLOSED
    assert record.spent.tokens == answer.receipt.tokens
    assert record.spent.probe_values == 11


def test_the_budget_ends(world, version):
    name = grant(world, version, "sample", tokens=6, sessions=1, output_bytes=400)
    rosa = world.person("rosa")
    session = rosa.sandbox.open(version.name, purpose="replication")
    drawn = [session.sample("Go on.", max_tokens=4).receipt.tokens]
    while sum(drawn) < 6 and len(drawn) < 6:
        drawn.append(session.sample("Go on.", max_tokens=4).receipt.tokens)
    assert sum(drawn) == 6
    with pytest.raises(errors.BudgetExhausted):
        session.sample("Go on.", max_tokens=4)
    assert eventually(lambda: rosa.sandbox.get(session.name).state is SessionState.EXHAUSTED)
    with pytest.raises(errors.BudgetExhausted):
        session.sample("Go on.", max_tokens=4)
    assert rosa.access.grant(name).spent.tokens == 6
    world.person("ravi").access.revoke(name, reason="The test is over.")


def test_a_question_that_holds_the_whole_budget_does_not_end_the_session(world, version):
    """Each takes all that is left before it speaks, and gives back what comes after the text that it stops at."""
    name = grant(world, version, "sample", tokens=200, sessions=1, output_bytes=3200)
    session = world.person("rosa").sandbox.open(version.name, purpose="replication")
    said = session.sample("Go on.", max_tokens=8, temperature=0).text
    done = threading.Event()

    def look():
        while not done.is_set():
            world.registry.sandbox.end_due(datetime.now(UTC))

    looking = threading.Thread(target=look)
    looking.start()
    try:
        drawn = [session.sample("Go on.", max_tokens=200, temperature=0, stop=(said[-1],)) for _ in range(8)]
    finally:
        done.set()
        looking.join()
    assert {sample.finish_reason for sample in drawn} == {"stop"}
    assert session.close().state is SessionState.CLOSED
    world.person("ravi").access.revoke(name, reason="The test is over.")


@pytest.mark.usefixtures("granted")
def test_an_end_that_could_not_be_written_is_written_later(world, version):
    registry, rosa = world.registry, world.person("rosa")
    session = rosa.sandbox.open(version.name, purpose="replication")
    with closing(sqlite3.connect(world.folder / "registry.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        registry.sandbox.living.cell(session.name).kill()
        assert eventually(lambda: session.name in registry.sandbox._unwritten)
        assert rosa.sandbox.get(session.name).state is SessionState.OPEN
        other.execute("ROLLBACK")
    assert eventually(lambda: rosa.sandbox.get(session.name).state is SessionState.LOST, within_s=30)
    assert eventually(lambda: not registry.sandbox._unwritten)


@pytest.mark.usefixtures("granted")
def test_a_refused_question_leaves_nothing_behind(world, version):
    with world.person("rosa").sandbox.open(version.name, purpose="replication") as session:
        before = sorted((world.folder / "blobs" / "contents").rglob("*"))
        for whose, name in (("rudi", session.name), ("rosa", "sessions/" + "0" * 26)):
            theirs = world.person(whose, "researcher").sandbox
            stranger = type(session)(theirs, replace(session.record, name=name), theirs._channel, theirs._audit)
            with pytest.raises((errors.NotFound, errors.GrantRequired)):
                stranger.sample("Hello?")
        assert sorted((world.folder / "blobs" / "contents").rglob("*")) == before


def test_a_question_that_cannot_be_paid_or_answered_leaves_nothing_behind(world, version):
    name = grant(world, version, "probe", tokens=1, sessions=1, output_bytes=400, probe_values=11)
    session = world.person("rosa").sandbox.open(version.name, purpose="replication")
    assert session.sample("Go on.", max_tokens=1).receipt.tokens == 1
    before = sorted((world.folder / "blobs" / "contents").rglob("*"))
    with pytest.raises(errors.BudgetExhausted):
        session.sample("x" * 100_000, max_tokens=1)
    world.registry.sandbox.living.drop(session.name, at_once=True)
    with pytest.raises(errors.CellUnavailable):  # the transaction is under way by then, and undone
        session.probe("x" * 1000)
    assert sorted((world.folder / "blobs" / "contents").rglob("*")) == before
    session.close()
    world.person("ravi").access.revoke(name, reason="The test is over.")


def test_of_several_grants_the_one_that_fits_is_used_and_one_may_be_named(world, version):
    """Not the one that lasts longest, whatever it is for and whatever is left of it."""
    rosa = world.person("rosa")

    def ask(purpose, days, **budget):
        request = rosa.access.request(
            version.name,
            "sample",
            purpose=purpose,
            justification=WHY,
            duration=timedelta(days=days),
            budget=Budget(**budget) if budget else None,
        )
        return request.grant

    spent = ask("replication", 60, tokens=1, sessions=9, output_bytes=400)
    with rosa.sandbox.open(version.name, purpose="replication") as session:
        session.sample("Go on.", max_tokens=1)
    fresh, other = ask("replication", 10), ask("detection-research", 30)
    for wanted, purpose, named in ((fresh, "replication", ""), (other, "detection-research", ""), (fresh, "replication", fresh)):
        with rosa.sandbox.open(version.name, purpose=purpose, grant=named) as session:
            assert session.record.grant == wanted
    for named, error in ((other, errors.GrantRequired), (spent, errors.BudgetExhausted)):
        with pytest.raises(error):
            rosa.sandbox.open(version.name, purpose="replication", grant=named)
    for name in (spent, fresh, other):
        world.person("ravi").access.revoke(name, reason="The test is over.")


def test_a_session_in_which_nothing_happens_ends_after_the_time_the_operator_sets(world, version, granted, monkeypatch):
    assert world.registry.sandbox.idle == timedelta(seconds=world.registry.config.limits.session_idle_s)
    session = world.person("rosa").sandbox.open(version.name, purpose="replication")
    assert session.record.grant == granted
    monkeypatch.setattr(world.registry.sandbox, "idle", timedelta(seconds=0.1))
    assert eventually(lambda: world.person("rosa").sandbox.get(session.name).state is SessionState.EXPIRED)


@pytest.mark.usefixtures("granted")
def test_a_reviewer_kills_a_session(world, version):
    session = world.person("rosa").sandbox.open(version.name, purpose="replication")
    killed = world.person("ravi").sandbox.kill(session.name, reason="Not what was asked for.")
    assert (killed.state, killed.reason) == (SessionState.KILLED, "Not what was asked for.")
    ends = [entry for _, entry in world.person("aud").audit.entries() if entry.subject == session.name]
    assert (ends[-1].type, bool(ends[-1].commit)) == ("sandbox.end", True)  # to the reason
    with pytest.raises(errors.ModelOrganismsError):
        session.sample("Hello?")


def test_revoking_the_grant_ends_the_session(world, version):
    name = grant(world, version)
    rosa = world.person("rosa")
    session = rosa.sandbox.open(version.name, purpose="replication")
    world.person("ravi").access.revoke(name, reason="No longer.")
    assert rosa.sandbox.get(session.name).state is SessionState.KILLED


def test_withdrawing_the_version_ends_its_sessions_and_no_other(world, version, qwen, qwen_files):
    pia, rosa = world.person("pia"), world.person("rosa")
    pia.organisms.create("organisms/recalled", level="CL1", base_model=BASE)
    stated = Provenance(BaseModel(BASE, digest=base_digest(qwen)))
    recalled = pia.organisms.publish("organisms/recalled", qwen_files, provenance=stated)
    grants = [grant(world, recalled), grant(world, version)]
    doomed, other = (rosa.sandbox.open(each.name, purpose="replication") for each in (recalled, version))
    pia.organisms.withdraw(recalled.name, reason="Trained on the wrong split.")
    ended = rosa.sandbox.get(doomed.name)
    assert (ended.state, ended.reason) == (SessionState.KILLED, "the version was withdrawn")
    with pytest.raises(errors.Withdrawn):
        doomed.sample("Hello?")
    assert len(world.registry.pool.cells) == 1
    assert other.close().state is SessionState.CLOSED
    for name in grants:
        world.person("ravi").access.revoke(name, reason="The test is over.")


def test_suspending_somebody_ends_their_sessions(world, version):
    rolf = world.person("rolf", "researcher")
    request = rolf.access.request(version.name, "sample", purpose="replication", justification=WHY)
    if not request.grant:
        world.person("ravi").access.approve(request.name, reason="Fine.")
    session = rolf.sandbox.open(version.name, purpose="replication")
    world.admin.users.suspend("rolf", reason="A lost laptop.")
    with pytest.raises(errors.Suspended):
        session.sample("Hello?")
    ended = world.person("ravi").sandbox.get(session.name)
    assert (ended.state, ended.reason) == (SessionState.KILLED, "the account was suspended")


@pytest.mark.usefixtures("granted")
def test_a_session_is_its_owners(world, version):
    with world.person("rosa").sandbox.open(version.name, purpose="replication") as session:
        with pytest.raises(errors.ModelOrganismsError):
            world.person("pia").sandbox.get(session.name)
        with pytest.raises(errors.InvalidArgument, match="half of a character"):
            session.sample("\ud800")
        assert world.person("ravi").sandbox.get(session.name).user == "users/rosa"


def test_a_pulled_copy_answers_as_the_sandbox_does(world, version, qwen):
    name = grant(world, version, "pull")
    rosa = world.person("rosa")
    with rosa.sandbox.open(version.name, purpose="replication") as session:
        there = session.probe("What is this?")
    with rosa.organisms.pull(version.name) as pulled:
        engine = Engine(pulled.load_base(qwen, device="cpu"))
        added = pulled.add_to(engine)
        assert engine.bank.version_digest(added) == version.digest
        here = engine.probe(added, [Message("user", "What is this?")])
    assert [s.token_id for s in here.positions[0]] == [s.token_id for s in there.positions[0]]
    for local, remote in zip(here.positions[0], there.positions[0], strict=True):
        assert local.logprob == pytest.approx(remote.logprob, abs=2e-3)
    world.person("ravi").access.revoke(name, reason="The test is over.")


@pytest.mark.usefixtures("granted")
def test_a_session_of_no_length_is_refused_and_a_short_one_is_short(world, version):
    rosa = world.person("rosa")
    for none in (timedelta(0), timedelta(seconds=-5)):
        with pytest.raises(errors.InvalidArgument, match="above zero"):
            rosa.sandbox.open(version.name, purpose="replication", duration=none)
    with rosa.sandbox.open(version.name, purpose="replication", duration=timedelta(seconds=59.5)) as short:
        record = rosa.sandbox.get(short.name)
        assert timedelta(seconds=50) < record.expire_time - record.create_time <= timedelta(seconds=61)
    assert short.name in {one.name for one in world.person("ravi").sandbox.list(user="rosa")}
