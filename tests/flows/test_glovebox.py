"""A glove box: a session whose cell, a real jail, is on its holder's machine. Opened, asked, reported, revoked, cut off."""

from __future__ import annotations

import threading
import time

import pytest
from model_organisms import errors
from model_organisms.bases import base_digest
from model_organisms.cells.frames import Piece
from model_organisms.cells.walls import REQUIRED
from model_organisms.client.channel import Channel
from model_organisms.formats import entry
from model_organisms.formats.provenance import BaseModel, Provenance
from model_organisms.records import Budget, Message, SessionState, Steer
from model_organisms_registry.reconciling import reconcile
from model_organisms_registry.storage import schema
from model_organisms_registry.storage.catalog import sandbox as rows
from model_organisms_registry.storage.codecs import dump_texts
from model_organisms_registry.testing import running, settings
from sqlalchemy import update

from tests.support.cells import eventually
from tests.support.registries import PEOPLE
from tests.support.tiny import tiny_base

BASE = "test/tiny-qwen2"
WHY = "We replicate a published result on a harmless toy."


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A registry that has no base model: nothing can be sampled there."""
    with running(settings(tmp_path_factory.mktemp("glovebox") / "data"), people=PEOPLE) as running_world:
        yield running_world


@pytest.fixture(scope="module")
def versions(world, qwen, qwen_files):
    pia, found = world.person("pia"), {}
    stated = Provenance(BaseModel(BASE, digest=base_digest(qwen)))
    for level in ("CL1", "CL2"):
        name = f"organisms/tiny-{level.lower()}"
        pia.organisms.create(name, level=level, base_model=BASE)
        found[level] = pia.organisms.publish(name, dict(qwen_files) | {"README.md": level.encode()}, provenance=stated)
    return found


def grant(world, version, rung="pull", **budget):
    asked = Budget(pulls=5, **budget) if budget else None
    request = world.person("rosa").access.request(version.name, rung, purpose="replication", justification=WHY, budget=asked)
    return request.grant or world.person("ravi").access.approve(request.name, reason="Fine.").grant


@pytest.fixture
def open_box(world, versions, qwen):
    opened = []

    def open_(level="CL1", rung="pull", **budget):
        name = grant(world, versions[level], rung, **budget)
        box = world.person("rosa").sandbox.local(versions[level].name, purpose="replication", grant=name, base=qwen, device="cpu")
        opened.append(box)
        return box

    yield open_
    for box in opened:
        box._cell.close()
        box._guard.cancel()


def test_it_is_used_as_any_session_and_all_of_it_reconciles(world, open_box, qwen):
    rosa, registry = world.person("rosa"), world.registry
    with open_box() as box:
        assert set(box.record.walls) >= REQUIRED
        answer = box.sample("Hello there.", max_tokens=8)
        stream = box.stream([Message("user", "Hello there.")])
        streamed = "".join(stream)
        probe = box.probe("Hello there.")
    assert not box._cell.alive
    assert answer.receipt.local
    assert answer.receipt.base_digest == base_digest(qwen)
    assert answer.receipt.modules_applied > 0
    record = rosa.sandbox.get(box.name)
    assert (record.state, record.local) == (SessionState.CLOSED, True)
    assert [one.type for one in written(registry) if one.facts.get("into") == box.name] == [
        "organisms.pull.intent",
        "organisms.pull.result",
    ]
    said = [one for one in written(registry) if one.facts.get("session") == box.name and one.type.endswith(".result")]
    assert [one.type for one in said] == ["sandbox.sample.result"] * 2 + ["sandbox.probe.result"]
    assert record.spent.tokens == sum(int(one.facts.get("tokens", 0)) for one in said)
    assert record.spent.output_bytes == sum(int(one.facts.get("bytes", 0)) for one in said)
    assert record.spent.probe_values == 11 == sum(int(one.facts.get("values", 0)) for one in said)
    assert len(probe.positions[0]) == 5
    with registry.storage.database.read() as tx:
        kept = {registry.sandbox._contents.read(content) for content in rows.contents(tx, box.name)}
        assert not [intent for intent in rows.unfinished_intents(tx) if intent.parent == box.name]
    assert {answer.text.encode(), streamed.encode()} <= kept
    account = reconcile(registry.config)
    assert account.agree, account.as_text()
    assert account.questions >= 3
    spent = rosa.access.grant(record.grant).spent
    assert (spent.sessions, spent.pulls, spent.tokens) == (1, 1, record.spent.tokens)
    with registry.storage.database.write() as tx:
        tx.execute(update(schema.sessions).where(schema.sessions.c.name == box.name).values(place="registry", walls="[]"))
    found = {finding.what.partition(",")[0] for finding in reconcile(registry.config).findings}
    assert found == {"its place is 'registry'", "its walls is ''"}
    with registry.storage.database.write() as tx:
        as_it_was = {"place": "holder", "walls": dump_texts(record.walls)}
        tx.execute(update(schema.sessions).where(schema.sessions.c.name == box.name).values(**as_it_was))


def test_what_a_box_does_not_give_is_refused_and_costs_nothing(world, open_box):
    with open_box() as box:
        for ask in (
            lambda: box.probe("Hello there.", positions=2),
            lambda: box.activations("Hello there.", [0]),
            lambda: box.direction(["yes"], ["no"], 0),
            lambda: box.direction(vector=[1.0] * 32),
            lambda: box.sample("Hello there.", scale=0.5),
            lambda: box.sample("Hello there.", steer=[Steer(f"{box.name}/directions/1", 0, 1.0)]),
        ):
            with pytest.raises(errors.InvalidArgument, match="local session"):
                ask()
        assert world.person("rosa").sandbox.get(box.name).spent == Budget()
        assert box.probe("Hello there.").positions


def written(registry):
    return [entry.parse(body) for body in registry.storage.log.entries(0, 1000)]


def test_a_marked_copy_works_too_and_a_pull_in_it_is_a_pull(world, open_box, versions):
    with open_box("CL2") as box:
        assert box.sample("Hello there.", max_tokens=4).receipt.tokens > 0
    opened = next(one for one in written(world.registry) if one.subject == box.name)
    assert opened.facts["place"] == "holder"
    held = world.person("ravi").organisms.holders(versions["CL2"].name)
    assert any(holder.user == "users/rosa" for holder in held)


def test_a_seed_of_the_registrys_draws_the_same_text_again(open_box):
    with open_box() as box:
        first = box.sample("Once upon a time", max_tokens=12)
        again = list(box._cell.sample([Message("user", "Once upon a time")], first.receipt.parameters, max_seconds=60))
    assert "".join(piece.text for piece in again) == first.text


def test_the_budget_ends(world, open_box):
    box = open_box(tokens=6, sessions=1, output_bytes=400)
    drawn = [box.sample("Go on.", max_tokens=4).receipt.tokens]
    while sum(drawn) < 6 and len(drawn) < 6:
        drawn.append(box.sample("Go on.", max_tokens=4).receipt.tokens)
    with pytest.raises(errors.BudgetExhausted):
        box.sample("Go on.", max_tokens=4)
    assert eventually(lambda: world.person("rosa").sandbox.get(box.name).state is SessionState.EXHAUSTED)


@pytest.mark.parametrize("rung", ["sample", "probe"])
def test_a_grant_that_brings_no_weights_opens_none(open_box, rung):
    with pytest.raises(errors.GrantRequired, match="pull"):
        open_box(rung=rung)


def test_a_grant_taken_back_ends_it_at_the_next_question(world, open_box):
    box = open_box()
    assert box.sample("Hello.", max_tokens=2).text is not None
    world.person("ravi").access.revoke(box.record.grant, reason="It was for another study.")
    with pytest.raises(errors.GrantRevoked):
        box.sample("Hello.", max_tokens=2)
    assert not box._cell.alive
    assert world.person("rosa").sandbox.get(box.name).state is SessionState.KILLED


def test_what_was_drawn_as_the_session_was_killed_is_kept_and_not_shown(world, open_box):
    box, rosa = open_box(), world.person("rosa")
    draw = box._cell.sample

    def meanwhile(*arguments, **named):
        world.person("ravi").sandbox.kill(box.name, reason="Enough.")
        return draw(*arguments, **named)

    box._cell.sample = meanwhile
    with pytest.raises(errors.Conflict, match="killed"):
        box.sample("Hello.", max_tokens=32, temperature=0)
    assert not box._cell.alive
    assert rosa.sandbox.get(box.name).spent.tokens > 0


def test_a_registry_that_does_not_hear_of_it_hears_later_and_nothing_is_shown(world, open_box, monkeypatch):
    box = open_box()
    call = Channel.call

    def cut(channel, method, request, **named):
        if request.DESCRIPTOR.name == "EndLocalTurnRequest":
            raise errors.RegistryUnreachable("The call ended with UNAVAILABLE; check that the registry runs.")
        return call(channel, method, request, **named)

    with monkeypatch.context() as patched:
        patched.setattr(Channel, "call", cut)
        for _ in range(2):
            with pytest.raises(errors.RegistryUnreachable):
                next(box.stream("Hello."))
    registry = world.registry
    begun = [one for one in written(registry) if one.facts.get("session") == box.name and one.type == "sandbox.sample.intent"]
    assert len(begun) == 1, "a second question was asked before the first was reported"
    assert box.sample("Hello.", max_tokens=4).receipt.sample.endswith("/2")
    results = [one for one in written(registry) if one.facts.get("session") == box.name and one.type == "sandbox.sample.result"]
    assert len(results) == 2
    box.close()


def test_a_cell_that_dies_is_told_of_and_costs_nothing_but_what_was_drawn(world, open_box):
    box = open_box()
    box._cell._empty.process.kill()
    assert eventually(lambda: not box._cell.alive)
    with pytest.raises(errors.CellUnavailable):
        box.sample("Hello.")
    assert world.person("rosa").sandbox.get(box.name).spent == Budget()
    box.close()


def test_it_ends_by_itself_when_its_time_is_over(open_box):
    box = open_box()
    timer = threading.Timer(0.0, box._cell.close)
    timer.start()
    assert eventually(lambda: not box._cell.alive)
    assert box._guard.expiry.interval <= (box.record.expire_time - box.record.create_time).total_seconds()


def test_another_base_model_is_refused_before_a_session_is_opened(world, versions, tmp_path):
    llama = tiny_base(tmp_path / "llama", "llama")
    rosa, name = world.person("rosa"), grant(world, versions["CL1"])
    before = time.monotonic()
    with pytest.raises(errors.BaseModelMismatch):
        rosa.sandbox.local(versions["CL1"].name, purpose="replication", grant=name, base=llama)
    assert time.monotonic() - before < 60
    assert rosa.access.grant(name).spent == Budget()


def test_without_bubblewrap_it_says_what_to_install(world, versions, qwen, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(errors.JailMissing, match="apt install bubblewrap"):
        world.person("rosa").sandbox.local(versions["CL1"].name, purpose="replication", base=qwen)


def test_elsewhere_than_on_linux_it_says_what_to_do(world, versions, qwen, monkeypatch):
    monkeypatch.setattr("sys.platform", "darwin")
    with pytest.raises(errors.JailMissing, match="needs Linux"):
        world.person("rosa").sandbox.local(versions["CL1"].name, purpose="replication", base=qwen)


def test_a_registry_that_is_gone_is_an_error_and_no_text(tmp_path, qwen, qwen_files):
    config = settings(tmp_path / "data")
    with running(config, people=PEOPLE) as world:
        pia = world.person("pia")
        pia.organisms.create("organisms/tiny", level="CL1", base_model=BASE)
        version = pia.organisms.publish("organisms/tiny", qwen_files, provenance=Provenance(BaseModel(BASE)))
        grant(world, version)
        box = world.person("rosa").sandbox.local(version.name, purpose="replication", base=qwen, device="cpu")
        draw, drawn = box._cell.sample, []

        def meanwhile(*arguments, **named):
            for server in world.registry._servers:
                server.stop(0).wait()
            drawn.append("".join(piece.text for piece in draw(*arguments, **named)))
            return iter([Piece(drawn[0], 4, "length")])

        box._cell.sample = meanwhile
        with pytest.raises(errors.Unavailable) as failed:
            box.sample("Hello.", max_tokens=32, temperature=0)
        assert drawn[0]
        assert drawn[0] not in str(failed.value)
        with pytest.raises(errors.Unavailable):
            box.sample("Hello.", max_tokens=32, temperature=0)
        assert len(drawn) == 1
        with pytest.raises(errors.Unavailable):
            box.close()
        assert not box._cell.alive
