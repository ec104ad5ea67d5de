"""Landlock: from here on this process may read some paths, and do nothing else to files, TCP or outside processes.

Runs inside the cell, before anything third-party is imported: standard library only, the SDK included. Numbers are those of
`include/uapi/linux/landlock.h`, and the three system calls have the same numbers on every architecture.
"""

from __future__ import annotations

import ctypes
import os
import stat
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_RULE_PATH_BENEATH = 1
_VERSION = 1

_WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 1, 1 << 2, 1 << 3
_IOCTL_DEV = 1 << 15
_FILE_RIGHTS = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 5: (1 << 16) - 1}
"""Every file right, by the first ABI that knows it; what is handled and not granted is denied."""
_NET_RIGHTS = {4: 0b11}
_SCOPES = {6: 0b11}

OLDEST = 3
"""ABI 3 (Linux 6.2) is the first that also denies truncation."""

_libc = ctypes.CDLL(None, use_errno=True)


def abi() -> int:
    """Return the kernel's Landlock ABI, 0 where there is none."""
    return max(0, int(_libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(_VERSION))))


class _Refused(Exception):
    """The kernel said no."""


def restrict(readable: Iterable[str], usable: Iterable[str] = ()) -> str:
    """Give up every file right of this thread and its children, but these.

    Args:
        readable: Files and folders that may be read, with all that lies beneath; absent ones are passed over.
        usable: Device nodes that may also be written to and controlled.

    Returns:
        Empty when it stands, or why it does not.
    """
    version = abi()
    if version < OLDEST:
        return f"the kernel offers Landlock ABI {version}, and {OLDEST} is needed: Linux 6.2 with landlock among its `lsm=`"
    files = _newest(_FILE_RIGHTS, version)
    attributes = struct.pack("=QQQ", files, _newest(_NET_RIGHTS, version), _newest(_SCOPES, version))
    size = 8 if version < 4 else 16 if version < 6 else 24  # noqa: PLR2004 - the structure grew with ABIs 4 and 6
    try:
        ruleset = _call(_CREATE_RULESET, attributes, ctypes.c_size_t(size), ctypes.c_uint32(0))
        try:
            for path in readable:
                _allow(ruleset, path, (_READ_FILE | _READ_DIR) & files)
            for path in usable:
                _allow(ruleset, path, (_READ_FILE | _WRITE_FILE | _IOCTL_DEV) & files)
            _call(_RESTRICT_SELF, ctypes.c_int(ruleset), ctypes.c_uint32(0))
        finally:
            os.close(ruleset)
    except (_Refused, OSError) as error:
        return f"Landlock cannot be set up: {error}"
    return ""


def _newest(by_abi: dict[int, int], version: int) -> int:
    return max((value for first, value in by_abi.items() if first <= version), default=0)


def _allow(ruleset: int, path: str, rights: int) -> None:
    try:
        opened = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        if not stat.S_ISDIR(os.fstat(opened).st_mode):
            rights &= ~_READ_DIR  # the kernel refuses a folder's right on a file
        rule = struct.pack("=Qi", rights, opened)
        _call(_ADD_RULE, ctypes.c_int(ruleset), ctypes.c_int(_RULE_PATH_BENEATH), rule, ctypes.c_uint32(0))
    finally:
        os.close(opened)


def _call(number: int, *arguments: object) -> int:
    result = int(_libc.syscall(number, *arguments))
    if result < 0:
        raise _Refused(os.strerror(ctypes.get_errno()))
    return result
