"""The ledger's face: put an entry in with your own transaction, wait until it is proved, read it back."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import TYPE_CHECKING

from model_organisms.errors import InvalidArgument, LedgerUnavailable, NotFound
from model_organisms.formats import entry as entries
from model_organisms.formats import merkle
from model_organisms.records import Checkpoint, Receipt

from model_organisms_registry.ledger import rows
from model_organisms_registry.ledger.desk import Desk, Ticket
from model_organisms_registry.ledger.follower import Follower
from model_organisms_registry.ledger.history import History
from model_organisms_registry.ledger.quorum import Quorum
from model_organisms_registry.ledger.sequencer import Sequencer
from model_organisms_registry.ledger.tiles import Published

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from model_organisms.records import Entry

    from model_organisms_registry.ledger.history import View
    from model_organisms_registry.ledger.seat import Seat
    from model_organisms_registry.ledger.signer import Signer
    from model_organisms_registry.storage.blobs import Blobs
    from model_organisms_registry.storage.database import Connection, Database

__all__ = ["Log", "Ticket"]

MOST_ENTRIES = 1000
_SKEW = timedelta(minutes=1)
_LOOK_S = 0.01
"""How often a registry that does not lead looks whether the one that does has come to its entry."""


class Log:
    """An append-only Merkle log.

    - What `wait` or `record` returned a receipt for is in the ledger for ever.
    - What they refused may be in it later: the caller tells its own caller that nothing is certain.

    Args:
        database: Where pending and sequenced entries are.
        blobs: Where tiles and checkpoints are published.
        signer: Signs heads, and remembers the last one.
        standby: With PostgreSQL, let several registries share a ledger: one leads, the others hand it their entries and take
            over when it is gone. Each needs the signer's key, and its memory on storage that they share.
        witnesses: Who is asked to cosign: verifier key to address.
        quorum: How many of them must have cosigned before a head counts as witnessed; 0 asks none.
        witness_timeout_s: Longest wait for one of them.
        witness_lag_s: How long a cosigned head speaks for the ledger.
    """

    def __init__(
        self,
        database: Database,
        blobs: Blobs,
        signer: Signer | Seat,
        *,
        standby: bool = False,
        witnesses: Mapping[str, str] | None = None,
        quorum: int = 0,
        witness_timeout_s: float = 1.5,
        witness_lag_s: float = 60.0,
    ) -> None:
        """Keep them; nothing is read before `start`."""
        published = Published(blobs)
        self._database = database
        self._desk = Desk()
        self._history = History(database, published)
        self._follower = Follower(database, published, self._history)
        self._sequencer = Sequencer(database, published, self._history, signer, self._desk, standby=standby)
        self._standby = standby
        self._published = published
        self._witness_timeout_s = witness_timeout_s
        self._quorum = Quorum(
            witnesses or {},
            needed=quorum,
            timeout_s=witness_timeout_s,
            lag_s=witness_lag_s,
            newest=lambda: self._sequencer.view,
            publish=published.publish_cosigned,
        )
        self._signer = signer
        self.vkey = signer.vkey
        self.origin = signer.origin

    def start(self) -> None:
        """Take the lead, finish what a crash left, and begin to sequence.

        Raises:
            LedgerUnavailable: Another registry writes this ledger, or its files cannot be written.
            VerificationFailed: What is there is not one history; run `mo-registry fsck`.
        """
        self._sequencer.start()
        self._quorum.start()

    def close(self) -> None:
        """Sequence what is waiting, and stop."""
        self._quorum.close()
        self._sequencer.close()
        self._signer.close()

    @property
    def healthy(self) -> bool:
        """Whether entries get through now."""
        return self._sequencer.fault is None and (self._sequencer.view is not None or self._standby)

    @property
    def leads(self) -> bool:
        """Whether this process is the one that writes."""
        return self._sequencer.view is not None

    @property
    def witnessed(self) -> bool:
        """Whether enough witnesses have cosigned a head that was the newest a short while ago."""
        return self._quorum.stands

    def append(self, tx: Connection, entry: Entry) -> Ticket:
        """Put an entry in with the caller's own transaction; wait for it after the commit.

        Raises:
            InvalidArgument: The entry is not well formed, or on its way already.
        """
        ticket = Ticket(entries.encode(entry), since=self._known_size())
        self._desk.expect(ticket)
        rows.add_pending(tx, ticket.body)
        return ticket

    def wait(self, ticket: Ticket, *, timeout_s: float = 2.0) -> Receipt:
        """Wait until an entry is covered by a signed and published head; the ticket's transaction has been committed.

        Raises:
            LedgerUnavailable: It was not within the time. Nothing may be served on it.
        """
        self._desk.wake()
        return self._proved(ticket, time.monotonic() + timeout_s)

    def record(self, entry: Entry, *, timeout_s: float = 2.0) -> Receipt:
        """Put in an entry that belongs to no transaction, and wait for it.

        Raises:
            InvalidArgument: The entry is not well formed, or on its way already.
            LedgerUnavailable: As for `wait`.
        """
        until = time.monotonic() + timeout_s
        if self._sequencer.view is None and self._standby:
            with self._database.write() as tx:
                ticket = self.append(tx, entry)
        else:
            ticket = Ticket(entries.encode(entry), since=self._known_size())
            self._desk.record(ticket)
        return self._proved(ticket, until)

    def cosigned(self, receipt: Receipt) -> Receipt:
        """Wait until enough witnesses have cosigned a head over an entry, and prove it under that head.

        The wait is as long as two rounds: one may be under way that began before the entry.

        Raises:
            LedgerUnavailable: They have not within the time. What needs a witness may not be served on it.
        """
        view = self._quorum.covering(receipt.index, timeout_s=2 * self._witness_timeout_s)
        if view is None:
            msg = "The ledger's witnesses have not cosigned this in time, so nothing is served; try again, and tell the operator"
            raise LedgerUnavailable(f"{msg} if it stays.")
        return _receipt(receipt.index, receipt.entry, view)

    def cosigned_checkpoint(self) -> bytes:
        """Return the newest checkpoint that enough witnesses have cosigned, with their lines; empty if there is none."""
        return self._published.cosigned() or b""

    def size(self) -> int:
        """Count the entries under the newest head."""
        return self._view().head.size

    def checkpoint(self) -> Checkpoint:
        """Return the newest signed head."""
        head = self._view().head
        return Checkpoint(self.origin, head.size, head.root, head.note)

    def entry(self, index: int) -> bytes:
        """Return one entry's bytes.

        Raises:
            NotFound: The ledger is not that long.
        """
        return self._entry(index, self._view())

    def entries(self, start: int, count: int) -> list[bytes]:
        """Return entries in order, as many as there are, at most `count` and 1,000."""
        last = min(self.size(), start + min(count, MOST_ENTRIES))
        return self._history.entries(start, last - start) if 0 <= start < last else []

    def index_of(self, seq: int, *, since: datetime) -> int | None:
        """Find the entry with a random number, from the newest back to a minute before `since`; None where it is not there yet.

        A walk, because nobody asks in a hurry: whoever made an entry has its receipt, unless a crash came between.
        """
        last = self.size()
        while last > 0:
            first = max(0, last - MOST_ENTRIES)
            found = [entries.parse(body) for body in self.entries(first, last - first)]
            for index, one in enumerate(found, first):
                if one.seq == seq:
                    return index
            if found[0].time < since - _SKEW:
                return None
            last = first
        return None

    def index_about(self, kind: str, subjects: frozenset[str]) -> dict[str, int]:
        """Find the first entries of a type about each of some things; a walk over the whole ledger, for what a crash left."""
        found: dict[str, int] = {}
        at = 0
        while found.keys() != subjects and (bodies := self.entries(at, MOST_ENTRIES)):
            for index, one in enumerate(map(entries.parse, bodies), at):
                if one.type == kind and one.subject in subjects:
                    found.setdefault(one.subject, index)
            at += len(bodies)
        return found

    def receipt(self, index: int) -> Receipt:
        """Prove one entry under the newest head.

        Raises:
            NotFound: The ledger is not that long.
        """
        view = self._view()
        return _receipt(index, self._entry(index, view), view)

    def consistency(self, old_size: int, new_size: int) -> list[bytes]:
        """Prove that the head of `new_size` entries continues that of `old_size`.

        Raises:
            InvalidArgument: The sizes are not in order, or beyond the ledger.
        """
        view = self._view()
        if not 0 <= old_size <= new_size <= view.head.size:
            raise InvalidArgument(f"Ask for sizes in order, up to {view.head.size}.")
        return list(merkle.consistency(old_size, new_size, view.tree.hash_at))

    def _view(self) -> View:
        return self._sequencer.view or self._follower.view()

    def _known_size(self) -> int:
        view = self._sequencer.view
        return view.head.size if view else 0

    def _entry(self, index: int, view: View) -> bytes:
        if not 0 <= index < view.head.size:
            raise NotFound(f"The ledger has {view.head.size} entries; there is none at {index}.")
        return self._history.entries(index, 1)[0]

    def _proved(self, ticket: Ticket, until: float) -> Receipt:
        """Wait for the sequencer of this process, or look what that of another has done."""
        view: View | None = None
        while view is None:
            left = until - time.monotonic()
            leads = self._sequencer.view is not None or not self._standby
            view = ticket.wait(left if leads else min(left, _LOOK_S))
            if view is None and not leads:
                self._follower.look(ticket)
            if view is None and left <= 0:
                break
        view = view or ticket.view
        if view is None:
            ticket.given_up = True
            fault = self._sequencer.fault
            because = f" ({type(fault).__name__})" if fault else ""
            raise LedgerUnavailable(
                f"The ledger could not be written in time{because}, so nothing is served; try again,"
                " and tell the operator if it stays."
            )
        return _receipt(ticket.index, ticket.body, view)


def _receipt(index: int, body: bytes, view: View) -> Receipt:
    return Receipt(index, body, merkle.inclusion(index, view.head.size, view.tree.hash_at), view.head.note)
