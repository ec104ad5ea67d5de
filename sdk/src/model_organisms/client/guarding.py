"""Ends a cell of one's own when its session is over, whoever ended it: a thread asks the registry, busy or idle.

Where the registry cannot be reached it asks again. The cell then lasts at most until its session's time is over, which needs no
registry.
"""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from model_organisms.errors import DeadlineExceeded, ModelOrganismsError, Unavailable
from model_organisms.records import SessionState

if TYPE_CHECKING:
    from model_organisms.cells.own import OwnCell
    from model_organisms.client.sandbox import Sandbox
    from model_organisms.records import Session

EVERY_S = 5.0
"""How often the registry is asked whether the session is open still."""


class Guard:
    """Watches one session for one cell, from now on.

    Args:
        sandbox: Asks the registry.
        session: The session, open.
        cell: What ends with it.
    """

    def __init__(self, sandbox: Sandbox, session: Session, cell: OwnCell) -> None:
        """Start to watch."""
        self._sandbox, self._name, self._cell = sandbox, session.name, cell
        self._over = threading.Event()
        left = (session.expire_time - datetime.now(UTC)).total_seconds()
        self.expiry = threading.Timer(max(0.0, left), cell.close)
        self.expiry.daemon = True
        self.expiry.start()
        threading.Thread(target=self._watch, name=f"guard of {session.name}", daemon=True).start()

    def cancel(self) -> None:
        """Watch no longer; who calls this ends the cell."""
        self._over.set()
        self.expiry.cancel()

    def _watch(self) -> None:
        while not self._over.wait(EVERY_S) and self._cell.alive:
            if not self._stands():
                self._cell.close()

    def _stands(self) -> bool:
        try:
            return self._sandbox.get(self._name).state is SessionState.OPEN
        except (Unavailable, DeadlineExceeded):
            return True  # nobody has said no; nothing is asked or shown meanwhile
        except (ModelOrganismsError, ValueError):
            return False  # the account does not stand, or the channel was closed, so that no answer could be reported
