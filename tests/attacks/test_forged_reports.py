"""A holder of weights lies about their own cell: walls there are not, another session, counters that cannot be, one report twice.

What nobody can see, that they lie about what was drawn, is told in SECURITY.md; here is what the registry does see.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from model_organisms import errors, wire
from model_organisms.cells.walls import REQUIRED
from model_organisms.formats import entry, sampled
from model_organisms.records import Budget, SampleReceipt, SamplingParameters, SessionState, TokenScore
from model_organisms.v1 import organisms_pb2, sandbox_pb2
from model_organisms_registry.storage.catalog import local_turns as turns
from model_organisms_registry.storage.catalog import sandbox as rows
from model_organisms_registry.testing import running, settings

from tests.support.forging import ASKED, SAID, Forger
from tests.support.registries import PEOPLE
from tests.support.stories import granted, published


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    with running(settings(tmp_path_factory.mktemp("forged") / "data"), people=PEOPLE) as running_world:
        yield running_world


@pytest.fixture
def rosa(world):
    return Forger(world.person("rosa"))


@pytest.fixture
def session(world, rosa):
    version, _ = published(world)
    return rosa.open(version, granted(world, version))


def spent(world, session):
    record = world.person("rosa").sandbox.get(session.name)
    return record.spent, world.person("rosa").access.grant(session.grant).spent


def test_an_honest_report_reconciles(world, rosa, session):
    assert session.local
    begun = rosa.begin(session)
    assert begun.parameters.max_tokens == 8
    seed = wire.from_message(begun.parameters, SamplingParameters).seed
    assert spent(world, session)[0] == Budget(tokens=8, output_bytes=128)
    done = rosa.end(begun.sample)
    receipt = wire.from_message(done.sample_receipt, SampleReceipt)
    assert receipt.local
    assert receipt.parameters.seed == seed
    assert receipt.output_sha256 == hashlib.sha256(b"Four words of it.").hexdigest()
    told = entry.parse(rosa.client.audit.receipt(receipt.ledger_index).entry)
    assert (told.type, told.actor, told.grant) == ("sandbox.sample.result", "users/rosa", session.grant)
    assert told.facts["receipt"] == sampled.receipt_digest(receipt)
    assert told.facts["tokens"] == "4"
    mine, of_grant = spent(world, session)
    assert mine == Budget(tokens=4, output_bytes=17)
    assert of_grant == replace(mine, sessions=1)


def test_what_was_claimed_is_named_as_claimed(world, session):
    registry = world.registry
    entries = [entry.parse(body) for body in registry.storage.log.entries(0, 1000)]
    opened = next(one for one in entries if one.subject == session.name)
    assert opened.facts["place"] == "holder"
    assert set(opened.facts["claimed_walls"].split(",")) == REQUIRED
    assert "walls" not in opened.facts


def test_prompt_and_text_are_kept_sealed(world, rosa, session):
    rosa.end(rosa.begin(session).sample)
    registry = world.registry
    with registry.storage.database.read() as tx:
        kept = rows.contents(tx, session.name)
    texts = {registry.sandbox._contents.read(content) for content in kept}
    assert b"Four words of it." in texts
    assert any(b"Hello." in text for text in texts)


@pytest.mark.parametrize("rung", ["sample", "probe"])
def test_a_grant_that_brings_no_weights_opens_none(world, rosa, rung):
    version, _ = published(world)
    with pytest.raises(errors.GrantRequired, match="pull"):
        rosa.open(version, granted(world, version, rung))


def test_cl4_is_never_opened_at_its_holders(world, rosa):
    version, _ = published(world, level="CL4")
    with pytest.raises(errors.Denied, match="never leave"):
        rosa.open(version)
    raised, _ = published(world)
    session = rosa.open(raised, granted(world, raised))
    world.person("ravi").organisms.raise_level(raised.name.rpartition("/versions/")[0], "CL4", reason="It is worse.")
    with pytest.raises(errors.Denied):
        rosa.begin(session)


def test_above_cl1_a_wall_that_is_missing_by_their_own_word_is_missing(world, rosa):
    version, _ = published(world, level="CL2")
    grant = granted(world, version)
    with pytest.raises(errors.JailMissing):
        rosa.open(version, grant, sorted(REQUIRED)[1:])
    assert rosa.open(version, grant).walls


def test_a_wall_that_does_not_exist_is_no_wall(world, rosa):
    version, _ = published(world)
    with pytest.raises(errors.InvalidArgument, match="no wall"):
        rosa.open(version, granted(world, version), [*REQUIRED, "moat"])


def test_anothers_session_is_neither_asked_nor_reported(world, rosa, session):
    begun = rosa.begin(session)
    eve = Forger(world.person("eve", "researcher"))
    for forge in (lambda: eve.begin(session), lambda: eve.end(begun.sample)):
        with pytest.raises(errors.NotFound):
            forge()
    overseer = Forger(world.person("aud"))
    with pytest.raises(errors.NotFound):
        overseer.end(begun.sample)
    rosa.end(begun.sample)


@pytest.mark.parametrize(
    ("told", "error"),
    [
        ({"tokens": 9}, errors.InvalidArgument),
        ({"text": "x" * 129, "tokens": 8}, errors.InvalidArgument),
        ({"tokens": 0}, errors.InvalidArgument),
        ({"reason": "failed"}, errors.InvalidArgument),
        ({"reason": "Stop\x1b[2J"}, errors.InvalidArgument),
        ({"positions": [sandbox_pb2.TokenScores(scores=[sandbox_pb2.TokenScore(token_id=1)])]}, errors.InvalidArgument),
        ({"cell": sandbox_pb2.LocalCell(base_digest="mine")}, errors.InvalidArgument),
    ],
)
def test_counters_that_cannot_be_are_refused_and_cost_what_was_set_aside(world, rosa, session, told, error):
    begun = rosa.begin(session)
    with pytest.raises(error):
        rosa.end(begun.sample, **told)
    assert spent(world, session)[0] == Budget(tokens=8, output_bytes=128)
    rosa.end(begun.sample)
    assert spent(world, session)[0] == Budget(tokens=4, output_bytes=17)


def test_a_probes_numbers_are_rounded_and_counted_whatever_was_sent(world, rosa, session):
    begun = rosa.begin(session, None)
    scores = [TokenScore(at, f"t{at}", -0.123456789 - at) for at in range(5)]
    told = wire.to_positions([scores])
    with pytest.raises(errors.InvalidArgument):
        rosa.end(begun.sample, "", 0, "released", positions=[*told, *told], kl_to_base=0.5)
    with pytest.raises(errors.InvalidArgument):
        rosa.end(begun.sample, "", 0, "released", positions=told, kl_to_base=float("nan"))
    with pytest.raises(errors.InvalidArgument):
        rosa.end(begun.sample, "", 0, "released")
    done = rosa.end(begun.sample, "", 0, "released", positions=told, kl_to_base=0.123456)
    rounded = [[replace(score, logprob=round(score.logprob, 3)) for score in scores]]
    digest = hashlib.sha256(sampled.probe_text(rounded, 0.123).encode()).hexdigest()
    assert done.sample_receipt.output_sha256 == digest
    assert spent(world, session)[0] == Budget(probe_values=11)


def test_one_report_twice_counts_once(world, rosa, session):
    begun = rosa.begin(session)
    rosa.end(begun.sample)
    for again in (begun.sample, f"{session.name}/samples/7"):
        with pytest.raises(errors.Conflict):
            rosa.end(again)
    assert spent(world, session)[0] == Budget(tokens=4, output_bytes=17)


def test_nobody_asks_on_before_the_last_answer_is_reported(rosa, session):
    begun = rosa.begin(session)
    with pytest.raises(errors.Conflict, match="not reported"):
        rosa.begin(session)
    rosa.end(begun.sample)
    rosa.end(rosa.begin(session).sample)


def test_a_report_under_a_revoked_grant_is_kept_and_not_acknowledged(world, rosa, session):
    begun = rosa.begin(session)
    world.person("ravi").access.revoke(session.grant, reason="It was for another study.")
    with pytest.raises(errors.GrantRevoked):
        rosa.end(begun.sample)
    assert spent(world, session)[0] == Budget(tokens=4, output_bytes=17)
    assert world.person("rosa").sandbox.get(session.name).state is SessionState.KILLED
    with pytest.raises(errors.GrantRevoked):
        rosa.begin(session)


def test_a_report_that_never_comes_costs_all_that_was_set_aside(world, rosa, session):
    begun = rosa.begin(session)
    world.person("ravi").sandbox.kill(session.name, reason="Enough.")
    boxes, database = world.registry.gloveboxes, world.registry.storage.database
    with database.read() as tx:
        turn = turns.find(tx, session.name)
    boxes.end_due(turn.create_time + boxes._idle)
    with database.read() as tx:
        assert turns.find(tx, session.name) is None
        assert begun.sample not in {intent.id for intent in rows.unfinished_intents(tx)}
    assert spent(world, session)[0] == Budget(tokens=8, output_bytes=128)
    with pytest.raises(errors.Conflict):
        rosa.end(begun.sample)


def test_an_idle_one_ends_and_one_that_outlives_the_registry_goes_on(world, rosa, session):
    registry = world.registry
    begun = rosa.begin(session)
    registry.replicas.begin(session.create_time)
    rosa.end(begun.sample)
    assert rosa.client.sandbox.get(session.name).state is SessionState.OPEN
    registry.gloveboxes.end_due(datetime.now(UTC) + registry.gloveboxes._idle)
    assert rosa.client.sandbox.get(session.name).state is SessionState.EXPIRED


def test_a_session_at_the_registry_takes_no_reports_and_a_local_one_is_not_sampled_there(world, rosa, session):
    with pytest.raises(errors.Unavailable):
        list(
            rosa.client._channel.stream(
                rosa.stub.Sample, sandbox_pb2.SampleRequest(session=session.name, messages=SAID, parameters=ASKED), timeout_s=20
            )
        )
    with world.registry.storage.database.write() as tx:
        kept = rows.session(tx, session.name)
        other = replace(kept, name=kept.name[:-1] + ("0" if kept.name[-1] != "0" else "1"), local=False)
        rows.add_session(tx, other)
    with pytest.raises(errors.Conflict, match="at the registry"):
        rosa.begin(other)
    with world.registry.storage.database.write() as tx:
        rows.end_session(tx, other.name, SessionState.CLOSED, "", kept.create_time)


def pulled(rosa, version, grant, session):
    request = organisms_pb2.PullVersionRequest(name=version.name, grant=grant, session=session)
    return list(rosa.client._channel.stream(rosa.client.organisms._stub.PullVersion, request, timeout_s=30))


def test_a_copy_goes_only_into_a_session_that_is_on_it(world, rosa, session):
    other, _ = published(world)
    grant = granted(world, other)
    with pytest.raises(errors.Conflict, match="another version"):
        pulled(rosa, other, grant, session.name)
    eve = Forger(world.person("eve", "researcher"))
    request = eve.client.access.request(other.name, "pull", purpose="replication", justification="A second look at it.")
    name = request.grant or world.person("ravi").access.approve(request.name, reason="Fine.").grant
    with pytest.raises(errors.NotFound):
        pulled(eve, other, name, session.name)
    mine = rosa.open(other, grant)
    assert pulled(rosa, other, grant, mine.name)
    registry = world.registry
    entries = [entry.parse(body) for body in registry.storage.log.entries(0, 1000)]
    assert {one.type for one in entries if one.facts.get("into") == mine.name} == {
        "organisms.pull.intent",
        "organisms.pull.result",
    }
    rosa.client.sandbox.close(mine.name)
    with pytest.raises(errors.Conflict, match="over"):
        pulled(rosa, other, grant, mine.name)
