"""Since when a request stands as it does, and what it asks again. Never edited once released; a change is a step after it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

WORDS = sa.Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")
"""Text ordered by code point on both databases."""


def upgrade() -> None:
    """Add the columns; of what is there already nobody noted the time."""
    op.add_column("requests", sa.Column("previous", WORDS, nullable=False, server_default=sa.text("''")))
    op.add_column("requests", sa.Column("state_time", sa.BigInteger(), nullable=True))
