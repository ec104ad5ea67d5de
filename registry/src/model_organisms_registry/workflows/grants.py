"""Looking at grants and taking them back; they come to be in `access.py`, and are used in `sandbox.py` and `pulling.py`."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from model_organisms.records import Grant, GrantState, Page

from model_organisms_registry.domain import access as rules
from model_organisms_registry.domain.audit import Event, entry
from model_organisms_registry.domain.identity import OVERSIGHT
from model_organisms_registry.domain.permits import Action
from model_organisms_registry.gate import entities
from model_organisms_registry.storage.catalog import grants as rows
from model_organisms_registry.workflows import finding
from model_organisms_registry.workflows.changes import seq

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from model_organisms.records import Receipt

    from model_organisms_registry.domain.permits import Call
    from model_organisms_registry.gate.gate import Gate
    from model_organisms_registry.storage.contents import Contents
    from model_organisms_registry.workflows.changes import Changes


class Grants:
    """Grants that were made.

    Args:
        changes: Opens transactions.
        gate: Decides who may.
        contents: Where reasons are kept, encrypted.
        revoked: Told the name of a grant that was taken back, so that what runs under it ends.
    """

    def __init__(self, changes: Changes, gate: Gate, *, contents: Contents, revoked: Callable[[str, datetime], None]) -> None:
        """Keep what the steps need."""
        self._changes = changes
        self._gate = gate
        self._contents = contents
        self._revoked = revoked

    def get(self, call: Call, name: str) -> Grant:
        """Read a grant."""
        with self._changes.database.read() as tx:
            grant, owners = finding.grant(tx, self._gate, call, Action.VIEW_GRANT, name)
        self._gate.permit(call, Action.VIEW_GRANT, entities.grant(grant, owners=owners))
        return _as_of(grant, call.time)

    def list(
        self, call: Call, *, user: str, version: str, state: GrantState | None, page_size: int, page_token: str
    ) -> Page[Grant]:
        """List grants: one's own, or for reviewers those of all."""
        self._gate.permit(call, Action.LIST, entities.registry())
        whose = user if OVERSIGHT & call.user.roles else call.user.name
        with self._changes.database.read() as tx:
            page = rows.grants(
                tx, user=whose, version=version, state=state, now=call.time, page_size=page_size, page_token=page_token
            )
        return Page(tuple(_as_of(grant, call.time) for grant in page.items), page.next_page_token)

    def revoke(self, call: Call, name: str, *, reason: str) -> tuple[Grant, Receipt]:
        """Take a grant back; what runs under it ends."""
        with self._changes.open() as change:
            grant, owners = finding.grant(change.tx, self._gate, call, Action.REVOKE_GRANT, name)
            permit = self._gate.permit(call, Action.REVOKE_GRANT, entities.grant(grant, owners=owners))
            revoked = rules.revoke(grant, reason=reason, now=call.time)
            rows.revoke_grant(change.tx, name, revoked.reason, call.time)
            commit = change.commit(self._contents, grant.user, revoked.reason)
            change.enter(entry(Event.REVOKE, call, seq=seq(), subject=name, permit=permit, grant=name, commit=commit))
        self._revoked(name, call.time)
        return revoked, change.receipt


def _as_of(grant: Grant, now: datetime) -> Grant:
    return replace(grant, state=rules.state_of(grant, now=now))
