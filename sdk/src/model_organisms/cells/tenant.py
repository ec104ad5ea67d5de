"""One session's place in a cell: its organism, its calls, and its end. Of who else is in the cell it knows nothing.

- Several calls run at once where its cell has seats for them (`seats.py`); who finds none waits.
- Once it is closed or killed nothing more is handed out, whatever the cell says; it has a moment to wipe the organism.
"""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from model_organisms.cells import calls
from model_organisms.cells.frames import CANCELLED, Ask, Direct, Directed, Draw, Numbers, Piece
from model_organisms.errors import CellUnavailable, DeadlineExceeded
from model_organisms.records import Inquiry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from model_organisms.cells.calls import Call
    from model_organisms.cells.cell import Cell
    from model_organisms.cells.frames import Body, CellInfo
    from model_organisms.records import Message, NewDirection, SamplingParameters

B = TypeVar("B", bound="Body")


class Tenant:
    """A session's place; `Cell.load` makes one.

    Args:
        cell: The process.
        slot: Number of the organism there.
        info: What was loaded.
        version_digest: Digest of the bundle.
        died: Called once, with the reason, if the cell ends before anybody closes or kills this.
    """

    def __init__(
        self, cell: Cell, slot: int, info: CellInfo, *, version_digest: str, died: Callable[[str], None] | None = None
    ) -> None:
        self.cell = cell
        self.slot = slot
        self.walls, self.missing = cell.walls, cell.missing
        self.jailed = not cell.missing
        self.alone = cell.alone
        self.info = info
        self.version_digest = version_digest
        self._died = died
        self._running: set[Call[Any]] = set()
        self._words = calls.Words()
        self._left = threading.Event()
        self._told = False
        self._ending = threading.Lock()

    @property
    def alive(self) -> bool:
        """Tell whether it can be asked."""
        return not self._left.is_set() and self.cell.alive

    def sample(self, messages: Sequence[Message], parameters: SamplingParameters, *, max_seconds: float) -> Iterator[Piece]:
        """Draw text.

        Args:
            messages: The conversation.
            parameters: With the seed that the registry chose.
            max_seconds: After so long the call is told to stop; the last piece then says `deadline`.

        Yields:
            Pieces in order; the last one has a finish reason. Leaving early stops the work.

        Raises:
            CellUnavailable: The cell was lost, or this place in it given up; or the answer was not read while it came.
            InvalidArgument: The conversation does not fit the model.
        """
        draw = Draw(tuple(messages), parameters, self.slot)
        with self._call(draw, Piece, calls.drawn(draw, self._left.is_set), max_seconds) as (call, until):
            late = 0.0
            while True:
                if not late and time.monotonic() >= until:
                    late = time.monotonic() + calls.GRACE_S
                    self.cell.cancel(call)
                try:
                    piece = call.take(late or until)
                except DeadlineExceeded:
                    if late:
                        raise self.cell.late() from None
                    continue
                yield replace(piece, finish_reason="deadline") if late and piece.finish_reason == CANCELLED else piece
                if piece.finish_reason:
                    return

    def probe(self, messages: Sequence[Message], *, inquiry: Inquiry | None = None, max_seconds: float = 60.0) -> Numbers:
        """Ask for numbers, unrounded: what leaves is for the workflow to round and count.

        Raises:
            CellUnavailable: The cell was lost, or this place in it given up.
            InvalidArgument: The conversation does not fit the model, or the inquiry names what is not there.
        """
        ask = Ask(tuple(messages), inquiry or Inquiry(), self.slot)
        return self._once(ask, Numbers, calls.asked(ask), max_seconds)

    def direct(self, sought: NewDirection, *, max_seconds: float = 60.0) -> Directed:
        """Have a direction kept in the cell, for this session alone; it goes with the session.

        Raises:
            CellUnavailable: The cell was lost, or this place in it given up.
            InvalidArgument: It is none, or names what is not there.
        """
        direct = Direct(sought, self.slot)
        return self._once(direct, Directed, calls.directed(direct), max_seconds)

    def cancel(self) -> None:
        """Stop all calls that are running, from any thread; each ends with a last piece. Harmless if none is."""
        for call in self._under_way():
            self.cell.cancel(call)

    def close(self, *, wait: bool = True) -> None:
        """Give the place up; a call that is running loses it.

        Args:
            wait: Until the organism is out of the cell's memory; otherwise it goes when the cell's step is over.
        """
        self._leave(at_once=False, wait=wait)

    def kill(self) -> None:
        """Give the place up at once."""
        self._leave(at_once=True, wait=False)

    def drain(self, seconds: float) -> None:
        """Wait so long for the calls that are running, then close."""
        self.cell.seats.quiet(self.slot, seconds)
        self.close()

    def lost(self, why: str) -> None:
        """Note that the cell is gone, and tell who asked to be told, unless this place was given up before."""
        with self._ending:
            told = self._told or self._left.is_set()
            self._told = True
        if not told and why and self._died:
            self._died(why)

    def _once(self, request: Ask | Direct, kind: type[B], judge: Callable[[B, bool], bool], max_seconds: float) -> B:
        with self._call(request, kind, judge, max_seconds) as (call, until):
            try:
                return call.take(until + calls.GRACE_S)
            except DeadlineExceeded:
                raise self.cell.late() from None

    def _leave(self, *, at_once: bool, wait: bool) -> None:
        with self._ending:
            self._left.set()
        for call in self._under_way():
            call.silence(CellUnavailable("The cell was closed while it worked; open a new session."))
        self.cell.leave(self, at_once=at_once, wait=wait)

    def _under_way(self) -> list[Call[Any]]:
        with self._ending:
            return list(self._running)

    @contextmanager
    def _call(
        self, request: Draw | Ask | Direct, kind: type[B], judge: Callable[[B, bool], bool], max_seconds: float
    ) -> Iterator[tuple[Call[B], float]]:
        until = time.monotonic() + max_seconds
        if not self.cell.seats.take(self.slot, max_seconds):
            raise CellUnavailable("The cell is still busy with earlier calls; wait for them, or cancel them.")
        try:
            if self._left.is_set():
                raise CellUnavailable("The session's place in its cell has ended; open a new session.")
            call = self.cell.begin(request, kind, judge=judge, words=self._words)
            with self._ending:
                self._running.add(call)
            try:
                if self._left.is_set():  # closed while it was being sent
                    raise CellUnavailable("The cell was closed while it worked; open a new session.")
                yield call, until
            finally:
                with self._ending:
                    self._running.discard(call)
                self.cell.cancel(call)
        finally:
            self.cell.seats.give(self.slot)
