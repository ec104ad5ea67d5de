"""Attestations of destruction, and notices. Never edited once released; a change is a step after it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

WORDS = sa.Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")
"""Text ordered by code point on both databases."""


def upgrade() -> None:
    """Create them; no copy is attested to be destroyed yet."""
    op.create_table(
        "destructions",
        sa.Column("digest", WORDS, nullable=False),
        sa.Column("grant", WORDS, nullable=False),
        sa.Column("version", WORDS, nullable=False),
        sa.Column("user", WORDS, nullable=False),
        sa.Column("envelope", sa.LargeBinary(), nullable=False),
        sa.Column("create_time", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("digest", name="pk_destructions"),
        sa.ForeignKeyConstraint(["grant"], ["grants.name"], name="fk_destructions_grant"),
        sa.ForeignKeyConstraint(["version"], ["versions.name"], name="fk_destructions_version"),
        sa.ForeignKeyConstraint(["user"], ["users.name"], name="fk_destructions_user"),
    )
    op.create_table(
        "notices",
        sa.Column("name", WORDS, nullable=False),
        sa.Column("user", WORDS, nullable=False),
        sa.Column("kind", WORDS, nullable=False),
        sa.Column("subject", WORDS, nullable=False),
        sa.Column("text", WORDS, nullable=False),
        sa.Column("create_time", sa.BigInteger(), nullable=False),
        sa.Column("read_time", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("name", name="pk_notices"),
        sa.ForeignKeyConstraint(["user"], ["users.name"], name="fk_notices_user"),
    )
    op.create_index("ix_notices_user_name", "notices", ["user", "name"])
    op.add_column("pulls", sa.Column("destruction", WORDS, nullable=False, server_default=sa.text("''")))
    op.create_index("ix_pulls_grant_name", "pulls", ["grant", "name"])
