"""Signs the ledger's heads, and remembers the last one by itself; it believes nobody about history, the sequencer included.

- Never two heads of which neither continues the other, whatever the database says, crashes and restored backups included.
- What it is about to sign is on disk before the signature exists.
- One signer at a time: its memory is locked while it is held.

It needs nothing but its own folder. A registry that serves has it in a process of its own (`seat.py`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from model_organisms.errors import LedgerUnavailable
from model_organisms.formats import checkpoint
from model_organisms.formats.note import SigningKey, parse_skey

from model_organisms_registry.ledger.memory import Memory, read_head, write_new

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["HEAD", "KEY", "Signer", "read_head"]

KEY = "key"
HEAD = "head"
"""Files of the signer's folder: its secret, and its memory of the last head."""


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
        self._key = key
        self._memory = Memory(self.path, self.origin)

    @classmethod
    def create(cls, folder: Path, *, origin: str) -> Signer:
        """Make a new key and the memory of the empty ledger, once in a ledger's life.

        Raises:
            AlreadyExists: There is a signer in the folder.
            ConfigurationInvalid: The origin cannot name a key.
        """
        key = SigningKey.generate(origin)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_new(folder / KEY, key.secret_text().encode() + b"\n")
        Memory.create(folder / HEAD, origin)
        return cls(folder, key)

    @classmethod
    def open(cls, folder: Path) -> Signer:
        """Read the key of a signer.

        Raises:
            LedgerUnavailable: There is none, or it cannot be read.
            ConfigurationInvalid: What is there is no signing key.
        """
        return cls(folder, read_key(folder / KEY))

    @property
    def size(self) -> int:
        """Entries of the last head signed."""
        return self._memory.size

    @property
    def held(self) -> bool:
        """Whether the memory is locked and read."""
        return self._memory.held

    def hold(self) -> None:
        """Lock the memory and read it.

        Raises:
            LedgerUnavailable: Another process holds it, or it is missing or unreadable.
            VerificationFailed: It is not what a signer of this ledger wrote.
        """
        self._memory.hold()

    def release(self) -> None:
        """Let the memory go; another process may hold it."""
        self._memory.release()

    def close(self) -> None:
        """Let everything go."""
        self.release()

    def sign(self, size: int, root: bytes, proof: Sequence[bytes]) -> bytes:
        """Sign a head that continues the last one; it is on disk before the signature exists.

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
        self._memory.advance(size, root, proof)
        return checkpoint.signed(self.origin, size, root, self._key).note


def read_key(path: Path) -> SigningKey:
    """Read a signing key from its file.

    Raises:
        LedgerUnavailable: There is none, or it cannot be read.
        ConfigurationInvalid: What is there is no signing key.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise LedgerUnavailable(f"The signing key {path} cannot be read ({error.strerror}); restore it.") from error
    return parse_skey(text.rstrip("\n"))
