"""What owners ask and requesters state, and no statement twice. Never edited once released; a change is a step after it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

WORDS = sa.Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")
"""Text ordered by code point on both databases."""
ADDED = (
    ("organisms", "purposes", "[]"),
    ("organisms", "conditions", "[]"),
    ("requests", "stated", "{}"),
    ("requests", "conditions", "[]"),
    ("requests", "match", "null"),
    ("grants", "conditions", "[]"),
)


def upgrade() -> None:
    """Add the columns; what is there already asks nothing and states nothing."""
    for table, column, was in ADDED:
        op.add_column(table, sa.Column(column, WORDS, nullable=False, server_default=was))
    op.add_column("approvals", sa.Column("nonce", WORDS, nullable=True))
    op.create_index("ix_approvals_key_id_nonce", "approvals", ["key_id", "nonce"], unique=True)
