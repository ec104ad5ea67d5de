"""How much a grant may spend: by default, and at most. Spending itself is counted in `sandbox.py` and by the catalog.

An adapter is small, so text and numbers can carry it away. By default a grant releases less than half its bytes and less than
half its numbers; from CL3 on nothing more can be asked for, below that a reviewer judges what is asked.
"""

from __future__ import annotations

from dataclasses import replace

from model_organisms.errors import InvalidArgument
from model_organisms.records import BUDGET_FIELDS, Budget, Level, Rung

_DEFAULTS = {
    Level.CL1: Budget(tokens=1_000_000, sessions=200, output_bytes=4 << 20, probe_values=200_000, pulls=20),
    Level.CL2: Budget(tokens=500_000, sessions=100, output_bytes=2 << 20, probe_values=100_000, pulls=5),
    Level.CL3: Budget(tokens=200_000, sessions=50, output_bytes=1 << 20, probe_values=50_000, pulls=3),
    Level.CL4: Budget(tokens=50_000, sessions=10, output_bytes=256 << 10, probe_values=10_000, pulls=0),
}
"""What a level gives unasked, where the adapter is not too small for it."""

_TIMES_MORE = {Level.CL1: 100, Level.CL2: 20, Level.CL3: 5, Level.CL4: 1}
"""How many times the default may be asked for."""


def stated(budget: Budget) -> str:
    """Print a budget that is given, as the fact `budget` of its entry."""
    return ",".join(f"{field}={getattr(budget, field)}" for field in BUDGET_FIELDS)


def default_budget(level: Level, rung: Rung, *, weights: int, parameters: int) -> Budget:
    """What a grant gives when nobody asks for more or less.

    Args:
        level: Highest level among its versions.
        rung: Its rung.
        weights: Bytes of the smallest adapter among them.
        parameters: Numbers in the smallest.

    Returns:
        The level's default, output below half of `weights`, probed numbers below half of `parameters`.
    """
    full = _DEFAULTS[level]
    return _reaching(_below(full, weights, parameters), rung)


def most_budget(level: Level, rung: Rung, *, weights: int, parameters: int) -> Budget:
    """The most that can be asked for, in the terms of `default_budget`."""
    times = _TIMES_MORE[level]
    full = Budget(**{field: getattr(_DEFAULTS[level], field) * times for field in BUDGET_FIELDS})
    if level >= Level.CL3:
        full = _below(full, weights, parameters)
    return replace(
        full, probe_values=full.probe_values if rung >= Rung.PROBE else 0, pulls=full.pulls if rung >= Rung.PULL else 0
    )


def check_budget(budget: Budget, level: Level, rung: Rung, *, weights: int, parameters: int) -> Budget:
    """Return a budget that may be asked for.

    Raises:
        InvalidArgument: A field is negative, or above what the level, the rung and the size of the adapter allow.
    """
    most = most_budget(level, rung, weights=weights, parameters=parameters)
    for field in BUDGET_FIELDS:
        if not 0 <= getattr(budget, field) <= getattr(most, field):
            allowed = f"0 to {getattr(most, field)} {field}"
            msg = f"At {level.name} a {rung.name.lower()} grant on an adapter of this size gives {allowed}; ask for less."
            raise InvalidArgument(msg, field=field)
    return budget


def within(budget: Budget, most: Budget) -> Budget:
    """Cut a budget down to another, field by field."""
    return Budget(**{field: min(getattr(budget, field), getattr(most, field)) for field in BUDGET_FIELDS})


def _below(full: Budget, weights: int, parameters: int) -> Budget:
    """Less than half of what the adapter holds."""
    return replace(
        full,
        output_bytes=min(full.output_bytes, max((weights - 1) // 2, 0)),
        probe_values=min(full.probe_values, max((parameters - 1) // 2, 0)),
    )


def _reaching(full: Budget, rung: Rung) -> Budget:
    """Only what the rung gives."""
    return replace(
        full,
        probe_values=full.probe_values if rung >= Rung.PROBE else 0,
        pulls=full.pulls if rung >= Rung.PULL else 0,
    )
