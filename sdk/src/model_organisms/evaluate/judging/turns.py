"""Judges that compute take turns: one judgement at a time, in a thread, so that the run goes on meanwhile."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import anyio
import anyio.to_thread
from anyio.lowlevel import RunVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

_TURN: RunVar[anyio.CapacityLimiter] = RunVar("model_organisms.judging")
"""Of each event loop its own: a judge outlives the run that it was first asked in."""


async def computed(function: Callable[[], T]) -> T:
    """Compute, when it is one's turn.

    Args:
        function: What takes long.
    """
    try:
        turn = _TURN.get()
    except LookupError:
        turn = anyio.CapacityLimiter(1)
        _TURN.set(turn)
    return await anyio.to_thread.run_sync(function, limiter=turn)
