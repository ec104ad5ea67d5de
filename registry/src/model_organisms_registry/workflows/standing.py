"""Whether what a stream began under still stands: asked while it flows, so that a no in the middle of it is a no."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeVar

from model_organisms_registry.domain import grants, identity
from model_organisms_registry.domain.organisms import served
from model_organisms_registry.storage.catalog import grants as grant_rows
from model_organisms_registry.storage.catalog import identity as accounts
from model_organisms_registry.storage.catalog import organisms as organism_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from datetime import datetime

    from model_organisms_registry.domain.permits import Call
    from model_organisms_registry.storage.database import Database

T = TypeVar("T")
_EVERY_S = 0.2
"""A look costs as much as half a megabyte of a fast pull, so there is one now and then and not one a piece."""


class Standing:
    """Looks again.

    Args:
        database: Where accounts, grants and versions are.
        clock: The time while a stream runs; a call's own time is read once.
    """

    def __init__(self, database: Database, clock: Callable[[], datetime]) -> None:
        """Keep both."""
        self._database = database
        self._clock = clock

    def guard(self, call: Call, version: str, grant: str, pieces: Iterable[T]) -> Iterator[T]:
        """Hand pieces on while the caller's account, the grant and the version stand.

        Raises:
            Suspended: The account was stopped meanwhile.
            GrantRevoked: The grant was taken back meanwhile.
            GrantExpired: Its time ended meanwhile.
            Withdrawn: The version was withdrawn meanwhile.
        """
        looked = time.monotonic()
        for piece in pieces:
            if time.monotonic() - looked >= _EVERY_S:
                self._look(call, version, grant)
                looked = time.monotonic()
            yield piece

    def _look(self, call: Call, version: str, grant: str) -> None:
        with self._database.read() as tx:
            identity.standing(accounts.user(tx, call.user.name))
            grants.standing(grant_rows.grant(tx, grant), now=self._clock())
            served(organism_rows.version(tx, version).state, version)
