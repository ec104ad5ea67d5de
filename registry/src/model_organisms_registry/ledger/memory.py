"""The last head that somebody signed, kept so that no crash and no copy of anything else can talk them into another history.

- Never two heads of which neither continues the other: `advance` checks the proof before it writes.
- A head is on disk before `advance` returns, so before any signature over it exists.
- One holder at a time: the file is locked while it is held.

The ledger's signer has one, a witness has one for each ledger that it watches. What is signed is not known here.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
from typing import TYPE_CHECKING

from model_organisms.errors import AlreadyExists, ConfigurationInvalid, LedgerForked, LedgerUnavailable, VerificationFailed
from model_organisms.formats import merkle

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


SLOT = 512
"""Half of the memory. A sector, which a disk writes whole or not at all; the other half keeps the head before."""

_FORM = re.compile(rb"model-organisms signer 1\n(?P<origin>[^\n]+)\n(?P<size>0|[1-9][0-9]*)\n(?P<root>[0-9a-f]{64})\n")


class Memory:
    """The last head of one ledger. Making one reads nothing; `hold` does.

    Args:
        path: Its file, made by `create`; on another disk than what it guards if there is one.
        origin: Name of the ledger.
    """

    def __init__(self, path: Path, origin: str) -> None:
        """Keep both."""
        self.path = path
        self.origin = origin
        self.size = 0
        """Entries of the last head signed."""
        self.root = merkle.EMPTY_ROOT
        self._file: int | None = None
        self._slot = 0

    @classmethod
    def create(cls, path: Path, origin: str) -> Memory:
        """Make the memory of the empty ledger, once in its life.

        Raises:
            AlreadyExists: There is one.
            ConfigurationInvalid: The origin is too long.
        """
        write_new(path, _print_slot(origin, 0, merkle.EMPTY_ROOT) + bytes(SLOT))
        return cls(path, origin)

    @property
    def held(self) -> bool:
        """Whether it is locked and read."""
        return self._file is not None

    def hold(self) -> None:
        """Lock the file and read it.

        Raises:
            LedgerUnavailable: Another process holds it, or it is missing or unreadable.
            VerificationFailed: It is not what was written for this ledger.
        """
        self.release()
        try:
            self._file = os.open(self.path, os.O_RDWR | os.O_CLOEXEC)
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.size, self.root, self._slot = read_head(os.pread(self._file, 2 * SLOT, 0), origin=self.origin)
        except BlockingIOError as error:
            self.release()
            raise LedgerUnavailable("Another process is signing for this ledger; stop it, or do not start this one.") from error
        except OSError as error:
            self.release()
            msg = f"The memory of what was signed, {self.path}, cannot be read ({error.strerror}); restore it from a backup."
            raise LedgerUnavailable(msg) from error
        except VerificationFailed:
            self.release()
            raise

    def release(self) -> None:
        """Let the file go; another process may hold it."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def advance(self, size: int, root: bytes, proof: Sequence[bytes]) -> None:
        """Remember a head that continues the last one; only then may it be signed.

        1. The proof leads from the last head to this one. 2. This one is on disk.

        Args:
            size: Entries of the new head.
            root: Its root.
            proof: Consistency proof from the last head.

        Raises:
            LedgerForked: The new head does not continue the last one; nothing was written.
            LedgerUnavailable: The head could not be written down.
        """
        if self._file is None:
            raise LedgerUnavailable("The memory of what was signed is not held; start the ledger first.")
        merkle.verify_consistency(proof, old_size=self.size, old_root=self.root, new_size=size, new_root=root)
        if (size, root) == (self.size, self.root):
            return
        slot = 1 - self._slot
        try:
            os.pwrite(self._file, _print_slot(self.origin, size, root), slot * SLOT)
            os.fdatasync(self._file)
        except OSError as error:
            # Whether it is on disk is not known. Both answers are safe: the same head is asked for again.
            msg = f"What is to be signed cannot be written to {self.path} ({error.strerror}); free its disk."
            raise LedgerUnavailable(msg) from error
        self.size, self.root, self._slot = size, root, slot


def read_head(content: bytes, *, origin: str) -> tuple[int, bytes, int]:
    """Read a memory.

    Returns:
        Size and root of the newer head, and its slot.

    Raises:
        VerificationFailed: Neither slot is whole, or they are another ledger's, or contradict each other.
    """
    heads = []
    for slot in (0, 1):
        found = read_slot(content[slot * SLOT : (slot + 1) * SLOT])
        if found is not None:
            whose, size, root = found
            if whose != origin:
                raise VerificationFailed(f"The signer's memory is of the ledger {whose[:80]!r}, not of {origin!r}; restore it.")
            heads.append((size, root, slot))
    if not heads:
        raise VerificationFailed("The signer's memory is damaged in both its halves; restore it from a backup.")
    newest = max(heads)
    if any(size == newest[0] and root != newest[1] for size, root, _ in heads):
        raise LedgerForked("The signer's memory holds two heads of one size; keep it as evidence.")
    return newest


def read_slot(slot: bytes) -> tuple[str, int, bytes] | None:
    """Read one half of the memory into origin, size and root; nothing if it is not whole."""
    text = slot.rstrip(b"\x00")
    found = _FORM.match(text)
    if found is None or text[found.end() :] != hashlib.sha256(found[0]).hexdigest().encode():
        return None
    return found["origin"].decode("utf-8", "replace"), int(found["size"]), bytes.fromhex(found["root"].decode())


def write_new(path: Path, content: bytes) -> None:
    """Write a file of the signer's or a witness's, once and durably, for its owner's eyes only.

    Raises:
        AlreadyExists: It is there.
        LedgerUnavailable: It cannot be written.
    """
    try:
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.write(file, content)
            os.fsync(file)
        finally:
            os.close(file)
        _sync_folder(path.parent)
    except FileExistsError as error:
        raise AlreadyExists(f"There is a {path} already; it is never replaced.") from error
    except OSError as error:
        raise LedgerUnavailable(f"{path} cannot be written ({error.strerror}); free its disk.") from error


def _print_slot(origin: str, size: int, root: bytes) -> bytes:
    text = f"model-organisms signer 1\n{origin}\n{size}\n{root.hex()}\n".encode()
    slot = text + hashlib.sha256(text).hexdigest().encode()
    if len(slot) > SLOT:
        raise ConfigurationInvalid("The ledger's origin is too long; choose one of at most 200 characters.")
    return slot.ljust(SLOT, b"\x00")


def _sync_folder(path: Path) -> None:
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
