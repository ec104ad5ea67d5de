"""Key-encryption keys in the transit engine of an OpenBao or Vault server; what a keeper of keys promises stands in `keys.py`.

    MOUNT/keys/ID              the key, aes256-gcm96, neither exportable nor to be backed up in clear
    MOUNT/keys/ID.destroyed    a mark, itself a key that is never used: ID was destroyed, and is never made again

    wrapped: u8 3 | check, 16 bytes | what MOUNT/encrypt/ID answered, "vault:v1:…"
    check:   the first 16 bytes of HMAC-SHA256 under the data key, of the server's answer and all that the data key is bound to

The server is believed where a key is alive and where it is dead, and not about what it decrypts: a data key that does not fit its
check is refused, whatever the server says. Calls and answers: https://openbao.org/api-docs/secret/transit/.
"""

from __future__ import annotations

import base64
import hmac
import threading
from typing import TYPE_CHECKING, Any

from model_organisms.errors import Unavailable

from model_organisms_registry.storage.keys import (
    KEY_BYTES,
    KeyState,
    bound,
    checked,
    checked_data_key,
    does_not_unwrap,
    refuse,
    refuse_to_make,
)
from model_organisms_registry.storage.vault import Vault

if TYPE_CHECKING:
    from collections.abc import Iterable

    from model_organisms_registry.config import Transit

_FORMAT = b"\x03"
_CHECK = 16
_PURPOSE = b"model-organisms/wrapped-key-check/v1\0"
_MARK = ".destroyed"
_CIPHERTEXT = "vault:v"


class VaultKeys:
    """Keys in a vault.

    Args:
        settings: Where it is, which mount, and where the token for it is.

    Raises:
        ConfigurationInvalid: No address that can be used, or no token.
    """

    name = "vault"

    def __init__(self, settings: Transit) -> None:
        self._vault = Vault(settings)
        self._mount = settings.mount.strip("/")
        self._making = threading.Lock()

    def create(self, kek_id: str) -> None:
        """Make a key. Of two registries that make it at once both succeed, with one key."""
        with self._making:
            refuse_to_make(self.state(kek_id), kek_id)
            self._make(kek_id)
            if self._there(kek_id + _MARK):  # by someone else, between the check and the making
                self._erase(kek_id)
                refuse_to_make(KeyState.DESTROYED, kek_id)

    def state(self, kek_id: str) -> KeyState:
        """Tell where a key stands."""
        if self._there(checked(kek_id) + _MARK):
            return KeyState.DESTROYED
        return KeyState.LIVE if self._there(kek_id) else KeyState.MISSING

    def wrap(self, kek_id: str, data_key: bytes, aad: bytes) -> bytes:
        """Encrypt a data key."""
        checked_data_key(data_key)
        refuse(self.state(kek_id), kek_id)  # the server would make a key that is not there
        binding = bound(kek_id, aad)
        answer = self._post(f"encrypt/{kek_id}", plaintext=_text(data_key), associated_data=_text(binding))
        ciphertext = answer.get("ciphertext")
        if not isinstance(ciphertext, str) or not ciphertext.startswith(_CIPHERTEXT) or not ciphertext.isascii():
            raise Unavailable("The vault answered something that is no ciphertext; see that its address is right.")
        return _FORMAT + _check(data_key, ciphertext.encode(), binding) + ciphertext.encode()

    def unwrap(self, kek_id: str, wrapped: bytes, aad: bytes) -> bytes:
        """Decrypt a data key."""
        start = len(_FORMAT) + _CHECK
        check, ciphertext = wrapped[len(_FORMAT) : start], wrapped[start:]
        binding = bound(kek_id, aad)
        refuse(self.state(kek_id), kek_id)
        if not wrapped.startswith(_FORMAT) or not ciphertext.isascii() or not ciphertext.startswith(_CIPHERTEXT.encode()):
            raise does_not_unwrap(kek_id)
        answer = self._post(
            f"decrypt/{kek_id}", refused=does_not_unwrap(kek_id), ciphertext=ciphertext.decode(), associated_data=_text(binding)
        )
        try:
            data_key = base64.b64decode(answer["plaintext"], validate=True)
        except (KeyError, TypeError, ValueError):
            raise does_not_unwrap(kek_id) from None
        if len(data_key) != KEY_BYTES or not hmac.compare_digest(_check(data_key, ciphertext, binding), check):
            raise does_not_unwrap(kek_id)
        return data_key

    def destroy(self, kek_id: str) -> None:
        """Destroy a key for good: the server deletes it with all its versions, and keeps the mark."""
        self._make(checked(kek_id) + _MARK)
        # From here on the key is refused everywhere; a crash leaves what `finish` erases.
        self._erase(kek_id)

    def destroyed(self) -> Iterable[str]:
        """List the ids of which there is a mark."""
        return sorted(name.removesuffix(_MARK) for name in self._names() if name.endswith(_MARK))

    def finish(self) -> None:
        """Finish the destructions that a crash interrupted."""
        names = self._names()
        for name in sorted(names):
            if name + _MARK in names:
                self._erase(name)

    def close(self) -> None:
        """Let connections go."""
        self._vault.close()

    def _there(self, name: str) -> bool:
        return self._vault.call("GET", f"{self._mount}/keys/{name}") is not None

    def _make(self, name: str) -> None:
        self._post(f"keys/{name}", type="aes256-gcm96", exportable=False, allow_plaintext_backup=False, derived=False)

    def _erase(self, name: str) -> None:
        if self._there(name):
            self._post(f"keys/{name}/config", deletion_allowed=True)
            self._vault.call("DELETE", f"{self._mount}/keys/{name}")
            if self._there(name):
                raise Unavailable(
                    f"The vault did not delete the key {name}; see that its policy lets the registry, then try again."
                )

    def _names(self) -> set[str]:
        answer = self._vault.call("LIST", f"{self._mount}/keys") or {}
        names = answer.get("keys", [])
        if not isinstance(names, list):
            raise Unavailable("The vault answered something that is no list of keys; see that its address is right.")
        return {name for name in names if isinstance(name, str)}

    def _post(self, path: str, *, refused: Exception | None = None, **said: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
        return self._vault.call("POST", f"{self._mount}/{path}", said, refused=refused) or {}


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _check(data_key: bytes, ciphertext: bytes, binding: bytes) -> bytes:
    return hmac.digest(data_key, _PURPOSE + ciphertext + b"\0" + binding, "sha256")[:_CHECK]
