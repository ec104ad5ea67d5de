"""Researchers who sample without end, whatever is killed under them, and keep all that they were given.

What a call may end with here is what a dead cell or a dead registry looks like, shortly after one was killed; any other error is
a finding, and so is one of these when nothing was.
"""

from __future__ import annotations

import math
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING

from model_organisms.records import SamplingParameters

from tests.support.crowd import PURPOSE

if TYPE_CHECKING:
    from model_organisms import Client
    from model_organisms.records import Probe, Sample

REGISTRY, CELL = "registry", "cell"
BORNE = {
    "REGISTRY_UNREACHABLE": {REGISTRY},
    "UNAVAILABLE": {REGISTRY, CELL},
    "CELL_UNAVAILABLE": {REGISTRY, CELL},
    "DEADLINE_EXCEEDED": {REGISTRY, CELL},
    "CONFLICT": {REGISTRY, CELL},
    "JAIL_MISSING": {CELL},
}
"""Which kill explains a reason: it is gone, or its session has ended; and a cell that was killed while it tried its walls has not
found them standing, so above CL1 nothing is served until they are tried again."""
AFTER_S = {REGISTRY: 60.0, CELL: 90.0}
"""How long a kill explains anything. After many, the next cell is started up to a minute later."""
CUT = "The answer ended without its receipt"
"""A stream that was cut off at a bad moment; its text is refused, as it must be."""
_PAUSE_S = 0.2


@dataclass(slots=True)
class Held:
    """What one question brought."""

    session: str
    windows: list[str] = field(default_factory=list)
    sample: Sample | None = None
    probe: Probe | None = None


@dataclass(slots=True)
class Tally:
    """What all of them hold together; one lock."""

    held: list[Held] = field(default_factory=list)
    ended: Counter[str] = field(default_factory=Counter)
    """Errors that were borne, by reason."""
    wrong: list[str] = field(default_factory=list)
    kills: dict[str, float] = field(default_factory=dict)
    """When the last of each kind was killed, or had come back; infinity while it is down."""
    sessions: int = 0
    open: int = 0
    most_open: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def opened(self) -> None:
        """Count a session."""
        with self.lock:
            self.sessions += 1
            self.open += 1
            self.most_open = max(self.most_open, self.open)

    def left(self) -> None:
        """Count its end."""
        with self.lock:
            self.open -= 1

    def killed(self, what: str, *, down: bool = False) -> None:
        """Note that a cell or the registry is killed now; `down` until this is called again."""
        with self.lock:
            self.kills[what] = math.inf if down else time.monotonic()

    def keep(self, held: Held) -> None:
        """Keep what was received, if anything was."""
        if held.windows or held.sample or held.probe:
            with self.lock:
                self.held.append(held)

    def failed(self, error: BaseException) -> None:
        """Bear an error, or note it as wrong."""
        reason, now = getattr(error, "reason", type(error).__name__), time.monotonic()
        suspects = {REGISTRY, CELL} if str(error).startswith(CUT) else BORNE.get(reason, frozenset())
        with self.lock:
            if any(now - self.kills.get(kind, -math.inf) < AFTER_S[kind] for kind in suspects):
                self.ended[f"{reason}: {str(error)[:90]}"] += 1
            else:
                self.wrong.append(f"{reason}: {error}"[:500])


class Asker(threading.Thread):
    """One session after another, each on an organism of chance, with a few questions; some are left in the middle."""

    def __init__(self, client: Client, versions: list[str], *, seed: str, tally: Tally, stop: threading.Event) -> None:
        super().__init__(name=f"asker {seed}")
        self._client = client
        self._versions = versions
        self._random = Random(seed)
        self._tally = tally
        self._halt = stop

    def run(self) -> None:
        """Go on until told to stop."""
        while not self._halt.is_set():
            try:
                self._visit()
            except Exception as error:  # noqa: BLE001 - judged, and the next session begins
                self._tally.failed(error)
                time.sleep(self._random.uniform(0, 2 * _PAUSE_S))

    def _visit(self) -> None:
        session = self._client.sandbox.open(self._random.choice(self._versions), purpose=PURPOSE, timeout_s=60)
        self._tally.opened()
        try:
            for _ in range(self._random.randint(4, 24)):
                if self._halt.is_set():
                    break
                self._ask(session)
            if self._random.random() < 0.8:  # the others are left open, and end as their registry does
                session.close()
        finally:
            self._tally.left()

    def _ask(self, session: object) -> None:
        held = Held(session.name)
        prompt = f"the organism {self._random.randint(0, 999)}"
        try:
            if self._random.random() < 0.1:
                held.probe = session.probe(prompt, timeout_s=60)
                return
            asked = SamplingParameters(self._random.randint(2, 48), temperature=self._random.choice((0.0, 1.0)))
            leaves_after = self._random.randint(1, 3) if self._random.random() < 0.1 else 0
            stream = session.stream(prompt, asked, timeout_s=60)
            try:
                while True:
                    held.windows.append(next(stream))
                    if leaves_after and len(held.windows) >= leaves_after:
                        return
            except StopIteration as end:
                held.sample = end.value
            finally:
                stream.close()
        finally:
            self._tally.keep(held)
