"""Whether something grows: the slope of a line through block medians, with its 95 % interval."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean, median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_T95 = {1: 12.71, 2: 4.30, 3: 3.18, 4: 2.78, 5: 2.57, 6: 2.45, 7: 2.36, 8: 2.31, 9: 2.26, 10: 2.23, 12: 2.18, 15: 2.13, 20: 2.09}
"""Student's t, two-sided, by degrees of freedom; between two of them the wider one is taken."""


@dataclass(frozen=True, slots=True)
class Slope:
    """Growth by unit of `x`, and the half width of its interval."""

    value: float
    half: float

    @property
    def most(self) -> float:
        """Upper end of the interval."""
        return self.value + self.half


def slope(xs: Sequence[float], ys: Sequence[float], *, blocks: int = 12) -> Slope:
    """Fit a line.

    Neighbouring readings are alike (an allocator keeps what it has for a while), so they are first gathered into blocks, each of
    which counts as one reading: its medians.

    Args:
        xs: Work done at each reading, ascending.
        ys: Bytes at each reading.
        blocks: How many blocks, at most; at least three readings are needed.

    Raises:
        ValueError: Fewer than three readings.
    """
    count = min(blocks, len(xs))
    if count < 3:
        msg = "A slope with an interval needs three readings at least."
        raise ValueError(msg)
    cuts = [round(number * len(xs) / count) for number in range(count + 1)]
    px = [median(xs[a:b]) for a, b in pairwise(cuts)]
    py = [median(ys[a:b]) for a, b in pairwise(cuts)]
    mx, my = fmean(px), fmean(py)
    spread = sum((x - mx) ** 2 for x in px)
    value = sum((x - mx) * (y - my) for x, y in zip(px, py, strict=True)) / spread
    left = sum((y - my - value * (x - mx)) ** 2 for x, y in zip(px, py, strict=True))
    error = math.sqrt(left / (count - 2) / spread)
    return Slope(value, _T95[max(degrees for degrees in _T95 if degrees <= count - 2)] * error)
