"""Requests, approvals and grants on the wire: messages in, messages out; the steps are in `workflows/`."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

from model_organisms import wire
from model_organisms.records import GrantState, Purpose, RequestState, Rung, Stated
from model_organisms.v1 import access_pb2, records_pb2

if TYPE_CHECKING:
    from model_organisms.records import Grant, Receipt, Request

    from model_organisms_registry.domain.permits import Call
    from model_organisms_registry.workflows.access import Access
    from model_organisms_registry.workflows.explaining import Explaining
    from model_organisms_registry.workflows.grants import Grants
    from model_organisms_registry.workflows.policies import Policies

_RUNG = records_pb2.DESCRIPTOR.enum_types_by_name["Rung"]
_PURPOSE = records_pb2.DESCRIPTOR.enum_types_by_name["Purpose"]
_STATE = access_pb2.DESCRIPTOR.enum_types_by_name["AccessRequestState"]
_GRANT_STATE = access_pb2.DESCRIPTOR.enum_types_by_name["GrantState"]

Settled = TypeVar(
    "Settled",
    access_pb2.CreateAccessRequestResponse,
    access_pb2.AmendAccessRequestResponse,
    access_pb2.WithdrawAccessRequestResponse,
    access_pb2.ReapplyAccessRequestResponse,
    access_pb2.ApproveAccessRequestResponse,
    access_pb2.RejectAccessRequestResponse,
    access_pb2.RenewGrantResponse,
)


class AccessRooms:
    """`AccessService`."""

    def __init__(self, access: Access, grants: Grants, explaining: Explaining, policies: Policies) -> None:
        """Keep the workflows."""
        self._access = access
        self._grants = grants
        self._explaining = explaining
        self._policies = policies

    def create_access_request(
        self, call: Call, request: access_pb2.CreateAccessRequestRequest
    ) -> access_pb2.CreateAccessRequestResponse:
        """Ask for access."""
        done = self._access.request(
            call,
            tuple(request.versions),
            wire.enum_member(request.rung, _RUNG, Rung),
            purpose=wire.enum_member(request.purpose, _PURPOSE, Purpose),
            justification=request.justification,
            need=request.need,
            budget=wire.budget(request, "budget"),
            duration=_duration(request.duration_s),
            stated=wire.from_message(request.stated, Stated),
        )
        return _settled(done, access_pb2.CreateAccessRequestResponse)

    def match_access_request(
        self, call: Call, request: access_pb2.MatchAccessRequestRequest
    ) -> access_pb2.MatchAccessRequestResponse:
        """Tell how a request would fit."""
        found = self._access.match(
            call,
            tuple(request.versions),
            wire.enum_member(request.rung, _RUNG, Rung),
            purpose=wire.enum_member(request.purpose, _PURPOSE, Purpose),
            duration=_duration(request.duration_s),
            stated=wire.from_message(request.stated, Stated),
        )
        return access_pb2.MatchAccessRequestResponse(match=wire.to_message(found, access_pb2.Match))

    def get_access_request(self, call: Call, request: access_pb2.GetAccessRequestRequest) -> access_pb2.GetAccessRequestResponse:
        """Read a request."""
        return access_pb2.GetAccessRequestResponse(request=_request(self._access.get(call, request.name)))

    def list_access_requests(
        self, call: Call, request: access_pb2.ListAccessRequestsRequest
    ) -> access_pb2.ListAccessRequestsResponse:
        """List requests the caller may see."""
        page = self._access.list(
            call,
            requester=request.requester,
            state=wire.enum_member(request.state, _STATE, RequestState) if request.state else None,
            page_size=request.page_size,
            page_token=request.page_token,
        )
        return access_pb2.ListAccessRequestsResponse(
            requests=[_request(item) for item in page.items], next_page_token=page.next_page_token
        )

    def amend_access_request(
        self, call: Call, request: access_pb2.AmendAccessRequestRequest
    ) -> access_pb2.AmendAccessRequestResponse:
        """Change an undecided request."""
        done = self._access.amend(
            call,
            request.name,
            revision=request.revision,
            justification=request.justification,
            need=request.need,
            budget=wire.budget(request, "budget"),
            duration=_duration(request.duration_s),
            stated=_stated(request),
        )
        return _settled(done, access_pb2.AmendAccessRequestResponse)

    def withdraw_access_request(
        self, call: Call, request: access_pb2.WithdrawAccessRequestRequest
    ) -> access_pb2.WithdrawAccessRequestResponse:
        """Take an undecided request back."""
        return _settled(self._access.withdraw(call, request.name), access_pb2.WithdrawAccessRequestResponse)

    def reapply_access_request(
        self, call: Call, request: access_pb2.ReapplyAccessRequestRequest
    ) -> access_pb2.ReapplyAccessRequestResponse:
        """Ask again."""
        stated = _stated(request)
        done = self._access.reapply(
            call,
            request.name,
            justification=request.justification,
            need=request.need,
            budget=wire.budget(request, "budget"),
            duration=_duration(request.duration_s),
            stated=replace(stated, assert_time=None) if stated else None,
        )
        return _settled(done, access_pb2.ReapplyAccessRequestResponse)

    def approve_access_request(
        self, call: Call, request: access_pb2.ApproveAccessRequestRequest
    ) -> access_pb2.ApproveAccessRequestResponse:
        """Hand in a signed yes."""
        done = self._access.review(call, request.name, request.envelope, approve=True)
        return _settled(done, access_pb2.ApproveAccessRequestResponse)

    def reject_access_request(
        self, call: Call, request: access_pb2.RejectAccessRequestRequest
    ) -> access_pb2.RejectAccessRequestResponse:
        """Hand in a signed no."""
        done = self._access.review(call, request.name, request.envelope, approve=False)
        return _settled(done, access_pb2.RejectAccessRequestResponse)

    def get_grant(self, call: Call, request: access_pb2.GetGrantRequest) -> access_pb2.GetGrantResponse:
        """Read a grant."""
        return access_pb2.GetGrantResponse(grant=_grant(self._grants.get(call, request.name)))

    def list_grants(self, call: Call, request: access_pb2.ListGrantsRequest) -> access_pb2.ListGrantsResponse:
        """List grants the caller may see."""
        page = self._grants.list(
            call,
            user=request.user,
            version=request.version,
            state=wire.enum_member(request.state, _GRANT_STATE, GrantState) if request.state else None,
            page_size=request.page_size,
            page_token=request.page_token,
        )
        return access_pb2.ListGrantsResponse(grants=[_grant(item) for item in page.items], next_page_token=page.next_page_token)

    def revoke_grant(self, call: Call, request: access_pb2.RevokeGrantRequest) -> access_pb2.RevokeGrantResponse:
        """Take a grant back."""
        grant, receipt = self._grants.revoke(call, request.name, reason=request.reason)
        return access_pb2.RevokeGrantResponse(grant=_grant(grant), receipt=wire.to_message(receipt, records_pb2.Receipt))

    def renew_grant(self, call: Call, request: access_pb2.RenewGrantRequest) -> access_pb2.RenewGrantResponse:
        """Ask again for what a grant gave."""
        done = self._access.renew(
            call,
            request.name,
            justification=request.justification,
            duration=_duration(request.duration_s),
            stated=_stated(request),
        )
        return _settled(done, access_pb2.RenewGrantResponse)

    def explain_access(self, call: Call, request: access_pb2.ExplainAccessRequest) -> access_pb2.ExplainAccessResponse:
        """Say how a call would be decided."""
        rung = wire.enum_member(request.rung, _RUNG, Rung) if request.rung else None
        told = self._explaining.explain(call, request.action, request.resource, rung=rung)
        return access_pb2.ExplainAccessResponse(explanation=wire.to_message(told, access_pb2.Explanation))

    def get_policy_status(self, call: Call, request: access_pb2.GetPolicyStatusRequest) -> access_pb2.GetPolicyStatusResponse:
        """Say which policies decide."""
        del request  # asks for nothing in particular
        status = wire.to_message(self._policies.status(call), access_pb2.PolicyStatus)
        return access_pb2.GetPolicyStatusResponse(status=status)


def _stated(
    request: access_pb2.AmendAccessRequestRequest | access_pb2.RenewGrantRequest | access_pb2.ReapplyAccessRequestRequest,
) -> Stated | None:
    """None where the sender left it out: what was stated stays."""
    return wire.from_message(request.stated, Stated) if request.HasField("stated") else None


def _request(request: Request) -> access_pb2.AccessRequest:
    return wire.to_message(request, access_pb2.AccessRequest)


def _grant(grant: Grant) -> access_pb2.Grant:
    return wire.to_message(grant, access_pb2.Grant)


def _settled(done: tuple[Request, Receipt], response: type[Settled]) -> Settled:
    request, receipt = done
    return response(request=_request(request), receipt=wire.to_message(receipt, records_pb2.Receipt))


def _duration(seconds: int) -> timedelta | None:
    return timedelta(seconds=seconds) if seconds else None
