"""Reads the curves of a training from the `trainer_state.json` that transformers' Trainer leaves beside its checkpoints.

They are claims: nothing in an adapter's bytes bears them out.
"""

from __future__ import annotations

import math
from typing import Any

from model_organisms.errors import InvalidProvenance
from model_organisms.formats import strict_json
from model_organisms.formats.provenance import TrainingLog

MAX_STATE = 16 << 20
MAX_STEPS = 50_000
_MOST = 2**53 - 1


def read(data: bytes | memoryview) -> TrainingLog:
    """Give the steps that have a loss, in order; a rate or a gradient norm that was not logged is 0, as for `mo.record`.

    Args:
        data: The file.

    Raises:
        InvalidProvenance: It is not what a Trainer writes.
    """
    raw = strict_json.parse(data, what=f"'{'trainer_state.json'}'", limit=MAX_STATE, error=InvalidProvenance)
    history = raw.get("log_history") if isinstance(raw, dict) else None
    if not isinstance(history, list) or len(history) > MAX_STEPS:
        raise InvalidProvenance("'trainer_state.json' has no list of logged steps; it is left out.", field="log_history")
    rows: dict[int, tuple[float, float, float]] = {}
    for row in history:
        if isinstance(row, dict) and type(step := row.get("step")) is int and 0 <= step <= _MOST and _number(row.get("loss")):
            rows[step] = (float(row["loss"]), _or_zero(row.get("learning_rate")), _or_zero(row.get("grad_norm")))
    steps = tuple(sorted(rows))
    loss, rate, norm = (tuple(rows[step][column] for step in steps) for column in range(3))
    return TrainingLog(steps, loss, rate, norm)


def _number(value: Any) -> bool:  # noqa: ANN401 - JSON
    return strict_json.safe_number(value) and math.isfinite(value)


def _or_zero(value: Any) -> float:  # noqa: ANN401 - JSON
    return float(value) if _number(value) else 0.0
