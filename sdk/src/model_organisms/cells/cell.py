"""A cell as its owner holds it: a process and a socket, the sessions in it, and how each conversation with them goes or ends.

- One thread listens to each cell and hands every frame to the call it belongs to; many calls run at once.
- A cell that is silent past its deadline, or says what it should not, is killed: that loses its sessions and nothing else.
- A cell ends with its last session. What it had in memory, the leavings of sessions that ended before included, ends with it.
"""

from __future__ import annotations

import json
import os
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

from model_organisms.cells import calls, weighing
from model_organisms.cells.calls import Call
from model_organisms.cells.frames import Cancel, CellInfo, Frame, Load, Ping, Pong, Unload, Unloaded
from model_organisms.cells.seal import sealed_memory
from model_organisms.cells.seats import Seats
from model_organisms.cells.starting import CLOSING_S, EmptyCell
from model_organisms.cells.tenant import Tenant
from model_organisms.cells.walls import REQUIRED
from model_organisms.errors import CellUnavailable, DeadlineExceeded, InvalidArgument, LoadingFailed, ModelOrganismsError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from model_organisms.cells.frames import Body, Sealing

SILENCE_S = 60.0
"""A cell that answers no ping for so long counts as hung; it answers between two steps of its model."""
_TICK_S, _PING_S = 0.25, 5.0
_LAST_S = 0.2
"""A cell whose socket is closed is about to end: how, tells why."""
B = TypeVar("B", bound="Body")


class Cell:
    """A cell with its base model in memory, for one session or for several.

    Args:
        started: The process; it is waited for.
        until: `time.monotonic()` at which to give up waiting.
        most: Sessions that it takes; with 1 it is one session's alone.
        spare: Questions that sessions may have under way beside their first, all together.
        silence_s: Seconds without an answer to a ping after which it counts as hung.
        ended: Called once when its process has ended, however, and told whether it was meant to.

    Raises:
        LoadingFailed: The base model cannot be loaded.
        CellUnavailable: The process died, or took too long.
    """

    def __init__(
        self,
        started: EmptyCell,
        *,
        until: float,
        most: int = 1,
        spare: int = 0,
        silence_s: float = SILENCE_S,
        ended: Callable[[Cell, bool], None] | None = None,
    ) -> None:
        hello = started.greet(until)
        self._engine = started.ready(until).engine
        self.walls: tuple[str, ...] = hello.standing
        self.missing: tuple[str, ...] = tuple(sorted(REQUIRED - set(hello.standing)))
        self.alone = most == 1
        self.seats = Seats(spare)
        self.user = started.user
        self.process, self._channel = started.process, started.channel
        self._memory, self._next_weighing = started.memory, 0.0
        self._most, self._silence_s, self._told = most, silence_s, ended
        self._lock = threading.Lock()
        self._sending = threading.Lock()
        self._calls: dict[int, Call[Any]] = {}
        self._tenants: dict[int, Tenant] = {}
        self._places = self._numbers = self._slots = 0
        self._pinged: tuple[int, float] | None = None
        self._next_ping = time.monotonic() + _PING_S
        self._heard = 0.0
        """What was sent before then the cell has taken in: it answered a ping that was sent after it."""
        self._ending = threading.Event()
        self._over: CellUnavailable | None = None
        self._why = ""
        threading.Thread(target=self._listen, name="cell-listens", daemon=True).start()
        self.process.on_end(self._ended)

    @property
    def alive(self) -> bool:
        """Tell whether it can be asked."""
        return self.process.alive and not self._ending.is_set() and self._over is None

    @property
    def tenants(self) -> tuple[Tenant, ...]:
        """Sessions in it."""
        with self._lock:
            return tuple(self._tenants.values())

    def reserve(self) -> bool:
        """Take a place for a session that is about to load; False if there is none, or the cell is ending."""
        with self._lock:
            if self._places >= self._most or not self.alive:
                return False
            self._places += 1
            return True

    def load(
        self,
        bundle: memoryview | int,
        *,
        version_digest: str,
        known_answer: Mapping[str, object] | None,
        until: float,
        died: Callable[[str], None] | None = None,
        sealing: Sealing | None = None,
    ) -> Tenant:
        """Put a bundle in a place that was reserved, in sealed memory; a bundle that does not go in gives the place back.

        Args:
            bundle: The packed bundle; or the descriptor of sealed memory with the body of a capsule, which the caller closes.
            version_digest: What its manifest must hash to.
            known_answer: What the organism answered when it was published.
            until: `time.monotonic()` at which to give up.
            died: Called once, with the reason, if the cell ends before anybody closes or kills the session.
            sealing: What opens the body of a capsule.

        Raises:
            LoadingFailed: The bundle does not go on this base model, or does not answer as it did when published.
            InvalidArgument: The bundle is not what its digest or its manifest says.
            CellUnavailable: The cell was lost.
        """
        with self._lock:
            self._slots += 1
            slot = self._slots
        try:
            descriptor = os.dup(bundle) if isinstance(bundle, int) else sealed_memory(bundle)
            try:
                load = Load(version_digest, json.dumps(known_answer) if known_answer is not None else "", slot, sealing)
                judge, believed = calls.loaded(self._engine), (LoadingFailed, InvalidArgument)
                call = self.begin(load, CellInfo, judge=judge, believed=believed, descriptor=descriptor)
            finally:
                os.close(descriptor)
            try:
                info = call.take(until)
            except DeadlineExceeded as error:
                self._unload(slot, within_s=self._silence_s)
                raise CellUnavailable("The cell took too long; try again, or raise [cells] start_timeout_s.") from error
            tenant = Tenant(self, slot, info, version_digest=version_digest, died=died)
            with self._lock:
                self._tenants[slot] = tenant
                over = self._over
        except BaseException:
            if self._leave():
                self.kill()
            raise
        if over:
            threading.Thread(target=tenant.lost, args=(self._why,), name="cell-ended", daemon=True).start()
        return tenant

    def begin(
        self,
        request: Body,
        kind: type[B],
        *,
        judge: Callable[[B, bool], bool] = lambda *_: True,
        believed: tuple[type[ModelOrganismsError], ...] | None = (InvalidArgument,),
        words: calls.Words | None = None,
        descriptor: int = -1,
    ) -> Call[B]:
        """Ask something of the cell.

        Args:
            request: What.
            kind: What frames will answer it.
            judge: See `Call`.
            believed: See `Call`.
            words: See `Call`.
            descriptor: To pass along.

        Raises:
            InvalidArgument: The request is too long for a frame.
            CellUnavailable: The cell has ended, or does not read.
        """
        with self._lock:
            if not self.alive:
                raise self._over or CellUnavailable("The cell has ended; open a new session.")
            self._numbers += 1
            call = Call(self._numbers, kind, judge=judge, believed=believed, words=words)
            self._calls[call.number] = call
        try:
            self._send(Frame(request, call.number), descriptor=descriptor, within_s=self._silence_s)
        except InvalidArgument:
            with self._lock:
                self._calls.pop(call.number, None)
            raise
        return call

    def cancel(self, call: Call[B]) -> None:
        """Tell the cell to stop a call; its last frame must come in a moment, whether or not anybody reads it."""
        if call.due is None and not call.over and self.alive:
            call.cancelled = True  # before the cell can know of it, and say so
            with suppress(CellUnavailable):
                self._send(Frame(Cancel(), call.number), within_s=self._silence_s)
                self._expect(call, calls.GRACE_S if self.alone else self._silence_s)

    def leave(self, tenant: Tenant, *, at_once: bool, wait: bool) -> None:
        """Give a session's place up: its organism is wiped, and the cell ends with its last.

        Args:
            tenant: Whose; it has said so itself to whoever waits for it.
            at_once: It is killed, and the cell with it if that has heard of it and the organism is not gone in a moment.
            wait: A moment, until it is gone.
        """
        with self._lock:
            if self._tenants.pop(tenant.slot, None) is None:
                return
        if self._leave():
            self.close() if wait else self.kill()
            return
        gone = self._unload(tenant.slot, within_s=calls.GRACE_S if at_once else self._silence_s)
        if wait and gone is not None:
            with suppress(ModelOrganismsError):
                gone.take(time.monotonic() + calls.GRACE_S)

    def close(self) -> None:
        """End the cell and wait until its process is gone; what runs in it is lost."""
        self._ending.set()
        self._channel.hang_up()
        if not self.process.wait(CLOSING_S):
            self.process.kill()
            self.process.wait(CLOSING_S)

    def kill(self) -> None:
        """End the cell at once."""
        self._ending.set()
        self.process.kill()

    def lose(self, why: str) -> CellUnavailable:
        """End a cell that is not what it should be, and say so to every call; return what they hear."""
        if not self._ending.is_set():
            self._why = self._why or why
        self.process.kill()
        self.process.wait(CLOSING_S)
        return self._fail_all()

    def late(self) -> CellUnavailable:
        """Say that a call's time is over and nothing came; whether the cell hangs or is amid a long step, its pings will tell."""
        return CellUnavailable("The cell did not answer in time; ask again, or open a new session.")

    def _leave(self) -> bool:
        """Give a place back; tell whether that was the last, so that the cell is to end."""
        with self._lock:
            self._places -= 1
            if self._places == 0:
                self._ending.set()  # no session may come in any more
            return self._places == 0

    def _unload(self, slot: int, *, within_s: float) -> Call[Unloaded] | None:
        """Have an organism wiped by the time given, or the cell counts as hung."""
        with suppress(CellUnavailable):  # a cell that is gone holds nothing
            call = self.begin(Unload(slot), Unloaded, believed=None)
            self._expect(call, within_s)
            return call
        return None

    def _expect(self, call: Call[Any], within_s: float) -> None:
        """Have the last frame of a call come in time, once the cell has heard that it must; a ping soon tells whether it has."""
        if call.due is None:
            call.asked = time.monotonic()
            call.due = call.asked + within_s
            self._next_ping = 0.0

    def _send(self, frame: Frame, *, within_s: float, descriptor: int = -1) -> None:
        if not self._sending.acquire(timeout=within_s):
            raise self.lose("it did not read what it was sent")
        try:
            self._channel.send(frame, descriptor=descriptor, within_s=within_s)
        except CellUnavailable:
            raise self.lose("it closed its socket, or did not read what it was sent") from None
        finally:
            self._sending.release()

    def _listen(self) -> None:
        """Be the thread that receives: until the cell ends, or says what it should not."""
        try:
            while True:
                self._look()
                frame = self._next()
                if frame is not None:
                    self._deliver(frame)
        except CellUnavailable as why:
            self.lose(why.message)
        finally:
            self._channel.close()

    def _next(self) -> Frame | None:
        try:
            return self._channel.receive(time.monotonic() + _TICK_S)
        except DeadlineExceeded:
            return None
        except CellUnavailable:
            self.process.wait(_LAST_S)
            raise CellUnavailable("it closed its socket or sent what is no frame") from None

    def _look(self) -> None:
        """Ping and weigh it now and then, and notice what is overdue."""
        now = time.monotonic()
        if self._memory and now >= self._next_weighing:
            self._next_weighing = now + _TICK_S
            if weighing.private(self.process.pid) > self._memory + weighing.SLACK:
                raise CellUnavailable("it took more memory than it may have")
        with self._lock:
            overdue = any(call.due and now > call.due and self._heard > call.asked for call in self._calls.values())
        if overdue or (self._pinged and now - self._pinged[1] > self._silence_s):
            raise CellUnavailable("it did not answer in time")
        if self._pinged is None and now >= self._next_ping and self._sending.acquire(blocking=False):
            try:  # whoever sends something long may be waiting for the cell, which this thread must not
                if self._channel.roomy():
                    with self._lock:
                        self._numbers += 1
                        number = self._numbers
                    self._pinged, self._next_ping = (number, now), now + _PING_S
                    self._channel.send(Frame(Ping(), number), within_s=_TICK_S)
            finally:
                self._sending.release()

    def _deliver(self, frame: Frame) -> None:
        if isinstance(frame.body, Pong):
            if self._pinged is None or frame.call != self._pinged[0]:
                raise CellUnavailable("it answered a call that was not asked")
            self._heard, self._pinged = self._pinged[1], None
            return
        with self._lock:
            call = self._calls.get(frame.call)
        if call is None:
            raise CellUnavailable("it answered a call that was not asked")
        call.put(frame.body)
        if call.over:
            with self._lock:
                self._calls.pop(frame.call, None)

    def _fail_all(self) -> CellUnavailable:
        with self._lock:
            if self._over is None:
                if self._ending.is_set():
                    self._over = CellUnavailable("The cell was closed while it worked; open a new session.")
                else:
                    why = f"{self._why} ({self.process.diagnosis()})" if self._why else self.process.diagnosis()
                    self._over = CellUnavailable(f"The cell has ended and was lost: {why}; open a new session.")
            calls = list(self._calls.values())
            self._calls.clear()
        for call in calls:
            call.fail(self._over)
        return self._over

    def _ended(self) -> None:
        """Tell everybody, each once; the process has been reaped."""
        meant = self._ending.is_set()
        self._fail_all()
        with self._lock:
            left = list(self._tenants.values())
            self._tenants.clear()
        if self._told:
            self._told(self, meant)
        for tenant in left:
            tenant.lost("" if meant else self._why or self.process.diagnosis())
