"""Which of several registries writes the ledger: the holder of a lock, of the database where it has one. Nobody else asks here.

The lock keeps two writers from getting in each other's way. It is not what keeps the ledger whole: that are the primary key of
the entries and the compare-and-swap of the head, which hold even if a lock is lost unnoticed.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

from model_organisms.errors import LedgerUnavailable, ModelOrganismsError
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from model_organisms_registry.storage.database import Database

_KEY = 0x6D6F_6C65_6467
"""Key of PostgreSQL's advisory lock."""


class Leadership:
    """The right to write one ledger.

    Args:
        database: The registry's database. PostgreSQL lends an advisory lock, for as long as one transaction is open (it holds
            no rows and no snapshot); beside a SQLite file stands a lock file, which the kernel lets go with its process.
    """

    def __init__(self, database: Database) -> None:
        """Hold nothing yet."""
        self._database = database
        self._held = ExitStack()
        self._tx: Connection | None = None
        self._file: int | None = None

    def acquire(self) -> bool:
        """Take the lock, if nobody else has it.

        Raises:
            Unavailable: The database cannot be asked.
        """
        self.release()
        if self._database.dialect == "postgresql":
            with ExitStack() as stack:
                tx = stack.enter_context(self._database.write())
                if not tx.execute(text("SELECT pg_try_advisory_xact_lock(:key)"), {"key": _KEY}).scalar_one():
                    return False
                self._held, self._tx = stack.pop_all(), tx
            return True
        with self._database.read() as tx:
            path = f"{tx.engine.url.database}-ledger-lock"
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.release()
            return False
        except OSError as error:
            self.release()
            raise LedgerUnavailable(f"The ledger's lock {path} cannot be taken ({error.strerror}); check the folder.") from error
        return True

    def check(self) -> None:
        """Make sure that the lock is still held; this also keeps its connection from being closed as idle.

        Raises:
            LedgerUnavailable: It is not, and somebody else may have it.
        """
        if self._file is not None:
            return
        try:
            if self._tx is not None and self._tx.execute(text("SELECT 1")).scalar_one() == 1:
                return
        except Exception as error:  # the connection is gone, in whatever way
            raise LedgerUnavailable("The ledger's lock was lost with its connection to the database.") from error
        raise LedgerUnavailable("The ledger's lock is not held.")

    def release(self) -> None:
        """Let it go; another may take it at once."""
        held, self._held, self._tx = self._held, ExitStack(), None
        with suppress(ModelOrganismsError, SQLAlchemyError):  # a connection that is gone holds no lock
            held.close()
        if self._file is not None:
            os.close(self._file)
            self._file = None
