"""How a process that serves hears that it shall end. What it then does is its own business."""

from __future__ import annotations

import signal
import threading

_LOOK_S = 0.5


class Ending:
    """SIGTERM and SIGINT, from here on; made in the main thread."""

    def __init__(self) -> None:
        """Listen."""
        self._told = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._told.set())

    def wait(self) -> None:
        """Wait until one comes."""
        while not self._told.wait(_LOOK_S):  # a signal taken just before the wait, or by another thread, does not wake it
            pass
