"""Accounts and certificates on the wire: messages in, messages out; the steps are in `workflows/identity.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from model_organisms import wire
from model_organisms.records import Role
from model_organisms.v1 import identity_pb2, records_pb2

if TYPE_CHECKING:
    from datetime import datetime

    from model_organisms.records import Receipt, User

    from model_organisms_registry.domain.permits import Call
    from model_organisms_registry.rpc.door import Arrival
    from model_organisms_registry.workflows.identity import Identity
    from model_organisms_registry.workflows.oidc import Oidc

_ROLE = records_pb2.DESCRIPTOR.enum_types_by_name["Role"]


class EnrolmentRooms:
    """What the enrolment door leads to.

    Args:
        identity: The workflows.
        oidc: Those of who comes from an identity provider.
        info: What a client pins.
    """

    def __init__(self, identity: Identity, oidc: Oidc, info: identity_pb2.RegistryInfo) -> None:
        """Keep them."""
        self._identity = identity
        self._oidc = oidc
        self._info = info

    def enrol(self, arrival: Arrival, request: identity_pb2.EnrolRequest) -> identity_pb2.EnrolResponse:
        """Trade a one-time code for a certificate."""
        made = self._identity.enrol(request.code, **_shown(request), now=arrival.time)
        return identity_pb2.EnrolResponse(**self._enrolled(*made))

    def enrol_with_token(
        self, arrival: Arrival, request: identity_pb2.EnrolWithTokenRequest
    ) -> identity_pb2.EnrolWithTokenResponse:
        """Trade an identity provider's token for a certificate."""
        made = self._oidc.enrol(request.token, **_shown(request), now=arrival.time)
        return identity_pb2.EnrolWithTokenResponse(**self._enrolled(*made))

    def list_providers(self, _: Arrival, __: identity_pb2.ListProvidersRequest) -> identity_pb2.ListProvidersResponse:
        """List where people can get such a token."""
        found = [
            identity_pb2.Provider(issuer=issuer.issuer, client_id=issuer.client_id, scopes=issuer.scopes)
            for issuer in self._oidc.providers()
        ]
        return identity_pb2.ListProvidersResponse(providers=found)

    def _enrolled(self, user: User, certificate: bytes, expires: datetime, receipt: Receipt) -> dict[str, Any]:
        return {
            "user": _user(user),
            "certificate": certificate,
            "expire_time": wire.timestamp(expires),
            "registry": self._info,
            "receipt": wire.to_message(receipt, records_pb2.Receipt),
        }

    def readmit(self, arrival: Arrival, request: identity_pb2.ReadmitRequest) -> identity_pb2.ReadmitResponse:
        """Issue a fresh certificate to an account whose last one has ended."""
        certificate, expires, receipt = self._identity.readmit(
            request.user, request=request.certificate_request, proof=request.proof, now=arrival.time
        )
        return identity_pb2.ReadmitResponse(
            certificate=certificate,
            expire_time=wire.timestamp(expires),
            receipt=wire.to_message(receipt, records_pb2.Receipt),
        )


class IdentityRooms:
    """`IdentityService`.

    Args:
        identity: The workflows.
        info: What a client pins.
    """

    def __init__(self, identity: Identity, info: identity_pb2.RegistryInfo) -> None:
        """Keep both."""
        self._identity = identity
        self._info = info

    def who_am_i(self, call: Call, _: identity_pb2.WhoAmIRequest) -> identity_pb2.WhoAmIResponse:
        """Tell the caller who they are."""
        expires = wire.timestamp(call.certificate_expires) if call.certificate_expires else None
        return identity_pb2.WhoAmIResponse(user=_user(call.user), certificate_expire_time=expires, registry=self._info)

    def renew_certificate(
        self, call: Call, request: identity_pb2.RenewCertificateRequest
    ) -> identity_pb2.RenewCertificateResponse:
        """Issue a fresh certificate."""
        certificate, expires, receipt = self._identity.renew(call, request=request.certificate_request, proof=request.proof)
        return identity_pb2.RenewCertificateResponse(
            certificate=certificate,
            expire_time=wire.timestamp(expires),
            receipt=wire.to_message(receipt, records_pb2.Receipt),
        )

    def invite_user(self, call: Call, request: identity_pb2.InviteUserRequest) -> identity_pb2.InviteUserResponse:
        """Create an account and its ticket."""
        user, ticket, expires, receipt = self._identity.invite(
            call,
            f"users/{request.user_id}",
            display_name=request.display_name,
            organisation=request.organisation,
            roles=[wire.enum_member(role, _ROLE, Role) for role in request.roles],
        )
        return identity_pb2.InviteUserResponse(
            user=_user(user),
            ticket=str(ticket),
            expire_time=wire.timestamp(expires),
            receipt=wire.to_message(receipt, records_pb2.Receipt),
        )

    def get_user(self, call: Call, request: identity_pb2.GetUserRequest) -> identity_pb2.GetUserResponse:
        """Read an account."""
        return identity_pb2.GetUserResponse(user=_user(self._identity.get(call, request.name)))

    def list_users(self, call: Call, request: identity_pb2.ListUsersRequest) -> identity_pb2.ListUsersResponse:
        """List accounts."""
        page = self._identity.list(call, page_size=request.page_size, page_token=request.page_token)
        return identity_pb2.ListUsersResponse(users=[_user(user) for user in page.items], next_page_token=page.next_page_token)

    def suspend_user(self, call: Call, request: identity_pb2.SuspendUserRequest) -> identity_pb2.SuspendUserResponse:
        """Stop an account."""
        user, receipt = self._identity.suspend(call, request.name, reason=request.reason)
        return identity_pb2.SuspendUserResponse(user=_user(user), receipt=wire.to_message(receipt, records_pb2.Receipt))

    def reinstate_user(self, call: Call, request: identity_pb2.ReinstateUserRequest) -> identity_pb2.ReinstateUserResponse:
        """Let a stopped account stand again."""
        user, receipt = self._identity.reinstate(call, request.name, reason=request.reason)
        return identity_pb2.ReinstateUserResponse(user=_user(user), receipt=wire.to_message(receipt, records_pb2.Receipt))

    def rotate_keys(self, call: Call, request: identity_pb2.RotateKeysRequest) -> identity_pb2.RotateKeysResponse:
        """Exchange the caller's own keys."""
        user, certificate, expires, receipt = self._identity.rotate(
            call,
            request=request.certificate_request,
            identity_key=request.identity_key,
            sealing_key=request.sealing_key,
            proofs=(request.old_proof, request.new_proof),
        )
        return identity_pb2.RotateKeysResponse(
            user=_user(user),
            certificate=certificate,
            expire_time=wire.timestamp(expires),
            receipt=wire.to_message(receipt, records_pb2.Receipt),
        )

    def deny_certificate(self, call: Call, request: identity_pb2.DenyCertificateRequest) -> identity_pb2.DenyCertificateResponse:
        """Refuse one certificate."""
        receipt = self._identity.deny_certificate(call, request.thumbprint, reason=request.reason)
        return identity_pb2.DenyCertificateResponse(receipt=wire.to_message(receipt, records_pb2.Receipt))


def _shown(request: identity_pb2.EnrolRequest | identity_pb2.EnrolWithTokenRequest) -> dict[str, bytes]:
    """What a newcomer shows besides their code or token."""
    return {
        "request": request.certificate_request,
        "identity_key": request.identity_key,
        "sealing_key": request.sealing_key,
        "proof": request.proof,
    }


def _user(user: User) -> records_pb2.User:
    return wire.to_message(user, records_pb2.User)
