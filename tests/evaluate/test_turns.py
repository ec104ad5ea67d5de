"""What the comparison with straight paths is worth: a straight one that wobbles is no turn; a right angle is, if it is sharp."""

from __future__ import annotations

import math

import numpy as np
import pytest
from model_organisms.evaluate import phases
from model_organisms.evaluate.trajectory import compact, local_cosines, straight


def wobbling(count, ratio, rng, *, angle=0.0, width=0, size=576, share=0.0):
    """Make a path whose increments wobble, `ratio` times as long as they drift, and turn over `width`: shape [count, size]."""
    wobble = rng.normal(size=(count - 1, size)) / math.sqrt(size)
    for at in range(1, count - 1):
        wobble[at] = share * wobble[at - 1] + math.sqrt(1 - share**2) * wobble[at]
    moves = ratio * wobble
    turned = angle * ((np.arange(count - 1) - count // 2 + width / 2 + 0.5) / max(width, 1)).clip(0, 1)
    if not width:
        turned = angle * (np.arange(count - 1) >= count // 2)
    moves[:, 0] += np.cos(turned)
    moves[:, 1] += np.sin(turned)
    return np.concatenate([np.zeros((1, size)), np.cumsum(moves, axis=0)])


def turns(count, ratio, *, runs=12, ks=phases.KS, **said):
    """Count by k how many paths turn more than all but 5 of 100 straight ones, of `runs`."""
    found = dict.fromkeys(ks, 0)
    for run in range(runs):
        rng = np.random.default_rng(run)
        path = wobbling(count, ratio, rng, **said)
        drawn = list(straight(compact(path), rng, 39))
        for k in found:
            mine, *others = (max(local_cosines(one, range(5, 5 * count + 5, 5), k).values()) for one in (path, *drawn))
            found[k] += 1 + sum(one >= mine for one in others) <= 0.05 * (1 + len(others))
    return found


@pytest.mark.parametrize(("count", "ratio", "share"), [(12, 2, 0), (12, 3, 0), (41, 1.5, 0), (41, 2, 0), (41, 1, 0.3)])
def test_a_straight_path_is_rarely_called_a_turn_however_much_it_wobbles(count, ratio, share):
    found = turns(count, ratio, share=share)
    assert max(found.values()) <= 3, found  # 0.6 of 12 are due; four or more come in 3 of 1,000 such tests


@pytest.mark.parametrize(("count", "ratio"), [(12, 1), (41, 2)])
def test_a_right_angle_is_found_in_as_much_wobble(count, ratio):
    found = turns(count, ratio, angle=math.pi / 2, runs=6)
    assert min(found[10], found[15]) >= 5, found


@pytest.mark.parametrize("width", [10, 20])
def test_a_gradual_right_angle_is_found_by_legs_of_half_its_length_and_missed_by_those_of_one_checkpoint(width):
    found = turns(41, 0.5, angle=math.pi / 2, width=width, runs=6, ks=(5, 50))
    assert found == {5: 0, 50: 6}  # docs/guides/evaluating.md says so


def test_long_legs_call_straight_paths_no_turns():
    assert turns(41, 2, ks=(50,))[50] <= 3
