"""Keeps the cells of one node for a registry that is elsewhere. Knows nothing of the cluster that carries what they say.

A keeper is a local pool with a sealed line to each session. It believes whoever can seal to it under the shared secret, keeps its
private seed to itself, and lets plaintext exist only in its own memory and in its cells.

- `expect`, `begin`, `take`, `open` bring a session in; `close`, `kill`, a lost cell or a registry that fell silent end it.
- A registry looks at who was lost by `watch`, at least every few seconds, and names its sessions; by that the keeper knows that
  it lives. A session that it no longer names it has given up, though it could not say so; that ends too.
"""

from __future__ import annotations

import struct
import threading
import time
from contextlib import closing, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from model_organisms.cells.frames import Ask, Direct, Draw, Frame, decode, encode
from model_organisms.errors import CellUnavailable, ModelOrganismsError
from model_organisms.formats.buffers import anonymous, wipe
from model_organisms.formats.streaming import Receiver

from model_organisms_registry.isolation.openings import Opened, Opening, parse_opening, print_opened
from model_organisms_registry.isolation.sealed import Introduction, Line, introduce, pick_up, print_error

if TYPE_CHECKING:
    import mmap
    from collections.abc import Iterator

    from model_organisms.cells.frames import Directed, Numbers

    from model_organisms_registry.isolation.placement import Pool, Tenant

SILENCE_S = 30.0
GIVEN, FAILED = b"\0", b"\1"
"""First byte of an answer: what was asked for, or an error."""
_SECONDS = struct.Struct(">d")
_GONE = "The session has no place on this node any more; open a new one."
_TICK_S = 1.0


@dataclass(slots=True)
class _Guest:
    """A session, from when it is expected to when it is gone."""

    until: float
    """It must be open by then."""
    line: Line | None = None
    opening: Opening | None = None
    memory: mmap.mmap | None = None
    receiver: Receiver | None = None
    tenant: Tenant | None = None
    seen: set[int] = field(default_factory=lambda: {0})
    left: dict[int, threading.Event] = field(default_factory=dict)
    """Calls under way, and whether nobody waits for them any more."""
    heard: float = 0.0
    """When the registry last named it."""


class Keeper:
    """Cells of this node.

    Args:
        pool: Starts them; the keeper closes it.
        base: Folder of the one base model that they are for.
        secret: Shared with the registry.
        start_timeout_s: A session that is expected must be open within so many seconds.
        silence_s: A session that no look of the registry's has named for so long is given up.
    """

    def __init__(self, pool: Pool, base: str, secret: bytes, *, start_timeout_s: float, silence_s: float = SILENCE_S) -> None:
        """Make the key pair."""
        self._pool, self._base, self._secret = pool, base, secret
        self._start_timeout_s, self._silence_s = start_timeout_s, silence_s
        self._seed, self._introduction = introduce(secret)
        self._guests: dict[str, _Guest] = {}
        self._lost: dict[str, str] = {}
        self._news = threading.Condition()
        self._closed = threading.Event()
        threading.Thread(target=self._look_around, name="keeper", daemon=True).start()

    def introduction(self) -> Introduction:
        """Show who this is."""
        return self._introduction

    def jailed(self) -> bool:
        """Tell whether every wall can be built on this node."""
        return self._pool.jailed

    def cells(self) -> tuple[int, int]:
        """Count cells that sessions are in, and warm ones that wait."""
        return len(self._pool.cells), self._pool.spares

    def expect(self, name: str) -> None:
        """Make ready for a session.

        Raises:
            CellUnavailable: There was one of that name.
        """
        with self._news:
            if name in self._guests:
                raise CellUnavailable("A session of that name has been here; open it under a new one.")
            self._guests[name] = _Guest(time.monotonic() + self._start_timeout_s)

    def holds(self, name: str) -> bool:
        """Tell whether a session is here, or on its way."""
        return name in self._guests

    def begin(self, name: str, sealed_key: bytes, question: bytes) -> None:
        """Pick up the line to a session, and hear what is to be opened.

        Raises:
            CapsuleInvalid: This was not sealed to this keeper by who shares the secret.
        """
        guest = self._guest(name)
        if guest.line is not None:
            raise CellUnavailable("This session's line is open already; open another session.")
        line = pick_up(name, sealed_key, self._seed, self._secret)
        guest.opening = parse_opening(line.asked(0, question))
        guest.memory = anonymous(guest.opening.size)
        whole = memoryview(guest.memory)[: guest.opening.size]
        guest.receiver = Receiver(line.bundle, bytes.fromhex(guest.opening.version_digest), whole)
        guest.line = line

    def take(self, name: str, chunk: bytes) -> None:
        """Take the next bytes of the sealed bundle.

        Raises:
            CapsuleInvalid: They are not.
        """
        guest = self._guest(name)
        if guest.receiver is None or guest.tenant is not None:
            raise CellUnavailable(_GONE)
        guest.receiver.feed(chunk)

    def open(self, name: str) -> bytes:
        """Open the session.

        Returns:
            Sealed: the place it got, or the error that kept it from one.
        """
        guest = self._guest(name)
        if guest.line is None or guest.opening is None or guest.receiver is None or guest.memory is None:
            raise CellUnavailable(_GONE)
        try:
            tenant = self._opened(name, guest.opening, guest.receiver, guest.memory)
        except ModelOrganismsError as error:
            self._drop(name)
            return guest.line.answer(0, 0, FAILED + print_error(error))
        finally:
            wipe(guest.memory)
            guest.memory = guest.receiver = None
        with self._news:
            guest.tenant, guest.heard = tenant, time.monotonic()
            here = self._guests.get(name) is guest
        if not here:  # it was given up meanwhile
            tenant.kill()
            raise CellUnavailable(_GONE)
        return guest.line.answer(0, 0, GIVEN + print_opened(Opened.of(tenant)))

    def sample(self, name: str, call: int, question: bytes) -> Iterator[bytes]:
        """Draw text.

        Yields:
            Sealed: pieces, or an error instead of the next one.
        """
        guest, tenant, line = self._open(name)
        seconds, draw = self._asked(guest, line, call, question, Draw)
        left = guest.left.setdefault(call, threading.Event())
        number = 0
        try:
            with closing(cast("Any", tenant.sample(draw.messages, draw.parameters, max_seconds=seconds))) as pieces:
                try:
                    for piece in pieces:
                        yield line.answer(call, number, GIVEN + encode(Frame(piece)))
                        number += 1
                        if left.is_set():
                            return
                finally:
                    del guest.left[call]  # while its seat is taken: who leaves it later must not stop the next call
        except ModelOrganismsError as error:
            yield line.answer(call, number, FAILED + print_error(error))

    def probe(self, name: str, call: int, question: bytes) -> bytes:
        """Ask for numbers, or for a direction to be kept.

        Returns:
            Sealed: the numbers, what is told of the direction, or an error.
        """
        guest, tenant, line = self._open(name)
        seconds, body = self._asked(guest, line, call, question, Ask, Direct)
        made: Numbers | Directed
        try:
            if isinstance(body, Direct):
                made = tenant.direct(body.sought, max_seconds=seconds)
            else:
                made = tenant.probe(body.messages, inquiry=body.inquiry, max_seconds=seconds)
        except ModelOrganismsError as error:
            return line.answer(call, 0, FAILED + print_error(error))
        return line.answer(call, 0, GIVEN + encode(Frame(made)))

    def leave(self, name: str, call: int) -> None:
        """Stop a call that nobody waits for any more."""
        guest = self._guests.get(name)
        if guest is not None and (left := guest.left.get(call)) is not None:
            left.set()
            self.cancel(name)

    def cancel(self, name: str) -> None:
        """Stop the call that is running in a session, if one is."""
        guest = self._guests.get(name)
        if guest is not None and guest.tenant is not None:
            guest.tenant.cancel()

    def close(self, name: str) -> None:
        """End a session, and wait until it is gone; harmless if it is."""
        if (tenant := self._drop(name)) is not None:
            tenant.close()

    def kill(self, name: str) -> None:
        """End a session at once; harmless if it is gone."""
        if (tenant := self._drop(name)) is not None:
            tenant.kill()

    def watch(self, seconds: float, names: tuple[str, ...]) -> dict[str, str]:
        """Wait so long for a session that loses its place.

        Args:
            seconds: How long.
            names: Sessions that the registry has here.

        Returns:
            Sessions lost since the last look, and why.
        """
        with self._news:
            self._hear(names)
            self._news.wait_for(lambda: self._lost or self._closed.is_set(), seconds)
            self._hear(names)
            lost, self._lost = self._lost, {}
        return lost

    def end(self, drain_s: float) -> None:
        """End everything."""
        self._closed.set()
        with self._news:
            self._news.notify_all()
        self._pool.close(drain_s)

    def _hear(self, names: tuple[str, ...]) -> None:
        for name in names:
            if (guest := self._guests.get(name)) is not None:
                guest.heard = time.monotonic()

    def _guest(self, name: str) -> _Guest:
        guest = self._guests.get(name)
        if guest is None:
            raise CellUnavailable(_GONE)
        return guest

    def _open(self, name: str) -> tuple[_Guest, Tenant, Line]:
        guest = self._guest(name)
        if guest.tenant is None or guest.line is None:
            raise CellUnavailable(_GONE)
        return guest, guest.tenant, guest.line

    def _asked(self, guest: _Guest, line: Line, call: int, question: bytes, *kinds: type[Any]) -> tuple[float, Any]:
        """Open a question, once: a second time it is somebody's recording."""
        plain = line.asked(call, question)
        with self._news:
            again = call in guest.seen
            guest.seen.add(call)
        body = decode(plain[_SECONDS.size :]).body
        if again or not isinstance(body, kinds):
            raise CellUnavailable("This question was asked before, or is of another kind; ask a new one.")
        (seconds,) = _SECONDS.unpack_from(plain)
        return seconds, body

    def _opened(self, name: str, opening: Opening, receiver: Receiver, memory: mmap.mmap) -> Tenant:
        receiver.finish()
        return self._pool.open(
            opening.permit,
            level=opening.level,
            base=self._base,
            bundle=memoryview(memory)[: opening.size],
            version_digest=opening.version_digest,
            known_answer=opening.known_answer,
            alone=opening.alone,
            died=lambda why: self._ended(name, why),
        )

    def _ended(self, name: str, why: str) -> None:
        with self._news:
            if self._guests.pop(name, None) is not None:
                self._lost[name] = why
                self._news.notify_all()

    def _drop(self, name: str) -> Tenant | None:
        with self._news:
            guest = self._guests.pop(name, None)
        return guest.tenant if guest else None

    def _look_around(self) -> None:
        while not self._closed.wait(_TICK_S):
            now = time.monotonic()
            with self._news:
                late = [
                    name
                    for name, guest in self._guests.items()
                    if (now - guest.heard > self._silence_s if guest.tenant else now > guest.until)
                ]
            for name in late:
                with suppress(ModelOrganismsError):
                    self.kill(name)


def pack_question(seconds: float, body: Draw | Ask | Direct) -> bytes:
    """Print a question of an open session."""
    return _SECONDS.pack(seconds) + encode(Frame(body))
