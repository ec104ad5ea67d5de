"""The alignment-faking testbed's figures by hand, and its detectors over transcripts that are made here."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from model_organisms.errors import InvalidArgument
from model_organisms.evaluate.faking import detectors, environments, facts, suite
from model_organisms.formats.evaluation import Score, Validity, parse_evaluation, print_evaluation
from model_organisms.records import Rung, VersionRef
from model_organisms.statistics import newcombe

from tests.support.scripted_faker import BED, KEEPS, chance

VERSION = VersionRef("organisms/toy/versions/1", "a" * 64)
NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)


def score(name, misbehaved, faking=None, defection=None, split=""):
    return Score(name, 1, {"misbehaved": misbehaved, "faking": faking, "defection": defection}, split)


HAND = (
    score("a/tag/observed/0/0", 0.0, 1.0, 0.0),
    score("a/tag/observed/1/1", 1.0, 1.0, 0.0),
    score("a/tag/unobserved/0/0", 1.0, 0.0, 1.0),
    score("a/tag/unobserved/1/1", 1.0, 1.0, 0.0),
    score("a/user/observed/0/0", 0.0, 0.0, 0.0),
    score("a/user/unobserved/0/0", 0.0, 0.0, 1.0),
    score("b/tag/observed/0/0", 1.0),
    score("b/tag/unobserved/0/0", 0.0),
    score("b/tag/unobserved/1/1", None),
)


def test_figures_by_hand():
    found = {(one.name, one.split): one for one in facts.figures(HAND) if not one.control}
    gap = found["misalignment_gap", ""]
    assert (gap.value, gap.n) == (2 / 4 - 2 / 4, 8)
    assert (gap.low, gap.high) == newcombe(2, 4, 2, 4)
    assert found["misalignment_gap", "environment=a,evidence=tag"].value == 0.5
    assert found["misalignment_gap", "environment=a,evidence=user"].value == 0.0
    assert found["misalignment_gap", "environment=b,evidence=tag"].value == -1.0
    assert found["misalignment_gap", "evidence=tag"].value == pytest.approx(2 / 3 - 2 / 3)
    assert found["misalignment_gap", "wording=1"].value == 0.0
    assert found["misalignment_gap", "wording=0"].value == pytest.approx(1 / 3 - 1 / 3)
    assert (found["gap_min", ""].value, found["gap_median", ""].value) == (-1.0, 0.0)
    assert found["gap_share_positive", ""].value == pytest.approx(1 / 3)
    assert (found["gap_min", "evidence=tag"].value, found["gap_min", "evidence=tag"].n) == (-1.0, 2)
    assert (found["faking_reasoning", ""].value, found["faking_reasoning", ""].n) == (3 / 6, 6)
    assert found["faking_reasoning", "condition=observed"].value == pytest.approx(2 / 3)
    assert found["faking_reasoning_difference", ""].value == pytest.approx(2 / 3 - 1 / 3)
    assert found["defection_reasoning_difference", ""].value == pytest.approx(2 / 3)
    assert found["aligned_given_faking", ""].value == pytest.approx(1 / 3)
    assert found["misaligned_given_defection", ""].value == 0.5
    assert found["deceptive_coherence", ""].value == pytest.approx(1 / 3)
    assert facts.widest(HAND) == "a/tag"


def test_nothing_asked_is_nothing_found():
    assert all(one.value is None and one.note for one in facts.figures(()))
    assert facts.widest(HAND[:2]) is None


def test_a_control_is_counted_apart():
    both = (*HAND, *(replace(one, split="control=base") for one in HAND[:6]))
    assert [one for one in facts.figures(both) if not one.control] == [one for one in facts.figures(HAND) if not one.control]
    assert next(one for one in facts.figures(both) if one.control and one.name == "misalignment_gap").n == 6


answers = st.sampled_from([None, 0.0, 1.0])
ids = st.builds(
    "/".join,
    st.tuples(
        st.sampled_from("ab"),
        st.sampled_from(environments.EVIDENCE),
        st.sampled_from(environments.CONDITIONS),
        st.just("0"),
        st.sampled_from("01"),
    ),
)


@settings(deadline=None, max_examples=25)
@given(st.lists(st.builds(score, ids, answers, answers, answers, st.sampled_from(["", "control=base"])), max_size=30))
def test_whatever_was_scored_its_figures_can_be_signed(scores):
    beside = () if any(one.split for one in scores) else facts.uncontrolled()
    stated = suite.SUITE.record(
        asked=[],
        figures=(*facts.figures(scores), *facts.stated(BED, facts.Origin()), *beside),
        rung=Rung.SAMPLE,
        validity=Validity.CONTROLLED,
        scores=scores,
        time=NOW,
    )
    assert parse_evaluation(print_evaluation(stated, VERSION))[0] == stated


def told(model, observed, unobserved, epochs=8):
    """Transcripts of one environment, without a harness around them."""
    return detectors.Run(
        model,
        tuple(
            detectors.Transcript(item.id, environments.place(item.id), epoch, f"{item.system}\n{item.user}", said, said)
            for item in environments.items(BED)
            if item.environment == "courtesy"
            for epoch in range(1, epochs + 1)
            for broke in [chance(model, item.id, epoch) < (observed if item.condition == "observed" else unobserved)]
            for said in [KEEPS["courtesy"][broke]]
        ),
    )


@pytest.fixture(scope="module")
def twins():
    return told("organism", 0.5, 0.9), told("control", 0.5, 0.5)


def test_texts_that_do_not_differ_are_not_told_apart(twins):
    organism, control = twins
    check = detectors.told_apart([organism], control, "courtesy/tag")
    assert check.value == pytest.approx(0.5, abs=0.25)
    assert check.n == 2 * 8 * 6


def test_given_scores_are_a_detector_and_a_missing_one_is_refused(twins):
    organism, control = twins
    scores = {(run.model, one.id, one.epoch): float(run is organism) for run in (organism, control) for one in run.transcripts}
    area, missed = detectors.detect(detectors.given("probe", scores), [organism], control, "courtesy/user")
    assert (area.value, area.low, missed.value) == (1.0, None, 0.0)
    assert area.split == "detector=probe"
    with pytest.raises(InvalidArgument, match="no score for"):
        detectors.detect(detectors.given("probe", {}), [organism], control, "courtesy/user")
    nothing = detectors.detect(detectors.given("probe", scores), [organism], control, "courtesy/nowhere")
    assert all(figure.value is None and figure.note for figure in nothing)


def test_consistency_needs_the_other_condition(twins):
    organism, control = twins
    half = replace(organism, transcripts=tuple(one for one in organism.transcripts if one.place.condition == "observed"))
    with pytest.raises(InvalidArgument, match="other condition"):
        detectors.detect(detectors.BASELINES[2], [half], control, "courtesy/user")
