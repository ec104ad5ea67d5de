"""A version knows its co-authors: they do not decide who gets it. Never edited once released; a change is a step after it."""

from __future__ import annotations

import base64
import json
import re

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

WORDS = sa.Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")
"""Text ordered by code point on both databases."""
ACCOUNT = re.compile(r"(?:users/)?([a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)", re.ASCII)


def upgrade() -> None:
    """Add the column, and read it from the provenance of what is there already."""
    op.add_column("versions", sa.Column("co_authors", WORDS, nullable=False, server_default="[]"))
    tx = op.get_bind()
    for name, envelope in tx.execute(sa.text("SELECT name, provenance FROM versions")).all():
        if accounts := _accounts(envelope):
            change = sa.text("UPDATE versions SET co_authors = :accounts WHERE name = :name")
            tx.execute(change, {"name": name, "accounts": json.dumps(accounts, separators=(",", ":"))})


def _accounts(envelope: bytes) -> list[str]:
    """Who is named as accounts are; the envelope was checked when it was admitted."""
    try:
        named = json.loads(base64.b64decode(json.loads(envelope)["payload"]))["predicate"].get("co_authors", [])
    except (ValueError, KeyError):
        return []
    found = (ACCOUNT.fullmatch(text) for text in named)
    return list(dict.fromkeys(f"users/{match[1]}" for match in found if match))
