"""Starts the processes of cells, keeps the end of what they say on stderr, and reaps them; knows nothing of what they do.

- Every process is started by one thread that lives as long as the pool: the kernel sends the parent-death signal of
  `--die-with-parent` when the *thread* that started a process ends.
- A process is signalled by its group's number, and only while it has not been reaped: so never another that got its number.
- The last 4 KiB of stderr stay in memory for diagnosis. They may hold text of a model, so only names of exceptions leave, and
  what bubblewrap itself said.
"""

from __future__ import annotations

import logging
import os
import queue
import re
import selectors
import signal
import subprocess
import threading
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from model_organisms.errors import CellUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_KEPT = 4096
_EXCEPTION = re.compile(rb"^(?:[A-Za-z_]\w*\.)*([A-Z]\w*(?:Error|Exception|Interrupt|Warning|Exit))(?::|$)", re.MULTILINE)
_BUBBLEWRAP = re.compile(rb"^bwrap: ([\x20-\x7e]{1,200})$", re.MULTILINE)
_logger = logging.getLogger(__name__)


@dataclass(eq=False, slots=True)
class Process:
    """A process the warden started."""

    pid: int
    pidfd: int
    _popen: subprocess.Popen[bytes]
    _ended: threading.Event = field(default_factory=threading.Event)
    _tail: bytearray = field(default_factory=bytearray)
    _on_end: list[Callable[[], None]] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def alive(self) -> bool:
        """Tell whether it has not been reaped."""
        return not self._ended.is_set()

    def kill(self) -> None:
        """End it and all that runs in its jail; harmless if it has ended."""
        with self._lock:  # it is reaped under it, so its number is still its own
            if self.pidfd >= 0:
                with suppress(ProcessLookupError):
                    # Its group, because a wrapper that is just starting has a child that does not yet die with it.
                    os.killpg(self.pid, signal.SIGKILL)

    def wait(self, seconds: float) -> bool:
        """Wait for it to be reaped; tell whether it was."""
        return self._ended.wait(seconds)

    def on_end(self, call: Callable[[], None]) -> None:
        """Have `call` run once it has been reaped, in a thread of its own; at once if it has been."""
        with self._lock:
            if self.alive:
                self._on_end.append(call)
                return
        threading.Thread(target=call, name="cell-ended", daemon=True).start()

    @property
    def succeeded(self) -> bool:
        """Tell whether it ended by itself, well."""
        return not self.alive and self._popen.returncode == 0

    @property
    def killed(self) -> bool:
        """Tell whether it was ended from outside: by SIGKILL or SIGTERM, itself or what bubblewrap wraps for us."""
        codes = {code for sign in (signal.SIGKILL, signal.SIGTERM) for code in (-sign, 128 + sign)}
        return not self.alive and self._popen.returncode in codes

    def diagnosis(self) -> str:
        """Say how it ended, in words that cannot hold a model's text."""
        said = bytes(self._tail)
        names = [name.decode("ascii", "replace") for name in _EXCEPTION.findall(said)]
        wrapper = self.wrapper_said()
        code = self._popen.returncode
        ended = "still runs" if code is None else f"signal {-code}" if code < 0 else f"exit {code}"
        return ", ".join(part for part in (ended, names[-1] if names else "", wrapper) if part)

    def wrapper_said(self) -> str:
        """Return what bubblewrap complained of, if it did."""
        found = _BUBBLEWRAP.findall(bytes(self._tail))
        return f"bwrap: {found[0].decode('ascii')}" if found else ""

    def _listen(self) -> bool:
        """Read all that stderr holds; tell whether more may come."""
        if self._popen.stderr is None or self._popen.stderr.closed:
            return False
        try:
            while data := os.read(self._popen.stderr.fileno(), _KEPT):
                self._tail += data
                del self._tail[:-_KEPT]
        except BlockingIOError:
            return True
        return False

    def _reap(self) -> None:
        self._listen()  # before anybody who waits for the end asks how it came
        with self._lock:
            self._popen.wait()
            os.close(self.pidfd)
            self.pidfd = -1
            self._ended.set()
            calls, self._on_end = self._on_end, []
        for call in calls:
            threading.Thread(target=call, name="cell-ended", daemon=True).start()


@dataclass(frozen=True, slots=True)
class _Order:
    command: Sequence[str]
    environment: Mapping[str, str]
    descriptors: Sequence[int]
    answer: Future[Process]


class Warden:
    """The thread that starts and reaps."""

    def __init__(self) -> None:
        self._orders: queue.SimpleQueue[_Order | None] = queue.SimpleQueue()
        self._bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._bell, selectors.EVENT_READ)
        self._closing = threading.Lock()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="cell-warden", daemon=True)
        self._thread.start()

    def start(
        self,
        command: Sequence[str],
        *,
        environment: Mapping[str, str] | None = None,
        descriptors: Sequence[int] = (),
    ) -> Process:
        """Start a process with nothing of ours but these descriptors.

        Raises:
            CellUnavailable: The program cannot be started, or the warden is closed.
        """
        order = _Order(command, environment or {}, descriptors, Future())
        with self._closing:
            if self._closed:
                raise CellUnavailable("The registry is shutting down; try again later.")
            self._orders.put(order)
            os.eventfd_write(self._bell, 1)
        return order.answer.result()

    def close(self) -> None:
        """End every process that is left, then the thread; harmless the second time."""
        with self._closing:
            if not self._closed:
                self._closed = True
                self._orders.put(None)
                os.eventfd_write(self._bell, 1)
        self._thread.join()

    def _run(self) -> None:
        going = True
        while going or len(self._selector.get_map()) > 1:
            for key, _ in self._selector.select():
                if key.fd == self._bell:
                    going = self._take_orders() and going
                elif isinstance(key.data, Process) and key.fd == key.data.pidfd:
                    self._selector.unregister(key.fd)
                    key.data._reap()  # noqa: SLF001 - the two classes are one
                    self._hear_no_more(key.data)  # whoever still holds the pipe keeps nobody here
                elif not key.data._listen():  # noqa: SLF001 - the two classes are one
                    self._hear_no_more(key.data)
        self._selector.close()
        os.close(self._bell)

    def _hear_no_more(self, process: Process) -> None:
        pipe = process._popen.stderr  # noqa: SLF001 - the two classes are one
        if pipe is not None and not pipe.closed:
            self._selector.unregister(pipe)
            pipe.close()

    def _take_orders(self) -> bool:
        with suppress(BlockingIOError):
            os.eventfd_read(self._bell)
        with suppress(queue.Empty):
            while order := self._orders.get_nowait():
                self._spawn(order)
            for key in list(self._selector.get_map().values()):
                if isinstance(key.data, Process):
                    key.data.kill()
            return False
        return True

    def _spawn(self, order: _Order) -> None:
        try:
            popen = subprocess.Popen(
                order.command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                env=dict(order.environment),
                cwd="/",
                pass_fds=order.descriptors,
                process_group=0,  # an interrupt typed at the registry's terminal is the registry's to handle
            )
        except OSError as error:
            order.answer.set_exception(CellUnavailable(f"No cell could be started: {error.strerror}."))
            return
        process = Process(popen.pid, os.pidfd_open(popen.pid), popen)
        if popen.stderr:
            os.set_blocking(popen.stderr.fileno(), False)
            self._selector.register(popen.stderr, selectors.EVENT_READ, process)
        self._selector.register(process.pidfd, selectors.EVENT_READ, process)
        order.answer.set_result(process)
