"""Sessions that have their cell in this process, and the questions under way in them; what a session is, `sandbox.py` knows."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from model_organisms.errors import CellUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from model_organisms.records import Budget, Receipt, SamplingParameters, Session

    from model_organisms_registry.domain.permits import Permit
    from model_organisms_registry.isolation.placement import Tenant


@dataclass(slots=True)
class Live:
    """A session that has its cell."""

    session: Session
    cell: Tenant
    last_used: datetime
    turns: int = 0
    """Questions under way. Their cost is taken beforehand, so a session that looks spent may only be speaking its last."""
    begun: int = 0
    """Questions so far: who reads the session's row sees by it whether one came meanwhile."""


@dataclass(slots=True)
class Turn:
    """One question to a cell, from its intent to its result."""

    permit: Permit
    session: Session
    cell: Tenant
    number: int
    intent_id: str
    taken: Budget
    parameters: SamplingParameters
    witnessed: bool
    """What is released needs a cosigned checkpoint over its entry, not only a signed one."""
    dose: float | None = None
    """At which it answers, whatever is asked; None leaves that to the question."""
    intent_index: int = -1
    text: list[str] = field(default_factory=list)
    """What was released."""
    tokens: int = 0
    """Drawn, whether or not they were released."""
    values: int = 0
    facts: dict[str, str] = field(default_factory=dict)
    """What the result's entry says besides."""
    receipt: Receipt = field(init=False)
    """Of the result's entry."""

    @property
    def name(self) -> str:
        """Resource name of the sample."""
        return f"{self.session.name}/samples/{self.number}"


class Living:
    """All of them; safe to share between threads."""

    def __init__(self) -> None:
        """Begin with none."""
        self._live: dict[str, Live] = {}
        self._asking: set[str] = set()
        self._lock = threading.Lock()

    def add(self, session: Session, cell: Tenant, now: datetime) -> None:
        """Take a session in that was opened."""
        with self._lock:
            self._live[session.name] = Live(session, cell, now)

    def turn(self, name: str, intent: str, now: datetime) -> Tenant:
        """Begin a question in a session's cell, before others can see its intent; `used` ends it.

        Raises:
            CellUnavailable: Its cell is not in this process.
        """
        with self._lock:
            live = self._live.get(name)
            if live is None:
                raise CellUnavailable("The session has no cell here any more; open a new one.", session=name)
            live.last_used = max(live.last_used, now)
            live.turns += 1
            live.begun += 1
            self._asking.add(intent)
            return live.cell

    def used(self, name: str, intent: str, now: datetime) -> None:
        """End a question; whether the session has anything left to spend is the clockwork's to see."""
        with self._lock:
            self._asking.discard(intent)
            if (live := self._live.get(name)) is not None:
                live.last_used = max(live.last_used, now)
                live.turns -= 1

    def quiet(self, live: Live) -> int | None:
        """How many questions a session has had; None while one is under way."""
        with self._lock:
            return None if live.turns else live.begun

    def cell(self, name: str) -> Tenant | None:
        """The cell of a session, if it is here."""
        with self._lock:
            live = self._live.get(name)
        return live.cell if live else None

    def every(self, chosen: Callable[[Session], bool] = lambda _: True) -> list[Live]:
        """Those whose session is chosen, as they are now."""
        with self._lock:
            return [live for live in self._live.values() if chosen(live.session)]

    @property
    def asking(self) -> frozenset[str]:
        """Intents that somebody in this process works on."""
        with self._lock:
            return frozenset(self._asking)

    def drop(self, name: str, *, at_once: bool, wait: bool = False) -> None:
        """End a session's cell, if it is here.

        Args:
            name: Of the session; it is silent from here on in any case.
            at_once: It is killed: who shares its cell may lose it, where the organism is not gone in a moment.
            wait: Otherwise, wait until it is gone. The clockwork, which has others to look after, does not.
        """
        with self._lock:
            live = self._live.pop(name, None)
        if live is not None:
            live.cell.kill() if at_once else live.cell.close(wait=wait)
