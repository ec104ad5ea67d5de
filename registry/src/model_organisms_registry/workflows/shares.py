"""What one person may hold at once of what there is little of, so that one leaves some for the others."""

from __future__ import annotations

import threading
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING

from model_organisms.errors import CellUnavailable, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Shares:
    """Counts by person; safe to share between threads.

    Args:
        each: What one may hold at once.
        refusal: Makes the error for who holds as many.
    """

    def __init__(self, each: int, refusal: Callable[[int], Unavailable]) -> None:
        """Begin with nothing held."""
        self._each = each
        self._refusal = refusal
        self._held: Counter[str] = Counter()
        self._lock = threading.Lock()

    @contextmanager
    def held(self, user: str, *, besides: Callable[[], int] = lambda: 0) -> Iterator[None]:
        """Hold one more while the block runs.

        Args:
            user: Who holds it.
            besides: Counts what they hold that is kept elsewhere.

        Raises:
            Unavailable: They hold as many as one may.
        """
        with self._lock:
            if self._held[user] + besides() >= self._each:
                raise self._refusal(self._each)
            self._held[user] += 1
        try:
            yield
        finally:
            with self._lock:
                self._held[user] -= 1
                self._held += Counter()  # forgets who holds nothing


def many_cells(each: int) -> CellUnavailable:
    """Refuse a session to who has as many as one may."""
    msg = f"You have as many sessions open as this registry gives one user ({each}); close one of them."
    return CellUnavailable(msg, limit=str(each))


def many_views(each: int) -> Unavailable:
    """Refuse a look to who watches as many sessions as one may."""
    return Unavailable(f"You watch as many sessions as one user may ({each}); leave one of them.", limit=str(each))


def many_pulls(each: int) -> Unavailable:
    """Refuse a pull to who has as many under way as one may."""
    return Unavailable(f"You have as many pulls under way as one user may ({each}); let one end first.", limit=str(each))
