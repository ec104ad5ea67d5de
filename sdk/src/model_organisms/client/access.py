"""Asking for access, and deciding on it: the same calls a reviewer's page makes, signed by the caller's own key."""

from __future__ import annotations

import hashlib
import secrets
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Protocol

from model_organisms import wire
from model_organisms.client.holding import Holdings
from model_organisms.errors import Conflict
from model_organisms.formats import dsse, statements
from model_organisms.records import (
    Budget,
    Explanation,
    Grant,
    GrantState,
    Match,
    Page,
    PolicyStatus,
    Purpose,
    Request,
    RequestState,
    Rung,
    Stated,
)
from model_organisms.v1 import access_pb2, access_pb2_grpc, records_pb2

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from model_organisms.client.audit import Audit
    from model_organisms.client.channel import Channel

_RUNG = records_pb2.DESCRIPTOR.enum_types_by_name["Rung"]
_PURPOSE = records_pb2.DESCRIPTOR.enum_types_by_name["Purpose"]
_STATE = access_pb2.DESCRIPTOR.enum_types_by_name["AccessRequestState"]
_GRANT_STATE = access_pb2.DESCRIPTOR.enum_types_by_name["GrantState"]
APPROVAL_LIFE = timedelta(hours=72)
"""How long a reviewer's statement counts."""


class _Settled(Protocol):
    """What every response that carries a request has."""

    @property
    def request(self) -> access_pb2.AccessRequest: ...

    @property
    def receipt(self) -> records_pb2.Receipt: ...


class Access(Holdings):
    """Requests, approvals and grants; and what was pulled under them."""

    def __init__(self, channel: Channel, audit: Audit) -> None:
        """Keep the connection and who checks receipts."""
        super().__init__(channel, audit)
        self._stub = access_pb2_grpc.AccessServiceStub(channel.grpc_channel)

    def request(
        self,
        versions: str | Sequence[str],
        rung: Rung | str,
        *,
        purpose: Purpose | str,
        justification: str = "",
        need: str = "",
        budget: Budget | None = None,
        duration: timedelta | None = None,
        stated: Stated | None = None,
    ) -> Request:
        """Ask for a rung on versions.

        Args:
            versions: One version's name or several.
            rung: How close: `sample`, `probe` or `pull`.
            purpose: Why, by one of the standard purposes.
            justification: Why, in a reviewer's words.
            need: Why text and numbers are not enough, where weights are asked for at CL3.
            budget: What may be spent; the level's default where absent.
            duration: How long; the level's default where absent.
            stated: What you state of your work, and which conditions you accept; `match` tells what would fit.

        Returns:
            The request; its state says whether it was granted at once or waits for reviewers.

        Raises:
            PurposeRefused: It does not fit what the owner asks; the message says why.
            EvidenceExpired: What you state ends before the grant would.
        """
        message = access_pb2.CreateAccessRequestRequest(
            versions=[versions] if isinstance(versions, str) else versions,
            rung=wire.enum_value(_rung(rung), _RUNG),
            purpose=wire.enum_value(Purpose(purpose), _PURPOSE),
            justification=wire.text(justification),
            need=wire.text(need),
            budget=wire.to_message(budget, records_pb2.Budget) if budget else None,
            duration_s=_seconds(duration),
            stated=_stated(stated),
        )
        return self._asked(
            self._channel.call(self._stub.CreateAccessRequest, message),
            rung=_rung(rung).name.lower(),
            purpose=Purpose(purpose).value,
        )

    def match(
        self,
        versions: str | Sequence[str],
        rung: Rung | str,
        *,
        purpose: Purpose | str,
        duration: timedelta | None = None,
        stated: Stated | None = None,
    ) -> Match:
        """Tell how such a request would fit what the owners ask, before it is asked; nothing is kept.

        Args:
            versions: As for `request`, as are the others.
            rung: How close.
            purpose: Why.
            duration: How long.
            stated: What you state.

        Returns:
            The outcome with its reasons: `deny` would be refused at once, `abstain` is for a reviewer to say, `approve` fits. No
            outcome spares the approvals that the level demands.
        """
        message = access_pb2.MatchAccessRequestRequest(
            versions=[versions] if isinstance(versions, str) else versions,
            rung=wire.enum_value(_rung(rung), _RUNG),
            purpose=wire.enum_value(Purpose(purpose), _PURPOSE),
            duration_s=_seconds(duration),
            stated=_stated(stated),
        )
        response = self._channel.call(self._stub.MatchAccessRequest, message, repeatable=True)
        return wire.from_message(response.match, Match)

    def get(self, name: str) -> Request:
        """Fetch one request."""
        message = access_pb2.GetAccessRequestRequest(name=name)
        response = self._channel.call(self._stub.GetAccessRequest, message, repeatable=True)
        return wire.from_message(response.request, Request)

    def list(self, *, requester: str = "", state: RequestState | str | None = None) -> Iterator[Request]:
        """List requests the caller may see, newest page after page."""
        wanted: Any = wire.enum_value(RequestState(state), _STATE) if state else 0
        token = ""
        while True:
            message = access_pb2.ListAccessRequestsRequest(requester=requester, state=wanted, page_token=token)
            response = self._channel.call(self._stub.ListAccessRequests, message, repeatable=True)
            page = Page(tuple(wire.from_message(item, Request) for item in response.requests), response.next_page_token)
            yield from page.items
            if not (token := page.next_page_token):
                return

    def amend(
        self,
        request: Request,
        *,
        justification: str | None = None,
        need: str | None = None,
        budget: Budget | None = None,
        duration: timedelta | None = None,
        stated: Stated | None = None,
    ) -> Request:
        """Change an undecided request; approvals given so far are void.

        Args:
            request: The request as last seen; it is refused if it changed since.
            justification: New reasons; unchanged where absent, as are the others.
            need: New need for weights.
            budget: New budget.
            duration: New duration.
            stated: What you state now; where absent, what you stated counts from when you did.
        """
        message = access_pb2.AmendAccessRequestRequest(
            name=request.name,
            revision=request.revision,
            justification=request.justification if justification is None else wire.text(justification),
            need=request.need if need is None else need,
            budget=wire.to_message(budget or request.budget, records_pb2.Budget),
            duration_s=_seconds(duration) or request.duration_s,
            stated=_stated(stated),
        )
        response = self._channel.call(self._stub.AmendAccessRequest, message)
        if response.request.grant:
            return self._granted(response)
        self._audit.verified(response.receipt, "access.amend", request.name, revision=str(request.revision + 1))
        return wire.from_message(response.request, Request)

    def withdraw(self, name: str) -> Request:
        """Take an undecided request back."""
        message = access_pb2.WithdrawAccessRequestRequest(name=name)
        response = self._channel.call(self._stub.WithdrawAccessRequest, message)
        self._audit.verified(response.receipt, "access.withdraw", name)
        return wire.from_message(response.request, Request)

    def reapply(
        self,
        name: str,
        *,
        justification: str = "",
        need: str = "",
        budget: Budget | None = None,
        duration: timedelta | None = None,
        stated: Stated | None = None,
    ) -> Request:
        """Ask again for what was refused, withdrawn or left to lapse, as a new request that names the old one.

        Args:
            name: The old request.
            justification: What changed; reviewers see what was refused, and why. What is absent is carried over.
            need: New need for weights.
            budget: New budget.
            duration: New duration.
            stated: What you state now; where absent, what you stated counts from when you did.
        """
        message = access_pb2.ReapplyAccessRequestRequest(
            name=name,
            justification=wire.text(justification),
            need=wire.text(need),
            budget=wire.to_message(budget, records_pb2.Budget) if budget else None,
            duration_s=_seconds(duration),
            stated=_stated(stated),
        )
        return self._asked(self._channel.call(self._stub.ReapplyAccessRequest, message))

    def approve(self, request: Request | str, *, reason: str = "") -> Request:
        """Sign a yes to a request as it was read, and hand it in.

        The statement binds all that the request asks for and a time after which it counts for nothing; it is signed here, so
        the registry can store it and check it but never make one.

        Args:
            request: The request as it was read: exactly this is signed. A name alone is fetched and signed while nobody has
                amended the request; once amended, read it and pass what you read.
            reason: Said with the signature.

        Raises:
            Conflict: Only a name was given and the request was amended, or it was amended or decided since it was read.
            ApprovalRefused: The caller may not decide on it, or the request is not what was read.
        """
        read = self._read(request)
        envelope = self._review(read, approve=True, reason=wire.text(reason))
        message = access_pb2.ApproveAccessRequestRequest(name=read.name, envelope=envelope)
        response = self._channel.call(self._stub.ApproveAccessRequest, message)
        if response.request.grant and response.request.name == read.name:
            return self._granted(response)
        self._audit.verified(response.receipt, "access.approve", read.name, envelope=hashlib.sha256(envelope).hexdigest())
        return wire.from_message(response.request, Request)

    def reject(self, request: Request | str, *, reason: str) -> Request:
        """Sign a no to a request as it was read, with the reason its requester will read; else as `approve`."""
        read = self._read(request)
        envelope = self._review(read, approve=False, reason=wire.text(reason))
        message = access_pb2.RejectAccessRequestRequest(name=read.name, envelope=envelope)
        response = self._channel.call(self._stub.RejectAccessRequest, message)
        self._audit.verified(response.receipt, "access.reject", read.name, envelope=hashlib.sha256(envelope).hexdigest())
        return wire.from_message(response.request, Request)

    def grant(self, name: str) -> Grant:
        """Fetch one grant, with what is spent of it."""
        response = self._channel.call(self._stub.GetGrant, access_pb2.GetGrantRequest(name=name), repeatable=True)
        return wire.from_message(response.grant, Grant)

    def grants(self, *, user: str = "", version: str = "", state: GrantState | str | None = None) -> Iterator[Grant]:
        """List grants the caller may see."""
        wanted: Any = wire.enum_value(GrantState(state), _GRANT_STATE) if state else 0
        token = ""
        while True:
            message = access_pb2.ListGrantsRequest(user=user, version=version, state=wanted, page_token=token)
            response = self._channel.call(self._stub.ListGrants, message, repeatable=True)
            yield from (wire.from_message(item, Grant) for item in response.grants)
            if not (token := response.next_page_token):
                return

    def revoke(self, name: str, *, reason: str) -> Grant:
        """Take a grant back; sessions and pulls under it end."""
        response = self._channel.call(self._stub.RevokeGrant, access_pb2.RevokeGrantRequest(name=name, reason=wire.text(reason)))
        self._audit.verified(response.receipt, "access.revoke", name)
        return wire.from_message(response.grant, Grant)

    def renew(
        self, name: str, *, justification: str = "", duration: timedelta | None = None, stated: Stated | None = None
    ) -> Request:
        """Ask again for what a grant gave; what is absent is as it was asked then."""
        message = access_pb2.RenewGrantRequest(
            name=name, justification=wire.text(justification), duration_s=_seconds(duration), stated=_stated(stated)
        )
        return self._asked(self._channel.call(self._stub.RenewGrant, message))

    def explain(self, action: str, resource: str = "registry", *, rung: Rung | str | None = None) -> Explanation:
        """Ask how a call of one's own would be decided, and what would change that; nothing is done.

        Args:
            action: An action of the policies, such as `pull`, `openSession`, `review`; policies/README.md lists them.
            resource: Its name; for `sample` and `probe` a session or a version.
            rung: With `request`: the rung that would be asked for.

        Returns:
            The explanation. What one may not know of is explained like what is not there.

        Raises:
            InvalidArgument: There is no such action, or it is on something else.
        """
        wanted: Any = wire.enum_value(_rung(rung), _RUNG) if rung is not None else 0
        message = access_pb2.ExplainAccessRequest(action=action, resource=resource, rung=wanted)
        response = self._channel.call(self._stub.ExplainAccess, message, repeatable=True)
        return wire.from_message(response.explanation, Explanation)

    def policies(self) -> PolicyStatus:
        """Ask which policies decide, and as an admin, auditor or reviewer what lies ready to."""
        response = self._channel.call(self._stub.GetPolicyStatus, access_pb2.GetPolicyStatusRequest(), repeatable=True)
        return wire.from_message(response.status, PolicyStatus)

    def _read(self, request: Request | str) -> Request:
        """What is to be signed: what the caller read, if that still stands."""
        stands = self.get(request if isinstance(request, str) else request.name)
        if isinstance(request, Request):
            if request.revision != stands.revision:
                msg = f"The request was amended and is at revision {stands.revision} now; read it again, and sign that or do not."
                raise Conflict(msg, request=stands.name)
            return request
        if stands.revision > 1:
            msg = f"The request was amended; read its revision {stands.revision} first, then pass the request that you read."
            raise Conflict(msg, request=stands.name)
        return stands

    def _review(self, request: Request, *, approve: bool, reason: str) -> bytes:
        statement = statements.review_of(
            request,
            approve=approve,
            reason=wire.text(reason),
            expires=datetime.now(UTC).replace(microsecond=0) + APPROVAL_LIFE,
            nonce=secrets.token_hex(16),
        )
        return dsse.sign(statements.print_review(statement), statements.PAYLOAD_TYPE, self._channel.identity.signer)

    def _asked(self, response: _Settled, **facts: str) -> Request:
        """Check the receipt of a new request, which may have been granted at once."""
        if response.request.grant:
            return self._granted(response, **facts)
        self._audit.verified(response.receipt, "access.request", response.request.name, **facts)
        return wire.from_message(response.request, Request)

    def _granted(self, response: _Settled, **facts: str) -> Request:
        """Check the receipt of a request that became a grant."""
        request = wire.from_message(response.request, Request)
        self._audit.verified(response.receipt, "access.grant", request.grant, request=request.name, **facts)
        return request


def _rung(rung: Rung | str) -> Rung:
    return Rung[rung.upper()] if isinstance(rung, str) else rung


def _stated(stated: Stated | None) -> access_pb2.Stated | None:
    return wire.to_message(stated, access_pb2.Stated) if stated else None


def _seconds(duration: timedelta | None) -> int:
    return int(duration.total_seconds()) if duration else 0
