"""A second, slow HPKE opener from RFC 9180 and the X-Wing draft, held to published vectors: it must open our capsules."""

from __future__ import annotations

import hashlib
import hmac
from typing import NamedTuple

from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

SUITE = b"HPKE" + (0x647A).to_bytes(2, "big") + (1).to_bytes(2, "big") + (3).to_bytes(2, "big")
ENC = 1120


class Schedule(NamedTuple):
    """What RFC 9180 section 5.1 derives in base mode."""

    key: bytes
    base_nonce: bytes
    exporter_secret: bytes


def xwing_decapsulate(seed: bytes, enc: bytes) -> bytes:
    """X-Wing draft, section 5.5: SHA3-256 over both secrets, the X25519 ciphertext and key, and a label drawn as a wing."""
    expanded = hashlib.shake_256(seed).digest(96)
    x25519 = X25519PrivateKey.from_private_bytes(expanded[64:])
    return hashlib.sha3_256(
        MLKEM768PrivateKey.from_seed_bytes(expanded[:64]).decapsulate(enc[:1088])
        + x25519.exchange(X25519PublicKey.from_public_bytes(enc[1088:]))
        + enc[1088:]
        + x25519.public_key().public_bytes_raw()
        + rb"\.//^"
        + b"\\",
    ).digest()


def schedule(shared_secret: bytes, info: bytes) -> Schedule:
    """RFC 9180 section 5.1, mode base, HKDF-SHA256, ChaCha20-Poly1305."""
    context = b"\0" + _extract(b"", b"psk_id_hash", b"") + _extract(b"", b"info_hash", info)
    secret = _extract(shared_secret, b"secret", b"")
    return Schedule(
        _expand(secret, b"key", context, 32), _expand(secret, b"base_nonce", context, 12), _expand(secret, b"exp", context, 32)
    )


def open_single(seed: bytes, sealed: bytes, info: bytes, aad: bytes = b"") -> bytes:
    """RFC 9180 section 6.1."""
    derived = schedule(xwing_decapsulate(seed, sealed[:ENC]), info)
    return ChaCha20Poly1305(derived.key).decrypt(derived.base_nonce, sealed[ENC:], aad)


def _extract(salt: bytes, label: bytes, secret: bytes) -> bytes:
    return hmac.digest(salt or bytes(32), b"HPKE-v1" + SUITE + label + secret, "sha256")


def _expand(secret: bytes, label: bytes, info: bytes, length: int) -> bytes:
    return hmac.digest(secret, length.to_bytes(2, "big") + b"HPKE-v1" + SUITE + label + info + b"\1", "sha256")[:length]
