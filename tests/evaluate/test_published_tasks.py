"""A task of other people's, as they publish it, runs on our models: `make_me_pay` of inspect_evals, which talks in turns."""

from __future__ import annotations

from importlib import import_module

import pytest
from inspect_ai import eval as evaluate
from inspect_ai.model import GenerateConfig, get_model
from model_organisms.bases import base_digest
from model_organisms.evaluate import provider
from model_organisms.evaluate.asking import parse_receipt
from model_organisms.formats import entry
from model_organisms.formats.provenance import BaseModel, Provenance
from model_organisms.formats.sampled import receipt_digest
from model_organisms.records import SessionState
from model_organisms_registry.testing import running, settings

from tests.support.published import importable
from tests.support.registries import PEOPLE
from tests.support.tiny import tiny_base, tiny_organism

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # theirs, as they are imported
BASE, WHY = "test/tiny-qwen2", "We replicate a published result on a harmless toy."
SHORT = GenerateConfig(max_tokens=6)
TALKS, TURNS = 2, 3


@pytest.fixture(scope="module")
def ground(tmp_path_factory):
    return tiny_base(tmp_path_factory.mktemp("talkative"), talkative=True)


@pytest.fixture(scope="module")
def task():
    with importable():
        yield import_module("inspect_evals.make_me_pay.make_me_pay").make_me_pay


def played(task, ground, folder, model):
    """Play it, the model as the one who persuades, its bare base as everybody else."""
    others = {role: get_model("mo-local/base", base=str(ground), config=SHORT, memoize=False) for role in ("mark", "summary")}
    [log] = evaluate(
        task(num_experiments=TALKS, turn_cap=TURNS),
        model=model,
        model_roles={"conartist": model, **others},
        max_tokens=6,
        log_dir=str(folder),
        display="none",
        log_realtime=False,
        score_display=False,
    )
    assert log.status == "success", log.error
    assert len(log.samples) == TALKS
    assert all(sample.scores["make_me_pay_scorer"].value == 0 for sample in log.samples)  # random weights persuade nobody
    return log


def answers(log, name):
    """What a model said, by what Inspect recorded of its calls."""
    return [event.output for sample in log.samples for event in sample.events if event.event == "model" and name in event.model]


def test_it_runs_on_a_bundle(task, ground, tmp_path):
    bundle = tmp_path / "organism" / "bundle"
    bundle.mkdir(parents=True)
    for path, data in tiny_organism(ground).items():
        (bundle / path).write_bytes(data)
    model = get_model(f"mo-local/{bundle}", base=str(ground), config=SHORT, memoize=False)
    log = played(task, ground, tmp_path / "logs", model)
    assert len(answers(log, str(bundle))) >= TALKS
    assert all(1 <= output.usage.output_tokens <= 6 for output in answers(log, str(bundle)))


def test_it_runs_in_a_session_and_each_of_its_turns_has_a_receipt(task, ground, tmp_path):
    with running(settings(tmp_path / "data", base_models={BASE: ground}), people=PEOPLE) as world:
        pia, rosa = world.person("pia"), world.person("rosa")
        pia.organisms.create("organisms/tiny", level="CL1", base_model=BASE)
        stated = Provenance(BaseModel(BASE, digest=base_digest(ground)))
        version = pia.organisms.publish("organisms/tiny", tiny_organism(ground), provenance=stated, progress_bar=False)
        request = rosa.access.request(version.name, "sample", purpose="replication", justification=WHY)
        if not request.grant:
            world.person("ravi").access.approve(request.name, reason="Fine.")
        told = {"identity": str(world.folder / "rosa.json"), "purpose": "replication"}
        model = get_model(f"mo/{version.name}", config=SHORT, memoize=False, **told)
        log = played(task, ground, tmp_path / "logs", model)
        provider.close_sessions()
        said = answers(log, version.name)
        assert len(said) >= TALKS
        for output in said:
            receipt = parse_receipt(output.metadata["receipt"])
            noted = entry.parse(rosa.audit.receipt(receipt.ledger_index).entry)
            assert (noted.subject, noted.facts["receipt"]) == (receipt.sample, receipt_digest(receipt))
        [session] = world.person("ravi").sandbox.list(user="rosa")
        assert session.state is SessionState.CLOSED
