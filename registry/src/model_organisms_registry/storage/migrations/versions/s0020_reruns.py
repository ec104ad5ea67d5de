"""Turns that are to be said again. Never edited once released; a change is a step after it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None

WORDS = sa.Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")
"""Text ordered by code point on both databases."""


def upgrade() -> None:
    """Add them; no turn so far was in a draw."""
    op.create_table(
        "reruns",
        sa.Column("turn", WORDS, nullable=False),
        sa.Column("session", WORDS, nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("receipt", WORDS, nullable=False),
        sa.Column("create_time", sa.BigInteger(), nullable=False),
        sa.Column("next_time", sa.BigInteger(), nullable=True),
        sa.Column("replica", WORDS, nullable=False),
        sa.Column("verdict", WORDS, nullable=False),
        sa.Column("end_time", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("turn", name="pk_reruns"),
        sa.ForeignKeyConstraint(["session"], ["sessions.name"], name="fk_reruns_session"),
    )
    op.create_index("ix_reruns_next_time_turn", "reruns", ["next_time", "turn"])
    op.create_index("ix_reruns_verdict_end_time", "reruns", ["verdict", "end_time"])
