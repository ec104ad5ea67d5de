"""Reads a table of which somebody may have changed a row by hand: what is no row any more is named, and the rest is read."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from model_organisms.errors import ModelOrganismsError
from sqlalchemy import select

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from sqlalchemy import Connection, Table

T = TypeVar("T")
_NO_ROW = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, ModelOrganismsError)
"""What reading ends with where a column holds what no program wrote there."""


def sound(
    tx: Connection, table: Table, everything: Callable[[], Iterable[T]], one: Callable[[Connection, str], T]
) -> tuple[list[T], dict[str, str]]:
    """Read all rows, and name those that cannot be read.

    Args:
        tx: The transaction.
        table: A table with a key of one column.
        everything: Reads all of them at once; the way that is taken where nothing is wrong.
        one: Reads the row of a key.

    Returns:
        What was read; and by key, why the others were not.
    """
    try:
        return list(everything()), {}
    except _NO_ROW:
        found: list[T] = []
        wrong: dict[str, str] = {}
    for key in tx.scalars(select(next(iter(table.primary_key)))).all():
        try:
            found.append(one(tx, key))
        except _NO_ROW as error:
            wrong[str(key)] = str(error) or type(error).__name__
    return found, wrong
