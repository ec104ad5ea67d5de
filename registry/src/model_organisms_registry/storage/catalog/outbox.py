"""The outbox: letters as rows, put in by the transaction that they tell of. Whether one is sent again is decided elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import delete, func, select, update

from model_organisms_registry.domain.outbox import Letter
from model_organisms_registry.storage import schema
from model_organisms_registry.storage.catalog import rows

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from sqlalchemy import Connection, Row

_TABLE = schema.outbox
_FIELDS = ("id", "hook", "type", "body", "create_time", "attempts", "next_time", "error")


def add(tx: Connection, letters: Sequence[Letter]) -> None:
    """Put letters into the outbox."""
    rows.add_all(tx, _TABLE, [{field: getattr(letter, field) for field in _FIELDS} for letter in letters])


def due(tx: Connection, hook: str, now: datetime, *, most: int) -> list[Letter]:
    """Read what is to be sent to a receiver by now, the longest due first."""
    wanted = select(_TABLE).where(_TABLE.c.hook == hook, _TABLE.c.next_time <= now)
    return [_letter(row) for row in tx.execute(wanted.order_by(_TABLE.c.next_time, _TABLE.c.id).limit(most))]


def take(tx: Connection, letter: Letter, until: datetime) -> bool:
    """Begin an attempt, and count it, so that no other process begins the same; a process that dies leaves it due at `until`."""
    same = (_TABLE.c.id == letter.id, _TABLE.c.attempts == letter.attempts)
    return tx.execute(update(_TABLE).where(*same).values(attempts=letter.attempts + 1, next_time=until)).rowcount == 1


def settle(tx: Connection, letter: Letter, *, error: str, again: datetime | None) -> None:
    """End an attempt: without an error the letter is gone, else it is due again, or given up where there is no time."""
    if error:
        tx.execute(update(_TABLE).where(_TABLE.c.id == letter.id).values(error=error, next_time=again))
    else:
        tx.execute(delete(_TABLE).where(_TABLE.c.id == letter.id))


def shed(tx: Connection, hook: str, *, most: int, before: datetime) -> int:
    """Give up the oldest that wait beyond so many, and forget what was given up before a time; say how many were given up."""
    tx.execute(delete(_TABLE).where(_TABLE.c.hook == hook, _TABLE.c.next_time.is_(None), _TABLE.c.create_time < before))
    waiting = (_TABLE.c.hook == hook, _TABLE.c.next_time.is_not(None))
    over = int(tx.execute(select(func.count()).select_from(_TABLE).where(*waiting)).scalar_one()) - most
    if over <= 0:
        return 0
    oldest = select(_TABLE.c.id).where(*waiting).order_by(_TABLE.c.id).limit(over)
    return tx.execute(update(_TABLE).where(_TABLE.c.id.in_(oldest)).values(next_time=None, error="too many waited")).rowcount


def orphan(tx: Connection, hooks: Sequence[str], *, before: datetime) -> int:
    """Give up what waits for receivers other than these, so that it is not sent as news when one comes back; say how much.

    What was given up before a time is forgotten, whoever it was for.
    """
    tx.execute(delete(_TABLE).where(_TABLE.c.next_time.is_(None), _TABLE.c.create_time < before))
    waiting = (_TABLE.c.hook.not_in(hooks), _TABLE.c.next_time.is_not(None))
    return tx.execute(update(_TABLE).where(*waiting).values(next_time=None, error="not in the settings")).rowcount


def pending(tx: Connection, *, most: int) -> list[Letter]:
    """Read what was not taken yet, given up included, the oldest first."""
    return [_letter(row) for row in tx.execute(select(_TABLE).order_by(_TABLE.c.id).limit(most))]


def _letter(row: Row[Any]) -> Letter:
    return Letter(**{field: getattr(row, field) for field in _FIELDS})
