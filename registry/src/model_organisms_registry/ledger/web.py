"""A small HTTP server for what is public: a witness's one call, and a ledger's files. Bounded in every way; no secrets pass here.

Bodies, connections and waiting are limited, so that a flood costs those who send it and nobody behind the other doors. TLS and
limits by address are for a reverse proxy in front, where the internet is on the other side.
"""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from model_organisms.errors import ConfigurationInvalid

_LOG = logging.getLogger(__name__)
_SILENCE_S = 10.0
_CONNECTIONS = 32
_DIGITS = 12
TEXT = "text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Answer:
    """What goes back."""

    status: int
    body: bytes = b""
    kind: str = TEXT
    keep: str = "no-store"
    """`Cache-Control`."""


Answering = Callable[[str, str, bytes], Answer]
"""Takes method, path and body; `HEAD` comes as `GET`."""


class Site:
    """An HTTP server on one address, answering with one function.

    Args:
        listen: `host:port`; port 0 takes a free one, which `address` then names.
        answer: Makes the answers, from any thread.
        most_body: Longest body of a request, in bytes.
    """

    def __init__(self, listen: str, answer: Answering, *, most_body: int = 0) -> None:
        """Listen; nothing is answered before `start`."""
        host, _, port = listen.rpartition(":")

        class Handler(_Handler):
            """Answers with this site's function."""

            answering = staticmethod(answer)
            most = most_body

        try:
            self._server = _Server((host.strip("[]"), int(port)), Handler)
        except (OSError, ValueError, OverflowError) as error:
            raise ConfigurationInvalid(f"{listen} cannot be listened on ({error}); name another host:port.") from error
        self.address = f"{host}:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.2,), name="web", daemon=True)

    def start(self) -> None:
        """Answer."""
        self._thread.start()

    def close(self) -> None:
        """Answer no more."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self._free = threading.BoundedSemaphore(_CONNECTIONS)
        super().__init__(address, handler)

    def process_request(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 - as the library types it
        if self._free.acquire(timeout=_SILENCE_S):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 - as the library types it
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 - as the library types it
        del request
        _LOG.debug("a connection from %s ended early", client_address, exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = _SILENCE_S
    answering: Answering
    most = 0

    def do_GET(self) -> None:
        self._answer("GET", b"")

    do_HEAD = do_GET  # noqa: N815 - as do_GET

    def do_POST(self) -> None:
        stated = self.headers.get("Content-Length", "")
        if not (stated.isascii() and stated.isdecimal()) or "Transfer-Encoding" in self.headers:
            return self._refuse(HTTPStatus.LENGTH_REQUIRED)
        if len(stated) > _DIGITS or int(stated) > self.most:
            return self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        body = self.rfile.read(int(stated))
        return self._answer("POST", body) if len(body) == int(stated) else self._refuse(HTTPStatus.BAD_REQUEST)

    def _refuse(self, status: HTTPStatus) -> None:
        self.close_connection = True  # what was announced is not read
        self._send(Answer(status, status.phrase.encode() + b"\n"))

    def _answer(self, method: str, body: bytes) -> None:
        try:
            answer = self.answering(method, self.path, body)
        except Exception:  # noqa: BLE001 - a border: whatever it is stays in our own log
            _LOG.exception("%s could not be answered", self.path[:80].encode("unicode_escape").decode())
            answer = Answer(HTTPStatus.INTERNAL_SERVER_ERROR, b"This cannot be answered now.\n")
        self._send(answer)

    def _send(self, answer: Answer) -> None:
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.kind)
        self.send_header("Content-Length", str(len(answer.body)))
        self.send_header("Cache-Control", answer.keep)
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body)

    def version_string(self) -> str:
        return "model-organisms"

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library names it so
        _LOG.debug(format, *args)
