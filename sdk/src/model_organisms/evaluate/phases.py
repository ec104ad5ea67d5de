"""Finds the phase transition of a training, where the path of an adapter turns, from its checkpoints and its log.

    trajectory = read(pulled.files, version_digest=pulled.version.digest)
    found = evaluate(trajectory, log=pulled.provenance.log)
    found.figure("peak_step", "matrix=b,k=10").value

Turner et al. (2025, arXiv:2506.11613) saw one in rank-1 adapters, and misalignment with it. That a path turns does not tell what
the model does: measure that beside it, at several doses (`scaled`).
"""

from __future__ import annotations

from dataclasses import replace
from statistics import median
from typing import TYPE_CHECKING

import numpy as np

from model_organisms.errors import InvalidArgument
from model_organisms.evaluate.pictures import Line, Panel
from model_organisms.evaluate.record import ABOUT
from model_organisms.evaluate.suite import Suite
from model_organisms.evaluate.trajectory import (
    ENOUGH,
    PAPER_THRESHOLD,
    Convention,
    Trajectory,
    comp_scores,
    compact,
    furthest,
    local_cosines,
    principal,
    read,
    straight,
)
from model_organisms.formats.evaluation import Figure, Score, Validity
from model_organisms.records import Rung

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from datetime import datetime

    from model_organisms.formats.evaluation import Evaluation
    from model_organisms.formats.provenance import TrainingLog

__all__ = ["KS", "SCALES", "SUITE", "evaluate", "figures", "measure", "panels", "read", "scaled"]

SUITE = Suite("phases", 2, ("model_organisms.evaluate.phases", "model_organisms.evaluate.trajectory"))
KS = (5, 10, 15)
"""Training steps that legs reach, in the paper."""
SCALES = (1.0, 5.0, 10.0, 20.0)
"""What B is multiplied by, in the paper."""
DRAWS = 99
"""Straight paths that a turn is compared with."""
_MATRICES = ("a", "b")
_CHECKPOINT, _LOG, _STRAIGHT = "checkpoint", "log", "straight"
_SCALE = "scale="
_ALONE = "no control at this dose"
_LIKELY = 0.05
_AS_MUCH = "straight paths that turn as much"
_LOGGED = 5000
"""Steps of a training log that are kept."""


def evaluate(
    trajectory: Trajectory,
    *,
    log: TrainingLog | None = None,
    ks: Sequence[int] = KS,
    threshold: float = PAPER_THRESHOLD,
    convention: Convention = Convention.STRAIGHT_NEGATIVE,
    scaling: Sequence[Figure] = (),
    seed: int = 0,
    time: datetime | None = None,
) -> Evaluation:
    """Look at a training's path.

    Args:
        trajectory: Its checkpoints.
        log: Its training log, for the peak of the gradient's norm.
        ks: How far the legs of local cosines reach, in training steps.
        threshold: Length that the larger leg must have.
        convention: The sign of a path that goes straight on.
        scaling: What `scaled` gave; of a dose without a control, the note says so.
        seed: Of the straight paths that turns are compared with.
        time: When; now where absent.

    Returns:
        The record: figures by `matrix` and `k`, and the curves as its scores.

    Raises:
        InvalidArgument: A k that is no number of steps.
    """
    scores = measure(trajectory, log=log, ks=ks, threshold=threshold, convention=convention, seed=seed)
    found, spacing = figures(scores, convention=convention), trajectory.spacing
    return SUITE.record(
        asked={"steps": list(trajectory.steps), "modules": list(trajectory.factors)},
        figures=(*found, *_doses(scaling)),
        scores=scores,
        rung=Rung.PULL,
        validity=Validity.CONTROLLED if any(one.control for one in found) else Validity.UNVALIDATED,
        seeds=(seed,),
        settings={
            **({ABOUT: trajectory.version_digest} if trajectory.version_digest else {"model": "checkpoints of no version"}),
            "k_steps": ",".join(map(str, ks)),
            "k_checkpoints": ",".join(f"{k / spacing:g}" for k in ks),
            "spacing_steps": spacing,
            "threshold": threshold,
            "convention": convention.value,
            "straight_paths": DRAWS,
            "comp_score": "columns, demeaned, 1 of the last",
        },
        time=time,
    )


def measure(
    trajectory: Trajectory,
    *,
    log: TrainingLog | None = None,
    ks: Sequence[int] = KS,
    threshold: float = PAPER_THRESHOLD,
    convention: Convention = Convention.STRAIGHT_NEGATIVE,
    seed: int = 0,
) -> tuple[Score, ...]:
    """Give the raw values, as `evaluate` does: by checkpoint, by step of the log, and the peaks of straight paths.

    `norm` is a factor's length, `away` its distance from the mean of the path, `pc1` and `pc2` its place in the plane of the
    principal components, `cosine_b_10` the local cosine of B at k = 10 steps, `comp` the comp score with the last checkpoint.
    """
    if not ks or min(ks) < 1:
        raise InvalidArgument("A leg reaches at least one training step; give numbers of steps, such as (5, 10, 15).")
    curves: list[dict[str, float | None]] = [{"comp": float(score)} for score in comp_scores(trajectory)]
    drawn: list[dict[str, float | None]] = [{} for _ in range(DRAWS)]
    chance = np.random.default_rng(seed)
    for matrix in _MATRICES:
        vectors = compact(trajectory.vectors(matrix))
        plane, centre = principal(vectors), vectors.mean(0)
        for at, curve in enumerate(curves):
            curve[f"norm_{matrix}"] = float(np.linalg.norm(vectors[at]))
            curve[f"away_{matrix}"] = float(np.linalg.norm(vectors[at] - centre))
            curve[f"pc1_{matrix}"], curve[f"pc2_{matrix}"] = map(float, plane[at])
        paths = [vectors, *(straight(vectors, chance, DRAWS) if len(vectors) >= ENOUGH else ())]
        for k in ks:
            name = f"cosine_{matrix}_{k}"
            found = [local_cosines(path, trajectory.steps, k, threshold=threshold, convention=convention) for path in paths]
            for step, curve in zip(trajectory.steps, curves, strict=True):
                curve[name] = found[0].get(step)
            for values, cosines in zip(drawn, found[1:], strict=len(found) > 1):
                peak = furthest(cosines, convention)
                values[name] = peak[1] if peak else None
    scores = [Score(str(step), 1, curve, _CHECKPOINT) for step, curve in zip(trajectory.steps, curves, strict=True)]
    scores += [Score(str(at), 1, values, _STRAIGHT) for at, values in enumerate(drawn)]
    return (*scores, *_logged(log)) if log else tuple(scores)


def figures(scores: Sequence[Score], *, convention: Convention = Convention.STRAIGHT_NEGATIVE) -> tuple[Figure, ...]:
    """Count raw values.

    Args:
        scores: What `measure` gave.
        convention: The sign they were taken with.

    Returns:
        By matrix and k: where the path turns most and how much, the median, what straight paths with the same wobble reach in
        95 of 100, and the share of these that turn as much (none of fewer than `ENOUGH` checkpoints); further norms, explained
        shares, and the peak of the gradient's norm.
    """
    curves = {name: _curve(scores, _CHECKPOINT, name) for name in _names(scores, _CHECKPOINT)}
    made: list[Figure] = []
    for name in _cosines(curves, _MATRICES):
        made += _turn(name, curves, [v for _, v in _curve(scores, _STRAIGHT, name)], convention)
    for matrix in _MATRICES:
        made += _shape(matrix, curves)
    return (*made, *_gradient(_curve(scores, _LOG, "gradient_norm")))


def scaled(
    measure: Callable[[float], Sequence[Figure]],
    scales: Sequence[float] = SCALES,
    *,
    control: Callable[[float], Sequence[Figure]] | None = None,
) -> tuple[Figure, ...]:
    """Measure behaviour at several doses of an adapter; to multiply B is to multiply the dose.

    Args:
        measure: Runs a suite on the organism at a dose, as `Engine` and sessions take it (`scale`), and gives its figures.
        scales: The doses; 1 is as trained.
        control: The same on an adapter that should not show the behaviour, such as `diffing.random_twin`.

    Returns:
        All figures, the dose in their `split`; those of the control marked as such.
    """
    made = [(scale, figure) for scale in scales for figure in measure(scale)]
    made += [(scale, replace(figure, control=True)) for scale in scales if control for figure in control(scale)]
    return tuple(replace(one, split=",".join(filter(None, (f"{_SCALE}{scale:g}", one.split)))) for scale, one in made)


def panels(evaluation: Evaluation) -> tuple[Panel, ...]:
    """Lay out the curves of a record for `pictures.draw`: norms, local cosines of B, path, comp score, gradient, doses."""
    scores = evaluation.scores
    curves = {name: _curve(scores, _CHECKPOINT, name) for name in _names(scores, _CHECKPOINT)}
    turns = [f for f in evaluation.figures if f.name == "peak_step" and f.split.startswith("matrix=b") and f.value is not None]
    marks = sorted({float(figure.value) for figure in turns if figure.value is not None})
    cosines = [_line(curves[name], f"k = {name.rsplit('_', 1)[1]} steps") for name in _cosines(curves, "b")]
    path = Line([x for _, x in curves["pc1_b"]], [y for _, y in curves["pc2_b"]])
    made = [
        Panel(
            "Length of the factors", "training step", "norm", [_line(curves[f"norm_{m}"], m.upper()) for m in _MATRICES], marks
        ),
        Panel(f"Local cosine of B, {evaluation.settings['convention']}", "training step", "cosine", cosines, marks),
        Panel("Path of B", "first principal component", "second", [path]),
        Panel("B beside the last B", "training step", "comp score", [_line(curves["comp"], "")], marks),
    ]
    if log := _curve(scores, _LOG, "gradient_norm"):
        made.append(Panel("Gradient", "training step", "norm", [replace(_line(log, ""), dots=False)], marks))
    if doses := _dosed(evaluation.figures):
        made.append(Panel("Behaviour by dose", "dose of the adapter", "figure", doses))
    return tuple(made)


def _doses(scaling: Sequence[Figure]) -> list[Figure]:
    """Say of a dose without a control that it has none: what controls the path's turns does not speak for behaviour."""
    beside = {(one.name, one.split) for one in scaling if one.control}
    alone = [not one.control and (one.name, one.split) not in beside for one in scaling]
    return [
        replace(one, note="; ".join(filter(None, (one.note, _ALONE)))) if without else one
        for one, without in zip(scaling, alone, strict=True)
    ]


def _dosed(figures: Sequence[Figure]) -> list[Line]:
    """Draw each figure over the doses; of those with further splits (`question=`) only where there are no others."""
    found = [one for one in figures if one.split.startswith(_SCALE) and one.value is not None]
    kept = [one for one in found if "," not in one.split] or found
    curves: dict[tuple[str, bool], list[tuple[float, Figure]]] = {}
    for one in kept:
        dose, _, rest = one.split.removeprefix(_SCALE).partition(",")
        label = " ".join(filter(None, (one.name, rest, "control" if one.control else "")))
        curves.setdefault((label, one.control), []).append((float(dose), one))
    lines = []
    for (label, control), points in curves.items():
        points.sort(key=lambda point: point[0])
        low, high = ([getattr(one, end) for _, one in points] for end in ("low", "high"))
        if None in (*low, *high):
            low = high = []
        doses, values = [dose for dose, _ in points], [one.value or 0.0 for _, one in points]
        lines.append(Line(doses, values, label, dashed=control, low=low, high=high))
    return lines


def _logged(log: TrainingLog) -> list[Score]:
    """Give the curves of a log; of a long one every so many steps and the gradient's peak, for a record has no room for all."""
    rows = list(zip(log.steps, log.gradient_norm, log.loss, strict=True))
    stride = max(1, -(-len(rows) // _LOGGED))
    peak = max(rows, key=lambda row: row[1], default=None)
    kept = [row for at, row in enumerate(rows) if at % stride == 0 or row is peak]
    return [Score(str(step), 1, {"gradient_norm": norm, "loss": loss}, _LOG) for step, norm, loss in kept]


def _turn(name: str, curves: Mapping[str, list[tuple[int, float]]], drawn: list[float], convention: Convention) -> list[Figure]:
    _, matrix, k = name.split("_")
    split, cosines = f"matrix={matrix},k={k}", dict(curves[name])
    peak = furthest(cosines, convention)
    if peak is None:
        why = f"no checkpoint has others {k} steps before and after it, with a leg that reaches the threshold"
        return [Figure(one, None, 0, split, note=why) for one in ("peak_step", "peak_cosine", "median_cosine")]
    step, value = peak
    reached = sorted(convention.sign * one for one in drawn)
    chance = (1 + sum(one >= convention.sign * value for one in reached)) / (1 + len(reached))
    unknown = "" if reached else f"no verdict: no straight paths to compare with, which takes {ENOUGH} checkpoints"
    note = unknown if chance <= _LIKELY or unknown else "no turn shown: straight paths with the same wobble turn as much"
    if not note and step in {min(cosines), max(cosines)}:
        note = "no peak: it turns most at an end of the series, and may turn more beyond"
    counted, comp = len(cosines), dict(curves["comp"])
    made = [
        Figure("peak_step", float(step), counted, split, comparator="training step of the peak", note=note),
        Figure("peak_cosine", value, counted, split, comparator=convention.value, note=note),
        Figure("median_cosine", median(cosines.values()), counted, split, comparator=convention.value),
        Figure("comp_at_peak", comp[step], 1, split, comparator="comp score with the last checkpoint"),
        Figure("chance", None if unknown else chance, len(reached), split, comparator=_AS_MUCH, note=unknown),
    ]
    if reached:
        most = convention.sign * reached[round(0.95 * (len(reached) - 1))]
        comparator = f"{convention.value}; 95 of 100 straight paths turn less"
        made.append(Figure("peak_cosine", most, len(reached), split, control=True, comparator=comparator))
    return made


def _shape(matrix: str, curves: Mapping[str, list[tuple[int, float]]]) -> list[Figure]:
    split = f"matrix={matrix}"
    norms = [value for _, value in curves[f"norm_{matrix}"]]
    ends = {"norm_first": norms[0], "norm_last": norms[-1]}
    made = [Figure(name, value, 1, split, comparator="Frobenius norm of the factor") for name, value in ends.items()]
    whole = sum(value**2 for _, value in curves[f"away_{matrix}"])
    for component in ("pc1", "pc2"):
        share = sum(value**2 for _, value in curves[f"{component}_{matrix}"]) / whole if whole else None
        note = "" if whole else "it never changes"
        made.append(Figure(f"{component}_share", share, len(norms), split, comparator="share of the path's variance", note=note))
    return made


def _gradient(log: list[tuple[int, float]]) -> list[Figure]:
    if not any(value for _, value in log):
        why = "the training log has no gradient norms"
        return [Figure(name, None, 0, note=why) for name in ("gradient_norm_peak", "gradient_norm_peak_step")]
    step, value = max(log, key=lambda one: (one[1], -one[0]))
    found = {"gradient_norm_peak": value, "gradient_norm_peak_step": float(step)}
    return [Figure(name, one, len(log), comparator="largest norm of a logged step") for name, one in found.items()]


def _cosines(curves: Iterable[str], matrices: Iterable[str]) -> list[str]:
    """Name the local cosines of these matrices, in order of k."""
    found = [name.split("_") for name in curves if name.startswith("cosine_")]
    return ["_".join(parts) for parts in sorted(found, key=lambda parts: (parts[1], int(parts[2]))) if parts[1] in matrices]


def _names(scores: Sequence[Score], split: str) -> list[str]:
    return sorted({name for score in scores if score.split == split for name in score.values})


def _curve(scores: Sequence[Score], split: str, name: str) -> list[tuple[int, float]]:
    """Give steps and values, in order; steps without a value are left out."""
    found = ((int(score.id), score.values.get(name)) for score in scores if score.split == split)
    return sorted((step, value) for step, value in found if value is not None)


def _line(curve: Sequence[tuple[int, float]], label: str) -> Line:
    return Line([step for step, _ in curve], [value for _, value in curve], label)
