"""An identity file under a passphrase: scrypt (RFC 7914) makes a key of it, AES-256-GCM seals the file whole, its pins included.

Wrong passphrase and changed file give one error, because nobody can tell them apart; the file stays as it is.
"""

from __future__ import annotations

import base64
import json
import os
import unicodedata
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from model_organisms.errors import ConfigurationInvalid, InvalidArgument, PassphraseRefused

if TYPE_CHECKING:
    from collections.abc import Callable

FORMAT = "model-organisms/locked-identity/v1"
SHORTEST = 8
"""Characters of a passphrase. What protects a file that was copied is its length; this keeps out the hopeless ones."""
_COST, _BLOCK, _LANES = 16, 8, 1
"""scrypt's log2(N), r and p: 64 MiB, and a fraction of a second, for each guess."""
_COSTS = range(14, 21)
"""What a file may ask for: less protects nothing, more could stop a machine."""
_SALT, _NONCE, _KEY = 16, 12, 32


@dataclass(frozen=True, slots=True)
class Lock:
    """A passphrase, stretched for one file; it seals that file again without the passphrase."""

    salt: bytes
    cost: int
    key: bytes = field(repr=False)

    @classmethod
    def of(cls, passphrase: str, *, salt: bytes = b"", cost: int = _COST) -> Lock:
        """Stretch a passphrase; for a new file, with fresh salt.

        Raises:
            InvalidArgument: It is too short.
        """
        spelled = unicodedata.normalize("NFKC", passphrase)
        if len(spelled) < SHORTEST:
            raise InvalidArgument(f"A passphrase has at least {SHORTEST} characters; take several words.")
        salt = salt or os.urandom(_SALT)
        stretched = Scrypt(salt=salt, length=_KEY, n=1 << cost, r=_BLOCK, p=_LANES).derive(
            spelled.encode("utf-8", "surrogatepass")
        )
        return cls(salt, cost, stretched)

    def seal(self, plain: bytes) -> str:
        """Print a locked file, JSON."""
        head = {"format": FORMAT, "kdf": "scrypt", "cost": self.cost, "salt": base64.b64encode(self.salt).decode()}
        nonce = os.urandom(_NONCE)
        sealed = nonce + AESGCM(self.key).encrypt(nonce, plain, _bound(head))
        return json.dumps({**head, "sealed": base64.b64encode(sealed).decode()}, indent=1)


def locked(document: Any) -> bool:  # noqa: ANN401 - what a file holds
    """Whether what a file holds is locked."""
    return isinstance(document, dict) and document.get("format") == FORMAT


def unlock(document: dict[str, Any], passphrase: Callable[[], str], lock: Lock | None = None) -> tuple[bytes, Lock]:
    """Open a locked file.

    Args:
        document: What it holds.
        passphrase: Gives it as its owner chose it; asked only if needed.
        lock: Opens it without asking, if it is this file's.

    Returns:
        The content, and the lock to seal it with again.

    Raises:
        PassphraseRefused: It does not open.
        ConfigurationInvalid: It is locked in another way.
    """
    head = {name: document[name] for name in ("format", "kdf", "cost", "salt")}
    sealed = base64.b64decode(document["sealed"], validate=True)
    if document.keys() != {*head, "sealed"} or head["kdf"] != "scrypt" or head["cost"] not in _COSTS:
        raise ConfigurationInvalid("The identity file is locked in a way that this version does not know; update the SDK.")
    salt = base64.b64decode(head["salt"], validate=True)
    try:
        if lock is None or (lock.salt, lock.cost) != (salt, head["cost"]):
            lock = Lock.of(passphrase(), salt=salt, cost=head["cost"])
        return AESGCM(lock.key).decrypt(sealed[:_NONCE], sealed[_NONCE:], _bound(head)), lock
    except (InvalidTag, InvalidArgument):
        msg = "The passphrase does not open the identity file (or the file was changed); try again, nothing was lost."
        raise PassphraseRefused(msg) from None


def _bound(head: dict[str, Any]) -> bytes:
    return json.dumps(head, sort_keys=True, separators=(",", ":")).encode()
