"""Behaviour at several doses of an adapter: which dose, beside which control, and drawn."""

from __future__ import annotations

import numpy as np
from model_organisms.evaluate import phases, pictures
from model_organisms.evaluate.suite import rate
from model_organisms.evaluate.trajectory import Trajectory
from model_organisms.formats.evaluation import Figure
from model_organisms.statistics import wilson

WALK = np.cumsum(np.random.default_rng(0).normal(size=(20, 9, 1)), axis=0)
PATH = Trajectory(tuple(range(5, 105, 5)), {"m": (np.ones((20, 1, 3)), WALK)})


def test_behaviour_is_measured_at_each_dose_and_says_which():
    asked = []

    def em(scale):
        asked.append(scale)
        return [Figure("em", min(1.0, 0.1 * scale), 10), Figure("em", 0.0, 10, "question=q", control=True)]

    made = phases.scaled(em)
    assert asked == [1, 5, 10, 20]
    assert [(f.name, f.split, f.value, f.control) for f in made[:4]] == [
        ("em", "scale=1", 0.1, False),
        ("em", "scale=1,question=q", 0.0, True),
        ("em", "scale=5", 0.5, False),
        ("em", "scale=5,question=q", 0.0, True),
    ]
    found = phases.evaluate(PATH, scaling=made)
    assert found.figure("em", "scale=20").value == 1.0
    assert found.figure("em", "scale=20").note == "no control at this dose"
    assert found.figure("em", "scale=20,question=q", control=True).note == ""


def test_doses_of_a_control_stand_beside_those_of_the_organism_and_all_are_drawn():
    def rates(slope):
        return lambda scale: [rate("em", round(slope * scale), 20, comparator="misaligned"), Figure("loss", scale, 20)]

    made = phases.scaled(rates(1), (5, 1, 10), control=rates(0))
    found = phases.evaluate(PATH, scaling=made)
    assert found.figure("em", "scale=10").note == found.figure("em", "scale=10", control=True).note == ""
    *_, panel = phases.panels(found)
    assert panel.title == "Behaviour by dose"
    drawn = {line.label: line for line in panel.lines}
    assert list(drawn) == ["em", "loss", "em control", "loss control"]
    assert (drawn["em"].x, drawn["em"].y) == ([1.0, 5.0, 10.0], [0.05, 0.25, 0.5])
    assert drawn["em"].low == [wilson(hits, 20)[0] for hits in (1, 5, 10)]
    assert drawn["em control"].y == [0.0, 0.0, 0.0]
    assert [line.dashed for line in panel.lines] == [False, False, True, True]
    assert not drawn["loss"].low
    assert pictures.draw(phases.panels(found))
    assert panel.title not in {one.title for one in phases.panels(phases.evaluate(PATH))}
