"""Questions to local cells keep no index of an entry. Never edited once released; a change is a step after it."""

from __future__ import annotations

from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Take the column out; what it held, or never came to hold, is found by the number of the entry."""
    op.drop_column("local_turns", "intent")
