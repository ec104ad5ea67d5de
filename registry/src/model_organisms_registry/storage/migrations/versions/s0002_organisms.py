"""Tables of organisms: organisms, versions, attestations, uploads. Never edited once released; a change is a step after it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

WORDS = sa.Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")
"""Text ordered by code point on both databases."""


def upgrade() -> None:
    """Create them, parents first."""
    _organisms()
    _organism_traits()
    _organism_words()
    _versions()
    _attestations()
    _uploads()


def _organisms() -> None:
    op.create_table(
        "organisms",
        sa.Column("name", WORDS, nullable=False),
        sa.Column("display_name", WORDS, nullable=False),
        sa.Column("description", WORDS, nullable=False),
        sa.Column("owner", WORDS, nullable=False),
        sa.Column("level", sa.Integer(), nullable=False),
        sa.Column("base_model", WORDS, nullable=False),
        sa.Column("traits", WORDS, nullable=False),
        sa.Column("hidden", sa.Boolean(), nullable=False),
        sa.Column("create_time", sa.BigInteger(), nullable=False),
        sa.Column("latest", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_organisms"),
        sa.ForeignKeyConstraint(["owner"], ["users.name"], name="fk_organisms_owner"),
    )
    op.create_index("ix_organisms_base_model_name", "organisms", ["base_model", "name"])
    op.create_index("ix_organisms_level_name", "organisms", ["level", "name"])
    op.create_index("ix_organisms_owner_name", "organisms", ["owner", "name"])


def _organism_traits() -> None:
    op.create_table(
        "organism_traits",
        sa.Column("trait", WORDS, nullable=False),
        sa.Column("organism", WORDS, nullable=False),
        sa.PrimaryKeyConstraint("trait", "organism", name="pk_organism_traits"),
        sa.ForeignKeyConstraint(["organism"], ["organisms.name"], name="fk_organism_traits_organism"),
    )


def _organism_words() -> None:
    op.create_table(
        "organism_words",
        sa.Column("word", WORDS, nullable=False),
        sa.Column("organism", WORDS, nullable=False),
        sa.PrimaryKeyConstraint("word", "organism", name="pk_organism_words"),
        sa.ForeignKeyConstraint(["organism"], ["organisms.name"], name="fk_organism_words_organism"),
    )


def _versions() -> None:
    op.create_table(
        "versions",
        sa.Column("name", WORDS, nullable=False),
        sa.Column("organism", WORDS, nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("digest", WORDS, nullable=False),
        sa.Column("state", WORDS, nullable=False),
        sa.Column("level", sa.Integer(), nullable=False),
        sa.Column("publisher", WORDS, nullable=False),
        sa.Column("publisher_key", sa.LargeBinary(), nullable=False),
        sa.Column("files", WORDS, nullable=False),
        sa.Column("facts", WORDS, nullable=False),
        sa.Column("marks", WORDS, nullable=False),
        sa.Column("provenance", sa.LargeBinary(), nullable=False),
        sa.Column("create_time", sa.BigInteger(), nullable=False),
        sa.Column("ledger_index", sa.BigInteger(), nullable=False),
        sa.Column("note", WORDS, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_versions"),
        sa.ForeignKeyConstraint(["organism"], ["organisms.name"], name="fk_versions_organism"),
        sa.ForeignKeyConstraint(["publisher"], ["users.name"], name="fk_versions_publisher"),
        sa.UniqueConstraint("organism", "number", name="uq_versions_organism_number"),
        sa.UniqueConstraint("organism", "digest", name="uq_versions_organism_digest"),
    )


def _attestations() -> None:
    op.create_table(
        "attestations",
        sa.Column("name", WORDS, nullable=False),
        sa.Column("version", WORDS, nullable=False),
        sa.Column("predicate_type", WORDS, nullable=False),
        sa.Column("author", WORDS, nullable=False),
        sa.Column("envelope", sa.LargeBinary(), nullable=False),
        sa.Column("create_time", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_attestations"),
        sa.ForeignKeyConstraint(["version"], ["versions.name"], name="fk_attestations_version"),
    )
    op.create_index("ix_attestations_version_name", "attestations", ["version", "name"])


def _uploads() -> None:
    op.create_table(
        "uploads",
        sa.Column("name", WORDS, nullable=False),
        sa.Column("user", WORDS, nullable=False),
        sa.Column("organism", WORDS, nullable=False),
        sa.Column("manifest", sa.LargeBinary(), nullable=False),
        sa.Column("provenance", sa.LargeBinary(), nullable=False),
        sa.Column("create_time", sa.BigInteger(), nullable=False),
        sa.Column("expire_time", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_uploads"),
        sa.ForeignKeyConstraint(["user"], ["users.name"], name="fk_uploads_user"),
        sa.ForeignKeyConstraint(["organism"], ["organisms.name"], name="fk_uploads_organism"),
    )
    op.create_index("ix_uploads_expire_time", "uploads", ["expire_time"])
