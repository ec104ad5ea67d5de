"""An HTTP server on loopback that answers what a test wants it to: an identity provider that lies, drips, or forgets."""

from __future__ import annotations

import json
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterator


@dataclass
class Pages:
    """What is served, and what was asked for.

    Attributes:
        address: Where it is.
        said: An answer for each path: a value (sent as JSON), bytes, or a list of such, one a call, whose last is repeated.
        status: Of a path, where it is not 200; with a place to go as `location` if it redirects.
        drip_s: Seconds between single bytes.
        asked: Paths in the order in which they were asked for.
    """

    address: str = ""
    said: dict[str, Any] = field(default_factory=dict)
    status: dict[str, tuple[int, str]] = field(default_factory=dict)
    drip_s: float = 0.0
    asked: list[str] = field(default_factory=list)

    def answer(self, path: str) -> bytes:
        """What to say now."""
        self.asked.append(path)
        said = self.said.get(path, {})
        if isinstance(said, list):
            said = said.pop(0) if len(said) > 1 else said[0]
        return said if isinstance(said, bytes) else json.dumps(said).encode()


@contextmanager
def serving(context: ssl.SSLContext | None = None) -> Iterator[Pages]:
    """Serve while the block runs; with a context, over TLS."""
    pages = Pages()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            length = int(self.headers.get("content-length") or 0)
            self.rfile.read(length)
            path = self.path.partition("?")[0]
            body = pages.answer(path)
            status, location = pages.status.get(path, (200, ""))
            self.send_response(status)
            if location:
                self.send_header("location", location)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            for byte in body if pages.drip_s else ():
                self.wfile.write(bytes([byte]))
                time.sleep(pages.drip_s)
            self.wfile.write(b"" if pages.drip_s else body)

        do_POST = do_GET  # noqa: N815 - the name that http.server looks for

        def log_message(self, *_: object) -> None:
            """Keep quiet."""

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None:
            """A caller that hangs up is what some tests are about."""

    server = Server(("127.0.0.1", 0), Handler)
    if context:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    pages.address = f"{'https' if context else 'http'}://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield pages
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
