"""Turns at a door: how many calls one caller has under way, and for how long a call may keep silent.

A call holds a thread from the moment it arrives, before it has said anything. So nobody may hold many of them, and who has said
nothing yet yields to who comes after.
"""

from __future__ import annotations

import logging
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from model_organisms.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_LOG = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class Turn:
    """A call under way.

    Attributes:
        who: Whose it is.
        cancel: Ends it from outside.
        waiting_since: When it began to wait for its caller, in seconds of the monotonic clock; None while it does not.
        heard: Whether its caller has said anything yet.
    """

    who: str
    cancel: Callable[[], object]
    waiting_since: float | None = None
    heard: bool = False

    def listen(self, messages: Iterator[bytes]) -> Iterator[bytes]:
        """Pass messages on as they arrive, and know meanwhile for how long none has."""
        self.waiting_since = time.monotonic()
        for message in messages:
            self.waiting_since, self.heard = None, True
            yield message
            self.waiting_since = time.monotonic()
        self.waiting_since = None


class Turns:
    """All calls under way at a door; safe to share between threads.

    Args:
        each: Calls that one caller may have under way.
        together: Calls under way from which on those that have said nothing yet yield to newcomers, whosever they are.
        silence_s: Seconds for which a call may wait for a message of its caller.
    """

    def __init__(self, *, each: int, together: int, silence_s: float) -> None:
        """Begin with none."""
        self._each = each
        self._together = together
        self._silence_s = silence_s
        self._turns: dict[Turn, None] = {}
        self._lock = threading.Lock()

    @contextmanager
    def taken(self, who: str, cancel: Callable[[], object]) -> Iterator[Turn]:
        """Count a call while the block runs.

        Args:
            who: Whose it is.
            cancel: Ends it from outside.

        Raises:
            Unavailable: The caller has as many under way as one may, and all of them have been heard.
        """
        turn = Turn(who, cancel)
        with self._lock:
            own = [other for other in self._turns if other.who == who]
            crowd = own if len(own) >= self._each else list(self._turns) if len(self._turns) >= self._together else []
            silent = next((other for other in crowd if not other.heard), None)
            if silent is None and crowd is own and own:
                msg = f"You have {len(own)} calls under way, and this registry serves one caller {self._each}; let one end first."
                raise Unavailable(msg, limit=str(self._each))
            if silent is not None:
                del self._turns[silent]
            self._turns[turn] = None
        if silent is not None:
            self._end(silent, "a newcomer needs its place")
        try:
            yield turn
        finally:
            with self._lock:
                self._turns.pop(turn, None)

    def end_silent(self) -> None:
        """End the calls that have waited for their caller for too long."""
        before = time.monotonic() - self._silence_s
        with self._lock:
            silent = [turn for turn in self._turns if turn.waiting_since is not None and turn.waiting_since < before]
            for turn in silent:
                del self._turns[turn]
        for turn in silent:
            self._end(turn, f"nothing was heard for {self._silence_s:g} s")

    @staticmethod
    def _end(turn: Turn, why: str) -> None:
        _LOG.info("a call of %s is ended: %s", turn.who, why)
        turn.cancel()
