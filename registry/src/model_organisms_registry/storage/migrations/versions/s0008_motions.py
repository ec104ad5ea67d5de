"""Tables of motions and their signatures. Never edited once released; a change is a step after it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

WORDS = sa.Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")
"""Text ordered by code point on both databases."""


def upgrade() -> None:
    """Create them, parents first."""
    op.create_table(
        "motions",
        sa.Column("name", WORDS, nullable=False),
        sa.Column("kind", WORDS, nullable=False),
        sa.Column("subject", WORDS, nullable=False),
        sa.Column("facts", WORDS, nullable=False),
        sa.Column("proposer", WORDS, nullable=False),
        sa.Column("state", WORDS, nullable=False),
        sa.Column("create_time", sa.BigInteger(), nullable=False),
        sa.Column("expire_time", sa.BigInteger(), nullable=False),
        sa.Column("needed", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_motions"),
        sa.ForeignKeyConstraint(["proposer"], ["users.name"], name="fk_motions_proposer"),
    )
    op.create_index("ix_motions_proposer_name", "motions", ["proposer", "name"])
    op.create_index("ix_motions_state_name", "motions", ["state", "name"])
    op.create_table(
        "motion_signatures",
        sa.Column("motion", WORDS, nullable=False),
        sa.Column("signer", WORDS, nullable=False),
        sa.Column("organisation", WORDS, nullable=False),
        sa.Column("key_id", WORDS, nullable=False),
        sa.Column("approve", sa.Boolean(), nullable=False),
        sa.Column("reason", WORDS, nullable=False),
        sa.Column("envelope", sa.LargeBinary(), nullable=False),
        sa.Column("create_time", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("motion", "signer", name="pk_motion_signatures"),
        sa.ForeignKeyConstraint(["motion"], ["motions.name"], name="fk_motion_signatures_motion"),
        sa.ForeignKeyConstraint(["signer"], ["users.name"], name="fk_motion_signatures_signer"),
    )
