"""Where those who want an entry in the ledger meet the sequencer: tickets, and who waits for which. Nothing is written here."""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from model_organisms.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Iterable

    from model_organisms_registry.ledger.history import View

_LOOK_S = 0.0003
_QUIET_LOOKS = 2


class Ticket:
    """A claim to one entry's receipt. Whoever drops it has stopped waiting."""

    __slots__ = ("__weakref__", "_gate", "body", "given_up", "index", "since", "view")

    def __init__(self, body: bytes, *, since: int = 0) -> None:
        """Claim the entry `body`, which is not in the ledger's first `since` entries."""
        self.body = body
        self.since = since
        self.index = -1
        self.view: View | None = None
        self.given_up = False
        self._gate = threading.Lock()
        self._gate.acquire()

    def wait(self, timeout_s: float) -> View | None:
        """Wait for the head that covers the entry; nothing if the time runs out."""
        if self.view is None and self._gate.acquire(timeout=max(0.0, timeout_s)):
            self._gate.release()
        return self.view

    def settle(self, index: int, view: View) -> None:
        """Say where the entry is, and under which head."""
        if self.view is None:
            self.index, self.view = index, view
            self._gate.release()


class Desk:
    """Tickets on their way, safe to use from any thread.

    - A ticket whose holder has gone is forgotten, so a transaction that was undone leaves nothing here.
    - A recorded entry that nobody waits for any more is not put into the ledger if it is not there yet.
    """

    def __init__(self) -> None:
        """Begin with nobody waiting."""
        self._changed = threading.Condition()
        self._expected: WeakValueDictionary[bytes, Ticket] = WeakValueDictionary()
        self._recorded: deque[Ticket] = deque()
        self._woken = 0
        self._sleeping = False
        self._closing = False

    def expect(self, ticket: Ticket) -> None:
        """Remember who waits for an entry that a transaction adds.

        Raises:
            InvalidArgument: Somebody waits for the same entry.
        """
        with self._changed:
            if ticket.body in self._expected:
                raise InvalidArgument("This entry is on its way already; give each its own random seq.")
            self._expected[ticket.body] = ticket

    def record(self, ticket: Ticket) -> None:
        """Take an entry that belongs to no transaction. No lock is taken unless the sequencer sleeps."""
        self._recorded.append(ticket)
        if self._sleeping:
            with self._changed:
                self._changed.notify()

    def wake(self) -> None:
        """Say that a transaction with entries has been committed."""
        with self._changed:
            self._woken += 1
            self._changed.notify()

    def close(self) -> None:
        """Say that no more will come."""
        with self._changed:
            self._closing = True
            self._changed.notify()

    def idle(self, timeout_s: float) -> bool:
        """Wait until there is something to do; whether anybody said so, or only the time is over."""
        with self._changed:
            self._sleeping = True  # before looking: who comes after the look sees it and notifies
            if not (self._recorded or self._woken or self._closing):
                self._changed.wait(timeout_s)
            self._sleeping = False
            said, self._woken = bool(self._recorded or self._woken or self._closing), 0
            return said

    def gather(self, expected: int) -> None:
        """Give those who were just released a moment to come back, so that they share a batch and do not run against it.

        Ends when as many are here, or nobody came for two looks. One alone has nobody to share with.
        """
        before, quiet = 0, 0 if expected > 1 else _QUIET_LOOKS
        while quiet < _QUIET_LOOKS and (here := len(self._recorded) + self._woken) < expected:
            quiet = 0 if here > before else quiet + 1
            before = here
            time.sleep(_LOOK_S)

    def pause(self, seconds: float) -> None:
        """Wait, whoever comes; only closing ends it early."""
        with self._changed:
            self._changed.wait_for(lambda: self._closing, seconds)

    @property
    def closing(self) -> bool:
        """Whether no more will come."""
        return self._closing

    def take(self, limit: int) -> list[Ticket]:
        """Take recorded entries, oldest first."""
        taken: list[Ticket] = []
        while self._recorded and len(taken) < limit:
            ticket = self._recorded.popleft()
            if not ticket.given_up:
                taken.append(ticket)
        return taken

    def put_back(self, tickets: Iterable[Ticket]) -> None:
        """Take recorded entries back that turned out not to be in the ledger, as the oldest."""
        self._recorded.extendleft(reversed([ticket for ticket in tickets if ticket.view is None]))

    def claim(self, bodies: Iterable[bytes]) -> list[Ticket | None]:
        """Find who waits for entries of transactions; they stay on the list, because a batch may fail and come back."""
        with self._changed:
            return [self._expected.get(body) for body in bodies]
