"""Replicas, and which of them works on what. Never edited once released; a change is a step after it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None

WORDS = sa.Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")
"""Text ordered by code point on both databases."""
FIELDS = ("tokens", "sessions", "output_bytes", "probe_values", "pulls")


def upgrade() -> None:
    """Create the table and the columns; what is there already was of the one process that there was."""
    op.create_table(
        "replicas",
        sa.Column("name", WORDS, nullable=False),
        sa.Column("beat", sa.BigInteger(), nullable=False),
        sa.Column("seen_time", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_replicas"),
    )
    for table in ("sessions", "intents"):
        op.add_column(table, sa.Column("replica", WORDS, nullable=False, server_default=sa.text("''")))
    op.add_column("intents", sa.Column("grant", WORDS, nullable=False, server_default=sa.text("''")))
    for prefix in ("taken", "used"):
        for field in FIELDS:
            op.add_column("intents", sa.Column(f"{prefix}_{field}", sa.BigInteger(), nullable=False, server_default="0"))
