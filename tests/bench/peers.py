"""The bare transports: a gRPC echo, a gRPC stream and a Python TLS socket, with TLS 1.3 and nothing else; a process of their own.

`python -m tests.bench.peers FOLDER` serves them until its standard input closes, and prints their ports.
"""

from __future__ import annotations

import json
import os
import socket
import ssl
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
from model_organisms_registry.storage.authority import Authority

from tests.support.tree import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HOST = "127.0.0.1"
CHUNK = bytes(1 << 20)
ECHO, STREAM = "/bench.Peer/Echo", "/bench.Peer/Stream"
_SERVER, _AUTHORITY = "server.pem", "ca.pem"


def main(folder: Path) -> None:
    """Serve until the parent hangs up."""
    authority = Authority.create(folder, "bench", now=datetime.now(UTC))
    key, certificate = authority.server_certificate([HOST], now=datetime.now(UTC))
    (folder / _SERVER).write_bytes(key + certificate)
    server = grpc.server(ThreadPoolExecutor(32), handlers=[_handlers()])
    port = server.add_secure_port(f"{HOST}:0", grpc.ssl_server_credentials([(key, certificate)]))
    server.start()
    listener = socket.create_server((HOST, 0))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(folder / _SERVER)
    threading.Thread(target=_serve_socket, args=(listener, context), daemon=True).start()
    print(json.dumps({"grpc": port, "socket": listener.getsockname()[1]}), flush=True)
    sys.stdin.read()
    os._exit(0)  # a stop in good order would make each client that is hanging up say so on the screen


def _handlers() -> grpc.GenericRpcHandler:
    def stream(asked: bytes, _context: grpc.ServicerContext) -> Iterator[bytes]:
        for _ in range(int(asked) // len(CHUNK)):
            yield CHUNK

    return grpc.method_handlers_generic_handler(
        "bench.Peer",
        {
            "Echo": grpc.unary_unary_rpc_method_handler(lambda asked, _context: asked),
            "Stream": grpc.unary_stream_rpc_method_handler(stream),
        },
    )


def _serve_socket(listener: socket.socket, context: ssl.SSLContext) -> None:
    while True:
        connection, _ = listener.accept()
        with context.wrap_socket(connection, server_side=True) as wrapped:
            while asked := wrapped.recv(64):
                for _ in range(int(asked) // len(CHUNK)):
                    wrapped.sendall(CHUNK)


@dataclass(slots=True)
class Peers:
    """The peers' process, and how to call it."""

    folder: Path
    ports: dict[str, int]
    channels: list[grpc.Channel] = field(default_factory=list)

    def channel(self) -> grpc.Channel:
        """Open a gRPC channel of its own connection."""
        credentials = grpc.ssl_channel_credentials((self.folder / _AUTHORITY).read_bytes())
        options = [("grpc.max_receive_message_length", 4 << 20), ("grpc.use_local_subchannel_pool", 1)]
        self.channels.append(grpc.secure_channel(f"{HOST}:{self.ports['grpc']}", credentials, options=options))
        return self.channels[-1]

    def echo(self, payload: bytes = b"x" * 512) -> Callable[[], bytes]:
        """Make one client: each call sends the payload and gets it back."""
        call = self.channel().unary_unary(ECHO)
        return lambda: call(payload, timeout=30)

    def stream(self, size: int) -> Callable[[], int]:
        """Make one client: each call receives so many bytes, and drops them."""
        call = self.channel().unary_stream(STREAM)
        return lambda: sum(map(len, call(str(size).encode(), timeout=300)))

    def socket(self, size: int) -> Callable[[], int]:
        """Make one client: each call receives so many bytes into the same memory."""
        context = ssl.create_default_context(cafile=str(self.folder / _AUTHORITY))
        plain = socket.create_connection((HOST, self.ports["socket"]))
        wrapped = context.wrap_socket(plain, server_hostname=HOST)
        memory = memoryview(bytearray(size))

        def receive() -> int:
            wrapped.sendall(str(size).encode())
            at = 0
            while at < size:
                at += wrapped.recv_into(memory[at:])
            return at

        return receive


def reached(port: int, *, until: float) -> None:
    """Wait, by `time.perf_counter`, until something accepts connections."""
    while True:
        try:
            socket.create_connection((HOST, port), timeout=1).close()
        except OSError:
            if time.perf_counter() > until:
                raise
            time.sleep(0.002)
        else:
            return


@contextmanager
def running(folder: Path) -> Iterator[Peers]:
    """Run the peers while the block runs."""
    folder.mkdir()
    command = [sys.executable, "-m", "tests.bench.peers", str(folder)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        peers = None
        try:
            peers = Peers(folder, json.loads(process.stdout.readline()))
            yield peers
        finally:
            for channel in peers.channels if peers else []:
                channel.close()
            process.stdin.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
