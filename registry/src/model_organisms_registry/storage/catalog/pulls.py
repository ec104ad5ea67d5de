"""Pulls as rows: who holds which copy. Whether one may have it is decided elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from model_organisms.errors import Conflict
from model_organisms.records import Page, VersionRef
from sqlalchemy import select, update

from model_organisms_registry.storage import schema
from model_organisms_registry.storage.catalog import rows
from model_organisms_registry.storage.paging import page

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import Connection, Row


class PullState(StrEnum):
    """How far a pull came."""

    OPEN = "open"
    DELIVERED = "delivered"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Pull:
    """One copy, sealed to one person."""

    name: str
    user: str
    grant: str
    version: VersionRef
    commitment: str
    """Commitment to the copy's fingerprint; empty where it carries none."""
    head: bytes
    """What comes before the body, as it was sealed."""
    body_size: int
    segments: int
    state: PullState
    create_time: datetime


def add_pull(tx: Connection, pull: Pull) -> None:
    """Add a pull.

    Raises:
        AlreadyExists: The name is taken.
    """
    values = {
        "name": pull.name,
        "user": pull.user,
        "grant": pull.grant or None,
        "version": pull.version.name,
        "digest": pull.version.digest,
        "commitment": pull.commitment,
        "head": pull.head,
        "body_size": pull.body_size,
        "segments": pull.segments,
        "state": pull.state.value,
        "create_time": pull.create_time,
    }
    rows.add(tx, schema.pulls, values, name=pull.name)


def pull(tx: Connection, name: str) -> Pull:
    """Read a pull.

    Raises:
        NotFound: There is none of that name.
    """
    return _pull(rows.get(tx, schema.pulls, name))


def pulls(tx: Connection, version: str, *, page_size: int = 0, page_token: str = "") -> Page[Pull]:
    """List who was sent a copy of a version, newest first."""
    return page(
        tx,
        select(schema.pulls).where(schema.pulls.c.version == version),
        key=schema.pulls.c.name,
        newest_first=True,
        listing=("pulls", version),
        page_size=page_size,
        page_token=page_token,
        read=lambda found: [_pull(row) for row in found],
    )


def set_pull_state(tx: Connection, name: str, state: PullState, *, expected: PullState) -> None:
    """Move a pull on, if it is where the caller thinks (compare and swap).

    Raises:
        NotFound: There is none of that name.
        Conflict: It has moved.
    """
    table = schema.pulls
    statement = update(table).where(table.c.name == name, table.c.state == expected.value).values(state=state.value)
    if tx.execute(statement).rowcount != 1:
        now = rows.get(tx, table, name).state
        raise Conflict(f"'{name}' is {now} by now, not {expected.value}; pull again.", name=name, state=now)


def _pull(row: Row[Any]) -> Pull:
    return Pull(
        name=row.name,
        user=row.user,
        grant=row.grant or "",
        version=VersionRef(row.version, row.digest),
        commitment=row.commitment,
        head=row.head,
        body_size=row.body_size,
        segments=row.segments,
        state=PullState(row.state),
        create_time=row.create_time,
    )
