"""The path of an adapter: turns of known place and angle, against an independent search for the bend, and a real series."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from model_organisms.errors import InvalidArgument
from model_organisms.evaluate import phases, pictures
from model_organisms.evaluate.trajectory import (
    CODE_THRESHOLD,
    PAPER_THRESHOLD,
    Convention,
    Trajectory,
    comp_scores,
    compact,
    furthest,
    local_cosines,
    principal,
    straight,
)
from model_organisms.formats.evaluation import parse_evaluation, print_evaluation
from model_organisms.formats.provenance import TrainingLog
from model_organisms.records import VersionRef

SPACING = 5
PNG = b"\x89PNG\r\n\x1a\n"


def bent(turn, count, angle, *, noise=0.0, size=40, seed=0):
    """Make a path of unit moves that turns by `angle` (radians) at checkpoint `turn`: shape [count, size]."""
    rng = np.random.default_rng(seed)
    frame, _ = np.linalg.qr(rng.normal(size=(size, 2)))
    first, then = frame[:, 0], math.cos(angle) * frame[:, 0] + math.sin(angle) * frame[:, 1]
    moves = np.stack([first if at < turn else then for at in range(count - 1)])
    path = np.concatenate([np.zeros((1, size)), np.cumsum(moves, axis=0)])
    return path + noise * rng.normal(size=path.shape) / math.sqrt(size)


def steps_of(path):
    return tuple(SPACING * at for at in range(1, len(path) + 1))


def break_point(path, steps):
    """Find the bend as nobody here does: fit a line before and a line after each checkpoint, and take the best pair."""
    times = np.asarray(steps, float)

    def misfit(low, high):
        design = np.stack([np.ones(high - low), times[low:high]], axis=1)
        part = path[low:high]
        return ((part - design @ np.linalg.lstsq(design, part, rcond=None)[0]) ** 2).sum()

    return steps[min(range(2, len(path) - 2), key=lambda at: misfit(0, at + 1) + misfit(at, len(path)))]


def trajectory(path, steps=None):
    """Give B the path, of rank 1, and let A stand still."""
    steps = steps or steps_of(path)
    name = "base_model.model.model.layers.0.mlp.down_proj.lora_"
    still = np.ones((1, 3))
    return Trajectory.of(
        (step, {f"{name}A.weight": still, f"{name}B.weight": b[:, None]}) for step, b in zip(steps, path, strict=True)
    )


@pytest.mark.parametrize(("angle", "paper"), [(0.0, -1.0), (math.pi / 2, 0.0), (math.pi, 1.0), (math.pi / 3, -0.5)])
def test_straight_on_a_right_angle_and_a_reversal_have_the_signs_of_each_convention(angle, paper):
    path = bent(10, 21, angle)
    at = steps_of(path)[10]
    for k in (5, 10, 15):
        assert local_cosines(path, steps_of(path), k)[at] == pytest.approx(paper, abs=1e-9)
        other = local_cosines(path, steps_of(path), k, convention=Convention.STRAIGHT_POSITIVE)
        assert other[at] == pytest.approx(-paper, abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(
    count=st.integers(20, 40),
    turn=st.integers(6, 33),
    angle=st.floats(math.pi / 3, math.pi),
    k=st.sampled_from([1, 2, 3]),
    noise=st.floats(0, 0.1),
    seed=st.integers(0, 2**20),
    convention=st.sampled_from(Convention),
)
def test_a_known_turn_is_found_to_within_one_checkpoint_and_as_two_fitted_lines_find_it(
    *, count, turn, angle, k, noise, seed, convention
):
    assume(turn + 6 <= count)
    path = bent(turn, count, angle, noise=noise, seed=seed)
    steps = steps_of(path)
    step, value = furthest(local_cosines(path, steps, SPACING * k, convention=convention), convention)
    assert abs(step - steps[turn]) <= SPACING
    assert abs(step - break_point(path, steps)) <= SPACING
    assert convention.sign * value == pytest.approx(-math.cos(angle), abs=0.35)


def test_a_leg_reaches_training_steps_whatever_lies_between_checkpoints():
    path = bent(4, 9, math.pi / 2)
    steps = (1, 2, 3, 4, 5, 10, 15, 20, 25)
    assert set(local_cosines(path, steps, 5)) == {10, 15, 20}
    assert set(local_cosines(path, steps, 1)) == {2, 3, 4}
    assert local_cosines(path, steps, 7) == {}


def test_a_path_that_hardly_moves_has_no_turn_there():
    path = np.cumsum([[0.003, 0.0], [0.003, 0.0], [0.0, 0.003], [0.0, 0.003], [0.0, 1.0]], axis=0)
    assert set(local_cosines(path, (5, 10, 15, 20, 25), 5, threshold=PAPER_THRESHOLD)) == {20}
    assert set(local_cosines(path, (5, 10, 15, 20, 25), 5, threshold=CODE_THRESHOLD)) == {10, 15, 20}
    still = np.zeros((5, 2))
    assert local_cosines(still, (5, 10, 15, 20, 25), 5, threshold=0) == {}
    assert furthest({}, Convention.STRAIGHT_NEGATIVE) is None


def test_figures_say_where_it_turns_and_that_a_straight_path_does_not():
    path = bent(15, 31, math.pi / 2, noise=0.05)
    log = TrainingLog((5, 80, 120), (3.0, 2.0, 1.0), (1e-5,) * 3, (0.5, 2.5, 1.0))
    found = phases.evaluate(trajectory(path), log=log)
    for k in phases.KS:
        split = f"matrix=b,k={k}"
        assert abs(found.figure("peak_step", split).value - steps_of(path)[15]) <= SPACING
        assert found.figure("peak_step", split).note == ""
        assert found.figure("peak_cosine", split).value == pytest.approx(0.0, abs=0.15)
        assert found.figure("median_cosine", split).value < -0.97
        assert found.figure("chance", split).value == pytest.approx(1 / (1 + phases.DRAWS))
        assert found.figure("peak_cosine", split, control=True).value < -0.4
        assert found.figure("peak_step", f"matrix=a,k={k}").value is None  # A stands still
    assert found.figure("gradient_norm_peak_step").value == 80
    assert found.figure("gradient_norm_peak").value == 2.5
    shares = [found.figure(f"pc{at}_share", "matrix=b").value for at in (1, 2)]
    assert shares[0] > shares[1] > 0
    assert 0.98 < sum(shares) <= 1
    assert found.figure("pc1_share", "matrix=a").value is None
    assert found.settings["k_checkpoints"] == "1,2,3"
    version = VersionRef("organisms/toy/versions/1", "0" * 64)
    assert parse_evaluation(print_evaluation(found, version)) == (found, version)

    plain = phases.evaluate(trajectory(bent(15, 31, 0.0, noise=0.05)))
    assert [plain.figure("peak_step", f"matrix=b,k={k}").note for k in phases.KS] == [
        "no turn shown: straight paths with the same wobble turn as much"
    ] * 3
    assert plain.figure("gradient_norm_peak").value is None


def test_a_path_that_turns_most_where_the_series_begins_has_no_peak():
    angles = np.cumsum(1 / (1 + np.arange(24)))  # turns ever less
    path = np.cumsum(np.stack([np.cos(angles), np.sin(angles)], axis=1), axis=0)
    found = phases.evaluate(trajectory(path))
    assert found.figure("peak_step", "matrix=b,k=10").value == steps_of(path)[2]
    assert found.figure("peak_step", "matrix=b,k=10").note.startswith("no ")


def test_figures_count_again_what_scores_say_and_the_same_seed_gives_the_same():
    path = trajectory(bent(8, 20, 2.0, noise=0.2))
    for convention in Convention:
        found = phases.evaluate(path, convention=convention, seed=3)
        assert phases.figures(found.scores, convention=convention) == found.figures
        assert phases.measure(path, convention=convention, seed=3) == found.scores
    with pytest.raises(InvalidArgument, match="at least one training step"):
        phases.measure(path, ks=(0,))


def test_a_straight_path_of_the_same_wobble_is_straight_as_long_and_as_fast():
    path = bent(20, 41, math.pi / 2)
    (drawn,) = straight(path, np.random.default_rng(0))
    assert np.median(np.diff(drawn[:, 0])) == pytest.approx(1.0, abs=0.01)
    assert min(local_cosines(path, steps_of(path), 10).values()) == pytest.approx(-1)
    assert max(local_cosines(drawn, steps_of(path), 15).values()) < -0.7


def test_of_few_checkpoints_no_verdict_is_given():
    found = phases.evaluate(trajectory(bent(5, 11, math.pi / 2)))
    assert found.figure("peak_step", "matrix=b,k=10").note.startswith("no verdict: ")
    assert found.figure("peak_cosine", "matrix=b,k=10").value == pytest.approx(0, abs=1e-9)
    assert found.figure("chance", "matrix=b,k=10").value is None
    assert found.figure("chance", "matrix=b,k=10").note


@given(st.integers(0, 2**20), st.integers(3, 12), st.integers(1, 40))
def test_a_path_keeps_its_lengths_and_angles_in_fewer_dimensions(seed, count, size):
    path = np.random.default_rng(seed).normal(size=(count, size))
    small = compact(path)
    assert small.shape == (count, min(count, size))
    assert small @ small.T == pytest.approx(path @ path.T, abs=1e-9)


def test_a_long_log_is_thinned_and_keeps_its_peak():
    norms = [1.0] * 20_001
    norms[7_003] = 9.0
    steps = tuple(range(1, len(norms) + 1))
    found = phases.evaluate(
        trajectory(bent(8, 20, 2.0)), log=TrainingLog(steps, (1.0,) * len(steps), (1e-5,) * len(steps), tuple(norms))
    )
    assert found.figure("gradient_norm_peak_step").value == 7_004
    assert 4_000 < sum(score.split == "log" for score in found.scores) <= 5_001
    assert print_evaluation(found, VersionRef("organisms/toy/versions/1", "0" * 64))


def test_principal_components_are_those_of_the_path():
    plane = principal(np.array([[0.0, 0, 0], [3, 0, 0], [3, 4, 0], [6, 4, 0]]))
    assert plane.shape == (4, 2)
    assert np.linalg.norm(plane[0] - plane[3]) == pytest.approx(math.hypot(6, 4))  # a plane loses nothing of itself
    assert not principal(np.ones((4, 3))).any()
    assert principal(np.array([[0.0], [1.0], [2.0]]))[:, 1].tolist() == [0, 0, 0]


def test_comp_score_of_one_vector_is_its_cosine_and_of_several_a_share():
    path = np.array([[1.0, 0.0], [1.0, 1.0], [0.0, -2.0], [0.0, 1.0]])
    assert comp_scores(trajectory(path), demean=False) == pytest.approx([0, math.sqrt(0.5), 1, 1])
    moved = path - path.mean(0)
    cosines = abs(moved @ moved[-1]) / np.linalg.norm(moved, axis=1) / np.linalg.norm(moved[-1])
    assert comp_scores(trajectory(path)) == pytest.approx(cosines)
    two = Trajectory((1, 2, 3), {"m": (np.ones((3, 2, 1)), np.array([np.eye(2), [[0.0, 1], [1, 0]], np.eye(2)]))})
    assert comp_scores(two, demean=False) == pytest.approx([1] * 3)  # the same two vectors, whatever their order
    assert comp_scores(two, demean=True)[0] == pytest.approx(1)  # what is left is one vector
    assert comp_scores(trajectory(np.zeros((3, 2)))).tolist() == [0, 0, 0]


@pytest.mark.parametrize("modules", [1, 7])
@pytest.mark.parametrize("rank", [1, 8])
def test_comp_score_of_the_last_with_itself_is_one(modules, rank):
    rng = np.random.default_rng(0)
    moved = {f"m{at}": (np.ones((9, rank, 6)), np.cumsum(rng.normal(size=(9, 40, rank)), 0)) for at in range(modules)}
    scores = comp_scores(Trajectory(tuple(range(9)), moved))
    assert scores[-1] == pytest.approx(1)
    assert (scores[:-1] < 1).all()


def test_a_picture_is_drawn_from_the_record_alone_and_the_same_twice():
    log = TrainingLog(tuple(range(1, 101)), (1.0,) * 100, (1e-5,) * 100, tuple(1 / at for at in range(1, 101)))
    found = phases.evaluate(trajectory(bent(8, 20, 2.0, noise=0.1)), log=log)
    drawn = pictures.draw(phases.panels(found), title="a toy")
    assert drawn.startswith(PNG)
    assert drawn == pictures.draw(phases.panels(found), title="a toy")
    assert drawn != pictures.draw(phases.panels(found)[:3], title="a toy")
    with pytest.raises(InvalidArgument, match="nothing to draw"):
        pictures.draw([])
