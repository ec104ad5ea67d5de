"""Each wall of the cell, attacked from inside with the real system calls; what holds is reported, what does not is named.

Runs in the cell after `confine.py` and before anything that was sent to it: standard library only. Nothing here can be persuaded
by a setting: a wall stands if the attack on it fails. The one figure taken on trust is the registry's own namespaces, to compare
with ours.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import resource
import socket
import struct
from contextlib import suppress
from typing import TYPE_CHECKING

from model_organisms.cells import confine

if TYPE_CHECKING:
    from collections.abc import Callable

    from model_organisms.cells.confine import Spec

OWN_USER = "own-user"
"""The one wall that needs root to build: the cell runs as a user that no other process has."""

SECRETS = ("/etc/shadow", "/etc/passwd", "/etc/hostname", "/proc/1/environ", "/proc/1/mem", "/proc/kcore", "/proc/kmsg")
PLACES = ("/", "/root", "/home", "/etc", "/var", "/sys", "/run", "/boot", "/mnt", "/proc", "/proc/1/root")
_FAR = ("192.0.2.1", 443)
"""An address of TEST-NET-1 (RFC 5737)."""
_NEAR = ("127.0.0.1", 22)
_PTRACE_SEIZE = 0x4206
_PR_GET_DUMPABLE, _PR_SET_DUMPABLE, _PR_GET_NO_NEW_PRIVS = 3, 4, 39
_MAP_NORESERVE = 0x4000
_ODD = {"shared": mmap.MAP_SHARED, "stack": mmap.MAP_PRIVATE | 0x0100}
"""Kinds of anonymous memory that RLIMIT_DATA does not count; the second is MAP_GROWSDOWN."""
_REFUSALS = (errno.EPERM, errno.ENOSYS)

_libc = ctypes.CDLL(None, use_errno=True)


def attack(spec: Spec) -> tuple[tuple[str, ...], dict[str, str]]:
    """Attack every wall.

    Args:
        spec: What the launcher said; names the calls and folders to try.

    Returns:
        Walls that stand, and for each that does not, what got through.
    """
    if not spec.jailed:
        return (), dict.fromkeys(REQUIRED, "the cell was started without a jail")
    found = {name: strike(spec) for name, strike in ATTACKS.items()}
    standing = [name for name, breach in found.items() if not breach]
    if spec.user and os.getresuid() == (spec.user,) * 3 and not os.getgroups():
        standing.append(OWN_USER)
    return tuple(standing), {name: breach for name, breach in found.items() if breach}


def _namespaces(spec: Spec) -> str:
    shared = []
    for kind, inode in spec.outside.items():
        try:
            ours = os.readlink(f"/proc/self/ns/{kind}")  # noqa: PTH115 - as few layers as possible
        except OSError as error:
            return f"the {kind} namespace cannot be read: {error.strerror}"
        if ours == f"{kind}:[{inode}]":
            shared.append(kind)
    if not spec.outside or shared:
        return f"shared with the registry: {', '.join(shared) or 'unknown'}"
    return ""


def _network(_: Spec) -> str:
    for family in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX, socket.AF_NETLINK, socket.AF_PACKET):
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW):
            try:
                opened = socket.socket(family, kind)
            except OSError as error:
                if error.errno in _REFUSALS:
                    continue
                return f"a socket of family {family} was refused only as {error.strerror}"
            with opened:
                reached = [address for address in (_NEAR, _FAR) if family == socket.AF_INET and _connects(opened, address)]
            return f"a socket of family {family} was opened, and reached {reached or 'nothing'}"
    return ""


def _connects(opened: socket.socket, address: tuple[str, int]) -> bool:
    opened.settimeout(0.2)
    try:
        opened.connect(address)
    except OSError as error:
        return error.errno == errno.ECONNREFUSED  # somebody is there to refuse
    return True


def _files(_: Spec) -> str:
    for path in SECRETS:
        with suppress(OSError):
            os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK))
            return f"{path} was opened"
    for path in PLACES:
        with suppress(OSError):
            os.listdir(path)  # noqa: PTH208 - the system call is the point
            return f"{path} was listed"
    return ""


def _writes(spec: Spec) -> str:
    for folder in ("/", "/tmp", "/dev", "/dev/shm", "/proc", "/var/tmp", *spec.folders):  # noqa: S108 - not used, attacked
        path = os.path.join(folder, ".cell")  # noqa: PTH118 - as few layers as possible
        with suppress(OSError):
            os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))
            with suppress(OSError):
                os.unlink(path)  # noqa: PTH108 - as few layers as possible
            return f"a file was made in {folder}"
        with suppress(OSError):
            os.mkdir(path)  # noqa: PTH102 - as few layers as possible
            return f"a folder was made in {folder}"
    return ""


def _read_only(spec: Spec) -> str:
    for folder in ("/", *spec.folders):
        try:
            if not os.statvfs(folder).f_flag & os.ST_RDONLY:
                return f"{folder} is mounted writable"
        except FileNotFoundError:
            continue
        except OSError as error:
            return f"the mount of {folder} cannot be read: {error.strerror}"
    return ""


def _landlock(_: Spec) -> str:
    # bubblewrap leaves the root folder readable: that it cannot be listed is Landlock's doing alone.
    try:
        os.listdir("/")  # noqa: PTH208 - the system call is the point
    except PermissionError:
        return ""
    except OSError as error:
        return f"/ was refused only as {error.strerror}"
    return "/ was listed"


def _processes(_: Spec) -> str:
    for pid in (1, os.getppid()):
        try:
            os.kill(pid, 0)
        except OSError as error:
            if error.errno in _REFUSALS:
                continue
        return f"process {pid} can be signalled"
    return ""


def _ptrace(_: Spec) -> str:
    target = os.getppid()
    if _libc.ptrace(_PTRACE_SEIZE, target, None, None) == 0:
        return f"process {target} was traced"
    there = ctypes.create_string_buffer(8)
    vector = struct.pack("@PN", ctypes.addressof(there), 8)
    ctypes.set_errno(0)  # a call that succeeds leaves the refusal of the one before it
    if _libc.process_vm_readv(target, vector, 1, vector, 1, 0) != -1:
        return f"memory of process {target} was read"
    if ctypes.get_errno() not in _REFUSALS:
        return f"memory of process {target} was refused only as {os.strerror(ctypes.get_errno())}"
    return ""


def _seccomp(spec: Spec) -> str:
    nowhere = ctypes.c_long(-1)  # a bad address, descriptor and flag: most calls fail on it, and the refusal tells where
    for name, number in spec.forbidden.items():
        ctypes.set_errno(0)  # as above
        if _libc.syscall(ctypes.c_long(number), *[nowhere] * 6) != -1:
            return f"{name} was let through"
        if ctypes.get_errno() not in _REFUSALS:
            return f"{name} was refused only as {os.strerror(ctypes.get_errno())}"
    return "" if spec.forbidden else "no system call was tried"


def _exec(_: Spec) -> str:
    try:
        os.execv("/nonexistent", ["/nonexistent"])  # noqa: S606 - it does not exist
    except OSError as error:
        return "" if error.errno in _REFUSALS else f"execve was refused only as {error.strerror}"


def _forks(_: Spec) -> str:
    try:
        child = os.fork()
    except OSError as error:
        return "" if error.errno in _REFUSALS else f"fork was refused only as {error.strerror}"
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    return "a process was made"


def _privileges(_: Spec) -> str:
    if 0 in os.getresuid():
        return "the cell runs as root"
    header, data = struct.pack("=Ii", confine.CAPABILITIES_V3, 0), ctypes.create_string_buffer(confine.CAPABILITY_BYTES)
    if _libc.capget(header, data) != 0 or any(data.raw):
        return "the cell has capabilities"
    if _libc.prctl(_PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) != 1:
        return "the cell may gain privileges"
    with suppress(OSError):
        os.setresuid(0, 0, 0)
        return "the cell became root"
    return ""


def _memory(_: Spec) -> str:
    if _libc.prctl(_PR_GET_DUMPABLE, 0, 0, 0, 0) != 0:
        return "the process can be dumped"
    if _libc.prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0) == 0:
        return "the process can make itself dumpable"
    return "" if resource.getrlimit(resource.RLIMIT_CORE) == (0, 0) else "core dumps are on"


def _limits(spec: Spec) -> str:
    if breach := _uncounted(spec):
        return breach
    for kind, value in confine.limits(spec).items():
        if resource.getrlimit(kind) != (value, value):
            return f"resource {kind} is not limited to {value}"
        with suppress(OSError, ValueError):
            resource.setrlimit(kind, (value + 1, value + 1))
            return f"the limit of resource {kind} was raised"
    return ""


def _uncounted(spec: Spec) -> str:
    # Unreserved, so that it is the cell's own limit that refuses, not a machine that has less; nothing is touched.
    with suppress(OSError):
        mmap.mmap(-1, spec.memory + mmap.PAGESIZE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE).close()
        return "more private memory than the limit was mapped"
    for kind, flags in _ODD.items():  # one page of what no limit counts is as good as all
        try:
            mmap.mmap(-1, mmap.PAGESIZE, flags | mmap.MAP_ANONYMOUS).close()
        except OSError as error:
            if error.errno in _REFUSALS:
                continue
            return f"{kind} anonymous memory was refused only as {error.strerror}"
        return f"{kind} anonymous memory was mapped, which no limit counts"
    return ""


def _descriptors(spec: Spec) -> str:
    for number in range(confine.FIRST_FREE, spec.descriptors):
        if number != spec.socket:
            with suppress(OSError):
                os.fstat(number)
                return f"descriptor {number} was inherited"
    return ""


ATTACKS: dict[str, Callable[[Spec], str]] = {
    "namespaces": _namespaces,
    "network": _network,
    "files": _files,
    "writes": _writes,
    "read-only": _read_only,
    "landlock": _landlock,
    "processes": _processes,
    "ptrace": _ptrace,
    "seccomp": _seccomp,
    "exec": _exec,
    "forks": _forks,
    "privileges": _privileges,
    "memory": _memory,
    "limits": _limits,
    "descriptors": _descriptors,
}
"""Wall to attack; each returns nothing, or what got through."""

REQUIRED = frozenset(ATTACKS)
"""Walls without which nothing above CL1 is served."""
