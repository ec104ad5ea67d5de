"""Uploads under way as rows: what was announced, before the last byte is there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from model_organisms.errors import NotFound
from sqlalchemy import delete, select

from model_organisms_registry.storage import schema
from model_organisms_registry.storage.catalog import rows

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import Connection, Row


@dataclass(frozen=True, slots=True)
class Upload:
    """A publication under way."""

    name: str
    user: str
    organism: str
    manifest: bytes
    provenance: bytes
    create_time: datetime
    expire_time: datetime


def add_upload(tx: Connection, upload: Upload) -> None:
    """Keep what was announced.

    Raises:
        AlreadyExists: The name is taken.
    """
    values = {field: getattr(upload, field) for field in _UPLOAD_FIELDS}
    rows.add(tx, schema.uploads, values, name=upload.name)


def upload(tx: Connection, name: str) -> Upload:
    """Read what was announced, and hold it, so that two ends of one upload do not both finish it.

    Raises:
        NotFound: There is none of that name.
    """
    return _upload(rows.get(tx, schema.uploads, name, lock=True))


def known(tx: Connection, name: str) -> bool:
    """Tell whether there is an upload of that name."""
    return rows.find(tx, schema.uploads, schema.uploads.c.name == name) is not None


def uploads_of(tx: Connection, user: str, now: datetime) -> tuple[Upload, ...]:
    """Read the uploads that somebody has under way."""
    table = schema.uploads
    return tuple(_upload(row) for row in tx.execute(select(table).where(table.c.user == user, table.c.expire_time > now)))


def delete_upload(tx: Connection, name: str) -> None:
    """Forget an upload that was finished or given up.

    Raises:
        NotFound: There is none of that name.
    """
    if tx.execute(delete(schema.uploads).where(schema.uploads.c.name == name)).rowcount != 1:
        raise NotFound.named(name)


def uploads_expired(tx: Connection, now: datetime) -> tuple[Upload, ...]:
    """Read up to a thousand uploads whose time is over, the oldest first."""
    table = schema.uploads
    statement = select(table).where(table.c.expire_time <= now).order_by(table.c.expire_time).limit(1000)
    return tuple(_upload(row) for row in tx.execute(statement))


_UPLOAD_FIELDS = ("name", "user", "organism", "manifest", "provenance", "create_time", "expire_time")


def _upload(row: Row[Any]) -> Upload:
    return Upload(**{field: getattr(row, field) for field in _UPLOAD_FIELDS})
