"""Subjects of identity providers, and used tokens. Never edited once released; a change is a step after it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

WORDS = sa.Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")
"""Text ordered by code point on both databases."""


def upgrade() -> None:
    """Create both."""
    op.create_table(
        "subjects",
        sa.Column("issuer", WORDS, nullable=False),
        sa.Column("subject", WORDS, nullable=False),
        sa.Column("user", WORDS, nullable=False),
        sa.PrimaryKeyConstraint("issuer", "subject", name="pk_subjects"),
        sa.ForeignKeyConstraint(["user"], ["users.name"], name="fk_subjects_user"),
        sa.UniqueConstraint("user", name="uq_subjects_user"),
    )
    op.create_table(
        "spent_tokens",
        sa.Column("digest", WORDS, nullable=False),
        sa.Column("expire_time", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("digest", name="pk_spent_tokens"),
    )
    op.create_index("ix_spent_tokens_expire_time", "spent_tokens", ["expire_time"])
