"""Tells other systems what happened: put into the outbox with the change itself, sent by a thread of each receiver's own.

- What happened and what is told of it are one transaction, so nothing is told that was undone, and nothing is forgotten.
- No call waits for a receiver, and no receiver for another.
- An attempt is counted before it is made. A registry that dies in it tries again under the same id: at least once, not exactly.
"""

from __future__ import annotations

import logging
import secrets
import threading
from datetime import timedelta
from typing import TYPE_CHECKING

from model_organisms import names

from model_organisms_registry import hooks
from model_organisms_registry.domain.outbox import KEPT, MOST, Letter, body, next_time
from model_organisms_registry.storage.catalog import outbox as rows

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from model_organisms.records import Entry

    from model_organisms_registry.hooks import Hook
    from model_organisms_registry.storage.database import Connection, Database

_LOG = logging.getLogger(__name__)
_ROUND = 50
"""Letters of one look; between two looks what is too many or too old is shed."""
_LONGEST_REST_S = 60.0


class Outbox:
    """What is put down for whom."""

    def __init__(self, receivers: Sequence[Hook]) -> None:
        """Keep who wants to know of what."""
        self._receivers = receivers

    def wants(self, entry: Entry) -> bool:
        """Whether anybody is told of an entry."""
        return any(entry.type in hook.events for hook in self._receivers)

    def put(self, tx: Connection, entry: Entry) -> None:
        """Put down what an entry tells, in the transaction that puts it into the ledger."""
        wanting = [hook for hook in self._receivers if entry.type in hook.events]
        if wanting:
            said, now = body(entry), entry.time
            rows.add(tx, [Letter(_fresh(now), hook.name, entry.type, said, now, next_time=now) for hook in wanting])


class Notifier:
    """Sends what is due, as long as it runs.

    Args:
        database: Where the outbox is.
        receivers: Who is told.
        clock: The time.
        round_s: How often it looks.
    """

    def __init__(
        self, database: Database, receivers: Sequence[Hook], clock: Callable[[], datetime], *, round_s: float = 1.0
    ) -> None:
        """Keep them; nothing runs yet."""
        self._database = database
        self._clock = clock
        self._round_s = round_s
        self._names = [hook.name for hook in receivers]
        self._stopping = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(hook,), name=f"notify-{hook.name}", daemon=True) for hook in receivers
        ]
        self._patience_s = max((hook.timeout_s for hook in receivers), default=0.0) + 1.0

    def start(self) -> None:
        """Start it; what was left from before is due already, and given up where its receiver is no longer in the settings."""
        with self._database.write() as tx:
            if dropped := rows.orphan(tx, self._names, before=self._clock() - KEPT):
                _LOG.error("%d letters were given up: the settings name their receivers no longer", dropped)
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Stop it, after the attempts under way."""
        self._stopping.set()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(self._patience_s)

    def _run(self, hook: Hook) -> None:
        rest = self._round_s
        while not self._stopping.wait(rest):
            try:
                taken = self._round(hook)
            except Exception:  # noqa: BLE001 - whatever it is, what is due must not be left lying
                _LOG.exception("What is due for %s could not be sent; it is tried again", hook.name)
                taken = False
            # A receiver that takes nothing is asked less and less often, however much waits for it.
            rest = self._round_s if taken else min(rest * 2, _LONGEST_REST_S)

    def _round(self, hook: Hook) -> bool:
        """Send what is due, up to the first that is not taken; say whether all was taken."""
        now = self._clock()
        with self._database.read() as tx:
            found = rows.due(tx, hook.name, now, most=_ROUND)
        for letter in found:
            if self._stopping.is_set():
                return True
            if not self._sent(hook, letter):
                break
        else:
            return True
        with self._database.write() as tx:
            if dropped := rows.shed(tx, hook.name, most=MOST, before=now - KEPT):
                _LOG.error("%d letters for %s were given up: too many wait", dropped, hook.name)
        return False

    def _sent(self, hook: Hook, letter: Letter) -> bool:
        """Make one attempt; a letter that another process has begun with counts as sent."""
        now = self._clock()
        with self._database.write() as tx:
            if not rows.take(tx, letter, now + max(hook.first_pause, timedelta(seconds=2 * hook.timeout_s))):
                return True
        error = hooks.post(hook, letter.body, identifier=letter.id, now=now)
        failed = Letter(letter.id, letter.hook, letter.type, letter.body, letter.create_time, letter.attempts + 1)
        again = next_time(failed, first=hook.first_pause, now=self._clock()) if error else None
        with self._database.write() as tx:
            rows.settle(tx, letter, error=error, again=again)
        if error and again is None:
            _LOG.error("The letter %s (%s) for %s was given up: %s", letter.id, letter.type, hook.name, error)
        return not error


def _fresh(now: datetime) -> str:
    return names.opaque(int(now.timestamp() * 1000), secrets.token_bytes(10))
