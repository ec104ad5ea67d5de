"""Whether what a stream began under still stands: asked while it flows, so that a no in the middle of it is a no."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeVar

from model_organisms.records import Rung

from model_organisms_registry.domain import identity, sandbox
from model_organisms_registry.domain.grants import shortcoming
from model_organisms_registry.domain.organisms import served
from model_organisms_registry.domain.recall import check_mark
from model_organisms_registry.storage.catalog import grants as grant_rows
from model_organisms_registry.storage.catalog import identity as accounts
from model_organisms_registry.workflows import finding

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from datetime import datetime

    from model_organisms.records import Session

    from model_organisms_registry.domain.hazard import HazardTable
    from model_organisms_registry.domain.permits import Call
    from model_organisms_registry.isolation.placement import Tenant
    from model_organisms_registry.storage.database import Connection, Database

T = TypeVar("T")
_EVERY_S = 0.2
"""A look costs as much as half a megabyte of a fast pull, so there is one now and then and not one a piece."""


class Standing:
    """Looks again.

    Args:
        database: Where accounts, grants and versions are.
        clock: The time while a stream runs; a call's own time is read once.
        table: The hazard table of this deployment.
    """

    def __init__(self, database: Database, clock: Callable[[], datetime], table: HazardTable) -> None:
        """Keep them."""
        self._database = database
        self._clock = clock
        self._table = table

    def guard(self, call: Call, version: str, grant: str, pieces: Iterable[T], *, marked: bool) -> Iterator[T]:
        """Hand the pieces of a copy on while the caller's account, the grant and the version stand: looked at before the first.

        Args:
            call: Whose.
            version: What it is a copy of.
            grant: What it leaves under.
            pieces: The copy.
            marked: Whether it carries a mark.

        Raises:
            Suspended: The account was stopped meanwhile.
            CertificateRefused: The certificate was denied meanwhile, or the account has other keys.
            GrantRevoked: The grant was taken back meanwhile.
            GrantExpired: Its time ended meanwhile.
            GrantRequired: The level was raised meanwhile, above what the grant was approved for.
            Withdrawn: The version was withdrawn meanwhile.
            Quarantined: It was set aside meanwhile.
            Conflict: The copy carries no mark, and the level was raised to where copies do.
        """
        looked = -_EVERY_S  # a small copy is over before the first look would be due
        for piece in pieces:
            if time.monotonic() - looked >= _EVERY_S:
                self._look(call, version, grant, marked=marked)
                looked = time.monotonic()
            yield piece

    def _look(self, call: Call, version: str, grant: str, *, marked: bool) -> None:
        with self._database.read() as tx:
            caller(tx, call)
            subject = finding.subject(tx, version)
            served(subject.version.state, version)
            held = grant_rows.grant(tx, grant)
            if error := shortcoming(held, subject.ref, level=subject.level, rung=Rung.PULL, now=self._clock()):
                raise error
            check_mark(subject.level, marked=marked, table=self._table)


def caller(tx: Connection, call: Call) -> None:
    """Check who calls once more: the account, its key, and the certificate the call came with.

    Raises:
        Suspended: The account was stopped.
        CertificateRefused: The certificate was denied, or the account has another key by now.
    """
    user, denied = accounts.caller(tx, call.user.name, call.certificate)
    identity.admitted(user, key=call.key_id, denied=denied)


def hold(tx: Connection, session: Session, cell: Tenant, *, table: HazardTable, now: datetime) -> None:
    """Check all that a session rests on: itself, its account, its version, its grant, its walls and company at today's level.

    Args:
        tx: Where to look.
        session: Read in this transaction.
        cell: Its cell.
        table: The hazard table of this deployment.
        now: The time.

    Raises:
        Denied: Something of it no longer stands; what, the class and the message say.
        Conflict: The session has ended.
        CellUnavailable: The level has become one that shares no cell.
    """
    holds(tx, session, cell.missing, alone=cell.alone, table=table, now=now)


def holds(
    tx: Connection, session: Session, missing: Sequence[str], *, table: HazardTable, now: datetime, alone: bool = True
) -> None:
    """Do `hold` for a session of whose cell only this is known: the walls that are missing, and whether it has it alone."""
    identity.standing(accounts.user(tx, session.user))
    subject, grant = finding.subject(tx, session.version.name), grant_rows.grant(tx, session.grant)
    sandbox.standing(session, grant=grant, state=subject.version.state, level=subject.level, now=now)
    sandbox.check_walls(subject.level, missing, table=table)
    sandbox.check_company(subject.level, alone=alone)
