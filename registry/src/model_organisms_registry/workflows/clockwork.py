"""What time alone brings about: sessions that end, uploads that lapse. What is due, and what becomes of it, others say."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

_LOG = logging.getLogger(__name__)
_ROUND_S = 1.0


class Clockwork:
    """Looks every second at what may be due.

    Args:
        clock: The time.
        rounds: Each ends what is due by a time.
    """

    def __init__(self, clock: Callable[[], datetime], *rounds: Callable[[datetime], None]) -> None:
        """Keep both; nothing runs yet."""
        self._clock = clock
        self._rounds = rounds
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="clockwork", daemon=True)

    def start(self) -> None:
        """Start it."""
        self._thread.start()

    def stop(self) -> None:
        """Stop it, after the round that runs."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        while not self._stopping.wait(_ROUND_S):
            now = self._clock()
            for end_what_is_due in self._rounds:
                try:
                    end_what_is_due(now)
                except Exception:  # noqa: BLE001 - whatever it is, it must not stop the rounds after it
                    _LOG.exception("A round failed; it is tried again in a moment")
