"""State and its ledger entry as one transaction, acknowledged once the entry is in the ledger; every workflow writes this way.

- The entry is inserted by the transaction that changes the state: both are there, or neither.
- A refusal inside a change is recorded after the change was undone and before the caller hears of it: recorded inside, it would
  be undone with it, or wait for the very transaction it stands in.
- `receipt` exists only after the ledger's signed head covers the entry; where that is asked for, a cosigned one. If it takes too
  long the call fails closed; what was committed is sequenced later, and the caller, who was told that nothing is certain, looks
  before trying again.
"""

from __future__ import annotations

import secrets
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from model_organisms import names
from model_organisms.errors import Internal

from model_organisms_registry.domain.audit import SEQ_BITS
from model_organisms_registry.workflows.notifying import Outbox

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from model_organisms.records import Entry, Receipt

    from model_organisms_registry.ledger.log import Log, Ticket
    from model_organisms_registry.storage.catalog.sandbox import Content
    from model_organisms_registry.storage.contents import Contents
    from model_organisms_registry.storage.database import Connection, Database


class Change:
    """One transaction that is under way, and afterwards its receipt."""

    def __init__(self, tx: Connection, database: Database, log: Log, outbox: Outbox) -> None:
        """Keep the transaction; nothing is written yet."""
        self.tx = tx
        self._database = database
        self._log = log
        self._outbox = outbox
        self.tickets: list[Ticket] = []
        self.receipts: list[Receipt] = []
        self.denials: list[Entry] = []
        self._kept: list[tuple[Contents, Content]] = []

    def enter(self, entry: Entry) -> None:
        """Put an entry into the ledger with this change, and what other systems are told of it into the outbox."""
        self.tickets.append(self._log.append(self.tx, entry))
        self._outbox.put(self.tx, entry)

    def commit(self, contents: Contents, owner: str, text: str) -> str:
        """Seal a text with this change and give the commitment for its entry; no text gives none.

        Where the change is undone, the sealed text goes with it.
        """
        if not text:
            return ""
        content = contents.keep(owner, text.encode())
        self._kept.append((contents, content))
        contents.index(self.tx, content)
        return content.commit

    def undone(self) -> None:
        """Delete what was sealed for it; after the transaction."""
        for contents, content in self._kept:
            contents.drop(self._database, content)

    @property
    def receipt(self) -> Receipt:
        """Receipt of the last entry; only after the change."""
        if not self.receipts:
            raise Internal("A change was acknowledged before its entry; report this to the operator.")
        return self.receipts[-1]


class Changes:
    """Opens changes.

    Args:
        database: Where state is.
        log: The ledger.
        wait_s: Longest wait for the ledger, in seconds.
        outbox: Where what other systems are told is put down; without one, nobody is told.
    """

    def __init__(self, database: Database, log: Log, *, wait_s: float, outbox: Outbox | None = None) -> None:
        """Keep them; nothing is opened yet."""
        self._outbox = outbox or Outbox(())
        self.database = database
        self.log = log
        self._wait_s = wait_s
        self._mine = threading.local()

    @contextmanager
    def open(self, *, witnessed: bool = False) -> Iterator[Change]:
        """One change: committed when the block ends, acknowledged before this returns.

        Args:
            witnessed: Acknowledge it only when enough witnesses have cosigned a head over it.

        Raises:
            LedgerUnavailable: The ledger could not be written in time, or not witnessed; nothing may be served.
        """
        change: Change | None = None
        try:
            with self.database.write() as tx:
                change = self._mine.change = Change(tx, self.database, self.log, self._outbox)
                yield change
        except BaseException:
            if change is not None:
                change.undone()
            raise
        finally:
            self._mine.change = None
            for denial in change.denials if change else ():
                self.enter(denial)
        receipts = [self.log.wait(ticket, timeout_s=self._wait_s) for ticket in change.tickets]
        change.receipts = [self.log.cosigned(receipt) for receipt in receipts] if witnessed else receipts

    def enter(self, entry: Entry) -> Receipt:
        """Put an entry that changes no state into the ledger, and wait for it; it takes a transaction only where it is told."""
        if self._outbox.wants(entry):
            with self.open() as change:
                change.enter(entry)
            return change.receipt
        return self.log.record(entry, timeout_s=self._wait_s)

    def record_denial(self, entry: Entry) -> None:
        """Make a refusal durable: at once, or where a change is open in this thread, when that is undone."""
        change: Change | None = getattr(self._mine, "change", None)
        if change is None:
            self.enter(entry)
        else:
            change.denials.append(entry)


def seq() -> int:
    """Fresh random number of an entry."""
    return secrets.randbits(SEQ_BITS)


def name(collection: str, now: datetime) -> str:
    """Fresh opaque name in a collection, such as `requests/01j…`."""
    return f"{collection}/{names.opaque(int(now.timestamp() * 1000), secrets.token_bytes(10))}"
