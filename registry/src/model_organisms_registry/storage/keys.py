"""Key-encryption keys as files: one for each thing that can be destroyed by itself, such as a version or a session's content.

Data keys are wrapped by these and never stored otherwise (`sealed.py`). Destroying a key makes everything under it unreadable,
in backups too, which is why backups leave this folder out. Other providers (an HSM, a vault) would keep the same five verbs.

    live/ID         the key, 32 bytes              destroyed/ID    it was destroyed; it is never made again
    destroying/ID   a destruction that a crash interrupted; the next start finishes it

Folders are 0700 and files 0600; anything looser is refused, not repaired, because somebody may have read it already.
"""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from model_organisms.errors import (
    AlreadyExists,
    ConfigurationInvalid,
    Conflict,
    InvalidArgument,
    NotFound,
    Unavailable,
    VerificationFailed,
)

from model_organisms_registry.storage.folder import Folder

KEY_BYTES = 32
_FORMAT = b"\x01"
_NONCE = 12
_CONTEXT = b"model-organisms/wrapped-key/v1\0"
_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,127}", re.ASCII)
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


class FileKeys:
    """Keys in a folder of this machine.

    - A key's bytes never leave this class.
    - An id names one key for ever: made once, and not again after it was destroyed.

    Args:
        folder: Made where it is missing.

    Raises:
        ConfigurationInvalid: Others than its owner can get at it.
    """

    def __init__(self, folder: Path | str) -> None:
        self._root = Path(folder)
        self._files = Folder(str(folder))
        found = self._root.stat()
        if found.st_mode & _OTHERS or found.st_uid != os.geteuid():
            msg = f"The key folder {folder} is open to others; give it to the registry's user and run: chmod -R go-rwx {folder}"
            raise ConfigurationInvalid(msg)
        for path in list(self._files.list("destroying")):
            self.destroy(path.removeprefix("destroying/"))

    def create(self, kek_id: str) -> None:
        """Make a key.

        Raises:
            AlreadyExists: There is one.
            Conflict: There was one, and it was destroyed.
        """
        self._refuse_destroyed(_checked(kek_id))
        try:
            self._files.write(f"live/{kek_id}", [os.urandom(KEY_BYTES)], create_only=True)
        except AlreadyExists:
            msg = f"The key {kek_id} exists already; use it."
            raise AlreadyExists(msg, key=kek_id) from None
        if self._is_destroyed(kek_id):  # by someone else, between the check and the write
            self._erase(kek_id)
            self._refuse_destroyed(kek_id)

    def exists(self, kek_id: str) -> bool:
        """Tell whether a key can be used."""
        try:
            self._read(_checked(kek_id))
        except NotFound:
            return False
        return True

    def wrap(self, kek_id: str, data_key: bytes, aad: bytes) -> bytes:
        """Encrypt a data key.

        Args:
            kek_id: The key to wrap it with.
            data_key: 32 bytes.
            aad: What it is bound to; `unwrap` must be told the same.

        Raises:
            NotFound: There is no such key, or no longer.
        """
        if len(data_key) != KEY_BYTES:
            msg = f"A data key has {KEY_BYTES} bytes, not {len(data_key)}; wrap keys only, and seal everything else under one."
            raise InvalidArgument(msg)
        # A random nonce is safe for 2**32 wrappings under one key: a version needs one, a session one.
        nonce = os.urandom(_NONCE)
        return _FORMAT + nonce + AESGCM(self._read(_checked(kek_id))).encrypt(nonce, data_key, _bound(kek_id, aad))

    def unwrap(self, kek_id: str, wrapped: bytes, aad: bytes) -> bytes:
        """Decrypt a data key.

        Raises:
            NotFound: There is no such key, or no longer: what it protects is gone.
            VerificationFailed: It was not wrapped by this key for this purpose.
        """
        key = self._read(_checked(kek_id))
        start = len(_FORMAT) + _NONCE
        bound = _bound(kek_id, aad) if wrapped.startswith(_FORMAT) else b""  # of another format: bound to nothing, so refused
        try:
            return AESGCM(key).decrypt(wrapped[len(_FORMAT) : start], wrapped[start:], bound)
        except (InvalidTag, ValueError):
            msg = f"A data key that should be wrapped by {kek_id} does not unwrap; restore it, and its blob, from one backup."
            raise VerificationFailed(msg, key=kek_id) from None

    def destroy(self, kek_id: str) -> None:
        """Destroy a key for good; doing it again, or to a key never made, is no error.

        The file is overwritten before it is deleted. On a disk that writes elsewhere (flash, copy-on-write, snapshots) that is
        best effort; where it matters, keep the folder on an encrypted volume or the keys in an HSM.
        """
        _checked(kek_id)
        for mark in (f"destroying/{kek_id}", f"destroyed/{kek_id}"):
            self._files.write(mark, [b""], create_only=False)
        # From here on the key is refused everywhere; a crash leaves bytes that the next start erases.
        self._erase(kek_id)
        self._files.delete(f"destroying/{kek_id}")

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
        self._refuse_destroyed(kek_id, NotFound)
        try:
            descriptor = os.open(self._root / "live" / kek_id, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            msg = f"There is no key {kek_id}; what it protects cannot be opened without it."
            raise NotFound(msg, key=kek_id) from None
        except OSError as error:
            raise _failed(kek_id, error) from error
        try:
            found = os.fstat(descriptor)
            if found.st_mode & _OTHERS or found.st_uid != os.geteuid():
                msg = f"The key file {kek_id} is open to others; find out who read it, then run: chmod 600 on it."
                raise ConfigurationInvalid(msg, key=kek_id)
            key = os.read(descriptor, KEY_BYTES + 1)
        finally:
            os.close(descriptor)
        if len(key) != KEY_BYTES:
            msg = f"The key file {kek_id} has not {KEY_BYTES} bytes; restore it from where the keys are kept safe."
            raise VerificationFailed(msg, key=kek_id)
        return key

    def _is_destroyed(self, kek_id: str) -> bool:
        return os.path.lexists(self._root / "destroyed" / kek_id)

    def _refuse_destroyed(self, kek_id: str, error: type[Conflict | NotFound] = Conflict) -> None:
        if self._is_destroyed(kek_id):
            msg = f"The key {kek_id} was destroyed; what it protected is gone, and it is not made again."
            raise error(msg, key=kek_id)


def is_kept(folder: Path, kek_id: str) -> bool:
    """Tell whether a key is in a folder of keys, and not destroyed, without opening that folder."""
    live, *ended = (folder / kind / kek_id for kind in ("live", "destroyed", "destroying"))
    return live.exists() and not any(mark.exists() for mark in ended)


def _checked(kek_id: str) -> str:
    if not _ID.fullmatch(kek_id):
        msg = f"{kek_id[:80]!r} is no id of a key; write up to 128 lower-case letters, digits and hyphens."
        raise InvalidArgument(msg)
    return kek_id


def _bound(kek_id: str, aad: bytes) -> bytes:
    return _CONTEXT + kek_id.encode() + b"\0" + aad


def _failed(kek_id: str, error: OSError) -> Unavailable:
    msg = f"The key {kek_id} cannot be reached ({error.strerror}); check the key folder's disk and permissions, then try again."
    return Unavailable(msg, key=kek_id)
