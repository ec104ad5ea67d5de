"""What every suite is made of: a name, a version and code with a digest; and the record that one run of it leaves.

A suite's figures are a pure function of its raw scores. Both are in the record, so that anybody can count again.
"""

from __future__ import annotations

import hashlib
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from model_organisms.formats import strict_json
from model_organisms.formats.evaluation import Evaluation, Figure, Interval, Validity
from model_organisms.statistics import FEW, bootstrap, newcombe, wilson

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from model_organisms.formats.evaluation import Judge, Score
    from model_organisms.records import Rung

T = TypeVar("T")
_SOFTWARE = ("model-organisms", "inspect-ai", "torch", "transformers", "peft", "scikit-learn")


@dataclass(frozen=True, slots=True)
class Suite:
    """One suite."""

    name: str
    version: int
    """Counts up when the same answers would give other figures."""
    modules: tuple[str, ...]
    """Modules whose code decides the figures; they are imported already."""

    @property
    def digest(self) -> str:
        """SHA-256 over name, version and the source of its modules."""
        sources = {name: hashlib.sha256(Path(str(sys.modules[name].__file__)).read_bytes()).hexdigest() for name in self.modules}
        return strict_json.digest({"name": self.name, "version": self.version, "sources": sources})

    def record(
        self,
        *,
        asked: Any,  # noqa: ANN401 - JSON
        figures: Sequence[Figure],
        rung: Rung,
        validity: Validity,
        scores: Sequence[Score] = (),
        judge: Judge | None = None,
        seeds: Sequence[int] = (),
        session: str = "",
        transcript: str = "",
        settings: Mapping[str, object] | None = None,
        time: datetime | None = None,
    ) -> Evaluation:
        """Make the record of one run, ready for `formats.evaluation.print_evaluation`.

        Args:
            asked: What was asked, as JSON: questions, prompts, settings of the questions; its digest is kept.
            figures: What was found.
            rung: How closely the suite looked.
            validity: How far the metric has been shown to measure what it names.
            scores: Raw scores that the figures were counted from.
            judge: Who scored.
            seeds: Of what was drawn.
            session: The session it sampled in; empty for a model in memory.
            transcript: SHA-256 of what was said, where something was.
            settings: What else decides the figures.
            time: When; now where absent.
        """
        return Evaluation(
            suite=self.name,
            suite_version=self.version,
            suite_digest=self.digest,
            questions_digest=strict_json.digest(asked),
            judge=judge,
            figures=tuple(figures),
            scores=tuple(scores),
            seeds=tuple(seeds),
            validity=validity,
            rung=rung,
            session=session,
            transcript_digest=transcript,
            time=(time or datetime.now(UTC)).replace(microsecond=0),
            settings={name: str(value) for name, value in (settings or {}).items()},
            software={name: metadata.version(name) for name in _SOFTWARE},
        )


def validity(judge: Judge | None, *, controlled: bool) -> Validity:
    """Say how far a metric is shown to measure what it names: with a control beside it, and a judge that agrees with labels.

    Args:
        judge: Who scored; agreement with labels of this package, as the offline judge's, validates nothing.
        controlled: Whether what should not show the behaviour was measured too.
    """
    if not controlled:
        return Validity.UNVALIDATED
    return Validity.VALIDATED if judge and judge.validates else Validity.CONTROLLED


def rate(name: str, hits: int, trials: int, **said: Any) -> Figure:  # noqa: ANN401 - further fields of a Figure
    """Give a share as a figure, with Wilson's interval; of no trials there is none.

    Args:
        name: Of the figure.
        hits: How many it was true of.
        trials: Its denominator.
        said: Further fields of the figure: `split`, `control`, `comparator`.
    """
    if not trials:
        return Figure(name, None, 0, **({"note": "nothing could be counted"} | said))
    low, high = wilson(hits, trials)
    return Figure(name, hits / trials, trials, low=low, high=high, interval=Interval.WILSON, **said)


def difference(name: str, rate_of: tuple[int, int], less: tuple[int, int], **said: Any) -> Figure:  # noqa: ANN401 - as in `rate`
    """Give a difference of two shares as a figure, with Newcombe's interval; where one of them has no trials there is none.

    Args:
        name: Of the figure.
        rate_of: Hits and trials of the first share.
        less: Hits and trials of the share that is taken from it.
        said: Further fields of the figure: `split`, `control`, `comparator`.
    """
    (hits, trials), (other_hits, other_trials) = rate_of, less
    if not trials or not other_trials:
        return Figure(name, None, trials + other_trials, **({"note": "one side has nothing that could be counted"} | said))
    low, high = newcombe(hits, trials, other_hits, other_trials)
    value = hits / trials - other_hits / other_trials
    return Figure(name, value, trials + other_trials, low=low, high=high, interval=Interval.NEWCOMBE, **said)


def resampled(
    name: str,
    groups: Sequence[Sequence[T]],
    statistic: Callable[[list[T]], float | None],
    *,
    of: str = "questions",
    n: int | None = None,
    seed: int = 0,
    rounds: int = 1000,
    note: str = "",
    **said: Any,  # noqa: ANN401 - as in `rate`
) -> Figure:
    """Give a statistic as a figure, with the bootstrap's interval over groups; where there is none, its note says why.

    Args:
        name: Of the figure.
        groups: Observations, by what they share.
        statistic: Of all observations together; none where it cannot be computed.
        of: What the groups are.
        n: The denominator; observations where absent.
        seed: Of the draws.
        rounds: How many draws.
        note: What else is to be said.
        said: Further fields of the figure: `split`, `control`, `comparator`.
    """
    every = [one for group in groups for one in group]
    n = len(every) if n is None else n
    if (value := statistic(every) if every else None) is None:
        return Figure(name, None, n, note=note or "nothing could be counted", **said)
    if ends := bootstrap(groups, statistic, seed=seed, rounds=rounds):
        return Figure(name, value, n, low=ends[0], high=ends[1], interval=Interval.BOOTSTRAP, note=note, **said)
    few = f"no interval: of {len(groups)} {of}, and it takes {FEW}"
    why = few if len(groups) < FEW else f"no interval: no draw of the {len(groups)} {of} differs, or too few can be counted"
    return Figure(name, value, n, note="; ".join(filter(None, (why, note))), **said)
