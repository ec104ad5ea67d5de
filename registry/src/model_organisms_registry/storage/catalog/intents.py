"""Intents as rows: what was announced in the ledger, what was set aside for it, and how much of it has left."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from model_organisms.errors import Conflict
from model_organisms.records import BUDGET_FIELDS, Budget
from sqlalchemy import exists, select, update

from model_organisms_registry.storage import schema
from model_organisms_registry.storage.catalog import budgets, rows

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import Connection, Row


class IntentKind(StrEnum):
    """What was about to leave the registry."""

    SAMPLE = "sample"
    PULL = "pull"
    PROBE = "probe"


@dataclass(frozen=True, slots=True)
class Intent:
    """Something that was announced in the ledger and is done, or was interrupted, or is under way."""

    id: str
    kind: IntentKind
    subject: str
    """The version whose bytes or words would leave."""
    parent: str
    """The session or the pull it belongs to."""
    seq: int
    """Which ledger entry announced it."""
    time: datetime
    replica: str = ""
    """The process that works on it."""
    grant: str = ""
    taken: Budget = field(default_factory=Budget)
    """What was set aside for it."""
    used: Budget = field(default_factory=Budget)
    """What of it was released so far."""
    finish_time: datetime | None = None
    outcome: str = ""
    """How it ended; empty while it is under way."""


def add_intent(tx: Connection, intent: Intent) -> None:
    """Note that something is about to leave.

    Raises:
        AlreadyExists: The id is taken.
    """
    values = {
        "id": intent.id,
        "kind": intent.kind.value,
        "subject": intent.subject,
        "parent": intent.parent,
        "seq": intent.seq,
        "create_time": intent.time,
        "finish_time": None,
        "outcome": None,
        "replica": intent.replica,
        "grant": intent.grant,
        **budgets.dump("taken", intent.taken),
        **budgets.dump("used", intent.used),
    }
    rows.add(tx, schema.intents, values, name=intent.id)


def release_intent(tx: Connection, id: str, amount: Budget) -> None:  # noqa: A002 - the intent's own word
    """Note that a part of it is about to leave: until it has ended, and never after.

    Raises:
        Conflict: It ended before, or never began.
    """
    table = schema.intents
    sums = {f"used_{field}": table.c[f"used_{field}"] + getattr(amount, field) for field in BUDGET_FIELDS}
    statement = update(table).where(table.c.id == id, table.c.finish_time.is_(None))
    if tx.execute(statement.values(sums)).rowcount != 1:
        raise _over(id)


def finish_intent(tx: Connection, id: str, time: datetime, outcome: str) -> Intent:  # noqa: A002 - the intent's own word
    """Note how it ended, once.

    Returns:
        The intent, with all that was released of it.

    Raises:
        Conflict: It ended before, or never began.
    """
    table = schema.intents
    statement = update(table).where(table.c.id == id, table.c.finish_time.is_(None))
    row = tx.execute(statement.values(finish_time=time, outcome=outcome).returning(table)).one_or_none()
    if row is None:
        raise _over(id)
    return _intent(row)


def intent(tx: Connection, id: str) -> Intent:  # noqa: A002 - the intent's own word
    """Read an intent.

    Raises:
        NoResultFound: There is none of that id.
    """
    return _intent(tx.execute(select(schema.intents).where(schema.intents.c.id == id)).one())


def every_intent(tx: Connection) -> tuple[Intent, ...]:
    """Read all that was ever announced, the oldest first."""
    table = schema.intents
    return tuple(_intent(row) for row in tx.execute(select(table).order_by(table.c.create_time, table.c.id)))


def unfinished_intents(tx: Connection, *, local: bool = True) -> tuple[Intent, ...]:
    """Read what never came to an end, the oldest first; without `local`, only what processes of the registry work on."""
    table, turns = schema.intents, schema.local_turns
    statement = select(table).where(table.c.finish_time.is_(None)).order_by(table.c.create_time, table.c.id)
    if not local:
        statement = statement.where(~exists().where(turns.c.name == table.c.id))
    return tuple(_intent(row) for row in tx.execute(statement))


def _over(id: str) -> Conflict:  # noqa: A002 - the intent's own word
    return Conflict(f"The intent '{id}' is not under way; nothing of it may be released.", id=id)


def _intent(row: Row[Any]) -> Intent:
    return Intent(
        id=row.id,
        kind=IntentKind(row.kind),
        subject=row.subject,
        parent=row.parent,
        seq=row.seq,
        time=row.create_time,
        replica=row.replica,
        grant=row.grant,
        taken=budgets.load("taken", row),
        used=budgets.load("used", row),
        finish_time=row.finish_time,
        outcome=row.outcome or "",
    )
