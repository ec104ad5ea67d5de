"""Tables of access: requests, approvals, grants. Never edited once released; a change is a step after it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

WORDS = sa.Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")
"""Text ordered by code point on both databases."""


def upgrade() -> None:
    """Create them, parents first."""
    _requests()
    _request_versions()
    _approvals()
    _grants()
    _grant_versions()


def _requests() -> None:
    op.create_table(
        "requests",
        sa.Column("name", WORDS, nullable=False),
        sa.Column("requester", WORDS, nullable=False),
        sa.Column("organisation", WORDS, nullable=False),
        sa.Column("rung", sa.Integer(), nullable=False),
        sa.Column("level", sa.Integer(), nullable=False),
        sa.Column("purpose", WORDS, nullable=False),
        sa.Column("justification", WORDS, nullable=False),
        sa.Column("budget_tokens", sa.BigInteger(), nullable=False),
        sa.Column("budget_sessions", sa.BigInteger(), nullable=False),
        sa.Column("budget_output_bytes", sa.BigInteger(), nullable=False),
        sa.Column("budget_probe_values", sa.BigInteger(), nullable=False),
        sa.Column("budget_pulls", sa.BigInteger(), nullable=False),
        sa.Column("duration_s", sa.BigInteger(), nullable=False),
        sa.Column("state", WORDS, nullable=False),
        sa.Column("create_time", sa.BigInteger(), nullable=False),
        sa.Column("expire_time", sa.BigInteger(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("needed", sa.Integer(), nullable=False),
        sa.Column("grant", WORDS, nullable=False),
        sa.Column("reason", WORDS, nullable=False),
        sa.Column("need", WORDS, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_requests"),
        sa.ForeignKeyConstraint(["requester"], ["users.name"], name="fk_requests_requester"),
    )
    op.create_index("ix_requests_requester_name", "requests", ["requester", "name"])
    op.create_index("ix_requests_state_name", "requests", ["state", "name"])


def _request_versions() -> None:
    op.create_table(
        "request_versions",
        sa.Column("request", WORDS, nullable=False),
        sa.Column("position", sa.Integer(), nullable=False, autoincrement=False),
        sa.Column("version", WORDS, nullable=False),
        sa.Column("digest", WORDS, nullable=False),
        sa.PrimaryKeyConstraint("request", "position", name="pk_request_versions"),
        sa.ForeignKeyConstraint(["request"], ["requests.name"], name="fk_request_versions_request"),
        sa.ForeignKeyConstraint(["version"], ["versions.name"], name="fk_request_versions_version"),
        sa.UniqueConstraint("version", "request", name="uq_request_versions_version_request"),
    )


def _approvals() -> None:
    op.create_table(
        "approvals",
        sa.Column("request", WORDS, nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False, autoincrement=False),
        sa.Column("reviewer", WORDS, nullable=False),
        sa.Column("name", WORDS, nullable=False),
        sa.Column("organisation", WORDS, nullable=False),
        sa.Column("key_id", WORDS, nullable=False),
        sa.Column("approve", sa.Boolean(), nullable=False),
        sa.Column("reason", WORDS, nullable=False),
        sa.Column("envelope", sa.LargeBinary(), nullable=False),
        sa.Column("create_time", sa.BigInteger(), nullable=False),
        sa.Column("expire_time", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("request", "revision", "reviewer", name="pk_approvals"),
        sa.ForeignKeyConstraint(["request"], ["requests.name"], name="fk_approvals_request"),
        sa.ForeignKeyConstraint(["reviewer"], ["users.name"], name="fk_approvals_reviewer"),
    )


def _grants() -> None:
    op.create_table(
        "grants",
        sa.Column("name", WORDS, nullable=False),
        sa.Column("user", WORDS, nullable=False),
        sa.Column("request", WORDS, nullable=False),
        sa.Column("rung", sa.Integer(), nullable=False),
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
        sa.Column("create_time", sa.BigInteger(), nullable=False),
        sa.Column("expire_time", sa.BigInteger(), nullable=False),
        sa.Column("revoke_time", sa.BigInteger(), nullable=True),
        sa.Column("reason", WORDS, nullable=False),
        sa.Column("level", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_grants"),
        sa.CheckConstraint("spent_tokens BETWEEN 0 AND budget_tokens", name=op.f("ck_grants_within_tokens")),
        sa.CheckConstraint("spent_sessions BETWEEN 0 AND budget_sessions", name=op.f("ck_grants_within_sessions")),
        sa.CheckConstraint("spent_output_bytes BETWEEN 0 AND budget_output_bytes", name=op.f("ck_grants_within_output_bytes")),
        sa.CheckConstraint("spent_probe_values BETWEEN 0 AND budget_probe_values", name=op.f("ck_grants_within_probe_values")),
        sa.CheckConstraint("spent_pulls BETWEEN 0 AND budget_pulls", name=op.f("ck_grants_within_pulls")),
        sa.ForeignKeyConstraint(["user"], ["users.name"], name="fk_grants_user"),
    )
    op.create_index("ix_grants_state_name", "grants", ["state", "name"])
    op.create_index("ix_grants_user_name", "grants", ["user", "name"])


def _grant_versions() -> None:
    op.create_table(
        "grant_versions",
        sa.Column("grant", WORDS, nullable=False),
        sa.Column("position", sa.Integer(), nullable=False, autoincrement=False),
        sa.Column("user", WORDS, nullable=False),
        sa.Column("organism", WORDS, nullable=False),
        sa.Column("version", WORDS, nullable=False),
        sa.Column("digest", WORDS, nullable=False),
        sa.PrimaryKeyConstraint("grant", "position", name="pk_grant_versions"),
        sa.ForeignKeyConstraint(["grant"], ["grants.name"], name="fk_grant_versions_grant"),
        sa.ForeignKeyConstraint(["version"], ["versions.name"], name="fk_grant_versions_version"),
        sa.UniqueConstraint("version", "grant", name="uq_grant_versions_version_grant"),
    )
    op.create_index("ix_grant_versions_user_digest", "grant_versions", ["user", "digest"])
    op.create_index("ix_grant_versions_user_organism", "grant_versions", ["user", "organism"])
