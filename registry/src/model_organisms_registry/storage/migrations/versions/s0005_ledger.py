"""Tables of the ledger: pending entries, entries, the head. Never edited once released; a change is a step after it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

COUNTER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
"""SQLite numbers rows by itself only where the column is declared INTEGER."""


def upgrade() -> None:
    """Create them."""
    op.create_table(
        "ledger_pending",
        sa.Column("id", COUNTER, nullable=False, autoincrement=True),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_ledger_pending"),
    )
    op.create_table(
        "ledger_entries",
        sa.Column("idx", COUNTER, nullable=False, autoincrement=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("idx", name="pk_ledger_entries"),
        sa.CheckConstraint("idx >= 0", name=op.f("ck_ledger_entries_idx_counts")),
    )
    op.create_table(
        "ledger_head",
        sa.Column("id", sa.Integer(), nullable=False, autoincrement=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("root", sa.LargeBinary(), nullable=False),
        sa.Column("note", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_ledger_head"),
        sa.CheckConstraint("id = 1", name=op.f("ck_ledger_head_only_row")),
        sa.CheckConstraint("size >= 0", name=op.f("ck_ledger_head_size_counts")),
    )
