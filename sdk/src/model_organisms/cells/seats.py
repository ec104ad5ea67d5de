"""How many questions of a session its cell works on at once; for `Cell` and `Tenant`, and nobody else.

- A session always has one, however many others ask, and however much.
- What it asks besides takes spare seats, which all sessions of the cell have together.
"""

from __future__ import annotations

import threading
from collections import Counter


class Seats:
    """The seats of one cell; safe to share between threads.

    Args:
        spare: Questions that sessions may have under way beside their first, all together.
    """

    def __init__(self, spare: int) -> None:
        """Begin with nobody."""
        self._spare = spare
        self._asking: Counter[int] = Counter()
        self._changed = threading.Condition()

    def take(self, slot: int, within_s: float) -> bool:
        """Wait for a seat.

        Args:
            slot: Whose organism is asked.
            within_s: How long to wait, in seconds.

        Returns:
            Whether there was one; `give` gives it back.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self._free(slot), max(0.0, within_s)):
                return False
            self._asking[slot] += 1
            return True

    def give(self, slot: int) -> None:
        """Give a seat back."""
        with self._changed:
            self._asking[slot] -= 1
            self._asking += Counter()  # forgets those who ask nothing
            self._changed.notify_all()

    def quiet(self, slot: int, within_s: float) -> bool:
        """Wait until nothing of a session is under way; tell whether that came in time."""
        with self._changed:
            return self._changed.wait_for(lambda: slot not in self._asking, max(0.0, within_s))

    def _free(self, slot: int) -> bool:
        return slot not in self._asking or sum(self._asking.values()) - len(self._asking) < self._spare
