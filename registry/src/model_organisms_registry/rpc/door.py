"""The one door: every call of every service passes here, and nothing else of the registry touches gRPC's context.

For each call, in this order:

1. TLS 1.3, or refused (the transport cannot be told to demand it).
2. A deadline, and not an absurd one.
3. The clock is read, once; everything below takes the time from the `Call`.
4. The caller is identified: certificate of this registry, not expired, not denied; account active; key still the account's.
5. The request obeys the field rules of its proto (each message of a stream does).
6. The method runs; an error of the tree becomes its status, anything else `Internal` with an incident id and a trace in the log.

What the caller *may* is the gate's to say. Enrolment has a door of its own, the same but for step 4.
"""

from __future__ import annotations

import logging
import re
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import grpc
import protovalidate
from model_organisms import wire
from model_organisms.errors import (
    CertificateRefused,
    DeadlineRequired,
    Internal,
    InvalidArgument,
    ModelOrganismsError,
    NotFound,
    Suspended,
    Unauthenticated,
)
from model_organisms.formats.dsse import key_id
from model_organisms.records import UserState

from model_organisms_registry.domain.permits import Call
from model_organisms_registry.storage.catalog import identity

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
    from google.protobuf.message import Message

    from model_organisms_registry.storage.authority import Authority, ClientCertificate
    from model_organisms_registry.storage.database import Database

_LOG = logging.getLogger(__name__)
_ROUNDING = 1.02
"""gRPC sends a timeout in about two digits, rounded up by as much as a hundredth, so one of just the limit arrives above it."""
_SNAKE = re.compile(r"(?<=[a-z])(?=[A-Z])")
A = TypeVar("A")
A_co = TypeVar("A_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Arrival:
    """A call by somebody not yet known."""

    time: datetime
    deadline: datetime
    method: str


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
        longest_s: Longest deadline admitted, in seconds.
        clock: The time; only tests give another.
    """

    def __init__(self, identify: Identify[A], *, longest_s: float, clock: Callable[[], datetime] | None = None) -> None:
        """Keep what the steps need."""
        self._identify = identify
        self._longest_s = longest_s
        self._clock = clock or (lambda: datetime.now(UTC))

    def service(self, descriptor: ServiceDescriptor, rooms: object) -> grpc.GenericRpcHandler[Any, Any]:
        """Make the handlers of one service.

        Args:
            descriptor: The service, as generated.
            rooms: Has a method for each RPC, in snake case, that takes what `identify` gives and the request (or an iterator
                of requests) and returns the response (or yields responses).
        """
        handlers = {method.name: self._handler(method, rooms) for method in descriptor.methods}
        return grpc.method_handlers_generic_handler(descriptor.full_name, handlers)

    def _handler(self, method: MethodDescriptor, rooms: object) -> grpc.RpcMethodHandler[Any, Any]:
        run = getattr(rooms, _SNAKE.sub("_", method.name).lower())
        many_in, many_out = method.client_streaming, method.server_streaming
        kind = {
            (False, False): grpc.unary_unary_rpc_method_handler,
            (False, True): grpc.unary_stream_rpc_method_handler,
            (True, False): grpc.stream_unary_rpc_method_handler,
        }[many_in, many_out]
        path = f"/{method.containing_service.full_name}/{method.name}"
        behaviour = self._streaming(run, path) if many_out else self._unary(run, path, many_in=many_in)
        request = _class_of(method.input_type)
        return kind(behaviour, request_deserializer=request.FromString, response_serializer=lambda m: m.SerializeToString())

    def _unary(self, run: Callable[..., Any], path: str, *, many_in: bool) -> Callable[..., Any]:
        def behaviour(received: Any, context: grpc.ServicerContext) -> Any:  # noqa: ANN401 - messages of any RPC
            try:
                caller = self._admit(context, path)
                return run(caller, _each_checked(received) if many_in else _checked(received))
            except Exception as error:  # noqa: BLE001 - the border: everything is translated
                _abort(context, error, path)

        return behaviour

    def _streaming(self, run: Callable[..., Any], path: str) -> Callable[..., Any]:
        def behaviour(received: Message, context: grpc.ServicerContext) -> Iterator[Any]:
            try:
                yield from run(self._admit(context, path), _checked(received))
            except Exception as error:  # noqa: BLE001 - the border: everything is translated
                _abort(context, error, path)

        return behaviour

    def _admit(self, context: grpc.ServicerContext, path: str) -> A:
        facts: dict[str, Any] = dict(context.auth_context())
        if facts.get("ssl_tls_version") != [b"TLSv1.3"]:
            raise Unauthenticated("This registry speaks TLS 1.3 only; update the TLS library of your client.")
        left = context.time_remaining()
        if left is None or left > self._longest_s * _ROUNDING:
            msg = f"Every call needs a deadline of at most {self._longest_s:.0f} s; set a timeout on the call."
            raise DeadlineRequired(msg)
        now = self._clock()
        arrival = Arrival(now, now + timedelta(seconds=left), path)
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
        if denied or key_id(user.identity_key) != certificate.key_id:
            raise CertificateRefused("Your certificate was revoked; ask an admin for a new enrolment code.")
        if user.state is not UserState.ACTIVE:
            raise Suspended("Your account is suspended; ask an admin of this registry.")
        return Call(user, certificate.key_id, arrival.time, arrival.deadline, arrival.method, certificate.not_after)


def anyone(arrival: Arrival, peer: bytes) -> Arrival:  # noqa: ARG001 - the enrolment door asks for no certificate
    """Step 4 of the enrolment door: nobody is known there yet."""
    return arrival


def _class_of(descriptor: Any) -> Any:  # noqa: ANN401 - the stubs do not know message classes of descriptors
    return descriptor._concrete_class  # noqa: SLF001 - protobuf's only way from a descriptor to its class


def _checked(message: Message) -> Message:
    violations = protovalidate.collect_violations(message)
    if violations:
        told = "; ".join(f"{_path(violation)}: {violation.proto.message}" for violation in violations[:4])
        raise InvalidArgument(f"The request breaks the rules of its fields: {told}.", field=_path(violations[0]))
    return message


def _each_checked(messages: Iterator[Message]) -> Iterator[Message]:
    for message in messages:
        yield _checked(message)


def _path(violation: protovalidate.Violation) -> str:
    field = violation.proto.field
    return ".".join(element.field_name for element in field.elements) if field else "request"


def _abort(context: grpc.ServicerContext, error: Exception, path: str) -> None:
    if not context.is_active():
        _LOG.info("%s ended by its caller: %s", path, type(error).__name__)
        return
    if not isinstance(error, ModelOrganismsError):
        incident = secrets.token_hex(8)
        _LOG.error("%s failed, incident %s", path, incident, exc_info=error)
        error = Internal(f"The registry failed; tell its operator the incident {incident}.", incident=incident)
    status = wire.to_status(error)
    context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
    context.abort(grpc.StatusCode[error.status], error.message)
