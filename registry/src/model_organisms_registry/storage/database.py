"""The one way to a transaction, on SQLite or PostgreSQL; no table is named here and nobody above it opens a connection.

Guarantees, the same on both:

- `write()` is one transaction: it is committed whole and durable when the block ends, or nothing of it exists.
- `read()` sees one moment; nothing can be written through it.
- Whatever the database does wrong comes out as an error of the tree, and says what to do.

SQLite: WAL, synchronous FULL (NORMAL may lose acknowledged rows), BEGIN IMMEDIATE, and one writer at a time: threads of this
process queue for a lock of their own, because SQLite's busy handler polls and starves.
PostgreSQL: READ COMMITTED with row locks, not SERIALIZABLE. A `with` block cannot be run again, and a serialisation failure
asks for just that. So every counter is one conditional UPDATE, every transition a compare-and-swap, and what is read to be
decided on goes through `held`. Rows are locked in the order users, organisms, versions, requests, grants, sessions, pulls,
intents, ledger; who keeps to it cannot deadlock, and a deadlock is `Unavailable` with nothing done.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from model_organisms.errors import AlreadyExists, ConfigurationInvalid, Unavailable
from sqlalchemy import Connection, Engine, Select, create_engine, event, inspect, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.pool import QueuePool

from model_organisms_registry.storage.faults import translated

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import URL
    from sqlalchemy.engine.interfaces import DBAPIConnection

__all__ = ["HEAD", "Connection", "Database", "held"]

HEAD = "0023"
"""Newest migration. Named here so that a start on a current schema need not import Alembic; a test keeps it true."""

_MIGRATION_LOCK = 0x6D6F_7265_6769
"""Key of PostgreSQL's advisory lock around migrations: two processes that start together must not both create tables."""

_WRITES = "model_organisms_writes"
_READER_KIB = 512
"""Pages that each reading connection keeps; the operating system keeps the file besides."""
_READ = "BEGIN"
"""Takes no lock and touches no file, so it cannot fail; through SQLAlchemy it would cost more than the query it is for."""


class Database:
    """A database and its transactions; safe to share between threads.

    Args:
        url: `sqlite:////absolute/path.db` or `postgresql://user@host/name`.
        patience_s: Seconds a transaction waits for its turn, a lock or a connection before `Unavailable`.
        readers: Connections kept for reading (SQLite) or in all (PostgreSQL).
    """

    def __init__(self, url: str, *, patience_s: float = 5.0, readers: int = 16) -> None:
        """Prepare the engines; SQLite's file is created (0600), nothing is connected yet."""
        parsed = _parse(url)
        self.dialect = parsed.get_backend_name()
        self._patience_s = patience_s
        self._shown = parsed.render_as_string(hide_password=True)
        self._turn: threading.Lock | None = None
        self._files: list[Path] = []
        self._inodes: dict[Path, tuple[int, int]] = {}
        """Files as they were when first seen; the write-ahead log comes with the first transaction, and stays while we do."""
        if self.dialect == "sqlite":
            self._turn = threading.Lock()
            self._writer, self._reader = _sqlite_engines(parsed, patience_s, readers)
            self._files = [Path(f"{parsed.database}{suffix}") for suffix in ("", "-wal")]
            self.in_place()
        else:
            engine = _postgresql_engine(parsed, patience_s, readers)
            self._writer = engine.execution_options(isolation_level="READ COMMITTED", **{_WRITES: True})
            self._reader = engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """One transaction that may change rows: committed when the block ends, undone when it raises."""
        with self._my_turn(), self._transaction(self._writer) as tx:
            yield tx

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """One transaction that sees a single moment and may change nothing."""
        with self._transaction(self._reader) as tx:
            yield tx

    def in_place(self) -> None:
        """Make sure that what is written goes into the files that bear the database's name.

        SQLite goes on with a file that was removed, and acknowledges what nobody will find again.

        Raises:
            Unavailable: The file, or its write-ahead log, was removed or replaced. Put back, it is used again.
        """
        for path in self._files:
            try:
                found = path.stat()
            except OSError:
                found = None
            known = self._inodes.setdefault(path, (found.st_dev, found.st_ino)) if found else self._inodes.get(path)
            if known is not None and (found is None or known != (found.st_dev, found.st_ino)):
                msg = (
                    f"{path} was removed or replaced under the registry; put it back, or stop the registry and restore a backup."
                )
                raise Unavailable(msg)

    def migrate(self) -> None:
        """Bring the schema to `HEAD`, in one transaction; at `HEAD` already, only look.

        Raises:
            Unavailable: The database cannot be written, or its schema is newer than this program.
        """
        with self.read() as tx:
            if _revision(tx) == HEAD:
                return
        from model_organisms_registry.storage.migrations import upgrade

        with self.write() as tx:
            if self.dialect == "postgresql":
                tx.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATION_LOCK})
            upgrade(tx, _revision(tx))

    def backup(self, to: Path) -> None:
        """Copy the whole database into a new file while it is in use (SQLite's online backup).

        Args:
            to: The file to create.

        Raises:
            AlreadyExists: There is something at `to`.
            ConfigurationInvalid: The database is PostgreSQL, which has `pg_dump` for this.
        """
        if self.dialect != "sqlite":
            raise ConfigurationInvalid("Only SQLite is copied from here; back PostgreSQL up with pg_dump or its own archiving.")
        partial = to.with_name(to.name + ".partial")
        partial.unlink(missing_ok=True)
        try:
            with self._transaction(self._reader) as tx, closing(sqlite3.connect(partial)) as copy:
                partial.chmod(0o600)
                source: Any = tx.connection.driver_connection
                source.backup(copy)
                copy.execute("PRAGMA journal_mode = DELETE")
            _sync(partial)
            os.link(partial, to)  # unlike a rename, a link never replaces what is there
            _sync(to.parent)
        except FileExistsError as error:
            raise AlreadyExists(f"There is a file at {to} already; name a new one.") from error
        except (OSError, sqlite3.Error) as error:
            raise Unavailable(
                f"The copy at {to} could not be written ({error}); free some space or name another folder."
            ) from error
        finally:
            partial.unlink(missing_ok=True)

    def close(self) -> None:
        """Let the connections go, after the transaction that is being written, if any."""
        with self._my_turn():
            self._writer.dispose()
            self._reader.dispose()
            self._inodes.clear()  # the write-ahead log goes with its last connection

    @contextmanager
    def _my_turn(self) -> Iterator[None]:
        if self._turn is None:
            yield
            return
        if not self._turn.acquire(timeout=self._patience_s):
            raise Unavailable(f"Other changes kept the database busy for {self._patience_s:g} s; try again, nothing was done.")
        try:
            yield
        finally:
            self._turn.release()

    @contextmanager
    def _transaction(self, engine: Engine) -> Iterator[Connection]:
        committing = False
        try:
            with engine.connect() as tx, tx.begin():
                yield tx
                committing = True
        except SQLAlchemyError as error:
            raise translated(error, shown=self._shown, committing=committing) from error


def held(tx: Connection, statement: Select[Any]) -> Select[Any]:
    """Lock what a statement reads until the transaction ends, so that a decision taken on it stands.

    SQLite's writers are alone anyway; a reader holds nothing. The lock lets others still refer to the row.
    """
    if tx.dialect.name == "postgresql" and tx.get_execution_options().get(_WRITES):
        return statement.with_for_update(key_share=True)
    return statement


def _revision(tx: Connection) -> str | None:
    if not inspect(tx).has_table("alembic_version"):
        return None
    found = tx.execute(text("SELECT version_num FROM alembic_version")).scalar_one_or_none()
    return None if found is None else str(found)


def _parse(url: str) -> URL:
    try:
        parsed = make_url(url)
        backend = parsed.get_backend_name()
    except (ArgumentError, NoSuchModuleError) as error:
        raise ConfigurationInvalid(
            "The database is no URL; write sqlite:////path/to/file.db or postgresql://host/name."
        ) from error
    if backend == "postgresql":
        return parsed.set(drivername="postgresql+psycopg")
    if backend != "sqlite":
        raise ConfigurationInvalid(f"'{backend}' is no database of ours; use sqlite or postgresql.")
    if not parsed.database or parsed.database == ":memory:" or parsed.query:
        raise ConfigurationInvalid(
            "SQLite needs a file, so that what is acknowledged is durable; write sqlite:////path/to/file.db."
        )
    return parsed


def _sqlite_engines(url: URL, patience_s: float, readers: int) -> tuple[Engine, Engine]:
    path = Path(url.database or "")
    try:
        os.close(os.open(path, os.O_CREAT | os.O_RDONLY | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise Unavailable(f"The database file {path} cannot be opened ({error.strerror}); check its folder.") from error

    def engine(size: int, begin: str, *pragmas: str) -> Engine:
        # isolation_level None stops the driver from opening transactions on its own: `begin` below is the only way in
        arguments = {"isolation_level": None, "timeout": patience_s, "check_same_thread": False}
        # Last in, first out: each connection keeps pages of its own, and those that few callers need are few.
        made = create_engine(
            url,
            poolclass=QueuePool,
            pool_size=size,
            max_overflow=0,
            pool_timeout=patience_s,
            pool_use_lifo=True,
            connect_args=arguments,
        )

        @event.listens_for(made, "connect")
        def _configure(connection: sqlite3.Connection, _record: object) -> None:
            for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON", "trusted_schema = OFF", *pragmas):
                connection.execute(f"PRAGMA {pragma}").fetchall()
            if connection.execute("PRAGMA journal_mode").fetchone() != ("wal",):
                raise ConfigurationInvalid(f"SQLite cannot keep a write-ahead log beside {path}; put it on a local disk.")

        @event.listens_for(made, "begin")
        def _begin(connection: Connection) -> None:
            if begin == _READ:
                driver: Any = connection.connection.driver_connection
                driver.execute(begin)
            else:
                connection.exec_driver_sql(begin)

        return made

    writer = engine(1, "BEGIN IMMEDIATE").execution_options(**{_WRITES: True})
    return writer, engine(readers, _READ, "query_only = ON", f"cache_size = -{_READER_KIB}")


def _postgresql_engine(url: URL, patience_s: float, connections: int) -> Engine:
    wait_ms = int(patience_s * 1000)
    options = f"-c lock_timeout={wait_ms} -c idle_in_transaction_session_timeout={12 * wait_ms} -c timezone=UTC"
    arguments = {"options": options, "connect_timeout": max(2, int(patience_s)), "application_name": "model-organisms-registry"}
    made = create_engine(
        url,
        pool_size=connections,
        max_overflow=0,
        pool_timeout=patience_s,
        pool_pre_ping=True,  # a server that restarted costs one reconnect, not one failed call a connection
        connect_args=arguments,
    )

    @event.listens_for(made, "connect")
    def _durable(connection: DBAPIConnection, _record: object) -> None:
        # stronger settings than `on` are kept; `off` would lose acknowledged rows, like NORMAL in SQLite
        with closing(connection.cursor()) as cursor:
            cursor.execute("SHOW synchronous_commit")
            if cursor.fetchone() == ("off",):
                cursor.execute("SET synchronous_commit = on")
        connection.commit()

    return made


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
