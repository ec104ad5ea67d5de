"""What each player of a game may do with its aliases. Never edited once released; a change is a step after it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None

WORDS = sa.Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")
"""Text ordered by code point on both databases."""


def upgrade() -> None:
    """Add it; every player so far may sample, and say what the system says."""
    default = sa.text("""'["sample", "system"]'""")
    op.add_column("game_players", sa.Column("tools", WORDS, nullable=False, server_default=default))
