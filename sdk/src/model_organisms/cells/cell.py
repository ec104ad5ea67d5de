"""A cell as the registry holds it: a process and a socket, and how each conversation with them goes or ends.

- One call runs at a time; a second waits for it.
- A cell that is silent past its deadline, or says what it should not, is killed: that loses its session and nothing else.
- What a cell says is not believed: frames of another call, more tokens than were asked for, or reasons that are none end it.
"""

from __future__ import annotations

import json
import os
import re
import socket
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NoReturn, TypeVar

from model_organisms.cells.channel import Channel
from model_organisms.cells.frames import (
    CANCELLED,
    Ask,
    Cancel,
    CellInfo,
    Draw,
    Failed,
    Frame,
    Hello,
    Load,
    Numbers,
    Piece,
    Ready,
)
from model_organisms.cells.seal import sealed_memory
from model_organisms.cells.walls import REQUIRED
from model_organisms.errors import (
    BY_REASON,
    CellUnavailable,
    DeadlineExceeded,
    InvalidArgument,
    LoadingFailed,
    ModelOrganismsError,
    Unavailable,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from model_organisms.cells.frames import Body
    from model_organisms.cells.launcher import Plan
    from model_organisms.cells.warden import Process, Warden
    from model_organisms.records import Message, SamplingParameters

GRACE_S = 3.0
"""A cell that was told to stop has so long to say its last piece."""
CLOSING_S = 2.0
"""A cell whose socket was closed has so long to end by itself."""
_LAST_S = 0.2
"""A cell whose socket is closed is about to end: how, tells why."""
_REASON = re.compile(r"[a-z][a-z_]{0,30}")
_EXCEPTION = re.compile(r"[A-Za-z_]{1,60}")
_MOST_WORDS = 300
B = TypeVar("B", bound="Body")


class EmptyCell:
    """A started process without a bundle: jailed, perhaps with its base model in memory, and nobody's."""

    def __init__(self, warden: Warden, plan: Plan) -> None:
        """Start it; it says hello later."""
        self.user = plan.spec.user
        self.jailed = plan.spec.jailed
        filters = plan.filters
        ours, theirs = socket.socketpair()
        opened: list[int] = []
        try:
            opened.extend(sealed_memory(program) for program in ((filters.outer, filters.inner) if filters else ()))
            outer, inner = opened or (-1, -1)
            command = plan.command(theirs.fileno(), outer=outer, inner=inner)
            passed = [theirs.fileno(), *opened]
            self.process = warden.start(command, environment=dict(plan.environment), descriptors=passed)
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
            for descriptor in opened:
                os.close(descriptor)
        self.channel = Channel(ours)
        self._hello: Hello | None = None
        self._ready: Ready | None = None

    def greet(self, until: float) -> Hello:
        """Wait for what the cell found when it attacked its walls.

        Raises:
            CellUnavailable: It died, said something else, or nothing in time.
        """
        if self._hello is None:
            self._hello = self._expect(Hello, until)
        return self._hello

    def load(
        self, bundle: memoryview, *, version_digest: str, known_answer: Mapping[str, object] | None, until: float
    ) -> CellInfo:
        """Give the cell its bundle, in sealed memory.

        Raises:
            LoadingFailed: The bundle does not go on this base model, or does not answer as it did when published.
            InvalidArgument: The bundle is not what its digest or its manifest says.
            CellUnavailable: The cell was lost.
        """
        self.greet(until)
        if self._ready is None:
            self._ready = self._expect(Ready, until)
        descriptor = sealed_memory(bundle)
        try:
            answer = json.dumps(known_answer) if known_answer is not None else ""
            self.channel.send(Frame(Load(version_digest, answer)), descriptor=descriptor)
        finally:
            os.close(descriptor)
        return self._expect(CellInfo, until)

    def discard(self) -> None:
        """End it."""
        self.process.kill()
        self.process.wait(CLOSING_S)
        self.channel.close()

    def _expect(self, kind: type[B], until: float) -> B:
        try:
            body = self.channel.receive(until).body
        except DeadlineExceeded as error:
            raise CellUnavailable("The cell took too long to start; try again, or raise [cells] start_timeout_s.") from error
        except CellUnavailable as error:
            self.process.wait(CLOSING_S)
            msg = f"The cell ended while it started ({self.process.diagnosis()}); try again."
            raise CellUnavailable(msg) from error
        if isinstance(body, Failed):
            raise _failure(body, LoadingFailed, InvalidArgument)
        if not isinstance(body, kind):
            raise CellUnavailable("The cell said something out of turn while it started; try again.")
        return body


@dataclass(slots=True)
class _Call:
    """The call that is running."""

    number: int
    until: float
    late: bool = False
    """It was told to stop because its time was over."""
    done: bool = False


class Cell:
    """A loaded cell: one session's."""

    def __init__(
        self,
        started: EmptyCell,
        info: CellInfo,
        *,
        version_digest: str,
        died: Callable[[str], None] | None = None,
        released: Callable[[Cell], None] | None = None,
    ) -> None:
        """Take a started process over; `CellPool.open` does.

        Args:
            started: The process, with its bundle loaded.
            info: What it loaded.
            version_digest: Digest of the bundle.
            died: Called once, with the reason, if the cell ends before anybody closes or kills it.
            released: Called once when its process has ended, however.
        """
        hello = started.greet(0.0)
        self.walls: tuple[str, ...] = hello.standing
        self.missing: tuple[str, ...] = tuple(sorted(REQUIRED - set(hello.standing)))
        self.jailed = not self.missing
        self.alone = True
        self.info = info
        self.version_digest = version_digest
        self.user = started.user
        self._process: Process = started.process
        self._channel: Channel = started.channel
        self._calls = 0
        self._running = 0
        self._turn = threading.Lock()
        self._sending = threading.Lock()
        self._ending = threading.Event()
        self._why = ""
        self._died, self._released = died, released
        self._process.on_end(self._ended)

    @property
    def alive(self) -> bool:
        """Tell whether it can be asked."""
        return self._process.alive and not self._ending.is_set()

    def sample(self, messages: Sequence[Message], parameters: SamplingParameters, *, max_seconds: float) -> Iterator[Piece]:
        """Draw text.

        Args:
            messages: The conversation.
            parameters: With the seed that the registry chose.
            max_seconds: After so long the cell is told to stop; the last piece then says `deadline`.

        Yields:
            Pieces in order; the last one has a finish reason. Leaving early stops the cell's work.

        Raises:
            CellUnavailable: The cell was lost.
            InvalidArgument: The conversation does not fit the model.
        """
        with self._call(Draw(tuple(messages), parameters), max_seconds) as call:
            drawn = 0
            while not call.done:
                piece = self._answer(Piece, call)
                drawn += piece.tokens
                if drawn > parameters.max_tokens or not _REASON.fullmatch(piece.finish_reason or "none"):
                    self._lose("it gave what was not asked for")
                call.done = bool(piece.finish_reason)
                yield replace(piece, finish_reason="deadline") if call.late and piece.finish_reason == CANCELLED else piece

    def probe(self, messages: Sequence[Message], *, positions: int = 1, max_seconds: float = 60.0) -> Numbers:
        """Ask for numbers of the next-token distribution, unrounded: what leaves is for the workflow to round and count.

        Raises:
            CellUnavailable: The cell was lost.
            InvalidArgument: The conversation does not fit the model.
        """
        with self._call(Ask(tuple(messages), positions), max_seconds) as call:
            numbers = self._answer(Numbers, call)
            if len(numbers.positions) > positions:
                self._lose("it gave what was not asked for")
            call.done = True
            return numbers

    def cancel(self) -> None:
        """Stop the call that is running, from any thread; it ends with a last piece. Harmless if none is."""
        if self._running:
            with suppress(CellUnavailable):
                self._send(Frame(Cancel(), self._running))

    def close(self) -> None:
        """End the cell and wait until its process is gone; a call that is running loses it."""
        self._ending.set()
        self._channel.hang_up()
        if not self._process.wait(CLOSING_S):
            self._process.kill()
            self._process.wait(CLOSING_S)

    def kill(self) -> None:
        """End the cell at once."""
        self._ending.set()
        self._process.kill()

    def drain(self, seconds: float) -> None:
        """Wait so long for the call that is running, then close."""
        if self._turn.acquire(timeout=max(0.0, seconds)):
            self._turn.release()
        self.close()

    @contextmanager
    def _call(self, request: Draw | Ask, max_seconds: float) -> Iterator[_Call]:
        until = time.monotonic() + max_seconds
        if not self._turn.acquire(timeout=max(0.0, max_seconds)):
            raise CellUnavailable("The cell is still busy with an earlier call; wait for it, or cancel it.")
        try:
            if not self.alive:
                raise CellUnavailable(f"The cell has ended{self._why and f' ({self._why})'}; open a new session.")
            self._calls += 1
            self._running = self._calls
            call = _Call(self._calls, until)
            self._send(Frame(request, call.number))
            try:
                yield call
            finally:
                if not call.done:
                    self._abandon(call)
        finally:
            self._running = 0
            if not self._process.alive:
                self._channel.close()
            self._turn.release()

    def _send(self, frame: Frame) -> None:
        with self._sending:
            self._channel.send(frame, within_s=GRACE_S)

    def _answer(self, kind: type[B], call: _Call) -> B:
        while True:
            if not call.late and time.monotonic() >= call.until:
                call.late, call.until = True, time.monotonic() + GRACE_S
                self.cancel()
            try:
                frame = self._channel.receive(call.until)
            except DeadlineExceeded:
                if call.late:
                    self._lose("it did not answer in time")
                continue
            except CellUnavailable:
                self._process.wait(_LAST_S)
                self._lose("it closed its socket or sent what is no frame")
            if frame.call != call.number:
                self._lose("it answered a call that was not asked")
            if isinstance(frame.body, Failed):
                call.done = True
                raise _failure(frame.body, InvalidArgument)
            if isinstance(frame.body, kind):
                return frame.body
            self._lose("it answered with something else")

    def _abandon(self, call: _Call) -> None:
        """Bring a call that nobody waits for any more to its end, so that the next one starts clean."""
        with suppress(ModelOrganismsError):
            call.late, call.until = True, time.monotonic() + GRACE_S
            self.cancel()
            while self.alive and not call.done:
                call.done = bool(self._answer(Piece, call).finish_reason)

    def _lose(self, why: str) -> NoReturn:
        if self._ending.is_set():
            raise CellUnavailable("The cell was closed while it worked; open a new session.")
        self._why = why
        self._process.kill()
        self._process.wait(CLOSING_S)
        raise CellUnavailable(f"The cell was lost: {why} ({self._process.diagnosis()}); open a new session.")

    def _ended(self) -> None:
        if self._turn.acquire(blocking=False):  # else the call that is running closes the channel when it ends
            self._channel.close()
            self._turn.release()
        if self._released:
            self._released(self)
        if self._died and not self._ending.is_set():
            self._died(self._why or self._process.diagnosis())


def _failure(failed: Failed, *believed: type[ModelOrganismsError]) -> ModelOrganismsError:
    """Turn a cell's failure into an error, if a cell may say that one; its words are cut and cleaned."""
    words = "".join(character for character in failed.message[:_MOST_WORDS] if character.isprintable())
    kind = BY_REASON.get(failed.reason)
    if kind is Unavailable or (kind is not None and issubclass(kind, believed)):
        return kind(words)
    shown = failed.reason if _EXCEPTION.fullmatch(failed.reason) else "unknown reason"
    return CellUnavailable(f"The cell could not do it ({shown}); open a new session.")
