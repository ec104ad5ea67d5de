"""Tables of sandbox: sessions, intents, pulls, contents. Never edited once released; a change is a step after it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

WORDS = sa.Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")
"""Text ordered by code point on both databases."""


def upgrade() -> None:
    """Create them, parents first."""
    _sessions()
    _intents()
    _pulls()
    _contents()


def _sessions() -> None:
    op.create_table(
        "sessions",
        sa.Column("name", WORDS, nullable=False),
        sa.Column("user", WORDS, nullable=False),
        sa.Column("version", WORDS, nullable=False),
        sa.Column("digest", WORDS, nullable=False),
        sa.Column("grant", WORDS, nullable=True),
        sa.Column("purpose", WORDS, nullable=False),
        sa.Column("budget_tokens", sa.BigInteger(), nullable=False),
        sa.Column("budget_sessions", sa.BigInteger(), nullable=False),
        sa.Column("budget_output_bytes", sa.BigInteger(), nullable=False),
        sa.Column("budget_probe_values", sa.BigInteger(), nullable=False),
        sa.Column("budget_pulls", sa.BigInteger(), nullable=False),
        sa.Column("spent_tokens", sa.BigInteger(), nullable=False),
        sa.Column("spent_sessions", sa.BigInteger(), nullable=False),
        sa.Column("spent_output_bytes", sa.BigInteger(), nullable=False),
        sa.Column("spent_probe_values", sa.BigInteger(), nullable=False),
        sa.Column("spent_pulls", sa.BigInteger(), nullable=False),
        sa.Column("state", WORDS, nullable=False),
        sa.Column("walls", WORDS, nullable=False),
        sa.Column("create_time", sa.BigInteger(), nullable=False),
        sa.Column("expire_time", sa.BigInteger(), nullable=False),
        sa.Column("end_time", sa.BigInteger(), nullable=True),
        sa.Column("reason", WORDS, nullable=False),
        sa.Column("samples", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_sessions"),
        sa.CheckConstraint("spent_tokens BETWEEN 0 AND budget_tokens", name=op.f("ck_sessions_within_tokens")),
        sa.CheckConstraint("spent_sessions BETWEEN 0 AND budget_sessions", name=op.f("ck_sessions_within_sessions")),
        sa.CheckConstraint("spent_output_bytes BETWEEN 0 AND budget_output_bytes", name=op.f("ck_sessions_within_output_bytes")),
        sa.CheckConstraint("spent_probe_values BETWEEN 0 AND budget_probe_values", name=op.f("ck_sessions_within_probe_values")),
        sa.CheckConstraint("spent_pulls BETWEEN 0 AND budget_pulls", name=op.f("ck_sessions_within_pulls")),
        sa.ForeignKeyConstraint(["user"], ["users.name"], name="fk_sessions_user"),
        sa.ForeignKeyConstraint(["version"], ["versions.name"], name="fk_sessions_version"),
        sa.ForeignKeyConstraint(["grant"], ["grants.name"], name="fk_sessions_grant"),
    )
    op.create_index("ix_sessions_grant_name", "sessions", ["grant", "name"])
    op.create_index("ix_sessions_state_name", "sessions", ["state", "name"])
    op.create_index("ix_sessions_user_name", "sessions", ["user", "name"])
    op.create_index("ix_sessions_version_name", "sessions", ["version", "name"])


def _intents() -> None:
    op.create_table(
        "intents",
        sa.Column("id", WORDS, nullable=False),
        sa.Column("kind", WORDS, nullable=False),
        sa.Column("subject", WORDS, nullable=False),
        sa.Column("parent", WORDS, nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("create_time", sa.BigInteger(), nullable=False),
        sa.Column("finish_time", sa.BigInteger(), nullable=True),
        sa.Column("outcome", WORDS, nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_intents"),
    )
    op.create_index(
        "ix_intents_unfinished",
        "intents",
        ["create_time", "id"],
        sqlite_where=sa.text("finish_time IS NULL"),
        postgresql_where=sa.text("finish_time IS NULL"),
    )


def _pulls() -> None:
    op.create_table(
        "pulls",
        sa.Column("name", WORDS, nullable=False),
        sa.Column("user", WORDS, nullable=False),
        sa.Column("grant", WORDS, nullable=True),
        sa.Column("version", WORDS, nullable=False),
        sa.Column("digest", WORDS, nullable=False),
        sa.Column("commitment", WORDS, nullable=False),
        sa.Column("head", sa.LargeBinary(), nullable=False),
        sa.Column("body_size", sa.BigInteger(), nullable=False),
        sa.Column("segments", sa.BigInteger(), nullable=False),
        sa.Column("state", WORDS, nullable=False),
        sa.Column("create_time", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_pulls"),
        sa.ForeignKeyConstraint(["user"], ["users.name"], name="fk_pulls_user"),
        sa.ForeignKeyConstraint(["grant"], ["grants.name"], name="fk_pulls_grant"),
        sa.ForeignKeyConstraint(["version"], ["versions.name"], name="fk_pulls_version"),
    )
    op.create_index("ix_pulls_user_name", "pulls", ["user", "name"])
    op.create_index("ix_pulls_version_name", "pulls", ["version", "name"])


def _contents() -> None:
    op.create_table(
        "contents",
        sa.Column("commit", WORDS, nullable=False),
        sa.Column("session", WORDS, nullable=False),
        sa.Column("blob", WORDS, nullable=False),
        sa.Column("key_id", WORDS, nullable=False),
        sa.PrimaryKeyConstraint("commit", name="pk_contents"),
    )
    op.create_index("ix_contents_session_commit", "contents", ["session", "commit"])
