"""Asking for access and deciding on it, up to the grant, step by step; what counts as enough is in `domain/`."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from model_organisms.errors import Denied, NotFound
from model_organisms.formats import dsse, statements
from model_organisms.records import Page, Request, RequestState

from model_organisms_registry.domain import access as rules
from model_organisms_registry.domain import purposes
from model_organisms_registry.domain.audit import Event, entry
from model_organisms_registry.domain.identity import OVERSIGHT
from model_organisms_registry.domain.permits import Action
from model_organisms_registry.domain.waiting import clock
from model_organisms_registry.gate import entities
from model_organisms_registry.storage.catalog import identity as accounts
from model_organisms_registry.storage.catalog import requests as request_rows
from model_organisms_registry.workflows import finding, granting
from model_organisms_registry.workflows.changes import name as fresh
from model_organisms_registry.workflows.changes import seq

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime, timedelta

    from model_organisms.records import Budget, Match, Purpose, Receipt, Rung, Stated

    from model_organisms_registry.domain.hazard import HazardTable
    from model_organisms_registry.domain.organisms import Subject
    from model_organisms_registry.domain.permits import Call, Permit
    from model_organisms_registry.gate.gate import Gate
    from model_organisms_registry.storage.contents import Contents
    from model_organisms_registry.storage.database import Connection
    from model_organisms_registry.workflows.changes import Changes

_ROUND = 100
"""Requests that are ended in one round of the clockwork."""


class Access:
    """Requests and approvals, up to the grant.

    Args:
        changes: Opens transactions.
        gate: Decides who may.
        table: The hazard table of this deployment.
        contents: Where justifications are kept, encrypted.
        owing: Refuses a new grant to pull to who is late with an attestation of destruction.
    """

    def __init__(self, changes: Changes, gate: Gate, table: HazardTable, *, contents: Contents, owing: granting.Owing) -> None:
        """Keep what the steps need."""
        self._changes = changes
        self._gate = gate
        self._table = table
        self._contents = contents
        self._granting = granting.Granting(gate, table, contents, owing)

    def request(
        self,
        call: Call,
        versions: Sequence[str],
        rung: Rung,
        *,
        purpose: Purpose,
        justification: str,
        need: str,
        budget: Budget | None,
        duration: timedelta | None,
        stated: Stated,
    ) -> tuple[Request, Receipt]:
        """Ask for access; where the table demands no approval, the grant is made at once."""
        with self._changes.open() as change:
            subjects, permit = self._asked(change.tx, call, versions, rung)
            request = rules.open_request(
                fresh("requests", call.time),
                requester=call.user,
                subjects=subjects,
                rung=rung,
                purpose=purpose,
                justification=justification,
                need=need,
                budget=budget,
                duration=duration,
                stated=replace(stated, assert_time=None),
                now=call.time,
                table=self._table,
            )
            request = self._granting.opened(change, call, request, permit)
        return request, change.receipt

    def match(
        self, call: Call, versions: Sequence[str], rung: Rung, *, purpose: Purpose, duration: timedelta | None, stated: Stated
    ) -> Match:
        """Tell how such a request would fit, before it is asked."""
        with self._changes.database.read() as tx:
            subjects, _ = self._asked(tx, call, versions, rung)
        asked = purposes.Asked(call.user.organisation, rung, purpose, duration, purposes.state(stated, now=call.time))
        return purposes.match([subject.organism for subject in subjects], asked)

    def get(self, call: Call, name: str) -> Request:
        """Read a request: whose move it is, and what it asks again, included."""
        with self._changes.database.read() as tx:
            request, subjects = self._found(tx, call, Action.VIEW_REQUEST, name)
            self._gate.permit(call, Action.VIEW_REQUEST, finding.request(request, subjects))
            request = rules.lapse(request, now=call.time)
            stands = clock(
                request,
                subjects=subjects,
                people=accounts.reviewers(tx),
                now=call.time,
                witnessed=self._gate.conditions.witness,
                table=self._table,
            )
            return replace(request, clock=stands, history=finding.history(tx, request, call.time))

    def list(self, call: Call, *, requester: str, state: RequestState | None, page_size: int, page_token: str) -> Page[Request]:
        """List requests: one's own and those for one's organisms, or for reviewers those of all."""
        self._gate.permit(call, Action.LIST, entities.registry())
        party = "" if OVERSIGHT & call.user.roles else call.user.name
        wanted = request_rows.RequestFilter(requester=requester, state=state, party=party)
        with self._changes.database.read() as tx:
            page = request_rows.requests(tx, filter=wanted, page_size=page_size, page_token=page_token)
        return Page(tuple(rules.lapse(item, now=call.time) for item in page.items), page.next_page_token)

    def amend(
        self,
        call: Call,
        name: str,
        *,
        revision: int,
        justification: str,
        need: str,
        budget: Budget | None,
        duration: timedelta | None,
        stated: Stated | None,
    ) -> tuple[Request, Receipt]:
        """Change an undecided request; approvals given so far are void."""
        with self._changes.open() as change:
            request, subjects = self._found(change.tx, call, Action.AMEND_REQUEST, name)
            permit = self._gate.permit(call, Action.AMEND_REQUEST, finding.request(request, subjects))
            amended = rules.amend(
                request,
                revision=revision,
                subjects=subjects,
                now=call.time,
                justification=justification,
                need=need,
                budget=budget,
                duration=duration,
                stated=stated,
                table=self._table,
            )
            granting.store(change.tx, request, amended)
            facts = {"revision": str(amended.revision), **granting.conditioned(amended)}
            commit = change.commit(self._contents, amended.requester, granting.words(amended))
            change.enter(entry(Event.AMEND, call, seq=seq(), subject=name, permit=permit, commit=commit, facts=facts))
            # What reviewers had to judge may be answered now, and then nobody need be asked.
            amended = self._granting.granted(change, call, amended, before=amended)
        return amended, change.receipt

    def withdraw(self, call: Call, name: str) -> tuple[Request, Receipt]:
        """Take one's own undecided request back."""
        with self._changes.open() as change:
            request, subjects = self._found(change.tx, call, Action.WITHDRAW_REQUEST, name)
            permit = self._gate.permit(call, Action.WITHDRAW_REQUEST, finding.request(request, subjects))
            withdrawn = rules.withdraw(request, now=call.time)
            granting.store(change.tx, request, withdrawn)
            facts = {"revision": str(request.revision)}
            change.enter(entry(Event.WITHDRAW_REQUEST, call, seq=seq(), subject=name, permit=permit, facts=facts))
        return withdrawn, change.receipt

    def review(self, call: Call, name: str, envelope: bytes, *, approve: bool) -> tuple[Request, Receipt]:
        """Take a reviewer's signed yes or no.

        1. The statement is signed by the caller's own key.
        2. The gate lets this reviewer decide on this request.
        3. The rules hold the statement against the request as it stands in this transaction, and count.
        4. Enough of them make the grant, in the same transaction.
        """
        payload = dsse.verify(envelope, call.user.identity_key, payload_type=statements.PAYLOAD_TYPE)
        statement = statements.parse_review(payload)
        if statement.approve is not approve:
            raise Denied("The statement says the opposite of the call; sign it again.", request=name)
        with self._changes.open() as change:
            request, subjects = self._found(change.tx, call, Action.REVIEW, name)
            permit = self._gate.permit(call, Action.REVIEW, finding.request(request, subjects))
            reviewed = rules.review(
                request,
                statement,
                call.user,
                reviewers=finding.reviewers(change.tx, request),
                envelope=envelope,
                subjects=subjects,
                now=call.time,
                table=self._table,
            )
            approval = reviewed.approvals[-1]
            request_rows.add_approval(change.tx, name, approval, nonce=statement.nonce)
            facts = {"revision": str(request.revision), "envelope": hashlib.sha256(envelope).hexdigest()}
            if approve:
                given = rules.counted(reviewed, now=call.time, reviewers=finding.reviewers(change.tx, reviewed))
                facts |= {"given": str(len(given)), "needed": str(reviewed.needed)}
            facts["organisation"] = approval.organisation
            event = Event.APPROVE if approve else Event.REJECT
            change.enter(entry(event, call, seq=seq(), subject=name, permit=permit, facts=facts))
            reviewed = self._granting.granted(change, call, reviewed, before=request)
        return reviewed, change.receipt

    def renew(
        self, call: Call, name: str, *, justification: str, duration: timedelta | None, stated: Stated | None
    ) -> tuple[Request, Receipt]:
        """Ask again for what a grant gave; what was stated for it still counts from when it was stated."""
        with self._changes.open() as change:
            old, owners = finding.grant(change.tx, self._gate, call, Action.VIEW_GRANT, name)
            self._gate.permit(call, Action.VIEW_GRANT, entities.grant(old, owners=owners))
            before = request_rows.request(change.tx, rules.renewable(old).request)
            subjects, permit = self._asked(change.tx, call, [ref.name for ref in old.versions], old.rung)
            request = rules.renew(
                old,
                fresh("requests", call.time),
                requester=call.user,
                subjects=subjects,
                justification=justification or before.justification,
                need=before.need,
                duration=duration,
                stated=before.stated if stated is None else replace(stated, assert_time=None),
                now=call.time,
                table=self._table,
            )
            request = self._granting.opened(change, call, request, permit)
        return request, change.receipt

    def reapply(self, call: Call, name: str, **changes: Any) -> tuple[Request, Receipt]:  # noqa: ANN401 - `rules.reapply` types them
        """Ask again for what was refused, withdrawn or left to lapse."""
        with self._changes.open() as change:
            old, subjects = self._found(change.tx, call, Action.VIEW_REQUEST, name)
            self._gate.permit(call, Action.VIEW_REQUEST, finding.request(old, subjects))
            subjects, permit = self._asked(change.tx, call, [ref.name for ref in old.versions], old.rung)
            request = rules.reapply(
                old,
                fresh("requests", call.time),
                requester=call.user,
                subjects=subjects,
                now=call.time,
                table=self._table,
                **changes,
            )
            request = self._granting.opened(change, call, request, permit)
        return request, change.receipt

    def end_due(self, now: datetime) -> None:
        """Write down that requests lapsed which nobody decided in time; read, they had lapsed at their time already."""
        with self._changes.database.read() as tx:
            due = request_rows.lapsed(tx, now, most=_ROUND)
        for name in due:
            with self._changes.open() as change:
                request = request_rows.request(change.tx, name)
                over = rules.lapse(request, now=now)
                if over is not request:  # nobody was quicker
                    granting.store(change.tx, request, over)
                    facts = {"revision": str(request.revision)}
                    change.enter(entry(Event.LAPSE, None, time=now, seq=seq(), subject=name, facts=facts))

    def _asked(self, tx: Connection, call: Call, versions: Iterable[str], rung: Rung) -> tuple[Sequence[Subject], Permit]:
        """Read the versions that are asked for; every one of them must be open to asking."""
        subjects: list[Subject] = []
        permit = None
        for name in versions:
            found = finding.version(tx, self._gate, call, Action.REQUEST, name)
            permit = self._gate.permit(call, Action.REQUEST, found.resource, grants=found.grants, rung=rung)
            subjects.append(found.subject)
        if permit is None:
            raise NotFound("Name at least one version.")
        return subjects, permit

    def _found(self, tx: Connection, call: Call, action: Action, name: str) -> tuple[Request, Sequence[Subject]]:
        try:
            request = request_rows.request(tx, name)
        except NotFound:
            self._gate.absent(call, action, "request", name)
        return request, [finding.subject(tx, ref.name) for ref in request.versions]
