"""A line to an OpenBao or Vault server: JSON over HTTP with a token, each call within its time; `key_vault.py` knows what to say.

- No answer, a cut one, one that is no JSON, or one that comes too slowly is `Unavailable`: nothing is concluded from it.
- A redirection is not followed, because the token would go where nobody said it may.
- The token is read again for each call, so a program that renews it writes it into the file and is done.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
import ssl
import threading
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from model_organisms.errors import ConfigurationInvalid, Unavailable

from model_organisms_registry.storage.keys import read_secret

if TYPE_CHECKING:
    from collections.abc import Mapping

    from model_organisms_registry.config import Transit

_MAX_ANSWER = 16 << 20
"""Bytes: a list of some hundred thousand keys."""
_OK, _NO_CONTENT, _REFUSED, _FORBIDDEN, _NOT_FOUND = 200, 204, 400, 403, 404


class Vault:
    """A server's HTTP interface.

    Args:
        settings: Its address, the namespace, the token, and how long a call may take.

    Raises:
        ConfigurationInvalid: The address is none, or would send the token over the network in clear.
    """

    def __init__(self, settings: Transit) -> None:
        """Nothing is connected yet."""
        parts = urlsplit(settings.address)
        if parts.scheme not in {"http", "https"} or not parts.hostname or parts.path.strip("/") or parts.query or parts.username:
            msg = f"'{settings.address}' is no address of a vault; set [keys.vault] address to https://HOST:PORT."
            raise ConfigurationInvalid(msg)
        if parts.scheme == "http" and not _loopback(parts.hostname):
            raise ConfigurationInvalid(f"'{settings.address}' would send the vault's token in clear; use https.")
        self._settings = settings
        self._host, self._port = parts.hostname, parts.port
        self._tls = _tls(settings.ca_file) if parts.scheme == "https" else None
        self._free: list[http.client.HTTPConnection] = []
        self._token()

    def call(
        self, method: str, path: str, said: Mapping[str, Any] | None = None, *, refused: Exception | None = None
    ) -> dict[str, Any] | None:
        """Make one call; it may reach the server twice.

        Args:
            method: GET, POST, DELETE or LIST.
            path: Below `/v1/`.
            said: What is sent.
            refused: Raised where the server understands the call and refuses what is said (status 400).

        Returns:
            The answer's data; None where the server says that there is no such thing.

        Raises:
            Unavailable: No answer, or none that can be believed.
        """
        status, body = self._exchange(method, f"/v1/{quote(path)}", json.dumps(said).encode() if said is not None else None)
        if status == _NO_CONTENT:
            return {}
        answer = _parsed(body)
        if (
            status == _NOT_FOUND and method != "POST" and answer.get("errors") == []
        ):  # with a reason, it is the mount that is not there
            return None
        if status == _REFUSED and refused is not None:
            raise refused
        if status == _FORBIDDEN:
            raise Unavailable("The vault refuses the registry's token; renew it, or mend its policy, then try again.")
        if status != _OK:
            msg = f"The vault answered {status}; see that it is unsealed and active, and the mount right, then try again."
            raise Unavailable(msg)
        data = answer.get("data") or {}
        if not isinstance(data, dict):
            raise _not_its_own()
        return data

    def close(self) -> None:
        """Hang up."""
        while self._free:
            self._free.pop().close()

    def _exchange(self, method: str, path: str, body: bytes | None) -> tuple[int, bytes]:
        headers = {"X-Vault-Token": self._token(), "X-Vault-Request": "true", "Content-Type": "application/json"}
        if self._settings.namespace:
            headers["X-Vault-Namespace"] = self._settings.namespace
        for last in (False, True):
            idle = None if last or not self._free else self._free.pop()
            line = idle or self._line()
            try:
                return self._said(line, method, path, body, headers)
            except (OSError, http.client.HTTPException) as error:
                line.close()
                # A line that lay idle may have been hung up by the server; on a new one, silence is silence.
                if idle is None or not isinstance(error, ConnectionError):
                    what = type(error).__name__
                    raise Unavailable(f"The vault at {self._host} does not answer as it should ({what}); try again.") from None
        raise AssertionError

    def _said(
        self, line: http.client.HTTPConnection, method: str, path: str, body: bytes | None, headers: Mapping[str, str]
    ) -> tuple[int, bytes]:
        if line.sock is None:
            line.connect()
        # The socket's own timeout begins anew with each byte, so a slow answer would never end.
        late = threading.Timer(self._settings.timeout_s, _hang_up, [line.sock])
        late.daemon = True
        late.start()
        try:
            line.request(method, path, body, dict(headers))
            response = line.getresponse()
            content = response.read(_MAX_ANSWER + 1)
            if response.will_close or len(content) > _MAX_ANSWER:  # then what is left of it stands in the line
                line.close()
            else:
                self._free.append(line)
            return response.status, content
        finally:
            late.cancel()

    def _line(self) -> http.client.HTTPConnection:
        timeout = self._settings.timeout_s
        if self._tls is None:
            return http.client.HTTPConnection(self._host, self._port, timeout=timeout)
        return http.client.HTTPSConnection(self._host, self._port, timeout=timeout, context=self._tls)

    def _token(self) -> str:
        if name := self._settings.token_env:
            token = os.environ.get(name, "")
            if not token or not token.isascii() or not token.isprintable():
                raise ConfigurationInvalid(f"The variable {name} does not hold the vault's token; set it, and start again.")
            return token
        return read_secret(Path(self._settings.token_file), "the vault's token")


def _parsed(body: bytes) -> dict[str, Any]:
    if len(body) > _MAX_ANSWER:
        raise _not_its_own()
    try:
        answer = json.loads(body) if body else {}
    except (ValueError, RecursionError):
        raise _not_its_own() from None
    if not isinstance(answer, dict):
        raise _not_its_own()
    return answer


def _not_its_own() -> Unavailable:
    return Unavailable("The vault's address answers with something that is not a vault's; see that it is right, then try again.")


def _hang_up(line: socket.socket) -> None:
    with suppress(OSError):
        socket.socket.shutdown(line, socket.SHUT_RDWR)  # not TLS's own, which takes the session from under who is reading


def _loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _tls(ca_file: str) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca_file or None)
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationInvalid(
            f"{ca_file} holds no certificates; set [keys.vault] ca_file to those of the vault's CA."
        ) from error
