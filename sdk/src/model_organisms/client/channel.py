"""The one way to a registry: TLS with the person's certificate, a deadline on every call, errors of the tree, safe retries."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar, cast

import grpc

from model_organisms import wire
from model_organisms.client import keys
from model_organisms.client.oidc import Provider
from model_organisms.errors import CertificateRefused, ModelOrganismsError, RegistryUnreachable
from model_organisms.formats.enrolment import Ticket, enrolment_statement, renewal_statement, token_nonce, token_statement
from model_organisms.v1 import identity_pb2, identity_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

T = TypeVar("T")
Q = TypeVar("Q")

_OPTIONS = (
    ("grpc.max_receive_message_length", 4 << 20),
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.http2.max_pings_without_data", 2),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),  # gRPC's own two minutes would outlast a registry's restart by far
)
_RENEW_BEFORE = timedelta(hours=2)
_MARGIN = timedelta(minutes=1)
_RETRY_AFTER_S = (0.2, 0.5, 1.2)
"""Pauses before a call is tried again, in seconds; together longer than a channel waits before it connects again."""


@dataclass(slots=True)
class Channel:
    """A person's connection to a registry; safe to share between threads.

    Attributes:
        identity: Who calls.
        path: Where the identity lies, for the renewed certificate; None keeps it in memory.
        timeout_s: Deadline of a call that names none, in seconds.
        before_change: Runs before each call that may change something; what it raises keeps the call from being made.
    """

    identity: keys.Identity
    path: Path | None
    timeout_s: float
    grpc_channel: grpc.Channel
    before_change: Callable[[], None] = lambda: None

    @classmethod
    def open(cls, identity: keys.Identity, path: Path | None, *, timeout_s: float) -> Channel:
        """Open a channel, renewing the certificate first where it has ended or is about to.

        Raises:
            CertificateRefused: It has ended, and the identity does not say where that can be mended.
            Suspended: The account does not stand.
            RegistryUnreachable: Nobody answers.
        """
        left = identity.certificate_expires - datetime.now(UTC)
        if left <= _MARGIN:
            identity = readmit(identity, timeout_s=timeout_s)
            if path:
                keys.write(identity, path)
        channel = cls(identity, path, timeout_s, _secure(identity))
        if _MARGIN < left < _RENEW_BEFORE:
            channel.renew()
        return channel

    def call(self, method: Callable[..., T], request: Q, *, timeout_s: float | None = None, repeatable: bool = False) -> T:
        """Make one call.

        Args:
            method: A bound method of a generated stub.
            request: Its message, or an iterator of messages.
            timeout_s: Deadline, in seconds; the channel's own where absent.
            repeatable: The call changes nothing, so it is tried again when the registry was not reached.

        Returns:
            The response.

        Raises:
            ModelOrganismsError: Whatever the registry answered, as its own class.
        """
        if not repeatable:
            self.before_change()
        pauses = iter(_RETRY_AFTER_S if repeatable else ())
        while True:
            try:
                return method(request, timeout=timeout_s or self.timeout_s)
            except grpc.RpcError as error:
                translated, pause = translate(error, self.identity.registry), next(pauses, None)
                if pause is None or not isinstance(translated, RegistryUnreachable):
                    raise translated from None
            time.sleep(pause)

    def stream(self, method: Callable[..., Any], request: Q, *, timeout_s: float | None = None) -> Iterator[Any]:
        """Make one call that answers with a stream; leaving the iterator cancels it.

        Raises:
            ModelOrganismsError: Whatever the registry answered, as its own class.
        """
        self.before_change()
        call = method(request, timeout=timeout_s or self.timeout_s)
        try:
            yield from call
        except grpc.RpcError as error:
            raise translate(error, self.identity.registry) from None
        finally:
            call.cancel()

    def renew(self) -> None:
        """Get a fresh certificate under a fresh TLS key, and go on with it."""
        fresh = keys.FreshKeys.generate()
        request = keys.certificate_request(fresh.tls)
        message = identity_pb2.RenewCertificateRequest(
            certificate_request=request, proof=self.identity.signer.sign(renewal_statement(request))
        )
        response = self.call(identity_pb2_grpc.IdentityServiceStub(self.grpc_channel).RenewCertificate, message)
        expires = wire.time(response.expire_time)
        self.identity = keys.renewed(self.identity, response.certificate, expires, fresh.tls_pem)
        if self.path:
            keys.write(self.identity, self.path)
        self.grpc_channel.close()
        self.grpc_channel = _secure(self.identity)

    def close(self) -> None:
        """Hang up."""
        self.grpc_channel.close()


def enrol(ticket: Ticket, *, timeout_s: float = 30.0) -> keys.Identity:
    """Trade a ticket for an identity, made here and now.

    Args:
        ticket: What an admin handed over.
        timeout_s: Deadline of the call, in seconds.

    Returns:
        The identity; write it with `keys.write`.

    Raises:
        EnrolmentRefused: The code is wrong, used or expired.
        RegistryUnreachable: Nobody answers, or not the registry the ticket names.
    """
    fresh = keys.FreshKeys.generate()
    request = keys.certificate_request(fresh.tls)
    message = identity_pb2.EnrolRequest(
        code=ticket.code,
        certificate_request=request,
        identity_key=keys.public_bytes(fresh.signer),
        sealing_key=fresh.sealing_key,
        proof=fresh.signer.sign(enrolment_statement(ticket.code, request, fresh.sealing_key)),
    )
    return _enrolled(ticket, fresh, _at_enrolment(ticket.enrol, ticket.authority.encode(), "Enrol", message, timeout_s))


def enrol_with_token(
    ticket: Ticket, get_token: Callable[[str], str], *, fresh: keys.FreshKeys, timeout_s: float = 30.0
) -> keys.Identity:
    """Trade an identity provider's token for an identity.

    Args:
        ticket: Where to go; its code is not used.
        get_token: Gets the token, given the nonce that binds it to the keys.
        fresh: The keys to enrol.
        timeout_s: Deadline of the call, in seconds.

    Returns:
        The identity; write it with `keys.write`.

    Raises:
        EnrolmentRefused: The token is not good, or gives no account here.
        Conflict: The account has other keys.
        RegistryUnreachable: Nobody answers, or not the registry the ticket names.
    """
    request, identity_key = keys.certificate_request(fresh.tls), keys.public_bytes(fresh.signer)
    token = get_token(token_nonce(request, identity_key, fresh.sealing_key))
    message = identity_pb2.EnrolWithTokenRequest(
        token=token,
        certificate_request=request,
        identity_key=identity_key,
        sealing_key=fresh.sealing_key,
        proof=fresh.signer.sign(token_statement(token, request, fresh.sealing_key)),
    )
    return _enrolled(ticket, fresh, _at_enrolment(ticket.enrol, ticket.authority.encode(), "EnrolWithToken", message, timeout_s))


def providers(ticket: Ticket, *, timeout_s: float = 30.0) -> list[Provider]:
    """Ask a registry for the identity providers that people may come from.

    Raises:
        RegistryUnreachable: Nobody answers, or not the registry the ticket names.
    """
    message = identity_pb2.ListProvidersRequest()
    response = _at_enrolment(ticket.enrol, ticket.authority.encode(), "ListProviders", message, timeout_s)
    return [Provider(item.issuer, item.client_id, tuple(item.scopes)) for item in response.providers]


def _enrolled(
    ticket: Ticket, fresh: keys.FreshKeys, response: identity_pb2.EnrolResponse | identity_pb2.EnrolWithTokenResponse
) -> keys.Identity:
    return keys.Identity(
        user=response.user.name,
        registry=ticket.registry,
        authority=ticket.authority.encode(),
        certificate=response.certificate,
        certificate_expires=wire.time(response.expire_time),
        tls_key=fresh.tls_pem,
        identity_seed=fresh.signer.private_bytes_raw(),
        sealing_seed=fresh.sealing_seed,
        sealing_key=fresh.sealing_key,
        origin=response.registry.origin,
        ledger_key=response.registry.ledger_key,
        release_key=response.registry.release_key,
        enrol=ticket.enrol,
    )


def readmit(identity: keys.Identity, *, timeout_s: float) -> keys.Identity:
    """Get a fresh certificate for somebody whose last one has ended, by their identity key alone.

    Args:
        identity: Who comes back.
        timeout_s: Deadline of the call, in seconds.

    Raises:
        CertificateRefused: The identity does not say where to ask.
        Unauthenticated: The registry does not know its key.
        Suspended: The account does not stand.
        RegistryUnreachable: Nobody answers.
    """
    if not identity.enrol:
        ended = f"{identity.certificate_expires:%Y-%m-%d %H:%M} UTC"
        raise CertificateRefused(f"Your certificate ended at {ended}; ask an admin for a new ticket, and run `mo login` with it.")
    fresh = keys.FreshKeys.generate()
    request = keys.certificate_request(fresh.tls)
    proof = identity.signer.sign(renewal_statement(request))
    message = identity_pb2.ReadmitRequest(user=identity.user, certificate_request=request, proof=proof)
    response = _at_enrolment(identity.enrol, identity.authority, "Readmit", message, timeout_s)
    return keys.renewed(identity, response.certificate, wire.time(response.expire_time), fresh.tls_pem)


def translate(error: grpc.RpcError, target: str) -> ModelOrganismsError:
    """Turn a failed call into an error of the tree."""
    code, said = error.code(), error.details() or ""
    metadata: dict[str, Any] = dict(cast("Any", error.trailing_metadata()) or ())
    data = metadata.get("grpc-status-details-bin", b"")
    if not data and code is grpc.StatusCode.UNAVAILABLE:
        return RegistryUnreachable(
            f"No answer from the registry at {target} ({said}); check the address, that it runs, and your certificate "
            "(`mo whoami`)."
        )
    return wire.from_status(data if isinstance(data, bytes) else b"", code=code.name, message=said)


def _at_enrolment(address: str, authority: bytes, method: str, message: Any, timeout_s: float) -> Any:  # noqa: ANN401 - of either call
    """Call the one door that asks for no certificate."""
    with grpc.secure_channel(address, grpc.ssl_channel_credentials(authority), options=_OPTIONS) as channel:
        try:
            return getattr(identity_pb2_grpc.EnrolmentServiceStub(channel), method)(message, timeout=timeout_s)
        except grpc.RpcError as error:
            raise translate(error, address) from None


def _secure(identity: keys.Identity) -> grpc.Channel:
    credentials = grpc.ssl_channel_credentials(identity.authority, identity.tls_key, identity.certificate)
    return grpc.secure_channel(identity.registry, credentials, options=_OPTIONS)
