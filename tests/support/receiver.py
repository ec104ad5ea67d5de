"""A receiver of webhooks on loopback: a real server that fails as it is told to, checks signatures, and keeps what it took."""

from __future__ import annotations

import json
import threading
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from model_organisms.formats import webhooks

if TYPE_CHECKING:
    from collections.abc import Iterator

KEY = bytes(range(32))
"""What it shares with its sender."""


class Receiver(ThreadingHTTPServer):
    """Answers each POST by the next of its orders, and when there are none left with 204.

    Orders: a status; `hang`, which answers nothing; `drip`, which answers a byte at a time; `away`, which redirects to itself.
    """

    daemon_threads = True

    def __init__(self, *orders: int | str, port: int = 0) -> None:
        """Listen on a port, or a free one."""
        super().__init__(("127.0.0.1", port), _Handler)
        self.orders = list(orders)
        self.taken: list[tuple[str, dict[str, Any]]] = []
        """Id and message of each that was answered with 2xx, in order."""
        self.asked: list[str] = []
        """Method and path of each attempt."""
        self.released = threading.Event()
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.server_address[1]}/hook?from=registry"


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        headers = {name.lower(): value for name, value in self.headers.items()}
        identifier = webhooks.verify(headers, body, key=KEY, now=datetime.now(UTC))
        with self.server.lock:
            self.server.asked.append(f"POST {self.path}")
            order = self.server.orders.pop(0) if self.server.orders else 204
            if order in range(200, 300):
                self.server.taken.append((identifier, json.loads(body)))
        if order in {"hang", "drip"}:
            self._stall(order)
        else:
            self.send_response(307 if order == "away" else int(order))
            self.send_header("location", "/hook")
            self.send_header("content-length", "0")
            self.end_headers()

    def do_GET(self) -> None:
        self.server.asked.append(f"GET {self.path}")
        self.send_error(405)

    def _stall(self, order: str) -> None:
        while not self.server.released.wait(0.05):
            if order == "drip":
                try:
                    self.wfile.write(b"H")
                except OSError:
                    return

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def receiving(*orders: int | str, port: int = 0) -> Iterator[Receiver]:
    """A receiver that serves while the block runs."""
    with Receiver(*orders, port=port) as receiver:
        thread = threading.Thread(target=receiver.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield receiver
        finally:
            receiver.released.set()
            receiver.shutdown()
            thread.join()
