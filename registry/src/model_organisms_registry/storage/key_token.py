"""Key-encryption keys in a token behind PKCS#11, such as an HSM; what a keeper of keys promises stands in `keys.py`.

    secret key    AES-256, label ID, id 16 random bytes; never extractable, always sensitive: it works inside the token only
    data object   application model-organisms; label destroyed/ID: it was destroyed; destroying/ID: a crash came between

    wrapped: u8 2 | id of the key, 16 bytes | nonce, 12 bytes | AES-256-GCM of the data key, and its tag (CKM_AES_GCM)

A token allows two objects of one label. So a wrapped key names the very key that wrapped it, and destroying destroys all of
the label: two registries that make one key at the same moment lose nothing.
"""

from __future__ import annotations

import os
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from model_organisms.errors import ConfigurationInvalid, Unavailable

from model_organisms_registry.storage.keys import (
    KEY_BYTES,
    KeyState,
    bound,
    checked,
    checked_data_key,
    does_not_unwrap,
    read_secret,
    refuse,
    refuse_to_make,
)

try:
    import pkcs11
    from pkcs11 import Attribute, GCMParams, KeyType, Mechanism, ObjectClass
except ImportError as error:  # the extra is not installed
    raise ConfigurationInvalid("Keys in a token need: pip install 'model-organisms-registry[hsm]'") from error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from pkcs11.types import DecryptMixin, EncryptMixin, Session
    from pkcs11.types import Token as Slotted

    from model_organisms_registry.config import Token

    class _Aes(EncryptMixin, DecryptMixin):
        """A key as the library gives it."""


T = TypeVar("T")
_FORMAT = b"\x02"
_ID, _NONCE, _TAG = 16, 12, 16
_SIZE = len(_FORMAT) + _ID + _NONCE + KEY_BYTES + _TAG
_APPLICATION = "model-organisms"
_PATIENCE_S = 10.0
_REMEMBERED = 1000
_SEALED = {Attribute.SENSITIVE: True, Attribute.EXTRACTABLE: False}
"""What a key must be to be found: one that could be read out, whoever put it there, is none of ours."""
_MADE = {
    **_SEALED,
    Attribute.TOKEN: True,
    Attribute.PRIVATE: True,
    Attribute.MODIFIABLE: False,
    Attribute.COPYABLE: False,
    Attribute.ENCRYPT: True,
    Attribute.DECRYPT: True,
    **dict.fromkeys((Attribute.WRAP, Attribute.UNWRAP, Attribute.SIGN, Attribute.VERIFY, Attribute.DERIVE), False),
}
_PIN_REFUSED = (pkcs11.PinIncorrect, pkcs11.PinInvalid, pkcs11.PinLenRange, pkcs11.PinLocked, pkcs11.PinExpired)
_DATA_REFUSED = (pkcs11.EncryptedDataInvalid, pkcs11.EncryptedDataLenRange, pkcs11.DataInvalid, pkcs11.DataLenRange)

_lock = threading.RLock()
"""PKCS#11 knows one application to a process: whoever logs in, out, or starts the library anew does so for all."""
_lines: dict[tuple[str, str], _Line] = {}
"""By library and token. They end with the process: to close one may log the others out, and keys out of sight seem gone."""


@dataclass(slots=True)
class _Line:
    """A session, and the keys that were found in it, by label and id: to search a token takes long."""

    session: Session
    found: dict[str, dict[bytes, _Aes]] = field(default_factory=dict)


class TokenKeys:
    """Keys in a token.

    Args:
        settings: Which library, which token, and where its PIN is.

    Raises:
        ConfigurationInvalid: There is no such library, or the PIN is not right.
        Unavailable: The token is not there.
    """

    name = "pkcs11"

    def __init__(self, settings: Token) -> None:
        self._settings = settings
        self._where = (settings.library, settings.token)
        self._pin_refused = ""
        self._do(lambda _: None)

    def create(self, kek_id: str) -> None:
        """Make a key."""
        checked(kek_id)

        def make(line: _Line) -> None:
            session = line.session
            refuse_to_make(_state(session, kek_id), kek_id)
            made = {**_MADE, Attribute.LABEL: kek_id, Attribute.ID: os.urandom(_ID)}
            session.generate_key(KeyType.AES, KEY_BYTES * 8, store=True, template=made)
            if _marked(session, kek_id):  # by someone else, between the check and the making
                _erase(session, kek_id)
                refuse_to_make(KeyState.DESTROYED, kek_id)

        self._do(make)

    def state(self, kek_id: str) -> KeyState:
        """Tell where a key stands."""
        checked(kek_id)
        return self._do(lambda line: _state(line.session, kek_id))

    def wrap(self, kek_id: str, data_key: bytes, aad: bytes) -> bytes:
        """Encrypt a data key."""
        checked_data_key(data_key)
        checked(kek_id)

        def wrapped(line: _Line) -> bytes:
            wrapper, key = min(_usable(line, kek_id).items(), key=lambda found: found[0])
            nonce = os.urandom(_NONCE)
            return _FORMAT + wrapper + nonce + _encrypt(key, nonce, data_key, bound(kek_id, aad))

        return self._do(wrapped)

    def unwrap(self, kek_id: str, wrapped: bytes, aad: bytes) -> bytes:
        """Decrypt a data key."""
        checked(kek_id)
        wrapper, rest = wrapped[len(_FORMAT) :][:_ID], wrapped[len(_FORMAT) + _ID :]

        def unwrapped(line: _Line) -> bytes:
            if wrapper not in _usable(line, kek_id):
                del line.found[kek_id]  # another registry may have made it a moment after it was looked for
            found = _usable(line, kek_id).get(wrapper)
            if found is None or len(wrapped) != _SIZE or not wrapped.startswith(_FORMAT):
                raise does_not_unwrap(kek_id)
            return _decrypt(found, rest[:_NONCE], rest[_NONCE:], bound(kek_id, aad), kek_id)

        return self._do(unwrapped)

    def destroy(self, kek_id: str) -> None:
        """Destroy a key for good: the token forgets it, and keeps the mark."""
        checked(kek_id)

        def destroy(line: _Line) -> None:
            session = line.session
            line.found.pop(kek_id, None)
            for kind in ("destroying", "destroyed"):
                if not _marks(session, f"{kind}/{kek_id}"):
                    label = {Attribute.APPLICATION: _APPLICATION, Attribute.LABEL: f"{kind}/{kek_id}", Attribute.VALUE: b""}
                    kept = {Attribute.TOKEN: True, Attribute.PRIVATE: True, Attribute.MODIFIABLE: False}
                    session.create_object({Attribute.CLASS: ObjectClass.DATA, **kept, **label})
            # From here on the key is refused everywhere; a crash leaves what `finish` erases.
            _erase(session, kek_id)
            for mark in _marks(session, f"destroying/{kek_id}"):
                mark.destroy()

        self._do(destroy)

    def destroyed(self) -> Iterable[str]:
        """List the ids of which there is a mark."""
        return sorted(self._do(lambda line: _labels(line.session, "destroyed/")))

    def finish(self) -> None:
        """Finish the destructions that a crash interrupted."""
        for kek_id in self._do(lambda line: _labels(line.session, "destroying/")):
            self.destroy(kek_id)

    def close(self) -> None:
        """Nothing ends here: the session is the process's."""

    def _do(self, action: Callable[[_Line], T]) -> T:
        """Do something with a session: that of the process, or else a new one, or else one of a library that starts anew.

        What was begun may be begun again: all that is done here can be done twice.
        """
        with _held():
            for remedy in (None, _lines.clear, self._start_anew):
                try:
                    if remedy:
                        remedy()
                    line = self._line()
                    line.session.generate_random(64)  # a dead session fails here, where nothing has begun
                    return action(line)
                except pkcs11.PKCS11Error as error:
                    failed = error
            what = type(failed).__name__
            msg = f"The token '{self._settings.token}' cannot be used ({what}); see that it is connected, then try again."
            raise Unavailable(msg) from failed

    def _start_anew(self) -> None:
        _lines.clear()
        self._library().reinitialize()

    def _library(self) -> Any:  # noqa: ANN401 - the library is a type of its own, made when it is loaded
        try:
            return pkcs11.lib(self._settings.library)
        except (RuntimeError, OSError) as error:
            msg = f"'{self._settings.library}' is no PKCS#11 library that can be loaded; set [keys.pkcs11] library."
            raise ConfigurationInvalid(msg) from error

    def _line(self) -> _Line:
        if self._pin_refused:  # a token that is asked again and again with a wrong PIN locks itself
            raise ConfigurationInvalid(self._pin_refused)
        if self._where not in _lines:
            _lines[self._where] = _Line(self._login(self._token()))
        return _lines[self._where]

    def _token(self) -> Slotted:
        label = self._settings.token
        found = [token for token in self._library().get_tokens() if token.label == label]
        if not found:  # the library looks at its slots when it starts
            self._start_anew()
            found = [token for token in self._library().get_tokens() if token.label == label]
        if len(found) > 1:
            raise ConfigurationInvalid(f"There are {len(found)} tokens labelled '{label}'; give each its own label.")
        if not found:
            raise Unavailable(f"There is no token '{label}'; plug it in, or start what connects it, then try again.", token=label)
        token: Slotted = found[0]
        return token

    def _login(self, token: Slotted) -> Session:
        settings = self._settings
        if settings.pin_env:
            pin = os.environ.get(settings.pin_env, "")
        else:
            pin = read_secret(Path(settings.pin_file), "the token's PIN")
        if not pin:
            raise ConfigurationInvalid(f"The variable {settings.pin_env} does not hold the token's PIN; set it, and start again.")
        try:
            return token.open(rw=True, user_pin=pin)
        except pkcs11.UserAlreadyLoggedIn:
            return token.open(rw=True)
        except _PIN_REFUSED as error:
            what = type(error).__name__
            self._pin_refused = (
                f"The token '{settings.token}' refuses its PIN ({what}); it is not tried again. Mend it, then start again."
            )
            raise ConfigurationInvalid(self._pin_refused) from None


@contextmanager
def _held() -> Iterator[None]:
    if not _lock.acquire(timeout=_PATIENCE_S):
        raise Unavailable("The token does not answer an earlier call; see that it is connected, then try again.")
    try:
        yield
    finally:
        _lock.release()


def _state(session: Session, kek_id: str) -> KeyState:
    if _marked(session, kek_id):
        return KeyState.DESTROYED
    if _keys(session, kek_id):
        return KeyState.LIVE
    session.token.slot.get_token()  # that a key is gone is not concluded where the token is gone
    return KeyState.MISSING


def _usable(line: _Line, kek_id: str) -> dict[bytes, _Aes]:
    """Find the keys of an id. One that was found before is used as it was: if it is gone by now, the token says so."""
    if kek_id not in line.found:
        refuse(_state(line.session, kek_id), kek_id)
        if len(line.found) >= _REMEMBERED:
            line.found.clear()
        line.found[kek_id] = {key[Attribute.ID]: key for key in _keys(line.session, kek_id)}
    return line.found[kek_id]


def _keys(session: Session, kek_id: str) -> list[Any]:
    wanted = {Attribute.CLASS: ObjectClass.SECRET_KEY, Attribute.KEY_TYPE: KeyType.AES, Attribute.LABEL: kek_id, **_SEALED}
    return list(session.get_objects(wanted))


def _marks(session: Session, label: str) -> list[Any]:
    wanted = {Attribute.CLASS: ObjectClass.DATA, Attribute.APPLICATION: _APPLICATION, Attribute.LABEL: label}
    return list(session.get_objects(wanted))


def _marked(session: Session, kek_id: str) -> bool:
    return bool(_marks(session, f"destroyed/{kek_id}"))


def _labels(session: Session, prefix: str) -> list[str]:
    wanted = {Attribute.CLASS: ObjectClass.DATA, Attribute.APPLICATION: _APPLICATION}
    labels = [found[Attribute.LABEL] for found in session.get_objects(wanted)]
    return [label.removeprefix(prefix) for label in labels if label.startswith(prefix)]


def _erase(session: Session, kek_id: str) -> None:
    for key in list(session.get_objects({Attribute.CLASS: ObjectClass.SECRET_KEY, Attribute.LABEL: kek_id})):
        key.destroy()


def _encrypt(key: _Aes, nonce: bytes, plain: bytes, aad: bytes) -> bytes:
    sealed = key.encrypt(plain, mechanism=Mechanism.AES_GCM, mechanism_param=GCMParams(nonce, aad, _TAG * 8))
    return bytes(sealed)  # type: ignore[arg-type] # what went in whole comes out whole


def _decrypt(key: _Aes, nonce: bytes, sealed: bytes, aad: bytes, kek_id: str) -> bytes:
    try:
        plain = key.decrypt(sealed, mechanism=Mechanism.AES_GCM, mechanism_param=GCMParams(nonce, aad, _TAG * 8))
    except _DATA_REFUSED:
        raise does_not_unwrap(kek_id) from None
    except (pkcs11.GeneralError, pkcs11.FunctionFailed):
        # Some tokens say no more than that of what does not decrypt: whether it is the token, a text of our own tells.
        fresh = os.urandom(_NONCE)
        ours = _encrypt(key, fresh, bytes(KEY_BYTES), b"")
        key.decrypt(ours, mechanism=Mechanism.AES_GCM, mechanism_param=GCMParams(fresh, b"", _TAG * 8))
        raise does_not_unwrap(kek_id) from None
    return bytes(plain)  # type: ignore[arg-type] # as in `_encrypt`
