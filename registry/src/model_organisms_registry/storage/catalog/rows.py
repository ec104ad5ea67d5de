"""Single rows put in, found and changed, with the errors that go with them; only the catalog's rooms should be here."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from model_organisms.errors import AlreadyExists, NotFound
from sqlalchemy import bindparam, insert, select
from sqlalchemy.dialects import postgresql, sqlite

from model_organisms_registry.storage.database import held

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import ColumnElement, Connection, Insert, Row, Select, Table, Update


def added(tx: Connection, table: Table, values: Mapping[str, Any]) -> bool:
    """Insert a row unless a unique key is taken; say whether it went in.

    A plain INSERT that fails would end PostgreSQL's transaction, and the caller may have more to do in it.
    """
    # an INSERT's count of rows is kept only on request
    statement = _adding(table, tx.dialect.name)
    return tx.execute(statement, dict(values), execution_options={"preserve_rowcount": True}).rowcount == 1


def add(tx: Connection, table: Table, values: Mapping[str, Any], *, name: str) -> None:
    """Insert a row under a name that must be new.

    Raises:
        AlreadyExists: It is taken.
    """
    if not added(tx, table, values):
        raise AlreadyExists(f"There is a '{name}' already; choose another name, or read that one.", name=name)


def add_all(tx: Connection, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert rows that cannot collide."""
    if rows:
        tx.execute(insert(table), [dict(row) for row in rows])


def find(tx: Connection, table: Table, *where: ColumnElement[bool]) -> Row[Any] | None:
    """Read at most one row."""
    return tx.execute(select(table).where(*where)).one_or_none()


def get(tx: Connection, table: Table, name: str, *, lock: bool = False) -> Row[Any]:
    """Read the row of a name.

    Args:
        tx: The transaction.
        table: A table whose key is `name`.
        name: The resource name.
        lock: Keep it as it is until the transaction ends.

    Raises:
        NotFound: There is none.
    """
    statement = _by_name(table)
    row = tx.execute(held(tx, statement) if lock else statement, {"key": name}).one_or_none()
    if row is None:
        raise NotFound.named(name)
    return row


def change(tx: Connection, statement: Update, *, name: str) -> None:
    """Run an UPDATE that must meet one row.

    Raises:
        NotFound: There is no row of that name.
    """
    if tx.execute(statement).rowcount != 1:
        raise NotFound.named(name)


@cache
def _adding(table: Table, dialect: str) -> Insert:
    into = postgresql.insert if dialect == "postgresql" else sqlite.insert
    return into(table).on_conflict_do_nothing()


@cache
def _by_name(table: Table) -> Select[Any]:
    """Built once a table: making a statement costs as much as running it, and every call reads by name."""
    return select(table).where(table.c.name == bindparam("key"))
