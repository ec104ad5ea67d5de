"""What a registry and a keeper of cells say to each other through a cluster, sealed, so that it carries ciphertext alone.

    keeper      an X-Wing key pair made at start, its seed never given out; proof = HMAC-SHA256(secret, INFO | "keeper" | public)
    session     a random key, sealed by HPKE to the keeper's public key, bound to the session's name
    keys        HKDF-SHA256(session's key, salt = secret, info = INFO | name): bundle (32) | up (32) | down (32)
    bundle      a stream of `formats/streaming.py` under the bundle's key
    question    AES-256-GCM under `up`, nonce = call as u64be | 0 as u32be
    answer      AES-256-GCM under `down`, nonce = call as u64be | its number in the call as u32be, from 0

The secret is what registry and keepers share and nobody else should: who lacks it can neither pose as a keeper, for want of the
proof, nor as the registry, for want of the keys. Call 0 is the opening; every later call has its own number, taken once.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from model_organisms.errors import (
    BY_REASON,
    CapsuleInvalid,
    ConfigurationInvalid,
    Internal,
    ModelOrganismsError,
    SignatureInvalid,
)
from model_organisms.formats.sealing_keys import generate_sealing_key, open_key, seal_key
from model_organisms.formats.streaming import REFUSAL

INFO = b"model-organisms/cluster/v1\0"
SECRET_BYTES = 32
_KEY = 32
_MOST_CALLS = 1 << 64
_MOST_ANSWERS = 1 << 32


@dataclass(frozen=True, slots=True)
class Introduction:
    """How a keeper shows who it is."""

    public: bytes
    """Its sealing key."""
    proof: bytes
    """That whoever made the key knows the secret."""


@dataclass(frozen=True, slots=True)
class Line:
    """The two directions of one session, and the key of its bundle."""

    bundle: bytes = field(repr=False)
    _up: AESGCM
    _down: AESGCM

    def ask(self, call: int, plain: bytes) -> bytes:
        """Seal a question."""
        return self._up.encrypt(_nonce(call, 0), plain, None)

    def asked(self, call: int, sealed: bytes) -> bytes:
        """Open a question.

        Raises:
            CapsuleInvalid: It is not this session's, or not of this call.
        """
        return _open(self._up, _nonce(call, 0), sealed)

    def answer(self, call: int, number: int, plain: bytes) -> bytes:
        """Seal one answer of a call; each number once."""
        return self._down.encrypt(_nonce(call, number), plain, None)

    def answered(self, call: int, number: int, sealed: bytes) -> bytes:
        """Open an answer.

        Raises:
            CapsuleInvalid: It is not this session's, not of this call, or not the one that comes now.
        """
        return _open(self._down, _nonce(call, number), sealed)


def introduce(secret: bytes) -> tuple[bytes, Introduction]:
    """Make a keeper's key pair.

    Returns:
        The private seed, to keep, and what to show.
    """
    seed, public = generate_sealing_key()
    return seed, Introduction(public, _proof(secret, public))


def recognise(introduction: Introduction, secret: bytes) -> None:
    """Check that a keeper is one of ours before anything is sealed to it.

    Raises:
        SignatureInvalid: Whoever made this key does not know the secret.
    """
    if not hmac.compare_digest(introduction.proof, _proof(secret, introduction.public)):
        msg = "A keeper of cells did not prove that this registry started it, so it was sent nothing; see who uses the cluster."
        raise SignatureInvalid(msg)


def call_up(name: str, key: bytes, introduction: Introduction, secret: bytes) -> tuple[bytes, Line]:
    """Begin a session's line with a keeper that was recognised.

    Args:
        name: The session's name on the cluster, never used before.
        key: 32 random bytes.
        introduction: The keeper's.
        secret: What is shared.

    Returns:
        The key, sealed to the keeper, and the line.
    """
    return seal_key(key, introduction.public, info=INFO + name.encode()), _line(name, key, secret)


def pick_up(name: str, sealed: bytes, seed: bytes, secret: bytes) -> Line:
    """Begin a session's line at the keeper's end.

    Raises:
        CapsuleInvalid: The key is not sealed to this keeper under this name.
    """
    return _line(name, open_key(sealed, seed, info=INFO + name.encode()), secret)


def read_secret(path: str) -> bytes:
    """Read the secret that lies here and on every node.

    Raises:
        ConfigurationInvalid: It cannot be read, or is too short.
    """
    try:
        secret = Path(path).read_bytes()
    except OSError as error:
        msg = f"[cells.cluster] secret_file cannot be read: {error}. It must lie here and on every node of the cluster."
        raise ConfigurationInvalid(msg) from error
    if len(secret) < SECRET_BYTES:
        msg = f"[cells.cluster] secret_file {path} is too short; write at least {SECRET_BYTES} random bytes into it."
        raise ConfigurationInvalid(msg)
    return secret


def print_error(error: ModelOrganismsError) -> bytes:
    """Print an error of the tree, to be sealed."""
    return json.dumps({"reason": error.reason, "message": error.message, "details": error.details}).encode()


def parse_error(printed: bytes) -> ModelOrganismsError:
    """Parse what `print_error` printed; a reason that this registry does not know is a fault."""
    told: dict[str, Any] = json.loads(printed)
    return BY_REASON.get(told["reason"], Internal)(told["message"], **told["details"])


def _proof(secret: bytes, public: bytes) -> bytes:
    return hmac.digest(secret, INFO + b"keeper" + public, hashlib.sha256)


def _line(name: str, key: bytes, secret: bytes) -> Line:
    derived = HKDF(algorithm=SHA256(), length=3 * _KEY, salt=secret, info=INFO + name.encode()).derive(key)
    bundle, up, down = (derived[at : at + _KEY] for at in range(0, 3 * _KEY, _KEY))
    return Line(bundle, AESGCM(up), AESGCM(down))


def _nonce(call: int, number: int) -> bytes:
    if not 0 <= call < _MOST_CALLS or not 0 <= number < _MOST_ANSWERS:
        raise CapsuleInvalid(REFUSAL)
    return struct.pack(">QI", call, number)


def _open(cipher: AESGCM, nonce: bytes, sealed: bytes) -> bytes:
    try:
        return cipher.decrypt(nonce, sealed, None)
    except (InvalidTag, ValueError):
        raise CapsuleInvalid(REFUSAL) from None
