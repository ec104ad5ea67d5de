"""Makes X-Wing key pairs and seals 32-byte keys to them; what is sealed and for whom is `capsule.py`'s business.

X-Wing is ML-KEM-768 and X25519 in one KEM (draft-connolly-cfrg-xwing-kem; HPKE KEM 0x647A, draft-ietf-hpke-pq): a private key
is a 32-byte seed, a public key 1,216 bytes. HPKE is RFC 9180 base mode, single shot, with HKDF-SHA256 and ChaCha20-Poly1305.
"""

from __future__ import annotations

import hashlib
import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import (
    AEAD,
    KDF,
    KEM,
    MLKEM768X25519PrivateKey,
    MLKEM768X25519PublicKey,
    Suite,
)

from model_organisms.errors import CapsuleInvalid, InvalidArgument
from model_organisms.formats.streaming import REFUSAL

SEED_BYTES = 32
PUBLIC_BYTES = 1216
OVERHEAD = 1120 + 16
"""Bytes that sealing adds: the encapsulation and the tag."""

_MLKEM_PUBLIC = 1184
_SUITE = Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.CHACHA20_POLY1305)


def generate_sealing_key() -> tuple[bytes, bytes]:
    """Make a key pair.

    Returns:
        The private seed (32 bytes) and the public key (1,216 bytes), both as they are stored and sent.
    """
    seed = os.urandom(SEED_BYTES)
    return seed, sealing_public(seed)


def sealing_public(seed: bytes) -> bytes:
    """Compute the public key of a private seed."""
    mlkem, x25519 = _expand(seed)
    return mlkem.public_key().public_bytes_raw() + x25519.public_key().public_bytes_raw()


def check_sealing_public(public: bytes) -> None:
    """Refuse a public key that nothing may be sealed to.

    Raises:
        InvalidArgument: Wrong length, an ML-KEM key that is not reduced, or an X25519 point of low order.
    """
    try:
        X25519PrivateKey.generate().exchange(_public(public)[1])
    except ValueError:
        msg = f"This is no X-Wing public key: {PUBLIC_BYTES} bytes, ML-KEM-768 then X25519, are wanted; make one with `mo login`."
        raise InvalidArgument(msg) from None


def seal_key(key: bytes, public: bytes, *, info: bytes) -> bytes:
    """Seal `key` to a public key, bound to `info`.

    Returns:
        Encapsulation and ciphertext, `OVERHEAD` bytes longer than `key`.

    Raises:
        InvalidArgument: That public key may not be sealed to.
    """
    check_sealing_public(public)
    return _SUITE.encrypt(key, MLKEM768X25519PublicKey(*_public(public)), info)


def open_key(sealed: bytes, seed: bytes, *, info: bytes) -> bytes:
    """Open what `seal_key` sealed.

    Raises:
        CapsuleInvalid: Not to this key, not under this `info`, or damaged.
    """
    private = MLKEM768X25519PrivateKey(*_expand(seed))
    try:
        return _SUITE.decrypt(sealed, private, info)
    except (InvalidTag, ValueError):  # ValueError: an X25519 point of low order
        raise CapsuleInvalid(REFUSAL) from None


def _expand(seed: bytes) -> tuple[MLKEM768PrivateKey, X25519PrivateKey]:
    """Expand a seed as X-Wing does: SHAKE256 gives ML-KEM's d and z, then the X25519 scalar."""
    if len(seed) != SEED_BYTES:
        msg = f"A private sealing key has {SEED_BYTES} bytes, not {len(seed)}; make one with generate_sealing_key."
        raise InvalidArgument(msg)
    expanded = hashlib.shake_256(seed).digest(96)
    return MLKEM768PrivateKey.from_seed_bytes(expanded[:64]), X25519PrivateKey.from_private_bytes(expanded[64:])


def _public(public: bytes) -> tuple[MLKEM768PublicKey, X25519PublicKey]:
    return (
        MLKEM768PublicKey.from_public_bytes(public[:_MLKEM_PUBLIC]),
        X25519PublicKey.from_public_bytes(public[_MLKEM_PUBLIC:]),
    )
