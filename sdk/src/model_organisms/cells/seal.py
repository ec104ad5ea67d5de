"""Sealed anonymous memory: how bytes cross between two processes with no file, no name and no way to change them after.

Used on both ends. What the bytes are is for others to know.
"""

from __future__ import annotations

import fcntl
import mmap
import os

from model_organisms.errors import CellUnavailable

_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


def sealed_memory(data: bytes | memoryview) -> int:
    """Copy bytes into anonymous memory that nobody can write, grow or shrink any more.

    Args:
        data: What to copy.

    Returns:
        A descriptor, at offset 0; the caller closes it.

    Raises:
        CellUnavailable: There is no memory left.
    """
    descriptor = os.memfd_create("cell", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        rest = memoryview(data).cast("B")
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
        os.lseek(descriptor, 0, os.SEEK_SET)
    except OSError as error:
        os.close(descriptor)
        raise CellUnavailable(f"No memory for the bundle ({error.strerror}); close sessions, or try again later.") from error
    return descriptor


def map_sealed(descriptor: int) -> mmap.mmap:
    """Map memory that another process sealed, read-only.

    Raises:
        CellUnavailable: It is not sealed, or empty: its owner could change it while it is read.
    """
    try:
        if fcntl.fcntl(descriptor, fcntl.F_GET_SEALS) & _SEALS != _SEALS:
            raise CellUnavailable("The bundle came in memory that is not sealed.")
        return mmap.mmap(descriptor, 0, mmap.MAP_PRIVATE, mmap.PROT_READ)
    except (OSError, ValueError) as error:
        raise CellUnavailable("The bundle did not come in sealed memory.") from error
