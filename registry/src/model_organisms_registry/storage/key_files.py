"""Key-encryption keys as files of this machine; what a keeper of keys promises stands in `keys.py`.

    live/ID         the key, 32 bytes              destroyed/ID    it was destroyed; it is never made again
    destroying/ID   a destruction that a crash interrupted; the next start finishes it

Folders are 0700 and files 0600; anything looser is refused, not repaired, because somebody may have read it already. Backups
leave this folder out (ADR 0008).
"""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from model_organisms.errors import AlreadyExists, Unavailable, VerificationFailed

from model_organisms_registry.storage.folder import Folder
from model_organisms_registry.storage.keys import (
    KEY_BYTES,
    KeyState,
    bound,
    checked,
    checked_data_key,
    does_not_unwrap,
    refuse,
    refuse_open,
    refuse_to_make,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

_FORMAT = b"\x01"
_NONCE = 12


class FileKeys:
    """Keys in a folder of this machine.

    Args:
        folder: Made by the first key, where it is missing.

    Raises:
        ConfigurationInvalid: Others than its owner can get at it.
    """

    name = "file"

    def __init__(self, folder: Path | str) -> None:
        self._root = Path(folder)
        if self._root.exists():
            refuse_open(self._root.stat(), f"The key folder {folder}")

    @cached_property
    def _files(self) -> Folder:
        return Folder(str(self._root))

    def create(self, kek_id: str) -> None:
        """Make a key."""
        refuse_to_make(self.state(kek_id), kek_id)
        try:
            self._files.write(f"live/{kek_id}", [os.urandom(KEY_BYTES)], create_only=True)
        except AlreadyExists:
            refuse_to_make(KeyState.LIVE, kek_id)
        if self._is_destroyed(kek_id):  # by someone else, between the check and the write
            self._erase(kek_id)
            refuse_to_make(KeyState.DESTROYED, kek_id)

    def state(self, kek_id: str) -> KeyState:
        """Tell where a key stands."""
        live, *marks = (self._root / kind / checked(kek_id) for kind in ("live", "destroyed", "destroying"))
        if any(os.path.lexists(mark) for mark in marks):
            return KeyState.DESTROYED
        return KeyState.LIVE if os.path.lexists(live) else KeyState.MISSING

    def wrap(self, kek_id: str, data_key: bytes, aad: bytes) -> bytes:
        """Encrypt a data key."""
        checked_data_key(data_key)
        # A random nonce is safe for 2**32 wrappings under one key: a version needs one, a session one for each of its texts.
        nonce = os.urandom(_NONCE)
        return _FORMAT + nonce + AESGCM(self._read(checked(kek_id))).encrypt(nonce, data_key, bound(kek_id, aad))

    def unwrap(self, kek_id: str, wrapped: bytes, aad: bytes) -> bytes:
        """Decrypt a data key."""
        key = self._read(checked(kek_id))
        start = len(_FORMAT) + _NONCE
        binding = bound(kek_id, aad) if wrapped.startswith(_FORMAT) else b""  # of another format: bound to nothing, so refused
        try:
            return AESGCM(key).decrypt(wrapped[len(_FORMAT) : start], wrapped[start:], binding)
        except (InvalidTag, ValueError):
            raise does_not_unwrap(kek_id) from None

    def destroy(self, kek_id: str) -> None:
        """Destroy a key for good.

        The file is overwritten before it is deleted. On a disk that writes elsewhere (flash, copy-on-write, snapshots) that is
        best effort; where it matters, keep the folder on an encrypted volume or the keys in a token or a vault.
        """
        checked(kek_id)
        for mark in (f"destroying/{kek_id}", f"destroyed/{kek_id}"):
            self._files.write(mark, [b""], create_only=False)
        # From here on the key is refused everywhere; a crash leaves bytes that `finish` erases.
        self._erase(kek_id)
        self._files.delete(f"destroying/{kek_id}")

    def destroyed(self) -> Iterable[str]:
        """List the ids of which there is a mark."""
        return self._listed("destroyed")

    def finish(self) -> None:
        """Finish the destructions that a crash interrupted."""
        for kek_id in self._listed("destroying"):
            self.destroy(kek_id)

    def close(self) -> None:
        """Nothing is held open."""

    def _listed(self, kind: str) -> list[str]:
        return sorted(path.removeprefix(f"{kind}/") for path in self._files.list(kind)) if self._root.exists() else []

    def _erase(self, kek_id: str) -> None:
        try:
            descriptor = os.open(self._root / "live" / kek_id, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        except OSError as error:
            raise _failed(kek_id, error) from error
        try:
            os.pwrite(descriptor, os.urandom(KEY_BYTES), 0)
            os.fsync(descriptor)
        except OSError as error:
            raise _failed(kek_id, error) from error
        finally:
            os.close(descriptor)
        self._files.delete(f"live/{kek_id}")

    def _read(self, kek_id: str) -> bytes:
        if self._is_destroyed(kek_id):
            refuse(KeyState.DESTROYED, kek_id)
        try:
            descriptor = os.open(self._root / "live" / kek_id, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            refuse(KeyState.MISSING, kek_id)
            raise
        except OSError as error:
            raise _failed(kek_id, error) from error
        try:
            refuse_open(os.fstat(descriptor), f"The key file {kek_id}")
            key = os.read(descriptor, KEY_BYTES + 1)
        finally:
            os.close(descriptor)
        if len(key) != KEY_BYTES:
            msg = f"The key file {kek_id} has not {KEY_BYTES} bytes; restore it from where the keys are kept safe."
            raise VerificationFailed(msg, key=kek_id)
        return key

    def _is_destroyed(self, kek_id: str) -> bool:
        return self.state(kek_id) is KeyState.DESTROYED


def _failed(kek_id: str, error: OSError) -> Unavailable:
    msg = f"The key {kek_id} cannot be reached ({error.strerror}); check the key folder's disk and permissions, then try again."
    return Unavailable(msg, key=kek_id)
