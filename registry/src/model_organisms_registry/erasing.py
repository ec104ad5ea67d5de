"""Erasing what was said in a session: `mo-registry erase`. Its key goes; every entry and every proof stays.

1. an entry `sandbox.erase` is asked for, in the database; the registry that runs, or the next, puts it into the ledger
2. the session's key is destroyed, with all its rotations, whoever keeps it

A crash between the two leaves an entry and a key that lives: erase it again. What is sealed stays where it is, for nobody to
open, in backups too: they hold no keys (ADR 0008), and the mirror of keys must follow at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from model_organisms import names
from model_organisms.errors import Conflict
from model_organisms.formats import entry as entries
from model_organisms.records import SessionState

from model_organisms_registry import hooks
from model_organisms_registry.domain.audit import Event, entry
from model_organisms_registry.ledger import rows as ledger_rows
from model_organisms_registry.storage.catalog import sandbox as rows
from model_organisms_registry.storage.contents import key_of
from model_organisms_registry.storage.database import Database
from model_organisms_registry.storage.keyring import open_keyring
from model_organisms_registry.workflows.changes import seq
from model_organisms_registry.workflows.notifying import Outbox

if TYPE_CHECKING:
    from datetime import datetime

    from model_organisms_registry.config import Config


@dataclass(frozen=True, slots=True)
class Erased:
    """What was erased."""

    session: str
    texts: int
    """Prompts, answers and reasons that nobody can open any more."""


def erase(config: Config, session: str, *, now: datetime) -> Erased:
    """Erase what was said in a session that has ended. Doing it again is no error, and is entered again.

    Args:
        config: The registry's settings; it may be running.
        session: Name of the session.
        now: The time.

    Raises:
        InvalidName: It is no session's name.
        ConfigurationInvalid: A `[[notify]]` that cannot be used.
        NotFound: There is no such session.
        Conflict: It is still open.
        Unavailable: The database, or who keeps the key, cannot be reached.
    """
    names.check("session", session)
    outbox = Outbox(hooks.opened(config.notify, config.folder))
    database, keyring = Database(config.database_url), open_keyring(config.keys, config.kek_folder)
    try:
        with database.write() as tx:
            if rows.session(tx, session).state is SessionState.OPEN:
                raise Conflict(f"{session} is still open; kill it first (`mo sandbox kill`).", session=session)
            texts = len(rows.contents(tx, session))
            facts = {"key": key_of(session), "texts": str(texts)}
            done = entry(Event.ERASE_SESSION, None, time=now, seq=seq(), subject=session, facts=facts)
            ledger_rows.add_pending(tx, entries.encode(done))
            outbox.put(tx, done)
        keyring.destroy(key_of(session))
    finally:
        database.close()
        keyring.close()
    return Erased(session, texts)
