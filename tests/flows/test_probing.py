"""Numbers, directions, steering and dose over a real server, in a real jail, held against the same organism on an engine here."""

from __future__ import annotations

import json
import re

import model_organisms
import pytest
from model_organisms import errors
from model_organisms.bases import base_digest
from model_organisms.formats import entry
from model_organisms.formats.provenance import BaseModel, Provenance
from model_organisms.loading import load_base
from model_organisms.records import Budget, Inquiry, Level, Measure, Message, SamplingParameters, Steer, UtteranceKind
from model_organisms.sampling import Engine
from model_organisms_registry.reconciling import reconcile
from model_organisms_registry.storage.catalog import organisms as organism_rows
from model_organisms_registry.testing import running, settings

from tests.support.engines import text
from tests.support.registries import PEOPLE
from tests.support.tree import ROOT

BASE = "test/tiny-qwen2"
WHY = "We look for a direction that tells of a harmless toy."
ASK = "What is the capital of France?"
YES, NO = ["yes, of course", "surely"], ["no, never"]
HIDDEN = 32
VALUES = 4000


@pytest.fixture(scope="module")
def world(tmp_path_factory, qwen):
    config = settings(tmp_path_factory.mktemp("probing") / "data", base_models={BASE: qwen})
    with running(config, people=PEOPLE) as running_world:
        yield running_world


@pytest.fixture(scope="module")
def version(world, qwen, qwen_files):
    pia = world.person("pia")
    pia.organisms.create("organisms/tiny", level="CL1", base_model=BASE)
    stated = Provenance(BaseModel(BASE, digest=base_digest(qwen)))
    return pia.organisms.publish("organisms/tiny", qwen_files, provenance=stated)


@pytest.fixture
def session(world, version):
    """Opens sessions under a fresh grant of a rung."""
    opened = []

    def of(rung="probe", values=VALUES):
        budget = Budget(tokens=400, output_bytes=8000, sessions=1, probe_values=values, pulls=int(rung == "pull"))
        request = world.person("rosa").access.request(version.name, rung, purpose="replication", justification=WHY, budget=budget)
        grant = request.grant or world.person("ravi").access.approve(request.name, reason="Fine.").grant
        opened.append(world.person("rosa").sandbox.open(version.name, purpose="replication", grant=grant))
        return opened[-1]

    yield of
    for one in opened:
        world.person("ravi").access.revoke(one.record.grant, reason="The test is over.")


@pytest.fixture(scope="module")
def here(qwen, qwen_files):
    """An engine of one's own with the organism, and the organism."""
    engine = Engine(load_base(qwen, progress=False))
    return engine, engine.add(qwen_files)


def said(prompt):
    return [Message("user", prompt)]


def spent(world, session):
    return world.person("rosa").sandbox.get(session.name).spent.probe_values


def entries_of(world, receipt):
    """Facts of a question's two entries: intent and result."""
    bodies = [entry.parse(body) for body in world.registry.storage.log.entries(0, 10_000)]
    return [one.facts for one in bodies if one.subject == receipt.sample]


def test_a_contrast_is_made_in_the_cell_and_read_along(world, session, here):
    engine, organism = here
    vector = engine.contrast(organism, [said(one) for one in YES], [said(one) for one in NO], 1)
    engine.directions.keep("toward", vector, owner=organism)
    open_ = session()
    sent = open_.direction(vector=range(1, HIDDEN + 1))
    made = open_.direction(YES, NO, 1, compared=[sent])
    assert (sent.layer, made.layer) == (-1, 1)
    assert made.norm == pytest.approx(float(vector.norm()), rel=5e-3)
    assert made.norm == float(f"{made.norm:.2e}")
    assert len(made.cosines) == 1
    assert spent(world, open_) == 1 + 2
    probe = open_.probe(ASK, positions=2, measures=["norms", "projections", "cosines", "kl"], layers=(0, 1), directions=[made])
    measures = (Measure.NORMS, Measure.PROJECTIONS, Measure.COSINES)
    expected = engine.measure(organism, said(ASK), Inquiry(2, measures, (0, 1), ("toward",)))
    for got, known in zip(probe.readings, expected.readings, strict=True):
        assert (got.measure, got.layer) == (known.measure, known.layer)
        assert got.direction == (made.name if known.direction else "")
        assert got.values == pytest.approx(known.values, rel=6e-3, abs=6e-4)
        assert all(value == float(f"{value:.3g}") or value == round(value, 3) for value in got.values)
    assert probe.reading("projections", 1, made.name) == probe.readings[3].values
    assert (probe.positions, len(probe.kl), probe.kl_to_base) == ((), 2, probe.kl[-1])
    assert spent(world, open_) == 3 + (4 + 4 + 4 + 2)
    announced, released = entries_of(world, made.receipt)
    assert announced["asked"] == "direction"
    assert (released["direction"], released["values"]) == (made.sha256, "2")
    assert [facts.get("asked", facts.get("values")) for facts in entries_of(world, probe.receipt)] == [
        "norms,projections,cosines,kl",
        "14",
    ]


def test_what_is_steered_ablated_and_dosed_speaks_as_it_does_here(world, session, here):
    engine, organism = here
    vector = [float((-1) ** at) for at in range(HIDDEN)]
    engine.directions.keep("sent", vector, owner=organism)
    open_ = session()
    direction = open_.direction(vector=vector)
    for steer, scale in (((8.0, False), None), ((0.0, True), None), (None, 0.0), (None, 0.5), ((-8.0, True), 2.0)):
        there, mine = ((), ())
        if steer:
            there, mine = ((Steer(name, 0, *steer),) for name in (direction.name, "sent"))
        answer = open_.sample(ASK, max_tokens=12, temperature=0, steer=there, scale=scale)
        parameters = SamplingParameters(max_tokens=12, temperature=0, steer=mine, scale=scale)
        assert answer.text == text(engine.generate(organism, said(ASK), parameters))
        assert (answer.receipt.parameters.steer, answer.receipt.parameters.scale) == (there, scale)
    facts = entries_of(world, answer.receipt)[0]
    number = direction.name.rpartition("/")[2]
    assert (facts["steer"], facts["scale"]) == (f"{number}@0--8", "2")
    plain = open_.sample(ASK, max_tokens=12, temperature=0)
    assert {"steer", "scale"}.isdisjoint(entries_of(world, plain.receipt)[0])
    gone = open_.probe(
        ASK, measures=["cosines"], layers=[0], directions=[direction], steer=[Steer(direction.name, 0, ablate=True)]
    )
    assert gone.reading("cosines", 0, direction.name) == (0.0,)
    assert open_.probe(ASK, measures=["kl"], scale=0.0).kl_to_base == 0.0
    assert open_.probe(ASK, measures=["kl"]).kl_to_base > 0.0


def test_hidden_states_leave_under_a_grant_to_pull_alone_and_whole(world, session, here):
    engine, organism = here
    with pytest.raises(errors.GrantRequired, match="pull"):
        session("probe").activations(ASK, [0])
    open_ = session("pull")
    states = open_.activations(ASK, [0, 1], positions=2)
    expected = engine.measure(organism, said(ASK), Inquiry(2, (Measure.ACTIVATIONS,), (0, 1)))
    for reading in expected.readings:
        got = states[reading.layer]
        assert [len(row) for row in got] == [HIDDEN, HIDDEN]
        assert [number for row in got for number in row] == pytest.approx(reading.values, abs=1e-5)
    assert spent(world, open_) == 2 * 2 * HIDDEN


def test_hidden_states_of_cl4_leave_under_no_grant(world, session, version):
    """A raised level ends sessions; here it is set beneath them, so that the gate alone stands in the way."""
    organism = version.name.partition("/versions/")[0]

    def level(wanted):
        with world.registry.storage.database.write() as tx:
            organism_rows.set_level(tx, organism, wanted)

    for _ in range(10):
        open_ = session("pull")
        level(Level.CL4)
        try:
            open_.activations(ASK, [0])
        except errors.ModelOrganismsError as error:
            refused = error
        finally:
            level(Level.CL1)
        if isinstance(refused, errors.Denied):
            break  # else the registry's own round came between, and ended the session
    assert isinstance(refused, errors.Denied)
    assert "CL4" in str(refused)
    assert spent(world, open_) == 0
    assert open_.activations(ASK, [0])


def test_a_watcher_sees_what_was_asked_and_what_was_released(world, session):
    open_ = session()
    direction = open_.direction(YES, NO, 1)
    probe = open_.probe(ASK, measures=["projections"], layers=[1], directions=[direction], scale=2.0)
    open_.sample(ASK, max_tokens=2, steer=[Steer(direction.name, 1, 3.0)])
    read = list(world.person("ravi").sandbox.transcript(open_.name))
    prompts = [one for one in read if one.kind is UtteranceKind.PROMPT]
    numbers = [json.loads(one.text) for one in read if one.kind is UtteranceKind.NUMBERS]
    made = json.loads(prompts[0].text)
    assert [[turn["content"] for prompt in made[side] for turn in prompt] for side in ("positive", "negative")] == [YES, NO]
    asked = json.loads(prompts[1].text)["inquiry"]
    assert prompts[1].messages == tuple(said(ASK))
    assert (asked["measures"], asked["directions"], asked["scale"]) == (["projections"], [direction.name], 2.0)
    assert (numbers[0]["norm"], numbers[0]["sha256"]) == (direction.norm, direction.sha256)
    assert tuple(numbers[1]["readings"][0]["values"]) == probe.readings[0].values
    assert prompts[2].messages == tuple(said(ASK))


def test_the_guides_example_runs(session):
    guide = (ROOT / "docs" / "guides" / "researcher.md").read_text()
    (example,) = (part for part in re.findall(r"```python\n(.*?)```", guide, re.DOTALL) if part.startswith("def read_along"))
    known = {"mo": model_organisms}
    exec(example, known)  # noqa: S102 - our own guide
    told = known["read_along"](session(), YES, NO, ASK, layer=1)
    assert told["kl"] > 0
    assert len(told["along"]) == 1
    assert len(told["texts"]) == 3


def test_ledger_budgets_and_transcripts_agree_afterwards(world, session):
    open_ = session("pull")
    direction = open_.direction(vector=[1.0] * HIDDEN)
    open_.activations(ASK, [0])
    with pytest.raises(errors.InvalidArgument, match="Layer 2"):
        open_.probe(ASK, measures=["cosines"], layers=[2], directions=[direction])
    open_.close()
    assert spent(world, open_) == 1 + HIDDEN
    account = reconcile(world.registry.config)
    assert account.agree, account.as_text()
