"""Turns that are to be said again, as rows: who is at it, until when, and what came of it. What is due, the rules know."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from model_organisms.records import SampleReceipt, SamplingParameters
from sqlalchemy import func, select, update

from model_organisms_registry.storage import schema
from model_organisms_registry.storage.catalog import rows

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import Connection, Row


@dataclass(frozen=True, slots=True)
class Due:
    """A turn that is to be said again."""

    turn: str
    """Resource name of the sample."""
    session: str
    seq: int
    """Which ledger entry is its result."""
    receipt: SampleReceipt
    """What was said of it then."""
    create_time: datetime


def add(tx: Connection, due: Due) -> None:
    """Note that a turn is due, in the transaction that ends it.

    Raises:
        AlreadyExists: It is noted.
    """
    values = {
        "turn": due.turn,
        "session": due.session,
        "seq": due.seq,
        "receipt": json.dumps(asdict(due.receipt), sort_keys=True),
        "create_time": due.create_time,
        "next_time": due.create_time,
        "replica": "",
        "verdict": "",
        "end_time": None,
    }
    rows.add(tx, schema.reruns, values, name=due.turn)


def claim(tx: Connection, replica: str, now: datetime, *, until: datetime, before: datetime | None = None) -> Due | None:
    """Take the turn that has waited longest, for one replica and a while; None where none is to be had.

    Args:
        tx: The transaction.
        replica: Who takes it.
        now: Only what may be tried by now.
        until: From then on others may take it: whoever has it is gone.
        before: Only what was due before.
    """
    table = schema.reruns
    waiting = select(table).where(table.c.next_time <= now)
    if before is not None:
        waiting = waiting.where(table.c.create_time < before)
    row = tx.execute(waiting.order_by(table.c.next_time, table.c.turn).limit(1)).one_or_none()
    if row is None:
        return None
    mine = update(table).where(table.c.turn == row.turn, table.c.next_time == row.next_time)
    taken = tx.execute(mine.values(next_time=until, replica=replica)).rowcount == 1
    return _due(row) if taken else None


def put_back(tx: Connection, turn: str, again: datetime) -> None:
    """Say when a turn may be tried again."""
    table = schema.reruns
    tx.execute(update(table).where(table.c.turn == turn, table.c.next_time.is_not(None)).values(next_time=again))


def free(tx: Connection, replica: str, now: datetime) -> None:
    """Free what an earlier process of this name had taken."""
    table = schema.reruns
    tx.execute(update(table).where(table.c.replica == replica, table.c.next_time > now).values(next_time=now))


def settle(tx: Connection, turn: str, verdict: str, now: datetime) -> bool:
    """Write down what came of it, once; what is needed no more is forgotten.

    Returns:
        Whether this call did.
    """
    table = schema.reruns
    statement = update(table).where(table.c.turn == turn, table.c.next_time.is_not(None))
    values = {"verdict": verdict, "end_time": now, "next_time": None, "receipt": ""}
    return tx.execute(statement.values(values)).rowcount == 1


def counts(tx: Connection) -> dict[str, int]:
    """Count turns by verdict; those that wait have none."""
    table = schema.reruns
    found = tx.execute(select(table.c.verdict, func.count()).group_by(table.c.verdict))
    return {verdict: int(count) for verdict, count in found}


def waiting(tx: Connection) -> frozenset[str]:
    """Read which turns wait."""
    table = schema.reruns
    return frozenset(tx.scalars(select(table.c.turn).where(table.c.next_time.is_not(None))))


def newest(tx: Connection, verdict: str) -> datetime | None:
    """Say when a verdict was given last."""
    table = schema.reruns
    found: datetime | None = tx.execute(select(func.max(table.c.end_time)).where(table.c.verdict == verdict)).scalar_one()
    return found


def _due(row: Row[Any]) -> Due:
    return Due(row.turn, row.session, row.seq, _receipt(json.loads(row.receipt)), row.create_time)


def _receipt(values: dict[str, Any]) -> SampleReceipt:
    asked = values["parameters"]
    parameters = SamplingParameters(**(asked | {name: tuple(value) for name, value in asked.items() if isinstance(value, list)}))
    return SampleReceipt(**(values | {"parameters": parameters, "adapter_digests": tuple(values["adapter_digests"])}))
