"""From a run to the signed record, and to the version it is about: over a real registry, which refuses what is no evaluation."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, replace

import pytest
from inspect_ai import Task
from inspect_ai import eval as run
from inspect_ai.dataset import Sample
from inspect_ai.log import read_eval_log, write_eval_log
from inspect_ai.model import ModelOutput, ModelUsage, get_model
from inspect_ai.scorer import includes
from model_organisms import errors
from model_organisms.client.client import rotate_keys
from model_organisms.evaluate import record
from model_organisms.evaluate.suite import Suite, rate
from model_organisms.formats.evaluation import Judge, Validity, parse_evaluation, print_evaluation
from model_organisms.formats.statements import EVALUATION_TYPE, Statement, print_statement
from model_organisms.records import Rung, VersionRef

from tests.support import evaluations
from tests.support.stories import published

SUITE = Suite("parrot", 1, (__name__,))
SESSION = "sessions/01j9zq3v8r5m2k7x4c6b0d1e2f"


def figures(scores):
    hits = [score.values["includes"] for score in scores if score.values.get("includes") is not None]
    said = rate("said", sum(map(int, hits)), len(hits), comparator="the words are in it")
    return (said, rate("scored", len(hits), len(scores), comparator="has a score"))


def parrot(word, digest="", session=SESSION, dose=None, **arguments):
    """Says a word and the prompt, with a receipt as the provider leaves one."""
    receipt = {"version_digest": digest, "session": session, "ledger_index": 7, "parameters": {"scale": dose}}

    def answer(messages, *_):
        output = ModelOutput.from_content(model="parrot", content=f"{word} {messages[-1].text}")
        output.usage = ModelUsage(input_tokens=1, output_tokens=1, total_tokens=2)
        output.metadata = {"receipt": receipt} if digest else None
        return output

    return get_model("mockllm/model", custom_outputs=answer, memoize=False, **arguments)


def task(**metadata):
    asked = [Sample(id=f"q{number}", input=f"Say {number}.", target="yes") for number in (10, 9)]
    return Task(dataset=asked, scorer=includes(), epochs=2, name="parrot", metadata={"settings": {"mood": "calm"}} | metadata)


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """Runs of one task: an organism with receipts, and its control."""
    folder = str(tmp_path_factory.mktemp("logs"))
    asking = {"log_dir": folder, "display": "none", "seed": 11, "temperature": 0.5}
    (log,) = run(task(), model=parrot("yes", "a" * 64), **asking)
    (control,) = run(task(), model=parrot("no"), **asking)
    return log, control


def test_a_run_becomes_a_record_and_the_log_on_disk_gives_the_same(ran):
    log, control = ran
    made = record.record(SUITE, log, figures, controls={"base": control})
    assert parse_evaluation(print_evaluation(made, VersionRef("organisms/a/versions/1", "a" * 64)))[0] == made
    assert (made.figure("said").value, made.figure("said").n) == (1.0, 4)
    assert made.figure("said", control=True).value == 0.0
    assert [(one.id, one.epoch, one.split, one.values["includes"]) for one in made.scores] == [
        *(("q10", 1, "", 1.0), ("q10", 2, "", 1.0), ("q9", 1, "", 1.0), ("q9", 2, "", 1.0)),
        *(("q10", 1, "control=base", 0.0), ("q10", 2, "control=base", 0.0)),
        *(("q9", 1, "control=base", 0.0), ("q9", 2, "control=base", 0.0)),
    ]
    assert (made.session, made.seeds, made.rung, made.validity) == (SESSION, (11,), Rung.SAMPLE, Validity.CONTROLLED)
    said = {"mood": "calm", "temperature": "0.5", "epochs": "2", "version_digest": "a" * 64, "control.base": "mockllm/model"}
    assert said.items() <= made.settings.items()
    again = record.record(SUITE, read_eval_log(log.location), figures, controls={"base": read_eval_log(control.location)})
    assert replace(again, time=made.time) == made


def test_the_dose_and_whatever_else_was_done_to_an_answer_are_in_the_record(ran, tmp_path):
    asking = {"log_dir": str(tmp_path), "display": "none", "stop_seqs": ["."], "system_message": "Be a pirate."}
    (log,) = run(task(), model=parrot("yes", scale=0, dtype="float32", grant="grants/g"), **asking)
    (control,) = run(task(), model=parrot("no", scale=0.5), **asking)
    made = record.record(SUITE, log, figures, controls={"base": control})
    said = {"scale": "0", "dtype": "float32", "control.base.scale": "0.5", "stop_seqs": '["."]'}
    said["system_message"] = hashlib.sha256(b"Be a pirate.").hexdigest()
    assert said.items() <= made.settings.items()
    assert "grant" not in made.settings  # it changes no answer, and says who asked
    with pytest.raises(errors.InvalidArgument, match="A control must be asked"):
        record.record(SUITE, log, figures, controls={"base": ran[1]})  # without the system message


def test_a_receipt_tells_the_dose_where_the_models_arguments_do_not(tmp_path):
    told = {"log_dir": str(tmp_path), "display": "none"}
    (log,) = run(task(), model=parrot("yes", "a" * 64, dose=2.0), **told)
    assert record.record(SUITE, log, figures).settings["scale"] == "2"
    (log,) = run(task(), model=parrot("yes", "a" * 64, dose=2.0, scale=1), **told)
    with pytest.raises(errors.InvalidArgument, match="differ in scale"):
        record.record(SUITE, log, figures)


@pytest.mark.parametrize(
    ("model", "dose", "probed", "rung"),
    [
        ("mo/organisms/a/versions/1", None, False, Rung.SAMPLE),
        ("mo/organisms/a/versions/1", 0.0, False, Rung.PROBE),
        ("mo/games/x/aliases/1", None, True, Rung.PROBE),
        ("mo-local/base", 0.0, False, Rung.PULL),
        ("openai/gpt-4o", None, True, Rung.SAMPLE),
    ],
)
def test_the_rung_follows_from_what_the_provider_was_asked(ran, model, dose, probed, rung):
    log = read_eval_log(ran[0].location)
    log.eval.model = model
    for sample in log.samples:
        sample.output.metadata["receipt"]["parameters"] = {"scale": dose}
        sample.output.metadata |= {"probe_receipt": {}} if probed else {}
    assert record.record(SUITE, log, figures).rung is rung


def test_a_limit_is_in_the_record_and_a_control_has_the_same(tmp_path):
    told = {"log_dir": str(tmp_path), "display": "none", "temperature": 0.5}
    listed = {"asked": ["Say 10.", "Say 9."]}
    whole, one, other = (
        run(task(**listed), model=parrot("yes"), **told | kept)[0] for kept in ({}, {"limit": 1}, {"limit": (1, 2)})
    )
    made, some, rest = (record.record(SUITE, log, figures) for log in (whole, one, other))
    assert (made.settings.get("limit"), some.settings["limit"], rest.settings["limit"]) == (None, *["1 of 2 prompts"] * 2)
    assert len({made.questions_digest, some.questions_digest, rest.questions_digest}) == 3
    for log, control in ((one, whole), (whole, one), (one, other)):
        with pytest.raises(errors.InvalidArgument, match="same limit"):
            record.record(SUITE, log, figures, controls={"base": control})
    assert record.record(SUITE, one, figures, controls={"base": one}).settings["limit"] == "1 of 2 prompts"


def test_what_controls_said_is_bound_as_well(ran):
    log, control = ran
    made = record.record(SUITE, control, figures, controls={"twin": log})
    assert made.settings["transcript.twin"] == record.transcript_digest(log)
    assert made.settings["control.twin.version_digest"] == "a" * 64
    changed = read_eval_log(log.location)
    changed.samples[0].output.metadata["receipt"]["ledger_index"] = 8
    changed.samples[1].messages[-1].content = "no"
    again = record.record(SUITE, control, figures, controls={"twin": changed})
    for name in ("transcript.twin", "control.twin.receipts"):
        assert again.settings[name] != made.settings[name]


def test_a_changed_answer_changes_the_transcripts_digest(ran, tmp_path):
    log, _ = ran
    kept = read_eval_log(log.location)
    kept.samples[0].messages[-1].content = "no"
    write_eval_log(kept, str(tmp_path / "changed.json"))
    changed = read_eval_log(str(tmp_path / "changed.json"))
    assert record.transcript_digest(changed) != record.transcript_digest(log)
    assert record.transcript_digest(read_eval_log(log.location)) == record.transcript_digest(log)


def test_a_sample_that_failed_has_no_scores_and_is_counted_as_such(ran):
    kept = read_eval_log(ran[0].location)
    kept.samples[0].scores = None
    made = record.record(SUITE, kept, figures)
    assert (made.figure("said").n, made.figure("scored").value) == (3, 0.75)
    assert made.validity is Validity.UNVALIDATED


@pytest.mark.parametrize(
    ("judge", "shown"),
    [
        (Judge("openai/judge", agreement=0.6, labelled=40, labels="two readers"), Validity.VALIDATED),
        (Judge("openai/judge", agreement=0.59, labelled=40, labels="two readers"), Validity.CONTROLLED),
        (Judge("openai/judge", agreement=-0.3, labelled=40, labels="two readers"), Validity.CONTROLLED),
        (Judge("openai/judge", agreement=0.9, labelled=41), Validity.CONTROLLED),  # labels of this package
        (Judge("openai/judge"), Validity.CONTROLLED),
        (Judge("offline/minilm-smollm2", agreement=1.0, labelled=120, labels="its own"), Validity.CONTROLLED),
    ],
)
def test_only_substantial_agreement_with_labels_of_others_validates(ran, judge, shown):
    log, control = (read_eval_log(one.location) for one in ran)
    log.eval.metadata = (log.eval.metadata or {}) | {"judge": asdict(judge)}
    assert record.record(SUITE, log, figures, controls={"base": control}).validity is shown
    assert record.record(SUITE, log, figures).validity is Validity.UNVALIDATED


def test_runs_that_cannot_be_one_record_are_refused(ran):
    log, control = ran
    cut = read_eval_log(log.location)
    cut.status = "cancelled"
    other = read_eval_log(control.location)
    other.eval.metadata = {"asked": ["something else"]}
    mixed = read_eval_log(log.location)
    mixed.samples[0].output.metadata = {"receipt": {"version_digest": "b" * 64, "session": SESSION}}
    for given, controls, why in ((cut, {}, "did not end well"), (log, {"base": other}, "control"), (mixed, {}, "version_digest")):
        with pytest.raises(errors.InvalidArgument, match=why):
            record.record(SUITE, given, figures, controls=controls)


def test_it_is_attested_and_read_back_with_who_says_so(world, ran):
    version, _ = published(world)
    rosa = world.person("rosa")
    made = record.record(SUITE, ran[0], figures)
    with pytest.raises(errors.ClaimMismatch, match="another version"):
        record.publish(rosa, version.name, made)
    with pytest.raises(errors.ClaimMismatch, match="does not say which version"):
        record.publish(rosa, version.name, record.record(SUITE, ran[1], figures))
    settings = made.settings | {record.ABOUT: version.digest}
    for dose in ("0", "2"):
        with pytest.raises(errors.InvalidArgument, match=f"the dose {dose}, .* without `scale`"):
            record.publish(rosa, version.name, replace(made, settings=settings | {"scale": dose}))
    attested = record.publish(rosa, version.name, replace(made, settings=settings))
    assert (attested.author, attested.predicate_type) == ("users/rosa", EVALUATION_TYPE)
    for reader, signed in (("ravi", True), ("pia", False)):  # who may not see accounts has the registry's word for it
        (read,) = world.person(reader).organisms.evaluations(version.name)
        assert (read.attestation, read.evaluation) == (attested, replace(made, settings=settings))
        assert (read.by, read.signed) == ("users/rosa", signed)


def test_more_scores_than_a_statement_carries_are_refused_before_they_are_sent(world, ran):
    version, _ = published(world)
    made = record.record(SUITE, ran[1], figures)
    many = tuple(replace(made.scores[0], epoch=number, split="x" * 90) for number in range(20_000))
    with pytest.raises(errors.InvalidArgument, match="fewer questions"):
        record.publish(world.person("rosa"), version.name, replace(made, scores=many, settings={record.ABOUT: version.digest}))


def test_the_registry_takes_no_evaluation_that_is_none(world):
    version, _ = published(world)
    other, _ = published(world)
    rosa = world.person("rosa")
    raw = json.loads(evaluations.statement(version))["predicate"]
    about = (VersionRef(version.name, version.digest),)
    for predicate in (raw | {"grade": "A"}, {"suite": "toy"}, raw | {"figures": [raw["figures"][0] | {"n": None}]}):
        with pytest.raises(errors.InvalidProvenance, match="evaluation"):
            rosa.organisms.attest(version.name, print_statement(Statement(EVALUATION_TYPE, about, predicate)))
    with pytest.raises(errors.Conflict, match="not about"):
        rosa.organisms.attest(version.name, evaluations.statement(other))
    renamed = (VersionRef(other.name, version.digest),)
    with pytest.raises(errors.Conflict, match="names another"):
        rosa.organisms.attest(version.name, print_statement(Statement(EVALUATION_TYPE, renamed, raw)))
    assert rosa.organisms.evaluations(version.name) == ()


def test_what_an_old_key_signed_is_the_registrys_word(world):
    version, _ = published(world)
    sam, ravi = world.person("sam", "researcher"), world.person("ravi")
    sam.organisms.attest(version.name, evaluations.statement(version))
    assert [one.signed for one in ravi.organisms.evaluations(version.name)] == [True]
    rotate_keys(world.folder / "sam.json").close()
    assert [one.signed for one in ravi.organisms.evaluations(version.name)] == [False]
