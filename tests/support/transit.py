"""A server that speaks the transit engine's HTTP interface as OpenBao and Vault document it, with real AES-GCM and real tokens.

Neither server can be had where this suite runs, so this one stands in; it is not them. `MO_TEST_VAULT_ADDRESS` and
`MO_TEST_VAULT_TOKEN` run the same suite against a real one (docs/guides/operator.md). https://openbao.org/api-docs/secret/transit/
"""

from __future__ import annotations

import base64
import json
import os
import ssl
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM


class Transit:
    """One mount of a transit engine.

    Args:
        token: What callers must show.
        mount: Where it is mounted.
        namespace: In which namespace, if in one.
        tls: Certificate and key files, for HTTPS.
    """

    def __init__(self, *, token="t0ken", mount="transit", namespace="", tls=None):  # noqa: S107 - no secret
        self.token, self.mount, self.namespace = token, mount, namespace
        self.keys: dict[str, dict] = {}
        self.calls: list[str] = []
        self.twist = lambda _, status, answer: (status, answer)
        """What a liar makes of the answer to a path; bytes are sent as they are, a callable gets the connection instead."""
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*tls)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.address = f"http{'s' if tls else ''}://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    def close(self):
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def answer(self, method, path, headers, said):  # noqa: PLR0911 - one for each answer
        """Answer one call: status and body."""
        if headers.get("X-Vault-Token") != self.token or headers.get("X-Vault-Namespace", "") != self.namespace:
            return 403, {"errors": ["permission denied"]}
        version, mount, *rest = path.split("?")[0].lstrip("/").split("/")
        if (version, mount) != ("v1", self.mount):
            return 404, {"errors": [f"no handler for route '{path}'"]}
        with self._lock:
            match method, rest:
                case "LIST", ["keys"]:
                    return (200, {"data": {"keys": sorted(self.keys)}}) if self.keys else (404, {"errors": []})
                case _, ["keys", name]:
                    return self._key(method, name, said)
                case "POST", ["keys", name, "config"] if name in self.keys:
                    self.keys[name] |= said
                    return 200, {"data": self._shown(name)}
                case "POST", ["encrypt", name]:
                    if name not in self.keys:
                        self._key("POST", name, {})
                    return self._encrypt(name, said)
                case "POST", ["decrypt", name]:
                    return self._decrypt(name, said) if name in self.keys else (400, {"errors": ["encryption key not found"]})
        return 405, {"errors": ["unsupported operation"]}

    def _key(self, method, name, said):
        if method == "POST":
            new = {"secret": os.urandom(32), "deletion_allowed": False, "exportable": False, "type": "aes256-gcm96"}
            self.keys.setdefault(name, new | said)
            return 200, {"data": self._shown(name)}
        if name not in self.keys:
            return (
                (404, {"errors": []}) if method == "GET" else (400, {"errors": ["error deleting policy: could not delete key"]})
            )
        if method == "GET":
            return 200, {"data": self._shown(name)}
        if not self.keys[name]["deletion_allowed"]:
            return 400, {"errors": ["error deleting policy: deletion is not allowed for this key"]}
        del self.keys[name]
        return 204, None

    def _shown(self, name):
        return {key: value for key, value in self.keys[name].items() if key != "secret"} | {"name": name, "latest_version": 1}

    def _encrypt(self, name, said):
        nonce = os.urandom(12)
        plain, aad = (base64.b64decode(said.get(field, "")) for field in ("plaintext", "associated_data"))
        sealed = AESGCM(self.keys[name]["secret"]).encrypt(nonce, plain, aad)
        return 200, {"data": {"ciphertext": "vault:v1:" + base64.b64encode(nonce + sealed).decode(), "key_version": 1}}

    def _decrypt(self, name, said):
        try:
            sealed = base64.b64decode(said["ciphertext"].removeprefix("vault:v1:"), validate=True)
            aad = base64.b64decode(said.get("associated_data", ""))
            plain = AESGCM(self.keys[name]["secret"]).decrypt(sealed[:12], sealed[12:], aad)
        except (InvalidTag, ValueError):
            return 400, {"errors": ["cipher: message authentication failed"]}
        return 200, {"data": {"plaintext": base64.b64encode(plain).decode()}}

    def _handler(self):
        transit = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def handle_one_call(self):
                said = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or b"{}")
                transit.calls.append(f"{self.command} {self.path}")
                status, body = transit.answer(self.command, self.path, self.headers, said)
                status, body = transit.twist(self.path, status, body)
                if callable(body):
                    body(self.connection)
                    self.close_connection = True
                    return
                sent = body if isinstance(body, bytes) else json.dumps(body).encode() if body is not None else b""
                self.send_response(status)
                self.send_header("Content-Length", str(len(sent)))
                self.end_headers()
                self.wfile.write(sent)

            do_GET = do_POST = do_DELETE = do_LIST = handle_one_call  # noqa: N815 - http.server names them

            def log_message(self, *_):
                pass

        return Handler


@contextmanager
def transit(**options):
    """Run a server while the block runs."""
    server = Transit(**options)
    try:
        yield server
    finally:
        server.close()
