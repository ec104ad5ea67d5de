"""Who holds what: copies, the attestations that they are destroyed, and what their holders were told."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from model_organisms import names
from model_organisms.errors import NotFound
from model_organisms.formats import dsse, statements
from model_organisms.formats.destruction import parse_destruction
from model_organisms.records import Page

from model_organisms_registry.domain import holding as rules
from model_organisms_registry.domain.audit import Event, entry
from model_organisms_registry.domain.identity import OVERSIGHT
from model_organisms_registry.domain.permits import Action
from model_organisms_registry.gate import entities
from model_organisms_registry.storage.catalog import holding as rows
from model_organisms_registry.workflows import finding
from model_organisms_registry.workflows.changes import seq

if TYPE_CHECKING:
    from datetime import datetime, timedelta

    from model_organisms.records import Holding, Notice, Receipt

    from model_organisms_registry.domain.permits import Call
    from model_organisms_registry.gate.gate import Gate
    from model_organisms_registry.storage.database import Connection
    from model_organisms_registry.workflows.changes import Changes

_MANY = 1000
"""Copies of one person that are looked at; more than anybody's grants give."""


class Holdings:
    """Copies and notices.

    Args:
        changes: Opens transactions.
        gate: Decides who may.
        grace: How long after its end the destruction of a copy may be attested.
    """

    def __init__(self, changes: Changes, gate: Gate, *, grace: timedelta) -> None:
        """Keep what the steps need."""
        self._changes = changes
        self._gate = gate
        self._grace = grace

    def list(
        self, call: Call, *, version: str, user: str, grant: str, outstanding: bool, page_size: int, page_token: str
    ) -> Page[Holding]:
        """List copies: of a version for those who answer for it, else one's own, or for those who oversee everybody's."""
        if version:
            with self._changes.database.read() as tx:
                found = finding.version(tx, self._gate, call, Action.VIEW_HOLDERS, version)
            self._gate.permit(call, Action.VIEW_HOLDERS, found.resource, grants=found.grants)
        else:
            self._gate.permit(call, Action.LIST, entities.registry())
            user = user if OVERSIGHT & call.user.roles else call.user.name
        ended = call.time if outstanding else None
        with self._changes.database.read() as tx:
            page = rows.copies(
                tx, version=version, user=user, grant=grant, ended=ended, page_size=page_size, page_token=page_token
            )
        return self._holdings(page, call.time)

    def attest(self, call: Call, name: str, envelope: bytes) -> tuple[tuple[Holding, ...], Receipt]:
        """Take a holder's signed statement that their copies of a version under a grant are destroyed.

        1. The statement is signed by the caller's own key, and about this grant, which is theirs.
        2. The rules hold it against the copies as they are in this transaction.
        3. Statement, copies and entry change together.
        """
        payload = dsse.verify(envelope, call.user.identity_key, payload_type=statements.PAYLOAD_TYPE)
        stated = parse_destruction(payload)
        digest = hashlib.sha256(envelope).hexdigest()
        with self._changes.open() as change:
            grant, owners = finding.grant(change.tx, self._gate, call, Action.ATTEST_DESTRUCTION, names.check("grant", name))
            permit = self._gate.permit(call, Action.ATTEST_DESTRUCTION, entities.grant(grant, owners=owners))
            if stated.grant != name:
                raise NotFound.named(stated.grant)
            copies = rows.copies(change.tx, user=call.user.name, grant=name, page_size=_MANY).items
            rules.check(stated, copies, now=call.time)
            version = stated.version
            rows.add_destruction(
                change.tx,
                digest,
                grant=name,
                version=version.name,
                user=call.user.name,
                envelope=envelope,
                time=call.time,
                pulls=stated.pulls,
            )
            facts = {"version": version.name, "digest": version.digest, "pulls": str(len(stated.pulls)), "envelope": digest}
            change.enter(entry(Event.DESTROYED, call, seq=seq(), subject=name, permit=permit, grant=name, facts=facts))
            after = rows.copies(change.tx, user=call.user.name, grant=name, page_size=_MANY)
        return self._holdings(after, call.time).items, change.receipt

    def check_owing(self, tx: Connection, user: str, now: datetime) -> None:
        """Refuse a new grant to pull to who is late with an attestation.

        Raises:
            DestructionOverdue: They are.
        """
        copies = rows.copies(tx, user=user, ended=now, page_size=_MANY).items
        rules.check_owing(copies, user=user, now=now, grace=self._grace)

    def notices(self, call: Call, *, unread: bool, page_size: int, page_token: str) -> Page[Notice]:
        """List what the caller was told."""
        self._gate.permit(call, Action.LIST, entities.registry())
        with self._changes.database.read() as tx:
            return rows.notices(tx, call.user.name, unread=unread, page_size=page_size, page_token=page_token)

    def read(self, call: Call, newest: str) -> tuple[int, Receipt]:
        """Note that the caller has read their notices, up to one: from then on it is known that they know."""
        permit = self._gate.permit(call, Action.LIST, entities.registry())
        with self._changes.open() as change:
            count = rows.read_notices(change.tx, call.user.name, newest, call.time)
            facts = {"newest": newest, "count": str(count)}
            change.enter(entry(Event.READ_NOTICES, call, seq=seq(), subject=call.user.name, permit=permit, facts=facts))
        return count, change.receipt

    def _holdings(self, page: Page[rules.Copy], now: datetime) -> Page[Holding]:
        found = (rules.holding(copy, now=now, grace=self._grace) for copy in page.items)
        return Page(tuple(found), page.next_page_token)
