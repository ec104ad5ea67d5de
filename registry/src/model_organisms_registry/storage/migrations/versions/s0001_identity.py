"""Tables of identity: accounts, enrolment codes, denied certificates. Never edited once released; a change is a step after it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

WORDS = sa.Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")
"""Text ordered by code point on both databases."""


def upgrade() -> None:
    """Create them, parents first."""
    _users()
    _enrolments()
    _denied_certificates()


def _users() -> None:
    op.create_table(
        "users",
        sa.Column("name", WORDS, nullable=False),
        sa.Column("display_name", WORDS, nullable=False),
        sa.Column("organisation", WORDS, nullable=False),
        sa.Column("roles", WORDS, nullable=False),
        sa.Column("state", WORDS, nullable=False),
        sa.Column("create_time", sa.BigInteger(), nullable=False),
        sa.Column("identity_key", sa.LargeBinary(), nullable=False),
        sa.Column("sealing_key", sa.LargeBinary(), nullable=False),
        sa.Column("key_id", WORDS, nullable=True),
        sa.PrimaryKeyConstraint("name", name="pk_users"),
        sa.UniqueConstraint("key_id", name="uq_users_key_id"),
    )


def _enrolments() -> None:
    op.create_table(
        "enrolments",
        sa.Column("code_hash", WORDS, nullable=False),
        sa.Column("user", WORDS, nullable=False),
        sa.Column("expire_time", sa.BigInteger(), nullable=False),
        sa.Column("use_time", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("code_hash", name="pk_enrolments"),
        sa.ForeignKeyConstraint(["user"], ["users.name"], name="fk_enrolments_user"),
    )


def _denied_certificates() -> None:
    op.create_table(
        "denied_certificates",
        sa.Column("thumbprint", WORDS, nullable=False),
        sa.Column("reason", WORDS, nullable=False),
        sa.Column("create_time", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("thumbprint", name="pk_denied_certificates"),
    )
