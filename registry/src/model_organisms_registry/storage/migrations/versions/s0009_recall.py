"""Who took a version out of service, and when. Never edited once released; a change is a step after it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

WORDS = sa.Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")
"""Text ordered by code point on both databases."""


def upgrade() -> None:
    """Add the columns; for what was withdrawn before, nobody is named."""
    op.add_column("versions", sa.Column("stopped_by", WORDS, nullable=False, server_default=sa.text("''")))
    op.add_column("versions", sa.Column("stop_time", sa.BigInteger(), nullable=True))
