"""The last steps of asking and of deciding: the request is stored, and where it is complete the grant is made."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from model_organisms.formats import conditions
from model_organisms.records import RequestState, Rung

from model_organisms_registry.domain import access as rules
from model_organisms_registry.domain.audit import Event, entry
from model_organisms_registry.domain.budgets import stated
from model_organisms_registry.storage.catalog import grants as grant_rows
from model_organisms_registry.storage.catalog import requests as request_rows
from model_organisms_registry.workflows import finding
from model_organisms_registry.workflows.changes import name as fresh
from model_organisms_registry.workflows.changes import seq

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from model_organisms.records import Grant, Request

    from model_organisms_registry.domain.hazard import HazardTable
    from model_organisms_registry.domain.permits import Call, Permit
    from model_organisms_registry.gate.gate import Gate
    from model_organisms_registry.storage.contents import Contents
    from model_organisms_registry.storage.database import Connection
    from model_organisms_registry.workflows.changes import Change

    Owing = Callable[[Connection, str, datetime], None]


class Granting:
    """Stores requests, and makes their grants.

    Args:
        gate: Knows whether a witness stands.
        table: The hazard table of this deployment.
        contents: Where justifications are kept, encrypted.
        owing: Refuses a new grant to pull to who is late with an attestation of destruction.
    """

    def __init__(self, gate: Gate, table: HazardTable, contents: Contents, owing: Owing) -> None:
        """Keep them."""
        self._gate = gate
        self._table = table
        self._contents = contents
        self._owing = owing

    def opened(self, change: Change, call: Call, request: Request, permit: Permit) -> Request:
        """Store a new request, and make the grant where it is complete as it is asked."""
        request_rows.add_request(change.tx, request)
        facts = {
            "rung": request.rung.name.lower(),
            "level": request.level.name,
            "purpose": request.purpose.value,
            "revision": str(request.revision),
            "versions": str(len(request.versions)),
            **conditioned(request),
        }
        commit = change.commit(self._contents, request.requester, words(request))
        change.enter(entry(Event.REQUEST, call, seq=seq(), subject=request.name, permit=permit, commit=commit, facts=facts))
        return self.granted(change, call, request, before=request)

    def granted(self, change: Change, call: Call, request: Request, *, before: Request) -> Request:
        """Store a request that moved on, and make the grant if it is complete.

        Where only the witness is missing, the last approval is refused instead of stored: it would make no grant later.
        """
        if request.rung is Rung.PULL and request.state is RequestState.PENDING:
            self._owing(change.tx, request.requester, call.time)
        reviewers, witnessed = finding.reviewers(change.tx, request), self._gate.conditions.witness
        if not rules.complete(request, now=call.time, reviewers=reviewers, witnessed=True, table=self._table):
            if request != before:
                store(change.tx, before, request)
            return request
        name = fresh("grants", call.time)
        grant = rules.grant_from(request, name, now=call.time, reviewers=reviewers, witnessed=witnessed, table=self._table)
        done = rules.settled(request, grant)
        store(change.tx, before, done)
        grant_rows.add_grant(change.tx, grant)
        facts = {
            "rung": grant.rung.name.lower(),
            "level": grant.level.name,
            "purpose": grant.purpose.value,
            "versions": str(len(grant.versions)),
            "expires": grant.expire_time.isoformat(timespec="seconds"),
            "request": request.name,
            "budget": stated(grant.budget),
            **conditioned(grant),
        }
        change.enter(entry(Event.GRANT, call, seq=seq(), subject=grant.name, grant=grant.name, facts=facts))
        return done


def conditioned(of: Request | Grant) -> dict[str, str]:
    """What the ledger says of the conditions, where there are any."""
    return {"conditions": conditions.digest(of.conditions)} if of.conditions else {}


def words(request: Request) -> str:
    """What its requester says of it, as the ledger commits to it."""
    said = {"justification": request.justification, "need": request.need}
    return json.dumps(said, sort_keys=True) if any(said.values()) else ""


def store(tx: Connection, before: Request, after: Request) -> None:
    """Put a request in the place of what it was, if it is still that."""
    request_rows.update_request(tx, after, expected_revision=before.revision, expected_state=before.state)
