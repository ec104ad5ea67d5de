"""Processes that share this database, as rows: that one lives is seen by its beat going on. Who is dead is decided elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import delete, insert, select, update

from model_organisms_registry.storage import schema

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import Connection


def beat(tx: Connection, name: str, now: datetime) -> None:
    """Say that a replica lives."""
    table = schema.replicas
    statement = update(table).where(table.c.name == name).values(beat=table.c.beat + 1, seen_time=now)
    if tx.execute(statement).rowcount != 1:
        tx.execute(insert(table).values(name=name, beat=0, seen_time=now))


def beats(tx: Connection) -> dict[str, int]:
    """Read how far each replica's beat has come."""
    table = schema.replicas
    return {row.name: int(row.beat) for row in tx.execute(select(table))}


def forget(tx: Connection, name: str) -> None:
    """Remove a replica that is gone."""
    tx.execute(delete(schema.replicas).where(schema.replicas.c.name == name))
