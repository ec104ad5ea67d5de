"""Codes that replace a lost key, and the time an account was stopped. Never edited once released; a change is a step after it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

WORDS = sa.Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")
"""Text ordered by code point on both databases."""


def upgrade() -> None:
    """Add both columns."""
    op.add_column("users", sa.Column("suspend_time", sa.BigInteger(), nullable=True))
    op.add_column("enrolments", sa.Column("replaces", WORDS, nullable=True))
