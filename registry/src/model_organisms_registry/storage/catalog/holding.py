"""Copies, attestations of their destruction, and notices, as rows. What is owed, and who may look, is decided elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from model_organisms.errors import Conflict
from model_organisms.records import GrantState, Notice, NoticeKind, Page, VersionRef, VersionState
from sqlalchemy import or_, select, union, update

from model_organisms_registry.domain.holding import Copy
from model_organisms_registry.domain.recall import TAKEN_BACK
from model_organisms_registry.storage import schema
from model_organisms_registry.storage.catalog import rows
from model_organisms_registry.storage.paging import page

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from sqlalchemy import Connection, Row, Select


def copies(
    tx: Connection,
    *,
    version: str = "",
    user: str = "",
    grant: str = "",
    ended: datetime | None = None,
    page_size: int = 0,
    page_token: str = "",
) -> Page[Copy]:
    """List copies, newest first; what is empty does not narrow.

    Args:
        tx: The transaction.
        version: Only of this version.
        user: Only this user's.
        grant: Only those under this grant.
        ended: Only those that may no longer be held at this time, and are not attested to be destroyed.
        page_size: Copies a page.
        page_token: Where to go on.
    """
    table, held, of, destroyed = schema.pulls, schema.grants, schema.versions, schema.destructions
    statement: Select[Any] = (
        select(
            table,
            schema.users.c.organisation,
            held.c.expire_time,
            held.c.revoke_time,
            of.c.state.label("version_state"),
            of.c.stop_time,
            destroyed.c.create_time.label("destroy_time"),
        )
        .join(held, held.c.name == table.c.grant)
        .join(of, of.c.name == table.c.version)
        .join(schema.users, schema.users.c.name == table.c.user)
        .outerjoin(destroyed, destroyed.c.digest == table.c.destruction)
    )
    for column, wanted in ((table.c.version, version), (table.c.user, user), (table.c.grant, grant)):
        if wanted:
            statement = statement.where(column == wanted)
    if ended is not None:
        withdrawn = of.c.state.in_([state.value for state in TAKEN_BACK])
        over = or_(held.c.expire_time <= ended, held.c.revoke_time.is_not(None), withdrawn)
        statement = statement.where(table.c.destruction == "", over)
    return page(
        tx,
        statement,
        key=table.c.name,
        newest_first=True,
        listing=("copies", version, user, grant, ended is not None),  # not the time: the clock moves from page to page
        page_size=page_size,
        page_token=page_token,
        read=lambda found: [_copy(row) for row in found],
    )


def holders(tx: Connection, versions: Sequence[str], *, now: datetime) -> frozenset[str]:
    """Read who has a copy of a version that is not attested to be destroyed, or a grant on it that stands."""
    held, of, table = schema.grants, schema.grant_versions, schema.pulls
    pulled = select(table.c.user).where(table.c.version.in_(versions), table.c.destruction == "")
    granted = select(held.c.user).join(of, of.c.grant == held.c.name)
    standing = (held.c.state == GrantState.ACTIVE.value, held.c.expire_time > now)
    return frozenset(tx.scalars(union(pulled, granted.where(of.c.version.in_(versions), *standing))))


def add_destruction(
    tx: Connection, digest: str, *, grant: str, version: str, user: str, envelope: bytes, time: datetime, pulls: Sequence[str]
) -> None:
    """Keep a statement, and note it with the copies it is about.

    Raises:
        AlreadyExists: The same statement is there.
        Conflict: One of the copies was attested to be destroyed meanwhile.
    """
    values = {
        "digest": digest,
        "grant": grant,
        "version": version,
        "user": user,
        "envelope": envelope,
        "create_time": time,
    }
    rows.add(tx, schema.destructions, values, name=digest)
    table = schema.pulls
    statement = update(table).where(table.c.name.in_(pulls), table.c.destruction == "")
    if tx.execute(statement.values(destruction=digest)).rowcount != len(pulls):
        raise Conflict("One of these copies was attested to be destroyed meanwhile; read what is outstanding again.", grant=grant)


def add_notices(tx: Connection, notices: Iterable[Notice]) -> None:
    """Put notices where their users find them."""
    rows.add_all(
        tx,
        schema.notices,
        [
            {
                "name": notice.name,
                "user": notice.user,
                "kind": notice.kind.value,
                "subject": notice.subject,
                "text": notice.text,
                "create_time": notice.create_time,
                "read_time": notice.read_time,
            }
            for notice in notices
        ],
    )


def notices(tx: Connection, user: str, *, unread: bool, page_size: int = 0, page_token: str = "") -> Page[Notice]:
    """List what somebody was told, newest first."""
    table = schema.notices
    statement = select(table).where(table.c.user == user)
    return page(
        tx,
        statement.where(table.c.read_time.is_(None)) if unread else statement,
        key=table.c.name,
        newest_first=True,
        listing=("notices", user, unread),
        page_size=page_size,
        page_token=page_token,
        read=lambda found: [_notice(row) for row in found],
    )


def read_notices(tx: Connection, user: str, newest: str, time: datetime) -> int:
    """Note that somebody has read their notices up to one.

    Returns:
        How many were unread.
    """
    table = schema.notices
    unread = (table.c.user == user, table.c.name <= newest, table.c.read_time.is_(None))
    return tx.execute(update(table).where(*unread).values(read_time=time)).rowcount


def _copy(row: Row[Any]) -> Copy:
    return Copy(
        pull=row.name,
        user=row.user,
        organisation=row.organisation,
        version=VersionRef(row.version, row.digest),
        grant=row.grant,
        grant_expires=row.expire_time,
        revoke_time=row.revoke_time,
        # what was withdrawn before that was noted: as if it had been before the copy left
        withdraw_time=(row.stop_time or row.create_time) if VersionState(row.version_state) in TAKEN_BACK else None,
        pull_time=row.create_time,
        destruction=row.destruction,
        destroy_time=row.destroy_time,
    )


def _notice(row: Row[Any]) -> Notice:
    return Notice(row.name, row.user, NoticeKind(row.kind), row.subject, row.text, row.create_time, row.read_time)
