"""Steps from one schema to the next, run by Alembic; only `Database.migrate` should be here."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from alembic.util.exc import CommandError
from model_organisms.errors import Unavailable

if TYPE_CHECKING:
    from sqlalchemy import Connection


def configuration(tx: Connection) -> Config:
    """Point Alembic at this folder and at a transaction that is already open."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = tx
    return config


def upgrade(tx: Connection, current: str | None) -> None:
    """Run every step that is missing, inside the caller's transaction.

    Raises:
        Unavailable: The schema was written by a newer program.
    """
    config = configuration(tx)
    if current is not None:
        try:
            ScriptDirectory.from_config(config).get_revision(current)
        except CommandError as error:
            msg = f"The database has schema {current}, which this program does not know; install the registry that wrote it."
            raise Unavailable(msg) from error
    command.upgrade(config, "head")


def head() -> str | None:
    """Name the newest step in this folder."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return ScriptDirectory.from_config(config).get_current_head()
