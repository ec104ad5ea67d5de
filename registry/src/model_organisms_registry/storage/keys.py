"""What every keeper of key-encryption keys promises: one key for each thing that can be destroyed by itself. None is built here.

Data keys are wrapped by these and never stored otherwise (`sealed.py`). Three keepers hold the contract: a folder
(`key_files.py`), a token behind PKCS#11 (`key_token.py`) and a vault's transit engine (`key_vault.py`); `keyring.py` opens those
that the settings name. `tests/means/test_keys.py` runs one suite against each.

A wrapped key begins with a byte that says who wrapped it, and is bound to the key's id and to what the caller says it is for.
"""

from __future__ import annotations

import os
import re
import stat
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

from model_organisms.errors import AlreadyExists, ConfigurationInvalid, Conflict, InvalidArgument, NotFound, VerificationFailed

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

KEY_BYTES = 32
FORMATS = {1: "file", 2: "pkcs11", 3: "vault"}
"""First byte of a wrapped key to its keeper, as `[keys] provider` names it."""
_CONTEXT = b"model-organisms/wrapped-key/v1\0"
ID = re.compile(r"[a-z0-9][a-z0-9-]{0,127}(\.[1-9][0-9]{0,5})?", re.ASCII)
"""Ids of keys; a number behind a dot is a rotation (`keyring.py`)."""
_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_MAX_SECRET = 4096


class KeyState(StrEnum):
    """Where a key stands."""

    LIVE = "live"
    DESTROYED = "destroyed"
    """On purpose, and for good: its mark is kept with the keys, wherever those are."""
    MISSING = "missing"
    """Never made here, or lost."""


class Keys(Protocol):
    """A keeper of keys.

    - A key's bytes never leave it.
    - An id names one key for ever: made once, and not again after it was destroyed.
    - Marks of what was destroyed lie with the keys, so a registry that is put back from an old backup finds them.
    """

    @property
    def name(self) -> str:
        """Which keeper, as `[keys] provider` names it."""
        ...

    def create(self, kek_id: str) -> None:
        """Make a key.

        Raises:
            AlreadyExists: There is one.
            Conflict: There was one, and it was destroyed.
            Unavailable: The keeper cannot be reached.
        """
        ...

    def state(self, kek_id: str) -> KeyState:
        """Tell where a key stands.

        Raises:
            Unavailable: The keeper cannot be reached: that a key is gone is never concluded from silence.
        """
        ...

    def wrap(self, kek_id: str, data_key: bytes, aad: bytes) -> bytes:
        """Encrypt a data key.

        Args:
            kek_id: The key to wrap it with.
            data_key: 32 bytes.
            aad: What it is bound to; `unwrap` must be told the same.

        Raises:
            NotFound: There is no such key, or no longer.
        """
        ...

    def unwrap(self, kek_id: str, wrapped: bytes, aad: bytes) -> bytes:
        """Decrypt a data key.

        Raises:
            NotFound: There is no such key, or no longer: what it protects is gone.
            VerificationFailed: It was not wrapped by this key for this purpose.
        """
        ...

    def destroy(self, kek_id: str) -> None:
        """Destroy a key for good; doing it again, or to a key never made, is no error. A mark stays."""
        ...

    def destroyed(self) -> Iterable[str]:
        """List the ids of which there is a mark."""
        ...

    def finish(self) -> None:
        """Finish the destructions that a crash interrupted."""
        ...

    def close(self) -> None:
        """Let connections go."""
        ...


def checked(kek_id: str) -> str:
    """Return an id of a key, or refuse it.

    Raises:
        InvalidArgument: It could name something else than a key.
    """
    if not ID.fullmatch(kek_id):
        msg = f"{kek_id[:80]!r} is no id of a key; write up to 128 lower-case letters, digits and hyphens."
        raise InvalidArgument(msg)
    return kek_id


def checked_data_key(data_key: bytes) -> bytes:
    """Return a data key, or refuse it: nothing else is wrapped.

    Raises:
        InvalidArgument: It has another size.
    """
    if len(data_key) != KEY_BYTES:
        msg = f"A data key has {KEY_BYTES} bytes, not {len(data_key)}; wrap keys only, and seal everything else under one."
        raise InvalidArgument(msg)
    return data_key


def bound(kek_id: str, aad: bytes) -> bytes:
    """Say what a wrapped key is bound to."""
    return _CONTEXT + kek_id.encode() + b"\0" + aad


def refuse(state: KeyState, kek_id: str) -> None:
    """Refuse to use a key that is not there.

    Raises:
        NotFound: It was destroyed, or it is missing.
    """
    if state is KeyState.DESTROYED:
        raise NotFound(f"The key {kek_id} was destroyed; what it protected is gone, and it is not made again.", key=kek_id)
    if state is KeyState.MISSING:
        raise NotFound(f"There is no key {kek_id}; what it protects cannot be opened without it.", key=kek_id)


def refuse_to_make(state: KeyState, kek_id: str) -> None:
    """Refuse to make a key that there is, or was.

    Raises:
        AlreadyExists: There is one.
        Conflict: There was one.
    """
    if state is KeyState.LIVE:
        raise AlreadyExists(f"The key {kek_id} exists already; use it.", key=kek_id)
    if state is KeyState.DESTROYED:
        raise Conflict(f"The key {kek_id} was destroyed; what it protected is gone, and it is not made again.", key=kek_id)


def does_not_unwrap(kek_id: str) -> VerificationFailed:
    """Make the one error for all that does not unwrap, whatever is wrong with it."""
    msg = f"A data key that should be wrapped by {kek_id} does not unwrap; restore it, and its blob, from one backup."
    return VerificationFailed(msg, key=kek_id)


def read_secret(path: Path, what: str) -> str:
    """Read a PIN or a token from a file of the registry's own.

    Args:
        path: The file; what stands around the secret, such as the last line's end, is left away.
        what: What it holds, for messages, which never quote it.

    Raises:
        ConfigurationInvalid: It cannot be read, is open to others, or holds nothing.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise ConfigurationInvalid(
            f"{path} cannot be read ({error.strerror}); put {what} there, readable by you alone."
        ) from error
    with os.fdopen(descriptor, "rb") as file:
        refuse_open(os.fstat(descriptor), f"{path}, which holds {what},")
        content = file.read(_MAX_SECRET + 1)
    try:
        secret = content.decode().strip()
    except UnicodeDecodeError:
        secret = ""
    if not secret or len(content) > _MAX_SECRET or not secret.isprintable():
        raise ConfigurationInvalid(f"{path} does not hold {what}: write it there, on one line.")
    return secret


def refuse_open(found: os.stat_result, what: str) -> None:
    """Refuse a file or folder that others than this process's user can get at: somebody may have read it already.

    Raises:
        ConfigurationInvalid: They can.
    """
    if found.st_mode & _OTHERS or found.st_uid != os.geteuid():
        msg = f"{what} is open to others; find out who read it, give it to the registry's user, and run on it: chmod -R go-rwx"
        raise ConfigurationInvalid(msg)
