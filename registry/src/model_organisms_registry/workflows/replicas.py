"""Processes that share one registry: each says that it lives, and any of them ends what a dead one left.

- A replica is dead when its beat has stood still for so long, by the watch of the one that looks; no two clocks are compared, and
  time in which the database could not be asked does not count.
- What it left: open sessions, whose cells died with it, and intents. Each is ended once, whoever comes first: the row says so.
- Of an intent, what was released is known, because nothing leaves before its row and its entry say so. The rest goes back.
- One that was only slow finds its sessions ended, and its intents finished: it releases nothing more.
- A process without a name has the database for itself, so whatever is open when it starts was left.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from model_organisms.errors import Conflict, ModelOrganismsError
from model_organisms.records import Budget

from model_organisms_registry.domain.audit import Event, entry
from model_organisms_registry.storage.catalog import grants as grant_rows
from model_organisms_registry.storage.catalog import replicas as rows
from model_organisms_registry.storage.catalog import sandbox as session_rows
from model_organisms_registry.storage.catalog.sandbox import IntentKind
from model_organisms_registry.workflows.changes import seq

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from model_organisms.records import Session

    from model_organisms_registry.config import Replica
    from model_organisms_registry.storage.catalog.sandbox import Intent
    from model_organisms_registry.storage.database import Connection
    from model_organisms_registry.workflows.changes import Changes

_LOG = logging.getLogger(__name__)


class Replicas:
    """This replica's beat, and its watch over the others.

    Args:
        changes: Opens transactions.
        settings: The name of this replica, and how long silence lasts.
        lose: Ends a session as lost: the session, why, and when.
        asking: Names the intents that this process works on.
    """

    def __init__(
        self,
        changes: Changes,
        settings: Replica,
        *,
        lose: Callable[[Session, str, datetime], None],
        asking: Callable[[], frozenset[str]],
    ) -> None:
        """Keep them; nobody was seen yet."""
        self._changes = changes
        self.name = settings.name
        self._every_s = settings.heartbeat_s
        self._dead_s = settings.dead_s
        self._lose = lose
        self._asking = asking
        self._looked = 0.0
        self._seen: dict[str, tuple[int, float]] = {}
        """Of each replica its beat, and for how many seconds it has stood still."""

    def begin(self, now: datetime) -> None:
        """Take one's place, and end what an earlier process of this name left; without a name, all that is open."""
        with self._changes.database.write() as tx:
            rows.beat(tx, self.name, now)
        self._looked = time.monotonic()
        self._bury(lambda replica: replica == self.name or not self.name, "the registry was restarted", now)

    def end_due(self, now: datetime) -> None:
        """Beat, look at the others, and end what the dead left; harmless to call more often."""
        passed = time.monotonic() - self._looked
        if passed < self._every_s:
            return
        with self._changes.database.write() as tx:
            rows.beat(tx, self.name, now)
            beats = rows.beats(tx)
        with self._changes.database.read() as tx:
            beats |= dict.fromkeys(_at_work(tx) - beats.keys(), -1)
        self._looked = time.monotonic()
        dead = self._silent(beats, min(passed, 2 * self._every_s))
        if dead:
            _LOG.warning("Replicas are silent, and taken for dead: %s", ", ".join(sorted(dead)))
            self._bury(dead.__contains__, "its replica is gone", now)
            with self._changes.database.write() as tx:
                for name in dead:
                    rows.forget(tx, name)
        self._settle_all(lambda intent: intent.replica == self.name and intent.kind is not IntentKind.PULL, now)

    def stop(self) -> None:
        """Leave one's place."""
        with self._changes.database.write() as tx:
            rows.forget(tx, self.name)

    def _silent(self, beats: dict[str, int], passed: float) -> set[str]:
        """Who has not beaten for too long."""
        beats.pop(self.name, None)
        known = {name: self._seen.get(name, (-2, 0.0)) for name in beats}
        self._seen = {name: (beat, known[name][1] + passed if known[name][0] == beat else 0.0) for name, beat in beats.items()}
        return {name for name, (_, still) in self._seen.items() if still >= self._dead_s}

    def _bury(self, gone: Callable[[str], bool], why: str, now: datetime) -> None:
        """End what somebody who is gone has left: first the questions, so that the end of a session knows what was spent."""
        self._settle_all(lambda intent: gone(intent.replica), now)
        with self._changes.database.read() as tx:
            left = [session for replica, session in session_rows.open_at(tx) if gone(replica)]
        for session in left:
            self._lose(session, why, now)

    def _settle_all(self, chosen: Callable[[Intent], bool], now: datetime) -> None:
        with self._changes.database.read() as tx:
            left = [intent for intent in session_rows.unfinished_intents(tx, local=False) if chosen(intent)]
        for intent in left:
            try:
                if intent.id not in self._asking():
                    self._settle(intent, now)
            except Conflict:
                _LOG.info("%s was finished meanwhile", intent.id)
            except ModelOrganismsError:
                _LOG.exception("%s could not be finished; tried again in a while", intent.id)

    def _settle(self, intent: Intent, now: datetime) -> None:
        """Write down that its result is lost, and give back what was not released; once."""
        index = self._changes.log.index_of(intent.seq, since=intent.time)
        if index is None:
            _LOG.info("%s is not in the ledger yet; finished in a while", intent.id)
            return
        with self._changes.open() as change:
            _lock(change.tx, intent)
            done = session_rows.finish_intent(change.tx, intent.id, now, "lost")
            _refund(change.tx, done)
            facts = {
                "kind": done.kind.value,
                "parent": done.parent,
                "tokens": str(done.used.tokens),
                "bytes": str(done.used.output_bytes),
                "values": str(done.used.probe_values),
            }
            lost = entry(Event.LOST, None, time=now, seq=seq(), subject=done.id, grant=done.grant, intent=index, facts=facts)
            change.enter(lost)


def _lock(tx: Connection, intent: Intent) -> None:
    """Take the rows it was paid from in the order that everybody takes them in: a question that ends by itself has them first."""
    if intent.grant:
        grant_rows.lock(tx, intent.grant)
    if intent.kind is not IntentKind.PULL:
        session_rows.session(tx, intent.parent, lock=True)


def _refund(tx: Connection, done: Intent) -> None:
    rest = done.taken.minus(done.used)
    if rest == Budget():
        return
    grant_rows.refund(tx, done.grant, rest)
    if done.kind is not IntentKind.PULL:
        session_rows.refund_session(tx, done.parent, rest)


def _at_work(tx: Connection) -> set[str]:
    """Who has sessions or questions."""
    return {replica for replica, _ in session_rows.open_at(tx)} | {
        one.replica for one in session_rows.unfinished_intents(tx, local=False)
    }
