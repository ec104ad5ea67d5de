"""Intervals, rankings and agreement, for the figures this project reports; one without cannot be compared. No I/O, no numpy."""

from __future__ import annotations

import math
import random
from bisect import bisect_left, bisect_right
from collections import Counter
from statistics import NormalDist
from typing import TYPE_CHECKING, TypeVar

from model_organisms.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence

T = TypeVar("T")

Z_95 = 1.959963984540054
"""Standard normal quantile for a two-sided 95 % interval."""
FEW = 8
"""Groups below which no bootstrap is made: its interval would be much too narrow."""
_ROUNDING = 1e-9


def wilson(hits: int, trials: int, *, z: float = Z_95) -> tuple[float, float]:
    """Give the Wilson score interval of a rate (E. B. Wilson, JASA 22, 1927), which behaves at 0 and at 1.

    Args:
        hits: Trials that succeeded.
        trials: Trials made; without any, nothing is known and the interval is (0, 1).
        z: Normal quantile of the confidence wanted.

    Returns:
        Lower and upper bound, in [0, 1].

    Raises:
        InvalidArgument: Counts that cannot be.
    """
    if not 0 <= hits <= trials:
        raise InvalidArgument(f"{hits} hits of {trials} trials cannot be; give 0 <= hits <= trials.")
    if trials == 0:
        return 0.0, 1.0
    share, z2 = hits / trials, z * z
    centre = (share + z2 / (2 * trials)) / (1 + z2 / trials)
    half = z / (1 + z2 / trials) * math.sqrt(share * (1 - share) / trials + z2 / (4 * trials * trials))
    # At the ends the formula gives the end itself but for rounding.
    return (0.0 if hits == 0 else centre - half), (1.0 if hits == trials else centre + half)


def newcombe(hits: int, trials: int, other_hits: int, other_trials: int, *, z: float = Z_95) -> tuple[float, float]:
    """Give the interval of a difference of two independent rates, hits / trials - other_hits / other_trials.

    The hybrid of two Wilson intervals (R. G. Newcombe, Statistics in Medicine 17, 1998, method 10), which stays in [-1, 1].

    Args:
        hits: Trials of the first kind that succeeded.
        trials: Trials of the first kind; without any, its rate may be anything.
        other_hits: The same of the second kind.
        other_trials: The same of the second kind.
        z: Normal quantile of the confidence wanted.

    Returns:
        Lower and upper bound of the difference; (-1, 1) where one kind had no trials.

    Raises:
        InvalidArgument: Counts that cannot be.
    """
    low, high = wilson(hits, trials, z=z)
    other_low, other_high = wilson(other_hits, other_trials, z=z)
    if not trials or not other_trials:
        return -1.0, 1.0
    lower, upper = hybrid((hits / trials, low, high), (other_hits / other_trials, other_low, other_high))
    return max(lower, -1.0), min(upper, 1.0)  # rounding alone could pass them


def hybrid(estimate: tuple[float, float, float], other: tuple[float, float, float]) -> tuple[float, float]:
    """Give the interval of a difference of two independent estimates from the interval of each.

    Newcombe's way with rates, for estimates of any kind (G. Zou and A. Donner, Statistics in Medicine 27, 2008).

    Args:
        estimate: Value, lower and upper bound.
        other: The same of what is taken from it.

    Returns:
        Lower and upper bound of the difference.
    """
    (value, low, high), (less, less_low, less_high) = estimate, other
    difference = value - less
    return difference - math.hypot(value - low, less_high - less), difference + math.hypot(high - value, less - less_low)


def bootstrap(
    groups: Sequence[Sequence[T]], statistic: Callable[[list[T]], float | None], *, seed: int = 0, rounds: int = 1000
) -> tuple[float, float] | None:
    """Give the bootstrap's 95 % interval (B. Efron, Annals of Statistics 7, 1979), resampling whole groups.

    Answers to one question are alike, so an interval over answers would be too narrow: questions are drawn, with all of theirs.
    Plain percentiles are too narrow too where groups are few, so the expanded ones are taken (T. Hesterberg 2014,
    arXiv:1411.5279): of a mean they give the interval of Student's t. In simulation 91 to 95 of 100 hold the truth from `FEW`
    groups on, and 85 to 91 of plain ones.

    Args:
        groups: Observations, by what they share: the answers of each question. For independent ones, a group each.
        statistic: Of all observations together; none where it cannot be computed, and such draws are left out.
        seed: Of the draws.
        rounds: How many draws.

    Returns:
        Lower and upper bound, which hold the statistic of all groups; none where fewer than `FEW` groups were given, where hardly
        a draw could be computed, or where all draws are the same: that groups agree does not show that others would.
    """
    if len(groups) < FEW or (found := statistic([one for group in groups for one in group])) is None:
        return None
    chance = random.Random(seed)  # noqa: S311 - draws of a statistic are no secret
    drawn = (statistic([one for group in chance.choices(groups, k=len(groups)) for one in group]) for _ in range(rounds))
    values = sorted(value for value in drawn if value is not None)
    if len(values) < rounds / 2 or values[-1] - values[0] <= _ROUNDING * max(1.0, abs(values[0])):
        return None
    tail, last = NormalDist().cdf(-math.sqrt(len(groups) / (len(groups) - 1)) * _student(len(groups) - 1)), len(values) - 1
    return min(found, values[round(tail * last)]), max(found, values[round((1 - tail) * last)])


def _student(freedom: int) -> float:
    """Give the quantile of Student's t for 95 %: to 0.001 from 7 on (Abramowitz and Stegun, 26.7.5)."""
    z, powers = Z_95, (Z_95**3, Z_95**5, Z_95**7)
    terms = (
        (powers[0] + z) / 4,
        (5 * powers[1] + 16 * powers[0] + 3 * z) / 96,
        (3 * powers[2] + 19 * powers[1] + 17 * powers[0] - 15 * z) / 384,
    )
    return z + sum(term / float(freedom) ** power for power, term in enumerate(terms, 1))


def auroc(positive: Sequence[float], negative: Sequence[float]) -> float:
    """Give the area under the ROC curve: the share of pairs in which the positive one scores higher, ties counting half.

    (J. Hanley and B. McNeil, Radiology 143, 1982.)

    Args:
        positive: Scores of those that should score high.
        negative: Scores of the others.

    Raises:
        InvalidArgument: One side is empty, or a score is NaN.
    """
    _both(positive, negative)
    ordered = sorted(negative)
    wins = sum(bisect_left(ordered, score) + bisect_right(ordered, score) for score in positive)
    return wins / (2 * len(positive) * len(negative))


def fnr_at_fpr(positive: Sequence[float], negative: Sequence[float], *, fpr: float = 0.5) -> float:
    """Give the share of positives that are missed at the lowest threshold whose false positive rate is at most `fpr`.

    A score strictly above the threshold is flagged. Where scores are tied, the threshold cannot be set in between, and the false
    positive rate is then below `fpr`.

    Args:
        positive: Scores of those that should be flagged.
        negative: Scores of the others.
        fpr: Share of the others that may be flagged.

    Raises:
        InvalidArgument: One side is empty, or a score is NaN.
    """
    _both(positive, negative)
    ordered = sorted(negative, reverse=True)
    # At most `allowed` of the others lie strictly above the one that comes next.
    allowed = math.floor(fpr * len(ordered))
    threshold = ordered[allowed] if allowed < len(ordered) else -math.inf
    return sum(score <= threshold for score in positive) / len(positive)


def _both(positive: Sequence[float], negative: Sequence[float]) -> None:
    if not positive or not negative:
        raise InvalidArgument("A ranking needs scores of both kinds; give at least one of each.")
    if any(map(math.isnan, positive)) or any(map(math.isnan, negative)):
        raise InvalidArgument("A ranking has no place for NaN; leave out what was not scored.")


def kappa(pairs: Sequence[tuple[Hashable, Hashable]]) -> float | None:
    """Give Cohen's kappa of two raters (J. Cohen, Educational and Psychological Measurement 20, 1960).

    Args:
        pairs: What each of the two said, by item.

    Returns:
        1 for agreement throughout, 0 for as much as chance would bring; none where it is not defined: no items, or one label.
    """
    if not pairs:
        return None
    agreed = sum(one == other for one, other in pairs) / len(pairs)
    ones, others = Counter(one for one, _ in pairs), Counter(other for _, other in pairs)
    chance = sum(ones[label] * others[label] for label in ones) / len(pairs) ** 2
    return None if chance == 1 else (agreed - chance) / (1 - chance)
