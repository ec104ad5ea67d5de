"""Who of an identity provider is which account, and which tokens were used, as rows. What a token means is decided elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

from model_organisms.errors import AlreadyExists, EnrolmentRefused
from sqlalchemy import delete

from model_organisms_registry.storage import schema
from model_organisms_registry.storage.catalog import rows

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import Connection


def spend_token(tx: Connection, digest: str, *, until: datetime, now: datetime) -> None:
    """Use a token up, and forget those that have expired since.

    Raises:
        EnrolmentRefused: It was used before.
    """
    spent = schema.spent_tokens
    tx.execute(delete(spent).where(spent.c.expire_time < now))
    # the test and the mark are one statement: of two calls with one token, one inserts no row
    if not rows.added(tx, spent, {"digest": digest, "expire_time": until}):
        raise EnrolmentRefused("This token was used before; log in again.", check="replay")


def user_of(tx: Connection, issuer: str, subject: str) -> str | None:
    """Name the account of a subject, if it has one."""
    table = schema.subjects
    found = rows.find(tx, table, table.c.issuer == issuer, table.c.subject == subject)
    return found.user if found else None


def bind(tx: Connection, issuer: str, subject: str, user: str) -> None:
    """Make an account a subject's, for good.

    Raises:
        AlreadyExists: The subject has an account, or the account a subject.
    """
    if not rows.added(tx, schema.subjects, {"issuer": issuer, "subject": subject, "user": user}):
        raise AlreadyExists("This person of the identity provider has an account already; log in again.", name=user)
