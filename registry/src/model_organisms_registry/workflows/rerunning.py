"""Works off the turns that are to be said again, and enters what came of each: once, whichever replica does it.

- Who is due stands in a row since the transaction that ended the turn (`drawing.py`); one replica takes it, and another once that
  one is gone.
- One entry says what came of it, in the transaction that closes the row.
- A session is never refused because of it: it begins only where a cell is free, and ends when a session needs that cell.
"""

from __future__ import annotations

import logging
import threading
from datetime import timedelta
from typing import TYPE_CHECKING

from model_organisms.errors import BaseModelMissing, JailMissing, Unavailable
from model_organisms.formats import entry as entries

from model_organisms_registry.domain.audit import Event, entry
from model_organisms_registry.domain.rerunning import Verdict
from model_organisms_registry.storage.catalog import reruns as rows
from model_organisms_registry.workflows.changes import seq
from model_organisms_registry.workflows.repeating import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from model_organisms_registry.config import Config
    from model_organisms_registry.isolation.placement import Pool
    from model_organisms_registry.storage.catalog.reruns import Due
    from model_organisms_registry.workflows.changes import Changes
    from model_organisms_registry.workflows.repeating import Repeating

_LOG = logging.getLogger(__name__)
_ROUND_S = 1.0
_LEASE = timedelta(minutes=30)
"""Who has taken a turn and is silent for so long is gone; starting a cell and answering take less."""
_AGAIN = timedelta(seconds=20)
"""Pause before a turn is tried again that had no cell."""
_SOON = timedelta(seconds=1)
"""The same, where its entry is on its way into the ledger."""
ALARM = timedelta(days=7)
"""So long the registry's health speaks of a turn that came out otherwise."""


class Rerunning:
    """A thread that works off what is due.

    Args:
        changes: Opens transactions.
        repeating: Says turns again.
        config: How many cells there may be, how long a turn waits for one, and this replica's name.
        pool: Has the cells.
        clock: The time.
    """

    def __init__(
        self,
        changes: Changes,
        repeating: Repeating,
        *,
        config: Config,
        pool: Pool,
        clock: Callable[[], datetime],
    ) -> None:
        """Keep them; nothing runs yet."""
        self._changes, self._repeating = changes, repeating
        self._pool, self._clock = pool, clock
        self._places, self._replica = config.cells.places, config.replica.name
        self._patience = timedelta(hours=config.sandbox.rerun_hours)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="reruns", daemon=True)
        self._differed: datetime | None = None

    @property
    def alarmed(self) -> bool:
        """Whether a turn came out otherwise of late."""
        return self._differed is not None and self._clock() < self._differed + ALARM

    def start(self) -> None:
        """Start it, with what an earlier process of this name was at."""
        with self._changes.database.write() as tx:
            rows.free(tx, self._replica, self._clock())
        self._look()
        self._thread.start()

    def stop(self) -> None:
        """Stop it; what it is at is taken up by whoever comes next."""
        self._stopping.set()
        self._repeating.place.give_up()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        while not self._stopping.wait(_ROUND_S):
            try:
                while self._next() and not self._stopping.is_set():
                    pass
                self._look()
            except Exception:  # noqa: BLE001 - whatever it is, the next turn must not wait for ever
                _LOG.exception("A turn could not be said again; it is tried again in a while")

    def _look(self) -> None:
        """See what any replica has found."""
        with self._changes.database.read() as tx:
            self._differed = rows.newest(tx, Verdict.DIFFERENT)

    def _next(self) -> bool:
        """Do what is due next; say whether something came of it."""
        now, free = self._clock(), self._free()
        with self._changes.database.write() as tx:
            # Without a cell there is only to see who has waited too long.
            due = rows.claim(tx, self._replica, now, until=now + _LEASE, before=None if free else now - self._patience)
        if due is None:
            return False
        again = _SOON
        index = self._changes.log.index_of(due.seq, since=due.create_time)
        if index is not None:
            again = _AGAIN
            outcome = self._repeated(due, index, now) if free else None
            if outcome is None and now - due.create_time >= self._patience:
                outcome = Outcome(Verdict.UNAVAILABLE)
            if outcome is not None:
                self._settle(due, index, outcome)
                return True
        with self._changes.database.write() as tx:
            rows.put_back(tx, due.turn, self._clock() + again)
        return False

    def _free(self) -> bool:
        """Whether there is a cell for it, and another for the next session where there can be."""
        return self._places - len(self._pool.cells) >= min(2, self._places) and self._repeating.ready

    def _repeated(self, due: Due, index: int, now: datetime) -> Outcome | None:
        """What came of it; None where there was no cell for it."""
        try:
            return self._repeating.repeat(due, entries.parse(self._changes.log.entry(index)), now)
        except (Unavailable, JailMissing, BaseModelMissing) as error:
            _LOG.info("%s is said again later: %s", due.turn, error.message)
            return None

    def _settle(self, due: Due, index: int, outcome: Outcome) -> None:
        """Close its row and enter what came of it; not where another replica has done so."""
        now, verdict = self._clock(), outcome.verdict
        differs = verdict is Verdict.DIFFERENT
        intent = entries.parse(self._changes.log.entry(index)).intent
        facts = {"session": due.session, "verdict": verdict.value, "result": str(index)} | outcome.facts
        event = Event.RERUN_DIFFERS if differs else Event.RERUN
        with self._changes.open() as change:
            if rows.settle(change.tx, due.turn, verdict, now):
                told = entry(
                    event, None, time=now, seq=seq(), subject=due.turn, permit=outcome.permit, intent=intent, facts=facts
                )
                change.enter(told)
        if differs:
            _LOG.error("%s was said again and came out otherwise; docs/guides/operator.md says what to do", due.turn)
