"""One signed POST to one configured address: who may be called, how long it may take. When and what is sent, others say.

- Only addresses of the settings are called, and no redirect is followed: nobody outside decides whom the registry talks to.
- The name is looked up once, its addresses are judged, and one of those is called: it cannot turn to another in between.
- Without `private`, an address is public and the connection is TLS; with it, also loopback and private ones, and plain HTTP.
- Nothing that is answered is read but the status.
"""

from __future__ import annotations

import http.client
import ipaddress
import socket
import ssl
import threading
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from model_organisms.errors import ConfigurationInvalid
from model_organisms.formats import webhooks

from model_organisms_registry.domain.audit import BY_TYPE

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from pathlib import Path
    from urllib.parse import SplitResult

    from model_organisms_registry.config import Notify

_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Hook:
    """A receiver, ready to be called."""

    name: str
    address: SplitResult
    key: bytes
    events: frozenset[str]
    private: bool
    timeout_s: float
    first_pause: timedelta


def opened(settings: Sequence[Notify], folder: Path) -> tuple[Hook, ...]:
    """Read the receivers of the settings, and their secrets.

    Raises:
        ConfigurationInvalid: An address, an event or a secret that cannot be used, or a name twice.
    """
    if len({one.name for one in settings}) < len(settings):
        raise ConfigurationInvalid("Two [[notify]] of registry.toml have one name; what waits for one would go to the other.")
    return tuple(_hook(one, folder) for one in settings)


def post(hook: Hook, body: bytes, *, identifier: str, now: datetime) -> str:
    """Send a message, and say in a few words why it was not taken; nothing where it was."""
    headers = {"Content-Type": "application/json", "User-Agent": "mo-registry"}
    headers |= webhooks.sign(body, identifier=identifier, time=now, key=hook.key)
    line = _Line()
    # A receiver that answers a byte at a time would never be too late for the socket's own timeout.
    ends = threading.Timer(hook.timeout_s, line.cut)
    ends.start()
    try:
        status = line.ask(hook, body, headers)
    except (OSError, ValueError, http.client.HTTPException) as error:
        return f"{type(error).__name__}: {error}"[:200]
    finally:
        ends.cancel()
        line.cut()
    return "" if http.client.OK <= status < http.client.MULTIPLE_CHOICES else f"answered {status}"


class _Line:
    """One connection, which another thread may cut."""

    def __init__(self) -> None:
        self._socket: socket.socket | None = None
        self._is_cut = False

    def ask(self, hook: Hook, body: bytes, headers: dict[str, str]) -> int:
        host, port = hook.address.hostname or "", hook.address.port or _PORTS[hook.address.scheme]
        address = _resolved(hook, host, port)
        self._refuse_cut()
        self._socket = sock = socket.create_connection((address, port), timeout=hook.timeout_s)
        self._refuse_cut()
        if hook.address.scheme == "https":
            wrapped = ssl.create_default_context().wrap_socket(sock, server_hostname=host, do_handshake_on_connect=False)
            self._socket = sock = wrapped
            self._refuse_cut()
            wrapped.do_handshake()
        connection = http.client.HTTPConnection(host, port, timeout=hook.timeout_s)
        connection.sock = sock
        target = (hook.address.path or "/") + (f"?{hook.address.query}" if hook.address.query else "")
        connection.request("POST", target, body, headers)
        return connection.getresponse().status

    def cut(self) -> None:
        self._is_cut = True  # before the look: who takes a socket up after it sees this
        if self._socket is not None:
            with suppress(OSError):  # it ended by itself
                self._socket.shutdown(socket.SHUT_RDWR)
            self._socket.close()

    def _refuse_cut(self) -> None:
        """Go no further where the time ended while there was no socket to shut, as when a name was looked up."""
        if self._is_cut:
            raise _TooLate("there was no answer in time")


def _resolved(hook: Hook, host: str, port: int) -> str:
    """Look a name up; all its addresses must be of those that may be called."""
    found = [str(info[4][0]) for info in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    if not found or not all(_may_be_called(address, private=hook.private) for address in found):
        msg = f"{host} is at {', '.join(found)}, which this hook may not call"
        raise _Forbidden(msg)
    return found[0]


class _TooLate(OSError):
    """The time was up before there was a connection."""


class _Forbidden(OSError):
    """An address that is not called."""


def _may_be_called(address: str, *, private: bool) -> bool:
    found = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped:
        found = found.ipv4_mapped
    if found.is_loopback:
        return private
    if found.is_multicast or found.is_link_local or found.is_unspecified or found.is_reserved:
        return False
    return found.is_global or (private and found.is_private)


def _hook(setting: Notify, folder: Path) -> Hook:
    address = urlsplit(setting.url)
    schemes = ("https", "http") if setting.private else ("https",)
    if not setting.name or address.scheme not in schemes or not address.hostname or address.username or address.fragment:
        msg = f"[[notify]] '{setting.name}' needs a name and a url of {' or '.join(schemes)}, without a user and a fragment."
        raise ConfigurationInvalid(msg)
    if unknown := sorted(set(setting.events) - set(BY_TYPE)):
        raise ConfigurationInvalid(f"[[notify]] '{setting.name}' names the event '{unknown[0]}', which there is not.")
    if not setting.events or setting.timeout_s <= 0 or setting.first_pause_s <= 0:
        raise ConfigurationInvalid(f"[[notify]] '{setting.name}' needs events, and a timeout and a pause above 0.")
    try:
        secret = (folder / setting.secret_file).read_text("ascii")
    except (OSError, ValueError) as error:
        msg = f"The secret_file of [[notify]] '{setting.name}' cannot be read; `mo-registry notify secret` prints a fresh secret."
        raise ConfigurationInvalid(msg) from error
    pause = timedelta(seconds=setting.first_pause_s)
    key = webhooks.parse_secret(secret)
    return Hook(setting.name, address, key, frozenset(setting.events), setting.private, setting.timeout_s, pause)
