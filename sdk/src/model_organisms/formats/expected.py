"""What a publisher expects a version to measure, beside what others attest that they measured. No I/O; nobody is believed here.

Provenance may say in its `extra` what is expected: a list of `{"suite", "figure", "value"}`, with `split` and `source` where they
say something. What the nursery measured of an organism as it grew counts likewise. Provenance informs and permits nothing, so an
entry that is not understood is left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from model_organisms.formats import strict_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from model_organisms.formats.evaluation import Evaluation, Figure
    from model_organisms.formats.provenance import Provenance

_TEXTS = ("suite", "figure", "split", "source")
_MOST = 1_000


@dataclass(frozen=True, slots=True)
class Expected:
    """A figure as its publisher states it."""

    suite: str
    figure: str
    value: float
    split: str = ""
    source: str = ""
    """Where the number comes from: a paper, a log, the nursery."""


@dataclass(frozen=True, slots=True)
class Beside:
    """One figure: what is expected of it, and what one evaluation found."""

    suite: str
    figure: str
    split: str
    expected: Expected | None
    """None where the publisher says nothing of it."""
    observed: Figure | None
    """None where nobody has attested it."""
    judge: str = ""
    by: str = ""
    """Who attests it."""

    @property
    def agrees(self) -> bool | None:
        """Whether what is expected lies in the interval of what was found; none where one of the two is missing."""
        if self.expected is None or self.observed is None or self.observed.low is None or self.observed.high is None:
            return None
        return self.observed.low <= self.expected.value <= self.observed.high


def expected(provenance: Provenance) -> tuple[Expected, ...]:
    """Read what is expected out of provenance."""
    stated = provenance.extra.get("expected")
    found = [_stated(one) for one in stated[:_MOST]] if isinstance(stated, list) else []
    nursery = provenance.extra.get("nursery")
    metrics = nursery.get("metrics") if isinstance(nursery, dict) else None
    if isinstance(nursery, dict) and isinstance(metrics, dict) and isinstance(nursery.get("recipe"), str):
        found += [_grown(nursery["recipe"], name, counts) for name, counts in list(metrics.items())[:_MOST]]
    return tuple(one for one in found if one)


def beside(wanted: Iterable[Expected], found: Sequence[tuple[str, Evaluation]]) -> tuple[Beside, ...]:
    """Set expected and observed figures beside each other.

    Args:
        wanted: As `expected` gives them.
        found: Evaluations, each with who attests it.

    Returns:
        A row for each expected figure and evaluation of its suite, those without one included; then the figures over all of an
        evaluation (no split, no control) of which nothing is expected.
    """
    rows = []
    seen = set()
    for one in wanted:
        said = [
            (by, evaluation, figure)
            for by, evaluation in found
            for figure in evaluation.figures
            if (evaluation.suite, figure.name, figure.split, figure.control) == (one.suite, one.figure, one.split, False)
        ]
        seen |= {(id(evaluation), figure.name) for _, evaluation, figure in said}
        rows += [Beside(one.suite, one.figure, one.split, one, figure, _judge(evaluation), by) for by, evaluation, figure in said]
        rows += [] if said else [Beside(one.suite, one.figure, one.split, one, None)]
    for by, evaluation in found:
        rows += [
            Beside(evaluation.suite, figure.name, "", None, figure, _judge(evaluation), by)
            for figure in evaluation.figures
            if not figure.split and not figure.control and (id(evaluation), figure.name) not in seen
        ]
    return tuple(rows)


def _judge(evaluation: Evaluation) -> str:
    return evaluation.judge.id if evaluation.judge else ""


def _stated(raw: object) -> Expected | None:
    if not isinstance(raw, dict) or not strict_json.safe_number(raw.get("value")):
        return None
    texts = {name: raw.get(name, "") for name in _TEXTS}
    if not all(isinstance(text, str) for text in texts.values()) or not texts["suite"] or not texts["figure"]:
        return None
    return Expected(value=float(raw["value"]), **texts)


def _grown(recipe: str, name: object, counts: Any) -> Expected | None:  # noqa: ANN401 - JSON
    if not isinstance(name, str) or not isinstance(counts, list) or [type(one) for one in counts] != [int, int]:
        return None
    hits, trials = counts
    return Expected(recipe, name, hits / trials, source="nursery") if 0 <= hits <= trials and trials else None
