"""What the database engine raises, turned into the errors of the tree; only `database.py` should be here."""

from __future__ import annotations

import sqlite3

from model_organisms.errors import Conflict, InvalidArgument, ModelOrganismsError, Unavailable
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, SQLAlchemyError, StatementError
from sqlalchemy.exc import TimeoutError as PoolTimeout

_IN_THE_WAY = {"40001", "40P01", "55P03"}
"""SQLSTATE of a serialisation failure, a deadlock, and a lock not had in time."""

_OLD_SCHEMA = {"42P01", "42703"}
"""SQLSTATE of a missing table and a missing column."""


def translated(error: SQLAlchemyError, *, shown: str, committing: bool) -> Exception:
    """Turn an engine's error into one of the tree.

    Args:
        error: What was raised inside a transaction.
        shown: The database's address, without its password.
        committing: Whether the block had ended and the commit was under way.

    Returns:
        The error to raise: `error` itself where our own SQL is at fault, which the door reports as internal.
    """
    cause = error.orig if isinstance(error, StatementError) else None
    if isinstance(cause, ModelOrganismsError):  # raised while a value was bound, and wrapped by the engine
        return cause
    if isinstance(error, PoolTimeout):
        return Unavailable("All connections to the database are in use; try again, nothing was done.")
    if not isinstance(error, DBAPIError):
        return error
    if isinstance(error, IntegrityError):
        return Conflict("The change refers to something that is not there, or breaks a rule of the schema; read it again.")
    if isinstance(error, DataError):
        return InvalidArgument("A value is too large for the database, or holds a character that it cannot keep; change it.")
    return _unavailable(error, cause, shown=shown, committing=committing)


def _unavailable(error: DBAPIError, cause: BaseException | None, *, shown: str, committing: bool) -> Exception:
    said = str(cause).strip()
    code = str(getattr(cause, "sqlstate", "") or "")
    if code in _IN_THE_WAY or "locked" in said:
        return Unavailable("Another change was in the way; try again, nothing was done.")
    if code in _OLD_SCHEMA or said.startswith(("no such table", "no such column")):
        return Unavailable("The database has another schema than this program; start the registry once to migrate it.")
    if code.startswith("42") or isinstance(cause, sqlite3.ProgrammingError):
        return error
    what = said.splitlines()[0] if said else type(cause).__name__
    # A connection lost during COMMIT leaves the outcome open; everything else was rolled back.
    done = "it is not known whether the change was made: look before repeating it" if committing else "nothing was done"
    return Unavailable(f"The database {shown} failed ({what}); check its server, its disk and its permissions; {done}.")
