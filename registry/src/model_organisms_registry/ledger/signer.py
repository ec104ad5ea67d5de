"""Signs the ledger's heads, and remembers the last one by itself; it believes nobody about history, the sequencer included.

- Never two heads of which neither continues the other, whatever the database says, crashes and restored backups included.
- What it is about to sign is on disk before the signature exists.
- One signer at a time: its memory is locked while it is held.

It needs nothing but its own folder, so that it can become a process of its own.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
from typing import TYPE_CHECKING

from model_organisms.errors import AlreadyExists, ConfigurationInvalid, LedgerForked, LedgerUnavailable, VerificationFailed
from model_organisms.formats import checkpoint, merkle
from model_organisms.formats.note import SigningKey, parse_skey

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


KEY = "key"
HEAD = "head"
"""Files of the signer's folder: its secret, and its memory of the last head."""

SLOT = 512
"""Half of the memory. A sector, which a disk writes whole or not at all; the other half keeps the head before."""

_FORM = re.compile(rb"model-organisms signer 1\n(?P<origin>[^\n]+)\n(?P<size>0|[1-9][0-9]*)\n(?P<root>[0-9a-f]{64})\n")


class Signer:
    """The ledger's key and the last head it signed. Opening one locks nothing; `hold` does.

    Args:
        folder: The signer's own folder, made by `create`; on another disk than the database if there is one.
        key: The ledger's Ed25519 key; its name is the ledger's origin.
    """

    def __init__(self, folder: Path, key: SigningKey) -> None:
        """Keep them; the last head is read by `hold`."""
        self.origin = key.name
        self.verifier = key.verifier
        self.vkey = str(key.verifier)
        self.path = folder / HEAD
        self.size = 0
        """Entries of the last head signed."""
        self.root = merkle.EMPTY_ROOT
        self._key = key
        self._file: int | None = None
        self._slot = 0

    @classmethod
    def create(cls, folder: Path, *, origin: str) -> Signer:
        """Make a new key and the memory of the empty ledger, once in a ledger's life.

        Raises:
            AlreadyExists: There is a signer in the folder.
            ConfigurationInvalid: The origin cannot name a key.
        """
        key = SigningKey.generate(origin)
        head = _print_slot(origin, 0, merkle.EMPTY_ROOT)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _write_new(folder / KEY, key.secret_text().encode() + b"\n")
        _write_new(folder / HEAD, head + bytes(SLOT))
        return cls(folder, key)

    @classmethod
    def open(cls, folder: Path) -> Signer:
        """Read the key of a signer.

        Raises:
            LedgerUnavailable: There is none, or it cannot be read.
            ConfigurationInvalid: What is there is no signing key.
        """
        try:
            text = (folder / KEY).read_text(encoding="utf-8")
        except OSError as error:
            raise LedgerUnavailable(f"The ledger's key {folder / KEY} cannot be read ({error.strerror}); restore it.") from error
        return cls(folder, parse_skey(text.rstrip("\n")))

    def hold(self) -> None:
        """Lock the memory and read it.

        Raises:
            LedgerUnavailable: Another process holds it, or it is missing or unreadable.
            VerificationFailed: It is not what a signer of this ledger wrote.
        """
        try:
            self._file = os.open(self.path, os.O_RDWR | os.O_CLOEXEC)
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.size, self.root, self._slot = read_head(os.pread(self._file, 2 * SLOT, 0), origin=self.origin)
        except BlockingIOError as error:
            self.release()
            raise LedgerUnavailable("Another registry is signing for this ledger; stop it, or do not start this one.") from error
        except OSError as error:
            self.release()
            msg = f"The ledger's signer cannot read {self.path} ({error.strerror}); restore it from a backup."
            raise LedgerUnavailable(msg) from error
        except VerificationFailed:
            self.release()
            raise

    def release(self) -> None:
        """Let the memory go; another process may hold it."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def sign(self, size: int, root: bytes, proof: Sequence[bytes]) -> bytes:
        """Sign a head that continues the last one.

        1. The proof leads from the last head to this one. 2. This one is on disk. 3. Sign.

        Args:
            size: Entries of the new head.
            root: Its root.
            proof: Consistency proof from the signer's own last head.

        Returns:
            The signed note.

        Raises:
            LedgerForked: The new head does not continue the last one; nothing was signed.
            LedgerUnavailable: The head could not be written down; nothing was signed.
        """
        if self._file is None:
            raise LedgerUnavailable("The ledger's signer is not held; start the ledger first.")
        merkle.verify_consistency(proof, old_size=self.size, old_root=self.root, new_size=size, new_root=root)
        if (size, root) != (self.size, self.root):
            slot = 1 - self._slot
            try:
                os.pwrite(self._file, _print_slot(self.origin, size, root), slot * SLOT)
                os.fdatasync(self._file)
            except OSError as error:
                # Whether it is on disk is not known. Both answers are safe: the same head is asked for again.
                msg = f"The ledger's signer cannot write {self.path} ({error.strerror}); free its disk."
                raise LedgerUnavailable(msg) from error
            self.size, self.root, self._slot = size, root, slot
        return checkpoint.signed(self.origin, size, root, self._key).note


def read_head(content: bytes, *, origin: str) -> tuple[int, bytes, int]:
    """Read a signer's memory.

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


def _print_slot(origin: str, size: int, root: bytes) -> bytes:
    text = f"model-organisms signer 1\n{origin}\n{size}\n{root.hex()}\n".encode()
    slot = text + hashlib.sha256(text).hexdigest().encode()
    if len(slot) > SLOT:
        raise ConfigurationInvalid("The ledger's origin is too long; choose one of at most 200 characters.")
    return slot.ljust(SLOT, b"\x00")


def _write_new(path: Path, content: bytes) -> None:
    try:
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.write(file, content)
            os.fsync(file)
        finally:
            os.close(file)
        _sync_folder(path.parent)
    except FileExistsError as error:
        raise AlreadyExists(f"The ledger has a signer already ({path}); it is never replaced.") from error
    except OSError as error:
        raise LedgerUnavailable(f"The ledger's signer cannot write {path} ({error.strerror}); free its disk.") from error


def _sync_folder(path: Path) -> None:
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
