"""Auditing games, and sessions and grants under aliases. Never edited once released; a change is a step after it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None

WORDS = sa.Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")
"""Text ordered by code point on both databases."""
BUDGET = ("tokens", "sessions", "output_bytes", "probe_values", "pulls")


def upgrade() -> None:
    """Create them; every session and grant so far names what it is about."""
    _games()
    _played()
    op.create_table(
        "grant_aliases",
        sa.Column("grant", WORDS, nullable=False),
        sa.Column("position", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("alias", WORDS, nullable=False),
        sa.Column("digest", WORDS, nullable=False),
        sa.PrimaryKeyConstraint("grant", "position", name="pk_grant_aliases"),
        sa.ForeignKeyConstraint(["grant"], ["grants.name"], name="fk_grant_aliases_grant"),
    )
    op.create_index("ix_grant_aliases_alias_grant", "grant_aliases", ["alias", "grant"])
    op.add_column("sessions", sa.Column("alias", WORDS, nullable=False, server_default=sa.text("''")))
    op.add_column("sessions", sa.Column("blind", WORDS, nullable=False, server_default=sa.text("''")))


def _games() -> None:
    """Games, and what their aliases stand for."""
    op.create_table(
        "games",
        sa.Column("name", WORDS, nullable=False),
        sa.Column("master", WORDS, nullable=False),
        sa.Column("title", WORDS, nullable=False),
        sa.Column("question", WORDS, nullable=False),
        sa.Column("choices", WORDS, nullable=False),
        sa.Column("rung", sa.Integer(), nullable=False),
        sa.Column("level", sa.Integer(), nullable=False),
        *(sa.Column(f"budget_{field}", sa.BigInteger(), nullable=False) for field in BUDGET),
        sa.Column("conditions", WORDS, nullable=False),
        sa.Column("commitment", WORDS, nullable=False),
        sa.Column("nonce", WORDS, nullable=False),
        sa.Column("state", WORDS, nullable=False),
        sa.Column("create_time", sa.BigInteger(), nullable=False),
        sa.Column("deadline", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_games"),
        sa.ForeignKeyConstraint(["master"], ["users.name"], name="fk_games_master"),
    )
    op.create_index("ix_games_master_name", "games", ["master", "name"])
    op.create_table(
        "game_aliases",
        sa.Column("alias", WORDS, nullable=False),
        sa.Column("game", WORDS, nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("blind", WORDS, nullable=False),
        sa.Column("version", WORDS, nullable=False),
        sa.Column("digest", WORDS, nullable=False),
        sa.Column("base", sa.Boolean(), nullable=False),
        sa.Column("organism", sa.Boolean(), nullable=False),
        sa.Column("answer", WORDS, nullable=False),
        sa.PrimaryKeyConstraint("alias", name="pk_game_aliases"),
        sa.ForeignKeyConstraint(["game"], ["games.name"], name="fk_game_aliases_game"),
        sa.ForeignKeyConstraint(["version"], ["versions.name"], name="fk_game_aliases_version"),
        sa.UniqueConstraint("game", "number", name="uq_game_aliases_game_number"),
    )


def _played() -> None:
    """Seats and guesses."""
    op.create_table(
        "game_players",
        sa.Column("game", WORDS, nullable=False),
        sa.Column("user", WORDS, nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("grant", WORDS, nullable=False),
        sa.PrimaryKeyConstraint("game", "user", name="pk_game_players"),
        sa.ForeignKeyConstraint(["game"], ["games.name"], name="fk_game_players_game"),
        sa.ForeignKeyConstraint(["user"], ["users.name"], name="fk_game_players_user"),
    )
    op.create_index("ix_game_players_user_game", "game_players", ["user", "game"])
    op.create_table(
        "guesses",
        sa.Column("alias", WORDS, nullable=False),
        sa.Column("player", WORDS, nullable=False),
        sa.Column("organism", sa.Boolean(), nullable=False),
        sa.Column("probability", WORDS, nullable=True),
        sa.Column("answer", WORDS, nullable=False),
        sa.Column("times", sa.Integer(), nullable=False),
        sa.Column("create_time", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("alias", "player", name="pk_guesses"),
        sa.ForeignKeyConstraint(["alias"], ["game_aliases.alias"], name="fk_guesses_alias"),
        sa.ForeignKeyConstraint(["player"], ["users.name"], name="fk_guesses_player"),
    )
