"""Sessions whose cell is on their holder's machine. Never edited once released; a change is a step after it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None

WORDS = sa.Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")
"""Text ordered by code point on both databases."""


def upgrade() -> None:
    """Add them; every session so far had its cell at the registry."""
    op.add_column("sessions", sa.Column("place", WORDS, nullable=False, server_default="registry"))
    op.add_column("sessions", sa.Column("used_time", sa.BigInteger(), nullable=True))
    op.create_table(
        "local_turns",
        sa.Column("session", WORDS, nullable=False),
        sa.Column("name", WORDS, nullable=False),
        sa.Column("kind", WORDS, nullable=False),
        sa.Column("parameters", WORDS, nullable=False),
        *(
            sa.Column(f"taken_{field}", sa.BigInteger(), nullable=False)
            for field in ("tokens", "sessions", "output_bytes", "probe_values", "pulls")
        ),
        sa.Column("intent", sa.BigInteger(), nullable=False),
        sa.Column("create_time", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("session", name="pk_local_turns"),
        sa.ForeignKeyConstraint(["session"], ["sessions.name"], name="fk_local_turns_session"),
    )
