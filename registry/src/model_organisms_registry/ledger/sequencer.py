"""Puts entries in order: the one thread that writes the ledger. Each step says what a crash right there leaves.

1. Stage: pending rows and recorded entries get their indexes, in one transaction, for ever.
   Crash: staged entries without a head; the next start signs exactly them.
2. Sign: the signer checks that the new head continues its last, writes it down, signs.
   Crash: the signer remembers a head nobody saw; the same head is made again, because staged order is fixed.
3. Swap: the head row is compared and swapped. This is the commit point.
   Crash: a head that is not published; the next start publishes it.
4. Publish: bundles, tiles, checkpoint.
   Crash: files no checkpoint speaks of; the next start writes the same ones.
5. Release those who wait. Tidy.

A start runs steps 2 to 5 on whatever it finds, so recovery is the happy path. After any failure the thread forgets what it
knew and does the same, again and again, with a pause; meanwhile nobody is released, so the registry fails closed.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING

from model_organisms.errors import LedgerForked, LedgerUnavailable, ModelOrganismsError, VerificationFailed
from model_organisms.formats import checkpoint, merkle, tiles
from model_organisms.formats.tiles import ENTRIES, WIDTH, Tile

from model_organisms_registry.ledger import rows
from model_organisms_registry.ledger.history import View
from model_organisms_registry.ledger.leader import Leadership
from model_organisms_registry.ledger.rows import Head

if TYPE_CHECKING:
    from collections.abc import Sequence

    from model_organisms_registry.ledger.desk import Desk, Ticket
    from model_organisms_registry.ledger.history import History
    from model_organisms_registry.ledger.seat import Seat
    from model_organisms_registry.ledger.signer import Signer
    from model_organisms_registry.ledger.tiles import Published
    from model_organisms_registry.storage.database import Database

_LOG = logging.getLogger(__name__)
BATCH = 1024
_IDLE_S = {"sqlite": 1.0, "postgresql": 0.02}
"""How often pending rows are looked for that nobody spoke of: on PostgreSQL, other processes write them."""

_CHECK_S = 1.0
_PAUSE_S = (0.05, 1.0)
"""First and longest pause after failures."""


class Sequencer:
    """The ledger's writer, while it holds the lead.

    Args:
        database: Where entries and the head are.
        published: Where tiles go.
        history: Reads back what is there.
        signer: Signs heads.
        desk: Where entries come from, and who waits.
        standby: Whether to wait for the lead when another process holds it, instead of refusing.
    """

    def __init__(
        self, database: Database, published: Published, history: History, signer: Signer | Seat, desk: Desk, *, standby: bool
    ) -> None:
        """Keep them; nothing is read yet."""
        self._database = database
        self._published = published
        self._history = history
        self._signer = signer
        self._desk = desk
        self._standby = standby
        self._leader = Leadership(database)
        self._leads = False
        self._checked = 0.0
        self._recent: tuple[int, list[bytes]] = (0, [])  # the last bundle so far: its first index, its encoded entries
        self._unsure: list[Ticket] = []
        self._thread: threading.Thread | None = None
        self.view: View | None = None
        """The newest head that is published; nothing while another process leads."""
        self.fault: Exception | None = None
        """Why entries do not get through at the moment."""

    def start(self) -> None:
        """Take the lead, recover, and run."""
        try:
            self._prepare()
        except BaseException:
            self._step_down()
            raise
        self._thread = threading.Thread(target=self._run, name="ledger-sequencer", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Sequence what waits, and stop; harmless the second time."""
        self._desk.close()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self._step_down()

    def _run(self) -> None:
        pause = _PAUSE_S[0]
        while True:
            closing = self._desk.closing
            try:
                if self.view is None or self.fault is not None:
                    self._prepare()
                if self.view is not None:
                    self._work()
                pause = _PAUSE_S[0]
            except Exception as error:  # noqa: BLE001 - whatever it is, nobody is released and it is tried again
                self._fail(error)
                self._desk.pause(pause)
                pause = min(2 * pause, _PAUSE_S[1])
            if closing:
                return

    def _work(self) -> None:
        """Wait until there is something to do, and do it."""
        said = self._desk.idle(_IDLE_S[self._database.dialect])
        if time.monotonic() - self._checked > _CHECK_S:
            self._leader.check()
            self._in_place()
            self._checked = time.monotonic()
        if not said:
            with self._database.read() as tx:
                said = rows.any_pending(tx)
        while said:  # who came while a batch ran has said so, and the next wait ends at once
            said = self._batch() >= BATCH

    def _batch(self) -> int:
        """Run the steps once; how many entries there were."""
        view = self._must_view()
        self._in_place()
        self._unsure = self._desk.take(BATCH)
        with self._database.write() as tx:
            pending = rows.take_pending(tx, BATCH)
            bodies = pending + [ticket.body for ticket in self._unsure]
            rows.stage(tx, view.head.size, bodies)
        if bodies:
            self._seal(view, bodies, [*self._desk.claim(pending), *self._unsure])
        self._unsure = []
        return len(bodies)

    def _seal(self, view: View, bodies: list[bytes], waiting: Sequence[Ticket | None]) -> None:
        """Run steps 2 to 5 for entries that are staged after the head, and who waits for each."""
        old, tree = view.head, view.tree
        for body in bodies:
            tree.append(merkle.leaf_hash(body))
        proof = merkle.consistency(self._signer.size, tree.size, tree.hash_at)
        root = tree.root()
        new = Head(tree.size, root, self._signer.sign(tree.size, root, proof))
        with self._database.write() as tx:
            rows.swap_head(tx, old, new)
        self._recent[1].extend(map(tiles.encode_entry, bodies))
        now = View(new, tree)
        self._publish(old.size, now)
        self._in_place()
        self.view = now
        for index, ticket in enumerate(waiting, old.size):
            if ticket is not None:
                ticket.settle(index, now)
        self._forget_before(new.size - new.size % WIDTH)
        if new.size // WIDTH > old.size // WIDTH:
            self._published.tidy(old.size, new.size)
        self._desk.gather(len(waiting) - waiting.count(None))

    def _in_place(self) -> None:
        """Make sure that what is written goes where a restart would look for it."""
        self._database.in_place()
        self._published.in_place()

    def _prepare(self) -> None:
        """Take the lead if it is free, and make what is there one signed, published history again."""
        self._in_place()
        if not self._leads:
            if not self._leader.acquire():
                if self._standby:
                    self.fault = None
                    self._desk.idle(_CHECK_S)
                    return
                raise LedgerUnavailable("Another registry writes this ledger; stop it, or do not start this one.")
            self._leads = True
        if not self._signer.held:  # it was never held, or it has died meanwhile
            self._signer.hold()
        view, staged = self._found()
        first = view.head.size - view.head.size % WIDTH
        self._recent = (first, [tiles.encode_entry(body) for body in self._history.entries(first, view.head.size - first)])
        published = self._published_size(view)
        if published < view.head.size:
            self._publish(published, view)
        self._published.mend(view.head.size, lambda tile: self._content(tile, view), view.head.note)
        self._published.tidy(max(0, first - 1), view.head.size)
        if staged:
            unsure = {ticket.body: ticket for ticket in self._unsure}
            claimed = zip(staged, self._desk.claim(staged), strict=True)
            self._seal(view, staged, [unsure.get(body) or ticket for body, ticket in claimed])
        else:
            self.view = view
        self._resolve()
        self.fault = None

    def _resolve(self) -> None:
        """Settle recorded entries that a batch got into the ledger before it failed; the others are for the next batch."""
        view = self._must_view()
        if self._unsure:
            with self._database.read() as tx:
                indexes = [rows.find(tx, ticket.body, since=ticket.since) for ticket in self._unsure]
            for index, ticket in zip(indexes, self._unsure, strict=True):
                if index is not None and index < view.head.size:
                    ticket.settle(index, view)
        self._desk.put_back(self._unsure)
        self._unsure = []

    def _found(self) -> tuple[View, list[bytes]]:
        """Read head and staged entries, and hold them against what the signer remembers."""
        with self._database.read() as tx:
            head = rows.read_head(tx)
            staged = rows.staged(tx, head.size if head else 0)
        if head is None:
            if self._signer.size or staged:
                raise LedgerForked("The ledger's head is gone from the database, but entries were signed; restore a backup.")
            head = Head(0, merkle.EMPTY_ROOT, self._signer.sign(0, merkle.EMPTY_ROOT, ()))
            with self._database.write() as tx:
                rows.create_head(tx, head)
        signed = checkpoint.verified(head.note, self._signer.verifier, origin=self._signer.origin)
        if (signed.size, signed.root) != (head.size, head.root):
            raise VerificationFailed("The ledger's head row says something else than its signed note; run `mo-registry fsck`.")
        if not head.size <= self._signer.size <= head.size + len(staged):
            raise LedgerForked(
                f"The ledger's signer has signed {self._signer.size} entries, but the database has a head of {head.size} and"
                f" {len(staged)} after it: one of them is an old copy. Restore the newer; see deploy/runbook.md."
            )
        return self._history.view(head), staged

    def _published_size(self, view: View) -> int:
        """Read how far the files go; a checkpoint that says nothing true is made again, one that says too much is a fork."""
        note = self._published.checkpoint()
        try:
            seen = checkpoint.verified(note or b"", self._signer.verifier, origin=self._signer.origin)
        except ModelOrganismsError:
            if note is not None:
                _LOG.warning("the ledger's published checkpoint does not verify; all files are checked, and it is made again")
            return 0
        if seen.size > view.head.size or seen.root != view.tree.root(seen.size):
            raise LedgerForked(
                f"The published checkpoint of {seen.size} entries is not of the history in the database, which has"
                f" {view.head.size}: one of them is an old copy. Restore the newer; see deploy/runbook.md."
            )
        return seen.size

    def _publish(self, old_size: int, view: View) -> None:
        self._published.publish(old_size, view.head.size, lambda tile: self._content(tile, view), view.head.note)

    def _content(self, tile: Tile, view: View) -> bytes:
        first, encoded = self._recent
        if tile.level == ENTRIES and tile.first >= first:
            return b"".join(encoded[tile.first - first : tile.first - first + tile.width])
        return self._history.content(tile, view.tree)

    def _forget_before(self, first: int) -> None:
        was, encoded = self._recent
        if first > was:
            self._recent = (first, encoded[first - was :])

    def _must_view(self) -> View:
        if self.view is None:
            raise LedgerUnavailable("The ledger is not started.")
        return self.view

    def _fail(self, error: Exception) -> None:
        """Remember why; and if the lead may be lost, let it go so that it can be taken anew."""
        self.fault = error
        _LOG.error("the ledger could not be written; nothing is served until it can", exc_info=error)
        try:
            self._leader.check()
        except LedgerUnavailable:
            self._step_down()

    def _step_down(self) -> None:
        self._signer.release()
        self._leader.release()
        self._leads = False
        self.view = None
