"""strace, attached to a process that is ready and waits: system calls are counted from there, or made to fail."""

from __future__ import annotations

import ctypes
import re
import subprocess
import time
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

CALLS = ("openat", "write", "pwrite64", "ftruncate", "fsync", "fdatasync", "mkdir", "mkdirat", "link", "linkat", "rename",
         "renameat", "renameat2", "unlink", "unlinkat")  # fmt: skip
"""What the write paths of ledger and blobs ask of the kernel; which of them a story makes, its own trace shows."""

_LINE = re.compile(r"^(\d+) +(\w+)\(")
_PR_SET_PTRACER, _ANY = 0x59616D61, ctypes.c_ulong(-1)


def allow() -> None:
    """Let this process be attached to where only parents may (Yama); elsewhere the call is refused, and not needed."""
    ctypes.CDLL(None).prctl(_PR_SET_PTRACER, _ANY, 0, 0, 0)


@contextmanager
def attached(pid: int, log: Path, *options: str) -> Iterator[None]:
    """Trace a process and its threads while the block runs; if the process ends, so does strace."""
    command = ["strace", "-f", "-o", str(log), "-p", str(pid), *options]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as tracer:
        try:
            _await_tracer(pid, tracer)
            yield
        finally:
            tracer.terminate()  # it detaches; what it traced goes on
            try:
                tracer.wait(timeout=5)
            except subprocess.TimeoutExpired:  # of a process killed with many threads, it may wait for one that is gone
                tracer.kill()


def counted(log: Path) -> dict[str, int]:
    """How often each system call was made by the thread that made it most: strace counts by thread."""
    counts = Counter(found.groups() for line in log.read_text().splitlines() if (found := _LINE.match(line)))
    most: dict[str, int] = {}
    for (_, call), times in counts.items():
        most[call] = max(times, most.get(call, 0))
    return most


def _await_tracer(pid: int, tracer: subprocess.Popen[str]) -> None:
    until = time.monotonic() + 20
    while not all(_traced(task) for task in Path(f"/proc/{pid}/task").iterdir()):
        if tracer.poll() is not None or time.monotonic() > until:
            said = tracer.stderr.read() if tracer.stderr and tracer.poll() is not None else "it does not attach"
            raise AssertionError(f"strace cannot trace here: {said}")
        time.sleep(0.002)


def _traced(task: Path) -> bool:
    return "TracerPid:\t0" not in (task / "status").read_text()
