"""The one door: every call of every service passes here, and nothing else of the registry touches gRPC's context.

For each call, in this order:

1. TLS 1.3, or refused (the transport cannot be told to demand it; `mo-registry serve` leaves it no suite for less).
2. A deadline, and not an absurd one.
3. The clock is read, once; everything below takes the time from the `Call`.
4. The caller is identified: certificate of this registry, not expired, not denied; account active; key still the account's.
5. The caller has a turn: only so many calls under way, and no long silence (`turns.py`).
6. The request is read, and obeys the field rules of its proto (each message of a stream does).
7. The method runs; an error of the tree becomes its status, anything else `Internal` with an incident id and a trace in the log.

To gRPC every request is a stream. It would read a single request before it asks us anything, and a thread would wait for it on
behalf of somebody unknown; reading it is therefore step 6.

What the caller *may* is the gate's to say. Enrolment has a door of its own, the same but for step 4.
"""

from __future__ import annotations

import logging
import re
import secrets
import time
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache, partial
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar
from urllib.parse import unquote

import grpc
import protovalidate
from google.protobuf.message import DecodeError
from model_organisms import wire
from model_organisms.errors import (
    CertificateRefused,
    DeadlineRequired,
    Internal,
    InvalidArgument,
    ModelOrganismsError,
    NotFound,
    Unauthenticated,
)

from model_organisms_registry.domain import identity as rules
from model_organisms_registry.domain.permits import Call
from model_organisms_registry.storage.catalog import identity

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
    from google.protobuf.message import Message

    from model_organisms_registry.rpc.turns import Turns
    from model_organisms_registry.storage.authority import Authority, ClientCertificate
    from model_organisms_registry.storage.database import Database

_LOG = logging.getLogger(__name__)
_ROUNDING = 1.02
"""gRPC sends a timeout in about two digits, rounded up by as much as a hundredth, so one of just the limit arrives above it."""
_SNAKE = re.compile(r"(?<=[a-z])(?=[A-Z])")
_STALE_S = 1.0
"""Who took longer to say what they want is identified again: they may have been suspended meanwhile."""
A = TypeVar("A")
A_co = TypeVar("A_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Arrival:
    """A call by somebody not yet known."""

    time: datetime
    deadline: datetime
    method: str
    address: str
    """Where it comes from: an address, or of IPv6 the network of 64 bits, which one household has to itself."""


class Identify(Protocol[A_co]):
    """Step 4: turns an arrival into what the methods of a service take first."""

    def __call__(self, arrival: Arrival, peer: bytes) -> A_co:
        """Identify the caller.

        Args:
            arrival: The call so far.
            peer: The client's certificate, PEM; empty where TLS asked for none.
        """


class Door(Generic[A]):
    """Turns objects with one method per RPC into gRPC handlers.

    Args:
        identify: Step 4.
        whose: Names who is held to the limits of `turns`.
        turns: Step 5.
        longest_s: Longest deadline admitted, in seconds.
        clock: The time; only tests give another.
    """

    def __init__(
        self,
        identify: Identify[A],
        *,
        whose: Callable[[A], str],
        turns: Turns,
        longest_s: float,
        clock: Callable[[], datetime] | None = None,
    ) -> None:
        """Keep what the steps need."""
        self._identify = identify
        self._whose = whose
        self._turns = turns
        self._longest_s = longest_s
        self._clock = clock or (lambda: datetime.now(UTC))

    def service(
        self, descriptor: ServiceDescriptor, rooms: object, *, only: frozenset[str] | None = None
    ) -> grpc.GenericRpcHandler[Any, Any]:
        """Make the handlers of one service.

        Args:
            descriptor: The service, as generated.
            rooms: Has a method for each RPC, in snake case, that takes what `identify` gives and the request (or an iterator
                of requests) and returns the response (or yields responses).
            only: Names of the RPCs that are served, where these are not all.
        """
        served = (method for method in descriptor.methods if only is None or method.name in only)
        handlers = {method.name: self._handler(method, rooms) for method in served}
        return grpc.method_handlers_generic_handler(descriptor.full_name, handlers)

    def _handler(self, method: MethodDescriptor, rooms: object) -> grpc.RpcMethodHandler[Any, Any]:
        run = getattr(rooms, _SNAKE.sub("_", method.name).lower())
        path = f"/{method.containing_service.full_name}/{method.name}"
        read = partial(_read, _class_of(method.input_type))
        request = partial(map, read) if method.client_streaming else partial(_only, read)
        if method.server_streaming:
            return grpc.stream_stream_rpc_method_handler(self._streaming(run, path, request), response_serializer=_bytes)
        return grpc.stream_unary_rpc_method_handler(self._unary(run, path, request), response_serializer=_bytes)

    def _unary(self, run: Callable[..., Any], path: str, request: Callable[..., Any]) -> Callable[..., Any]:
        def behaviour(received: Iterator[bytes], context: grpc.ServicerContext) -> Any:  # noqa: ANN401 - messages of any RPC
            try:
                with self._entered(received, context, path, request) as wanted:
                    return run(*wanted)
            except Exception as error:  # noqa: BLE001 - the border: everything is translated
                _abort(context, error, path)

        return behaviour

    def _streaming(self, run: Callable[..., Any], path: str, request: Callable[..., Any]) -> Callable[..., Any]:
        def behaviour(received: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[Any]:
            try:
                with self._entered(received, context, path, request) as wanted:
                    yield from run(*wanted)
            except Exception as error:  # noqa: BLE001 - the border: everything is translated
                _abort(context, error, path)

        return behaviour

    @contextmanager
    def _entered(
        self, received: Iterator[bytes], context: grpc.ServicerContext, path: str, request: Callable[..., Any]
    ) -> Iterator[tuple[A, Any]]:
        caller = self._admit(context, path)
        with self._turns.taken(self._whose(caller), context.cancel) as turn:
            began = time.monotonic()
            wanted = request(turn.listen(received))
            yield self._admit(context, path) if time.monotonic() - began > _STALE_S else caller, wanted

    def _admit(self, context: grpc.ServicerContext, path: str) -> A:
        facts: dict[str, Any] = dict(context.auth_context())
        if facts.get("ssl_tls_version") != [b"TLSv1.3"]:
            raise Unauthenticated("This registry speaks TLS 1.3 only; update the TLS library of your client.")
        left = context.time_remaining()
        if left is None or left > self._longest_s * _ROUNDING:
            msg = f"Every call needs a deadline of at most {self._longest_s:.0f} s; set a timeout on the call."
            raise DeadlineRequired(msg)
        now = self._clock()
        arrival = Arrival(now, now + timedelta(seconds=left), path, _address(context.peer()))
        return self._identify(arrival, b"".join(facts.get("x509_pem_cert", ())))


class Enrolled:
    """Step 4 of the main door: the caller's certificate, account and key.

    Args:
        authority: Reads certificates.
        database: Holds accounts and the deny list.
    """

    def __init__(self, authority: Authority, database: Database) -> None:
        """Prepare a small memory of parsed certificates: the same few arrive again and again."""
        self._read: Callable[[bytes], ClientCertificate] = lru_cache(maxsize=1024)(authority.read_client)
        self._database = database

    def __call__(self, arrival: Arrival, peer: bytes) -> Call:
        """Identify the caller.

        Raises:
            CertificateRefused: The certificate is expired, denied, or names a key the account no longer has.
            Suspended: The account does not stand.
        """
        certificate = self._read(peer)
        if arrival.time >= certificate.not_after:
            raise CertificateRefused("Your certificate has expired; connect again, which renews it.")
        with self._database.read() as tx:
            try:
                user, denied = identity.caller(tx, certificate.user, certificate.thumbprint)
            except NotFound as error:
                raise CertificateRefused("Your certificate names no account here; run `mo login` again.") from error
        rules.admitted(user, key=certificate.key_id, denied=denied)
        return Call(
            user,
            certificate.key_id,
            arrival.time,
            arrival.deadline,
            arrival.method,
            certificate_expires=certificate.not_after,
            certificate=certificate.thumbprint,
        )


def anyone(arrival: Arrival, peer: bytes) -> Arrival:  # noqa: ARG001 - the enrolment door asks for no certificate
    """Step 4 of the enrolment door: nobody is known there yet."""
    return arrival


def _class_of(descriptor: Any) -> Any:  # noqa: ANN401 - the stubs do not know message classes of descriptors
    return descriptor._concrete_class  # noqa: SLF001 - protobuf's only way from a descriptor to its class


def _read(kind: Any, data: bytes) -> Message:  # noqa: ANN401 - a message class
    try:
        message: Message = kind.FromString(data)
    except DecodeError as error:
        msg = f"The request is no {kind.DESCRIPTOR.name}; use a client that speaks this registry's version."
        raise InvalidArgument(msg) from error
    violations = protovalidate.collect_violations(message)
    if violations:
        told = "; ".join(f"{_path(violation)}: {violation.proto.message}" for violation in violations[:4])
        raise InvalidArgument(f"The request breaks the rules of its fields: {told}.", field=_path(violations[0]))
    return message


def _only(read: Callable[[bytes], Message], messages: Iterator[bytes]) -> Message:
    for data in messages:
        return read(data)
    raise InvalidArgument("The call ended without a request; send one message.")


def _bytes(message: Message | None) -> bytes:
    return message.SerializeToString() if message is not None else b""  # None: the call was over before it had an answer


def _address(peer: str) -> str:
    """Read an address from what gRPC calls a peer, such as `ipv4:192.0.2.1:50000` or `ipv6:%5B2001:db8::1%5D:50000`."""
    host = unquote(peer).partition(":")[2].rpartition(":")[0].strip("[]")
    try:
        address = ip_address(host)
    except ValueError:
        return peer
    return str(address if address.version == 4 else ip_network((address, 64), strict=False))  # noqa: PLR2004 - of IPv4


def _path(violation: protovalidate.Violation) -> str:
    field = violation.proto.field
    return ".".join(element.field_name for element in field.elements) if field else "request"


def _abort(context: grpc.ServicerContext, error: Exception, path: str) -> None:
    if not context.is_active():
        _LOG.info("%s was over before its answer: %s", path, type(error).__name__)
        return
    if not isinstance(error, ModelOrganismsError):
        incident = secrets.token_hex(8)
        _LOG.error("%s failed, incident %s", path, incident, exc_info=error)
        error = Internal(f"The registry failed; tell its operator the incident {incident}.", incident=incident)
    status = wire.to_status(error)
    context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
    context.abort(grpc.StatusCode[error.status], error.message)
