"""The ledger's SQL, each statement once; order and meaning are the sequencer's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from model_organisms.errors import LedgerUnavailable, VerificationFailed
from sqlalchemy import Integer, bindparam, delete, insert, select, update

from model_organisms_registry.ledger.schema import ROW, entries, head, pending

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

# Built once: making a statement costs as much as running it, and these run for every entry or batch.
_READ_HEAD = select(head.c.size, head.c.root, head.c.note).where(head.c.id == ROW)
_SWAP_HEAD = (
    update(head)
    .where((head.c.id == ROW) & (head.c.size == bindparam("old_size")) & (head.c.root == bindparam("old_root")))
    .values(size=bindparam("new_size"), root=bindparam("new_root"), note=bindparam("new_note"))
)
_ADD_PENDING = insert(pending).inline()
_ANY_PENDING = select(pending.c.id).limit(1)
_WAITING = select(pending.c.body).order_by(pending.c.id)
_OLDEST = select(pending.c.id).order_by(pending.c.id).limit(bindparam("most", type_=Integer)).scalar_subquery()
_TAKE_PENDING = delete(pending).where(pending.c.id.in_(_OLDEST)).returning(pending.c.id, pending.c.body)
_STAGE = insert(entries)
_READ_ENTRIES = (
    select(entries.c.body)
    .where((entries.c.idx >= bindparam("first")) & (entries.c.idx < bindparam("last")))
    .order_by(entries.c.idx)
)
_FIND = (
    select(entries.c.idx)
    .where((entries.c.idx >= bindparam("since")) & (entries.c.body == bindparam("body")))
    .order_by(entries.c.idx)
    .limit(1)
)


@dataclass(frozen=True, slots=True)
class Head:
    """The newest signed head."""

    size: int
    root: bytes
    note: bytes


def read_head(tx: Connection) -> Head | None:
    """Read the head; a ledger that was never started has none."""
    row = tx.execute(_READ_HEAD).one_or_none()
    return None if row is None else Head(*row)


def create_head(tx: Connection, first: Head) -> None:
    """Write the head of the empty ledger."""
    tx.execute(insert(head).values(id=ROW, size=first.size, root=first.root, note=first.note))


def swap_head(tx: Connection, old: Head, new: Head) -> None:
    """Replace the head if it is still `old`: the commit point of the ledger.

    Raises:
        LedgerUnavailable: Somebody else has moved it.
    """
    values = {"old_size": old.size, "old_root": old.root, "new_size": new.size, "new_root": new.root, "new_note": new.note}
    done = tx.execute(_SWAP_HEAD, values)
    if done.rowcount != 1:
        raise LedgerUnavailable("Another registry has moved the ledger's head; stop one of the two, then start the other again.")


def add_pending(tx: Connection, body: bytes) -> None:
    """Ask for an entry, as part of the caller's transaction."""
    tx.execute(_ADD_PENDING, {"body": body})


def any_pending(tx: Connection) -> bool:
    """Say whether there are pending entries."""
    return tx.execute(_ANY_PENDING).first() is not None


def waiting(tx: Connection) -> list[bytes]:
    """Read the pending entries, the oldest first."""
    return list(tx.execute(_WAITING).scalars())


def take_pending(tx: Connection, limit: int) -> list[bytes]:
    """Remove the oldest pending entries, to be staged in the same transaction."""
    return [row.body for row in sorted(tx.execute(_TAKE_PENDING, {"most": limit}).all())]


def stage(tx: Connection, first: int, bodies: Sequence[bytes]) -> None:
    """Give entries their indexes, for ever. An index that is taken fails the transaction."""
    if bodies:
        tx.execute(_STAGE, [{"idx": first + at, "body": body} for at, body in enumerate(bodies)])


def staged(tx: Connection, size: int) -> list[bytes]:
    """Read the entries that have an index but no signed head yet.

    Raises:
        VerificationFailed: An index is missing among them.
    """
    rows = tx.execute(select(entries).where(entries.c.idx >= size).order_by(entries.c.idx)).all()
    if [row.idx for row in rows] != list(range(size, size + len(rows))):
        raise VerificationFailed(f"Ledger entries after {size} are not numbered one by one; run `mo-registry fsck`.")
    return [row.body for row in rows]


def read_entries(tx: Connection, first: int, count: int) -> list[bytes]:
    """Read entries by index.

    Raises:
        VerificationFailed: One of them is missing.
    """
    bodies = list(tx.execute(_READ_ENTRIES, {"first": first, "last": first + count}).scalars())
    if len(bodies) != count:
        raise VerificationFailed(
            f"Of the ledger entries {first} to {first + count - 1} some are missing; run `mo-registry fsck`."
        )
    return bodies


def find(tx: Connection, body: bytes, *, since: int) -> int | None:
    """Find the index of an entry that was asked for when the ledger had `since` entries."""
    return tx.execute(_FIND, {"since": since, "body": body}).scalar_one_or_none()
