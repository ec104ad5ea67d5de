"""Keeps questions of one session from cutting each other short; for the provider of sessions, and nobody else.

A session takes the whole cost of a question before the work and gives back the rest after it. So many questions at once may leave
none for one more, though most of it will come back. Whoever waits for that here is not told that the budget has ended.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_LOOK_S = 0.25


class Purse:
    """Tokens of a session; safe to share between threads.

    Args:
        tokens: What the session may spend in all.
    """

    def __init__(self, tokens: int) -> None:
        """Begin with all of it."""
        self._left = tokens
        self._held = 0
        self._questions = 0
        self._answered = 0
        self._changed = threading.Condition()

    @contextmanager
    def taken(self, wanted: int, look: Callable[[], object]) -> Iterator[list[int]]:
        """Hold a question's tokens while the block runs, and wait for them first as long as others may give some back.

        Args:
            wanted: Its most tokens.
            look: Called now and then while it waits; what it raises ends the wait.

        Yields:
            A list, into which the block puts the tokens that were drawn.
        """
        with self._changed:
            self._wait(lambda: self._left - self._held >= wanted or not self._questions, look)
            mine = max(0, min(wanted, self._left - self._held))
            self._held += mine
            self._questions += 1
        drawn: list[int] = []
        try:
            yield drawn
        finally:
            with self._changed:
                self._held -= mine
                self._left -= sum(drawn)
                self._questions -= 1
                self._answered += bool(drawn)
                self._changed.notify_all()

    def more(self, since: int, look: Callable[[], object]) -> bool:
        """After a question that found too little: wait for another one's answer, which gave something back.

        Args:
            since: `answered` as it was before the question.
            look: As for `taken`.

        Returns:
            Whether there was one; if not, the budget has ended.
        """
        with self._changed:
            self._wait(lambda: self._answered != since or not self._questions, look)
            return self._answered != since

    @property
    def answered(self) -> int:
        """How many questions have been answered so far."""
        with self._changed:
            return self._answered

    def _wait(self, done: Callable[[], bool], look: Callable[[], object]) -> None:
        while not self._changed.wait_for(done, _LOOK_S):
            look()
