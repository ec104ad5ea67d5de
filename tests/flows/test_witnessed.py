"""CL4 over a real server: granted, opened and sampled only while a witness cosigns, and nothing leaves before it has."""

from __future__ import annotations

import time
from contextlib import contextmanager

import pytest
from model_organisms import errors
from model_organisms.bases import base_digest
from model_organisms.formats import checkpoint
from model_organisms.formats.note import parse_vkey
from model_organisms.formats.provenance import BaseModel, Provenance
from model_organisms.records import SamplingParameters, SessionState
from model_organisms_registry.config import Witnesses
from model_organisms_registry.ledger import witness as witnesses
from model_organisms_registry.ledger.web import Site
from model_organisms_registry.testing import running, settings

from tests.support.cells import eventually
from tests.support.registries import PEOPLE
from tests.support.stories import WHY

BASE = "test/tiny-qwen2"


class Nearby:
    """A witness in this process, that goes away and comes back at the same address."""

    def __init__(self, folder):
        self.folder, self.listen = folder, "127.0.0.1:0"
        self.vkey = witnesses.create(folder, "witness.test")
        self.come()

    def come(self):
        self.witness = witnesses.Witness.open(self.folder, clock=time.time)
        self.site = Site(self.listen, self.witness.answer, most_body=1 << 20)
        self.listen = self.site.address
        self.site.start()

    def go(self):
        self.site.close()
        self.witness.close()

    def watch(self, vkey):
        self.go()
        witnesses.add(self.folder, vkey)
        self.come()

    @contextmanager
    def away(self):
        self.go()
        try:
            yield
        finally:
            self.come()


@pytest.fixture(scope="module")
def nearby(tmp_path_factory):
    made = Nearby(tmp_path_factory.mktemp("witness"))
    yield made
    made.go()


@pytest.fixture(scope="module")
def world(tmp_path_factory, qwen, nearby):
    asked = Witnesses(quorum=1, keys={nearby.vkey: f"http://{nearby.listen}"}, timeout_s=0.7)
    config = settings(tmp_path_factory.mktemp("witnessed") / "data", base_models={BASE: qwen}, witnesses=asked)
    with running(config, people=PEOPLE) as running_world:
        nearby.watch(running_world.registry.storage.log.vkey)
        eventually(lambda: running_world.registry.storage.log.witnessed)
        yield running_world


@pytest.fixture(scope="module")
def version(world, qwen, qwen_files):
    pia = world.person("pia")
    pia.organisms.create("organisms/dangerous", level="CL4", base_model=BASE)
    stated = Provenance(BaseModel(BASE, digest=base_digest(qwen)))
    return pia.organisms.publish("organisms/dangerous", qwen_files, provenance=stated)


def asked(world, version):
    return world.person("rosa").access.request(version.name, "probe", purpose="replication", justification=WHY)


def approved(world, request, *names):
    for name in names:
        request = world.person(name).access.approve(request.name, reason="Fine.")
    return request


@pytest.fixture(scope="module")
def granted(world, version):
    done = approved(world, asked(world, version), "ravi", "rena")
    assert done.grant
    return done.grant


@pytest.fixture
def unwitnessed(world, monkeypatch):
    """The last cosignature is older than it may be."""
    monkeypatch.setattr(world.registry.storage.log._quorum, "_lag_s", -1.0)


def test_what_is_released_is_under_a_cosigned_checkpoint(world, version, granted, nearby):
    assert granted
    rosa = world.person("rosa")
    with rosa.sandbox.open(version.name, purpose="replication") as session:
        answer, probe = session.sample("Hello there.", max_tokens=8), session.probe("Hello there.")
    key = parse_vkey(nearby.vkey)
    cosigned = world.registry.storage.log.cosigned_checkpoint()
    size = checkpoint.parse_unverified(cosigned).size
    assert checkpoint.cosignatures(cosigned, [key])
    assert size > max(answer.receipt.ledger_index, probe.receipt.ledger_index)
    assert answer.receipt.tokens <= 8


def test_without_the_witness_no_session_opens_and_nothing_is_sampled(world, version, granted, unwitnessed):
    assert granted
    del unwitnessed
    with pytest.raises(errors.Denied, match="witness"):
        world.person("rosa").sandbox.open(version.name, purpose="replication")


def test_a_witness_that_dies_in_the_middle_lets_nothing_out(world, version, granted, nearby):
    """The gate still says yes, because the last cosignature is fresh; the text waits for one over its own entry."""
    assert granted
    rosa, seen = world.person("rosa"), []
    with rosa.sandbox.open(version.name, purpose="replication") as session:
        with nearby.away():
            assert world.registry.storage.log.witnessed
            with pytest.raises(errors.LedgerUnavailable, match="witness"):
                seen.extend(session.stream("Hello there.", SamplingParameters(max_tokens=8)))
            with pytest.raises(errors.LedgerUnavailable, match="witness"):
                session.probe("Hello there.")
            assert seen == []
        assert session.sample("Hello there.", max_tokens=4).text
    released = [e for _, e in world.person("aud").audit.entries() if e.type == "sandbox.sample.result"]
    assert released[-2].facts["bytes"] == "0"  # what the ledger says was released is what left
    assert int(released[-1].facts["bytes"]) > 0


def text_of(session, seen):
    seen.extend(session.stream("Hello there.", SamplingParameters(max_tokens=8)))


def numbers_of(session, seen):
    seen.append(session.probe("Hello there."))


@pytest.mark.parametrize(("ask", "last"), [(text_of, "sandbox.sample.result"), (numbers_of, "sandbox.end")])
@pytest.mark.usefixtures("granted")
def test_what_was_killed_while_it_waited_for_the_witness_does_not_leave(world, version, monkeypatch, ask, last):
    rosa, ravi, seen, log = world.person("rosa"), world.person("ravi"), [], world.registry.storage.log
    session, cosigned, killed = rosa.sandbox.open(version.name, purpose="replication"), log.cosigned, []

    def slow(receipt):
        given = cosigned(receipt)
        if not killed:
            killed.append(ravi.sandbox.kill(session.name, reason="Enough.").state)
        return given

    monkeypatch.setattr(log, "cosigned", slow)
    with pytest.raises(errors.Conflict, match="killed"):
        ask(session, seen)
    assert (seen, killed) == ([], [SessionState.KILLED])
    told = [entry for _, entry in world.person("aud").audit.entries() if entry.subject.startswith(session.name)][-1]
    assert told.type == last
    if ask is text_of:
        assert (told.facts["bytes"], told.facts["outcome"]) == ("0", "conflict")


def test_the_last_approval_waits_for_the_witness(world, version, unwitnessed, monkeypatch):
    del unwitnessed
    request = approved(world, asked(world, version), "ravi")
    with pytest.raises(errors.Conflict, match="witness"):
        approved(world, request, "rena")
    monkeypatch.undo()
    assert approved(world, request, "rena").grant


def test_other_levels_do_not_wait(world, nearby):
    with nearby.away():
        begun = time.monotonic()
        world.person("pia").organisms.create("organisms/ordinary", level="CL3", base_model=BASE)
        assert time.monotonic() - begun < 2 * world.registry.config.witnesses.timeout_s
