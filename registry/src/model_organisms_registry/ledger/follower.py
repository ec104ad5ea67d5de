"""The ledger as a registry sees it that does not write it: another process holds the lead, the database says how far it is."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from model_organisms.errors import LedgerUnavailable
from model_organisms.formats import checkpoint

from model_organisms_registry.ledger import rows

if TYPE_CHECKING:
    from model_organisms_registry.ledger.desk import Ticket
    from model_organisms_registry.ledger.history import History, View
    from model_organisms_registry.ledger.tiles import Published
    from model_organisms_registry.storage.database import Database


class Follower:
    """Reads heads that another process signed.

    Args:
        database: Where the head is.
        published: The files; an entry counts only when a published checkpoint covers it.
        history: Reads the tree.
    """

    def __init__(self, database: Database, published: Published, history: History) -> None:
        """Keep them; nothing is read yet."""
        self._database = database
        self._published = published
        self._history = history
        self._lock = threading.Lock()
        self._view: View | None = None

    def view(self) -> View:
        """Read the newest head.

        Raises:
            LedgerUnavailable: The ledger was never started.
            VerificationFailed: The entries do not give the head.
        """
        with self._database.read() as tx:
            head = rows.read_head(tx)
        if head is None:
            raise LedgerUnavailable("The ledger has no head yet; start the registry that writes it.")
        with self._lock:
            if self._view is None or head.size < self._view.head.size:
                self._view = self._history.view(head)
            elif head != self._view.head:
                self._view = self._history.extend(self._view, head)
            return self._view

    def look(self, ticket: Ticket) -> None:
        """Settle a ticket if its entry is under a published head by now."""
        with self._database.read() as tx:
            index = rows.find(tx, ticket.body, since=ticket.since)
        if index is None:
            return
        note = self._published.checkpoint()
        if note is None or index >= checkpoint.parse_unverified(note).size:
            return
        view = self.view()
        if index < view.head.size:
            ticket.settle(index, view)
