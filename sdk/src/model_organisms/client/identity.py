"""Accounts, for admins; and who the caller is."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from model_organisms import names, wire
from model_organisms.errors import InvalidArgument
from model_organisms.records import Role, User
from model_organisms.v1 import identity_pb2, identity_pb2_grpc, records_pb2

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from datetime import datetime

    from model_organisms.client.audit import Audit
    from model_organisms.client.channel import Channel

_ROLE = records_pb2.DESCRIPTOR.enum_types_by_name["Role"]
_THUMBPRINT = re.compile(r"[0-9a-f]{64}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Invitation:
    """An account that waits for its owner, and what to send them."""

    user: User
    ticket: str
    """Paste into `mo login`; works once."""
    expire_time: datetime


@dataclass(frozen=True, slots=True)
class Caller:
    """Who the registry takes the caller for."""

    user: User
    certificate_expire_time: datetime
    """When the certificate of this very call ends."""
    origin: str
    """The registry's name, and its ledger's."""


class Users:
    """Accounts of a registry."""

    def __init__(self, channel: Channel, audit: Audit) -> None:
        """Keep the connection and who checks receipts."""
        self._channel = channel
        self._audit = audit
        self._stub = identity_pb2_grpc.IdentityServiceStub(channel.grpc_channel)

    def me(self) -> User:
        """Read the caller's own account."""
        return self.whoami().user

    def whoami(self) -> Caller:
        """Ask whom the registry takes the caller for, and until when."""
        response = self._channel.call(self._stub.WhoAmI, identity_pb2.WhoAmIRequest(), repeatable=True)
        expires = wire.time(response.certificate_expire_time)
        return Caller(wire.from_message(response.user, User), expires, response.registry.origin)

    def get(self, name: str) -> User:
        """Read an account; its keys say whose signatures are whose."""
        request = identity_pb2.GetUserRequest(name=names.user(name))
        return wire.from_message(self._channel.call(self._stub.GetUser, request, repeatable=True).user, User)

    def list(self) -> Iterator[User]:
        """List accounts."""
        token = ""
        while True:
            request = identity_pb2.ListUsersRequest(page_token=token)
            response = self._channel.call(self._stub.ListUsers, request, repeatable=True)
            yield from (wire.from_message(item, User) for item in response.users)
            if not (token := response.next_page_token):
                return

    def invite(self, user: str, *, organisation: str, roles: Iterable[Role | str], display_name: str = "") -> Invitation:
        """Create an account and its one-time ticket.

        Args:
            user: Last part of the new name, such as `ada`.
            organisation: Their organisation, such as `example-lab`.
            roles: What they may be asked to do; a role alone gives no more than `describe`.
            display_name: Their name as people write it.

        Raises:
            Denied: It would make a reviewer or an admin, and it takes two admins for that; see `client.motions`.
        """
        identifier, asked = names.short(names.user(user)), tuple(roles)
        request = identity_pb2.InviteUserRequest(
            user_id=identifier,
            display_name=wire.text(display_name) or identifier,
            organisation=names.check("organisation", organisation if "/" in organisation else f"organisations/{organisation}"),
            roles=[wire.enum_value(Role(role), _ROLE) for role in asked],
        )
        response = self._channel.call(self._stub.InviteUser, request)
        facts = {"organisation": request.organisation, "roles": ",".join(sorted({Role(role) for role in asked}))}
        self._audit.verified(response.receipt, "identity.invite", names.user(user), **facts)
        return Invitation(wire.from_message(response.user, User), response.ticket, wire.time(response.expire_time))

    def suspend(self, name: str, *, reason: str) -> User:
        """Stop an account; its next call is refused."""
        request = identity_pb2.SuspendUserRequest(name=names.user(name), reason=wire.text(reason))
        response = self._channel.call(self._stub.SuspendUser, request)
        self._audit.verified(response.receipt, "identity.suspend", request.name)
        return wire.from_message(response.user, User)

    def reinstate(self, name: str, *, reason: str) -> User:
        """Let a stopped account stand again."""
        request = identity_pb2.ReinstateUserRequest(name=names.user(name), reason=wire.text(reason))
        response = self._channel.call(self._stub.ReinstateUser, request)
        self._audit.verified(response.receipt, "identity.reinstate", request.name)
        return wire.from_message(response.user, User)

    def deny_certificate(self, thumbprint: str, *, reason: str) -> None:
        """Refuse one certificate from now on, in calls that are under way too; for admins.

        Its owner gets another by their identity key. Who may have that key as well is stopped by `suspend`.

        Args:
            thumbprint: SHA-256 of the certificate, 64 hex digits; the ledger has it, and `mo keys show`.
            reason: Why.
        """
        if not _THUMBPRINT.fullmatch(thumbprint.lower()):
            msg = "A certificate is named by its SHA-256, 64 hex digits; the ledger has it, and `mo keys show`."
            raise InvalidArgument(msg, field="thumbprint")
        request = identity_pb2.DenyCertificateRequest(thumbprint=thumbprint.lower(), reason=wire.text(reason))
        response = self._channel.call(self._stub.DenyCertificate, request)
        self._audit.verified(response.receipt, "identity.deny", "registry", certificate=request.thumbprint)
