"""Sealed anonymous memory: how bytes cross between two processes with no file, no name and no way to change them after.

Used on both ends. What the bytes are is for others to know.
"""

from __future__ import annotations

import fcntl
import mmap
import os
from typing import TYPE_CHECKING

from model_organisms.errors import CapsuleInvalid, CellUnavailable

if TYPE_CHECKING:
    from typing_extensions import Buffer

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
    kept = Kept(len(memoryview(data).cast("B")))
    try:
        kept.feed(data)
        kept.finish()
    except BaseException:
        kept.close()
        raise
    return kept.descriptor


class Kept:
    """A stream of bytes kept as it arrives, in memory that is sealed when it is complete.

    Args:
        size: Bytes of the whole stream.
    """

    def __init__(self, size: int) -> None:
        """Begin with none."""
        self.descriptor = os.memfd_create("cell", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        self._size = size
        self._at = 0

    def feed(self, chunk: Buffer) -> None:
        """Take the next bytes.

        Raises:
            CapsuleInvalid: They lie beyond the end.
            CellUnavailable: There is no memory left.
        """
        rest = memoryview(chunk).cast("B")
        if self._at + len(rest) > self._size:
            raise CapsuleInvalid("More came than the stream has; ask for it again.")
        try:
            while rest:
                written = os.write(self.descriptor, rest)
                self._at, rest = self._at + written, rest[written:]
        except OSError as error:
            raise CellUnavailable(f"No memory for the bundle ({error.strerror}); close sessions, or try again later.") from error

    def cut(self) -> int:
        """Say from where a stream that was interrupted is still wanted."""
        return self._at

    def finish(self) -> None:
        """Seal it, and go back to its beginning.

        Raises:
            CapsuleInvalid: It did not come to its end.
        """
        if self._at != self._size:
            raise CapsuleInvalid("The stream ended early; ask for it again.")
        fcntl.fcntl(self.descriptor, fcntl.F_ADD_SEALS, _SEALS)
        os.lseek(self.descriptor, 0, os.SEEK_SET)

    def close(self) -> None:
        """Let it go; harmless the second time."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


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
