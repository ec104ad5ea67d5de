"""The first thing a cell does: gives up everything it does not need, before anything third-party is imported.

Runs inside the cell under `python -I -S`: standard library only, and nothing of the SDK, whose package may import more. The order
matters: the user first (it needs capabilities that the rest forbids), the system call filter last (it forbids the rest).
What cannot be given up is not reported here: `walls.py` attacks the result, and only that counts.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import struct
import sys
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Any

from model_organisms.cells import landlock

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 1, 4, 22, 38
CAPABILITIES_V3, CAPABILITY_BYTES = 0x20080522, 24
"""Version and size of what capget(2) and capset(2) take."""
_SECCOMP_MODE_FILTER = 2
_INSTRUCTION = 8
"""Bytes of one classic BPF instruction."""
_STACK, _ADDRESSES = 8 << 20, 1 << 38
"""Bytes of the first thread's stack, and of addresses beside twice the memory."""
FIRST_FREE = 3
"""First descriptor past the standard three."""

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Spec:
    """What the launcher tells the new process, as JSON in its arguments: no secret is in it."""

    socket: int
    """Descriptor of the socket to the registry."""
    filter: int = -1
    """Descriptor from which the inner seccomp program is read; -1 for none."""
    jailed: bool = True
    user: int = 0
    """User and group to become where root started the cell; 0 to stay."""
    paths: tuple[str, ...] = ()
    """Folders of `sys.path` once the walls stand."""
    readable: tuple[str, ...] = ()
    usable: tuple[str, ...] = ()
    """Device nodes."""
    folders: tuple[str, ...] = ()
    """Folders that the cell tries to write to when it attacks its walls."""
    outside: dict[str, int] = field(default_factory=dict)
    """The registry's own namespaces, by kind."""
    forbidden: dict[str, int] = field(default_factory=dict)
    """System calls to try, by name."""
    memory: int = 1 << 34
    """Bytes of private writable memory (RLIMIT_DATA); the filter lets it map no other kind that could be as large.

    What is made read-only after it was written is no longer counted there: its owner weighs it (`weighing.py`).
    """
    tasks: int = 128
    """Threads of the cell's user (RLIMIT_NPROC)."""
    descriptors: int = 256
    device: str = "cpu"
    dtype: str = ""
    rows: int = 1
    """Requests that are answered at once."""
    adapters: int = 1 << 30
    """Bytes of organisms on the device."""
    cache: int = 1 << 30
    """Bytes of keys and values of conversations."""
    model: str = ""
    """Folder of the base model as the cell sees it; empty where it needs none."""

    def print(self) -> str:
        """Write it as JSON."""
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def parse(cls, text: str) -> Spec:
        """Read it again."""
        values: dict[str, Any] = json.loads(text)
        values |= {key: tuple(value) for key, value in values.items() if isinstance(value, list)}
        return cls(**values)


def enter(text: str) -> Spec:
    """Confine this process for good.

    Args:
        text: The launcher's `Spec`, printed.

    Returns:
        It, parsed.
    """
    spec = Spec.parse(text)
    program = _read(spec.filter) if spec.filter >= 0 else b""
    if spec.user:
        os.setgroups([])
        os.setresgid(spec.user, spec.user, spec.user)
        os.setresuid(spec.user, spec.user, spec.user)
    # Becoming another user empties the effective and permitted sets, not the inheritable one.
    _libc.capset(struct.pack("=Ii", CAPABILITIES_V3, 0), bytes(CAPABILITY_BYTES))
    # Giving up the user cleared the first of these and reset the second, so they come after it.
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    undumpable()
    _limit(spec)
    _close_all_but(spec.socket)
    if spec.jailed:
        _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        landlock.restrict(spec.readable, spec.usable)
        _load_filter(program)
    sys.path.extend(spec.paths)
    return spec


def undumpable() -> None:
    """Close this process's memory to others of its user, and keep it out of core dumps.

    Cells call it; so does the registry as it starts, which for moments holds plaintext and always holds keys. A library has no
    business to do this to somebody's notebook: there, `formats/buffers.py` keeps the weights alone out of dumps and swap.
    """
    _libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def limits(spec: Spec) -> dict[int, int]:
    """Give the limit of each resource.

    Addresses cost memory too, which RLIMIT_DATA does not count: a page table for each 2 MiB that is read, and be it of zeros.
    Read-only files and what allocators set aside stay far below their limit. A GPU's driver sets aside more, so there is none.
    """
    addresses = {} if spec.device.startswith("cuda") else {resource.RLIMIT_AS: 2 * spec.memory + _ADDRESSES}
    return addresses | {
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_MEMLOCK: 0,
        resource.RLIMIT_MSGQUEUE: 0,
        resource.RLIMIT_NOFILE: spec.descriptors,
        resource.RLIMIT_NPROC: spec.tasks,
        resource.RLIMIT_DATA: spec.memory,
        resource.RLIMIT_STACK: _STACK,
    }


def _limit(spec: Spec) -> None:
    for kind, value in limits(spec).items():
        if spec.jailed or kind == resource.RLIMIT_CORE:
            with suppress(OSError, ValueError):
                resource.setrlimit(kind, (value, value))


def _read(descriptor: int) -> bytes:
    with os.fdopen(descriptor, "rb") as file:
        return file.read()


def _close_all_but(kept: int) -> None:
    os.closerange(FIRST_FREE, kept)
    os.closerange(kept + 1, 1 << 20)


def _load_filter(program: bytes) -> None:
    if not program:
        return
    instructions = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("@HP", len(program) // _INSTRUCTION, ctypes.addressof(instructions))
    _libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, header, 0, 0)
