"""Intervals for the rates this project reports; a rate without one cannot be compared. No I/O, no numpy."""

from __future__ import annotations

import math

from model_organisms.errors import InvalidArgument

Z_95 = 1.959963984540054
"""Standard normal quantile for a two-sided 95 % interval."""


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
