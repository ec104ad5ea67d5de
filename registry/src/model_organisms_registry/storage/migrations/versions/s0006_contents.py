"""Contents belong to sessions, users and organisms. Never edited once released; a change is a step after it."""

from __future__ import annotations

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Name the column for what it holds."""
    op.drop_index("ix_contents_session_commit", "contents")
    op.execute("ALTER TABLE contents RENAME COLUMN session TO owner")
    op.create_index("ix_contents_owner_commit", "contents", ["owner", "commit"])
