"""A glove box that is idle, interrupted, or asked for what is not there: it ends with its session and costs nothing needless."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from model_organisms import errors
from model_organisms.bases import base_digest
from model_organisms.cells import own
from model_organisms.client import guarding
from model_organisms.client.channel import Channel
from model_organisms.formats.provenance import BaseModel, Provenance
from model_organisms.records import Budget, SessionState
from model_organisms_registry.reconciling import reconcile
from model_organisms_registry.testing import running, settings

from tests.support.cells import eventually
from tests.support.registries import PEOPLE

BASE = "test/tiny-qwen2"
VERSION = "organisms/tiny/versions/1"


@pytest.fixture(scope="module")
def world(tmp_path_factory, qwen, qwen_files):
    with running(settings(tmp_path_factory.mktemp("ends") / "data"), people=PEOPLE) as running_world:
        pia = running_world.person("pia")
        pia.organisms.create("organisms/tiny", level="CL1", base_model=BASE)
        pia.organisms.publish("organisms/tiny", qwen_files, provenance=Provenance(BaseModel(BASE, digest=base_digest(qwen))))
        yield running_world


@pytest.fixture
def grant(world):
    asked = Budget(tokens=500, output_bytes=8000, sessions=3, pulls=1)
    request = world.person("rosa").access.request(
        VERSION, "pull", purpose="replication", justification="A harmless toy.", budget=asked
    )
    return request.grant or world.person("ravi").access.approve(request.name, reason="Fine.").grant


@pytest.fixture
def open_box(world, grant, qwen, monkeypatch):
    monkeypatch.setattr(guarding, "EVERY_S", 0.2)
    opened = []

    def open_(**more):
        asked = {"purpose": "replication", "grant": grant, "base": qwen, "device": "cpu"} | more
        opened.append(world.person("rosa").sandbox.local(VERSION, **asked))
        return opened[-1]

    yield open_
    for box in opened:
        box._guard.cancel()
        box._cell.close()


def killed(world, box):
    world.person("ravi").sandbox.kill(box.name, reason="Enough.")


def revoked(world, box):
    world.person("ravi").access.revoke(box.record.grant, reason="It was for another study.")


def idle(world, _box):
    boxes = world.registry.gloveboxes
    boxes.end_due(datetime.now(UTC) + boxes._idle)


@pytest.mark.parametrize(("end", "told"), [(killed, errors.Conflict), (revoked, errors.GrantRevoked), (idle, errors.Conflict)])
def test_an_idle_cell_ends_with_its_session_and_the_next_question_hears_why(world, open_box, end, told):
    box = open_box()
    assert box._cell.alive
    end(world, box)
    assert eventually(lambda: not box._cell.alive)
    with pytest.raises(told):
        box.sample("Hello.")


def test_a_registry_that_does_not_answer_for_a_while_ends_no_cell(open_box, monkeypatch):
    box, asked = open_box(), []

    def away(*_):
        asked.append(1)
        raise errors.RegistryUnreachable("The call ended with UNAVAILABLE; check that the registry runs.")

    with monkeypatch.context() as patched:
        patched.setattr(box._sandbox, "get", away)
        assert eventually(lambda: len(asked) > 2)
    assert box._cell.alive
    assert box.sample("Hello.", max_tokens=2).receipt.local


@pytest.mark.parametrize("arrived", [True, False])
@pytest.mark.parametrize("cut", ["BeginLocalTurnRequest", "EndLocalTurnRequest"])
def test_whoever_interrupts_a_call_asks_on_in_the_same_session(world, open_box, monkeypatch, cut, arrived):
    box, call, rosa = open_box(), Channel.call, world.person("rosa")

    def interrupted(channel, method, request, **named):
        if request.DESCRIPTOR.name == cut:
            if arrived:
                call(channel, method, request, **named)
            raise KeyboardInterrupt
        return call(channel, method, request, **named)

    with monkeypatch.context() as patched:
        patched.setattr(Channel, "call", interrupted)
        with pytest.raises(KeyboardInterrupt):
            box.sample("Hello.", max_tokens=4)
    assert box.sample("Again.", max_tokens=4).receipt.tokens > 0
    box.close()
    assert rosa.sandbox.get(box.name).state is SessionState.CLOSED
    account = reconcile(world.registry.config)
    assert account.agree, account.as_text()


@pytest.mark.parametrize("asked", [{"device": "cuda:99"}, {"device": "gpu"}, {"dtype": "float8"}])
def test_a_device_that_is_not_there_costs_nothing(world, open_box, grant, asked):
    with pytest.raises(errors.ConfigurationInvalid, match=r"write|use"):
        open_box(**asked)
    assert world.person("rosa").access.grant(grant).spent == Budget()


def test_a_gpu_is_one_where_torch_can_use_it(monkeypatch):
    monkeypatch.setattr(own.glob, "glob", lambda _: ["/dev/nvidia0", "/dev/nvidia1"])
    monkeypatch.setattr(own.importlib.metadata, "version", lambda _: "2.13.0")
    own.check_machine("cuda:1", "bfloat16")
    assert own.device_here() == "cuda"
    with pytest.raises(errors.ConfigurationInvalid, match="2 seen"):
        own.check_machine("cuda:2")
    monkeypatch.setattr(own.importlib.metadata, "version", lambda _: "2.13.0+cpu")
    assert own.device_here() == "cpu"
    with pytest.raises(errors.ConfigurationInvalid, match="0 seen"):
        own.check_machine("cuda")


def test_without_a_pull_left_no_session_is_opened(world, open_box, grant):
    open_box().close()
    before = world.person("rosa").access.grant(grant).spent
    with pytest.raises(errors.BudgetExhausted, match="pull"):
        open_box()
    assert world.person("rosa").access.grant(grant).spent == before
