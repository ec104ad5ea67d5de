"""How long to wait before a cell of a kind that keeps ending is started once more: no loop of crashes, and no kind given up."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from model_organisms.errors import CellUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

FREE = 2
"""So many losses in a row cost nothing: machines hiccup."""
FIRST_S, LONGEST_S = 1.0, 60.0
FORGOTTEN_S = 300.0
"""A loss so long after the one before is the first of a new row: a cell that served for long does not keep ending."""
_MOST = 1024


class BackOff:
    """Counts losses in a row by kind; safe to share between threads.

    Args:
        clock: Seconds that only grow.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin with none."""
        self._clock = clock
        self._lost: dict[Hashable, tuple[int, float]] = {}
        self._lock = threading.Lock()

    def check(self, kind: Hashable) -> None:
        """Refuse a start that comes too soon.

        Raises:
            CellUnavailable: Cells of this kind ended too often just now.
        """
        with self._lock:
            count, last = self._lost.get(kind, (0, 0.0))
            left = last + self._wait(count) - self._clock()
        if count > FREE and left > 0:
            msg = f"Cells for this base model keep ending ({count} in a row); try again in {left:.0f} s, when one is started."
            raise CellUnavailable(msg)

    def lost(self, kind: Hashable) -> None:
        """Note that a cell did not start, or ended though nobody wanted it to."""
        with self._lock:
            (count, last), now = self._lost.pop(kind, (0, 0.0)), self._clock()
            self._lost[kind] = 1 if now - last > FORGOTTEN_S else count + 1, now
            while len(self._lost) > _MOST:
                del self._lost[next(iter(self._lost))]

    def well(self, kind: Hashable) -> None:
        """Note that a cell ended as it should."""
        with self._lock:
            self._lost.pop(kind, None)

    @staticmethod
    def _wait(count: int) -> float:
        return min(LONGEST_S, FIRST_S * 2.0 ** min(16, count - FREE - 1))
