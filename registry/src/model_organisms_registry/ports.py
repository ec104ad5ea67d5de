"""The ports of the doors: TLS with a certificate that renews itself, threads, bounds. What is answered is not known here."""

from __future__ import annotations

from concurrent import futures
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import grpc
from model_organisms.errors import ConfigurationInvalid

from model_organisms_registry.storage.authority import SERVER_LIFE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from model_organisms_registry.config import Limits
    from model_organisms_registry.storage.authority import Authority


class Shown:
    """The certificate a door shows: issued at the start, and again when half of its life is over, so nobody has to restart.

    Args:
        authority: Issues it.
        hosts: Names clients call.
        clock: The time of a handshake.
        demand: Whether callers must show one of their own.
    """

    def __init__(self, authority: Authority, hosts: Iterable[str], clock: Callable[[], datetime], *, demand: bool) -> None:
        """Keep them; the first is issued by `credentials`."""
        self._authority = authority
        self._hosts = tuple(hosts)
        self._clock = clock
        self._demand = demand
        self._issued = datetime.min.replace(tzinfo=UTC)

    def credentials(self) -> grpc.ServerCredentials:
        """Return what a port of a server takes; it asks again before each handshake."""
        first, demand = self._issue(), self._demand
        # The stub does not know that a fetcher may answer with None, for "as it is"; gRPC's own documentation does.
        return grpc.dynamic_ssl_server_credentials(first, self._renewed, require_client_authentication=demand)  # type: ignore[arg-type]

    def _renewed(self) -> grpc.ServerCertificateConfiguration | None:
        return self._issue() if self._clock() - self._issued > SERVER_LIFE / 2 else None

    def _issue(self) -> grpc.ServerCertificateConfiguration:
        self._issued = self._clock()
        pair = self._authority.server_certificate(self._hosts, now=self._issued)
        return grpc.ssl_server_certificate_configuration([pair], root_certificates=self._authority.pem if self._demand else None)


def port(
    handlers: list[grpc.GenericRpcHandler[Any, Any]],
    listen: str,
    shown: Shown,
    limits: Limits,
) -> grpc.Server:
    """Make the server of one address, with every bound that gRPC can keep; nothing is answered before its `start`.

    Raises:
        ConfigurationInvalid: The address cannot be listened on.
    """
    options = [
        ("grpc.max_receive_message_length", 4 << 20),
        ("grpc.max_metadata_size", 8 << 10),
        ("grpc.absolute_max_metadata_size", 16 << 10),
        ("grpc.max_concurrent_streams", limits.concurrent_calls),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", 30_000),
        ("grpc.http2.max_ping_strikes", 2),
        ("grpc.so_reuseport", 0),
    ]
    server = grpc.server(
        futures.ThreadPoolExecutor(limits.threads, thread_name_prefix="call"),
        handlers=handlers,
        options=options,
        maximum_concurrent_rpcs=limits.concurrent_calls,
    )
    try:
        server.add_secure_port(listen, shown.credentials())
    except RuntimeError as error:
        msg = f"{listen} cannot be listened on; is another registry running? Name other ports in registry.toml."
        raise ConfigurationInvalid(msg) from error
    return server
