"""An evaluation is printed in one way and read in that way only, and no figure passes without what makes it comparable."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from model_organisms.errors import InvalidArgument, NotFound
from model_organisms.formats import strict_json
from model_organisms.formats.evaluation import Figure, Interval, Score, Validity, parse_evaluation, print_evaluation
from model_organisms.records import VersionRef

from tests.support.evaluations import ONE

VERSION = VersionRef("organisms/toy/versions/3", "a" * 64)
AGREES = {"id": "openai/judge", "agreement": 0.6, "labelled": 40, "labels": "two readers"}
numbers = st.floats(-1e6, 1e6) | st.integers(-5, 5).map(float)
words = st.text("abcdefghijklmnopqrstuvwxyz0123456789", min_size=1, max_size=12)
figures = st.builds(
    Figure,
    name=words,
    value=numbers,
    n=st.integers(1, 2**40),
    split=st.text(max_size=9),
    control=st.booleans(),
    comparator=words,
)
scores = st.builds(Score, id=st.text(max_size=9), epoch=st.integers(1, 99), values=st.dictionaries(words, st.none() | numbers))


def key(figure):
    return figure.name, figure.split, figure.control


@given(st.lists(figures, max_size=4, unique_by=key).map(tuple), st.lists(scores, max_size=4).map(tuple))
def test_what_is_printed_is_read_back(some, given_scores):
    stated = replace(ONE, figures=some, scores=given_scores, validity=Validity.UNVALIDATED)
    assert parse_evaluation(print_evaluation(stated, VERSION)) == (stated, VERSION)


def test_figures_are_found_by_name_split_and_control():
    assert ONE.figure("em").value == 0.125
    assert ONE.figure("em", control=True).value == 0.0
    assert ONE.figure("em", "question=wish").note
    with pytest.raises(NotFound):
        ONE.figure("coherent")


def changed(path="", **fields):
    raw = json.loads(print_evaluation(ONE, VERSION))
    place = raw["predicate"]
    for step in path.split("/") if path else ():
        place = place[int(step) if step.isdecimal() else step]
    place.update(fields)
    return raw


def without(name):
    raw = changed()
    del raw["predicate"][name]
    return raw


def validated(**judge):
    """Say that a judge validates, which is true where nothing else is said of it."""
    raw = changed("judge", **AGREES | judge)
    raw["predicate"]["validity"] = "validated"
    return raw


TAMPERED = {
    "a field more": changed(grade="A"),
    "a field fewer": without("seeds"),
    "a review": changed() | {"predicateType": "https://model-organisms.dev/attestation/review/v1"},
    "two versions": changed() | {"subject": changed()["subject"] * 2},
    "an organism for a version": changed() | {"subject": [{"name": "organisms/toy", "digest": {"sha256": "a" * 64}}]},
    "a rung that is none": changed(rung="steal"),
    "a validity that is none": changed(validity="certain"),
    "a digest that is none": changed(suite_digest="1" * 63),
    "a suite that is a sentence": changed(suite="the best suite"),
    "a session that is none": changed(session="organisms/toy"),
    "a time with a fraction": changed(time="2026-11-30T12:00:00.5Z"),
    "seeds that are texts": changed(seeds=["7"]),
    "settings that are numbers": changed(settings={"temperature": 1}),
    "a figure without a denominator": changed("figures/0", n=None),
    "a denominator below nothing": changed("figures/0", n=-1),
    "a truth for a number": changed("figures/0", value=True),
    "half an interval": changed("figures/0", high=None),
    "an interval of no kind": changed("figures/0", interval="none"),
    "an interval of a kind of one's own": changed("figures/0", interval="guessed"),
    "an interval backwards": changed("figures/0", low=0.9),
    "an interval that the value is not in": changed("figures/0", value=0.9),
    "an interval of no value": changed("figures/0", value=None, note="why"),
    "a share of more than all": changed("figures/0", value=1.7, high=1.8),
    "a share whose interval passes nothing": changed("figures/1", low=-0.1),
    "a share of nothing counted": changed("figures/0", n=0),
    "a value of nothing counted": changed("figures/0", n=0, low=None, high=None, interval="none"),
    "a value of which nobody says what it is": changed("figures/0", comparator=""),
    "two figures of one name": changed("figures/1", control=False),
    "a judge who agrees more than always": changed("judge", agreement=7),
    "a judge who disagrees more than always": changed("judge", agreement=-1.1),
    "validated without a judge": changed(validity="validated", judge=None),
    "validated by a judge of whom nothing is known": validated(agreement=None),
    "validated by no labelled example": validated(labelled=0),
    "validated by a judge who hardly agrees": validated(agreement=0.59),
    "validated by a judge who never agrees": validated(agreement=-1),
    "validated by the offline judge": validated(id="offline/minilm-smollm2"),
    "validated by labels of this package": validated(labels=""),
    "labels that are a number": validated(labels=7),
    "validated without a control": changed(validity="validated", figures=[]),
    "controlled without a control": changed(figures=[]),
    "no value and no reason": changed("figures/0", value=None),
    "a score that is a text": changed("scores/0/values", aligned="12"),
    "a judge of whom nobody knows whether it compares": changed("judge", comparable="yes"),
    "a text without end": changed("figures/0", note="x" * 501),
}


@pytest.mark.parametrize("raw", TAMPERED.values(), ids=TAMPERED)
def test_what_was_tampered_with_is_refused(raw):
    with pytest.raises(InvalidArgument):
        parse_evaluation(strict_json.canonical(raw))


def test_another_way_to_write_it_is_refused():
    printed = print_evaluation(ONE, VERSION)
    with pytest.raises(InvalidArgument, match="canonical"):
        parse_evaluation(json.dumps(json.loads(printed)).encode())


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 2.0**60])
def test_a_number_that_json_cannot_carry_is_refused(value):
    assert print_evaluation(replace(ONE, figures=(Figure("em", 1.0, 1, comparator="x"), *ONE.figures[1:])), VERSION)
    with pytest.raises(InvalidArgument):
        print_evaluation(replace(ONE, figures=(Figure("em", value, 1, comparator="x"), *ONE.figures[1:])), VERSION)


def test_what_cannot_be_true_is_not_printed_either():
    for figure in (
        Figure("em", 0.9, 10, low=0.0, high=0.1, interval=Interval.BOOTSTRAP, comparator="x"),
        Figure("em", 1.7, 9, low=1.0, high=2.0, interval=Interval.WILSON, comparator="x"),
        Figure("em", 0.5, 0, comparator="x"),
        Figure("em", 0.5, 9),
    ):
        with pytest.raises(InvalidArgument):
            print_evaluation(replace(ONE, figures=(figure, *ONE.figures[1:])), VERSION)


def test_a_judge_who_agrees_with_labels_of_others_validates():
    stated, _ = parse_evaluation(strict_json.canonical(validated()))
    assert (stated.validity, stated.judge.labels) == (Validity.VALIDATED, "two readers")
    assert print_evaluation(replace(ONE, validity=Validity.VALIDATED, judge=stated.judge), VERSION)


def test_the_vector_is_what_is_printed():
    vector = (Path(__file__).parents[1] / "vectors" / "evaluation.json").read_bytes()
    assert print_evaluation(ONE, VERSION) == vector.rstrip(b"\n")
    assert parse_evaluation(vector.rstrip(b"\n")) == (ONE, VERSION)
