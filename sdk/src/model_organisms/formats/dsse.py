"""Signs bytes into a DSSE envelope and opens one again; what the bytes mean is `provenance.py`'s business, or the capsule's.

Follows the DSSE v1.0.2 protocol and envelope (github.com/secure-systems-lab/dsse), with Ed25519 as the only algorithm.
"""

from __future__ import annotations

import base64
import hashlib
from typing import TYPE_CHECKING

from model_organisms.errors import InvalidProvenance, SignatureInvalid
from model_organisms.formats import ed25519, strict_json

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

MAX_ENVELOPE = 4 << 20
"""Bytes: an envelope must fit one message."""

MAX_SIGNATURES = 16
_FIELDS = 3


def pae(payload: bytes, payload_type: str) -> bytes:
    """Print what is signed: the pre-authentication encoding of a payload and its type."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def key_id(public_key: bytes) -> str:
    """Name a public key: the first 16 hex digits of the SHA-256 of its raw bytes."""
    return hashlib.sha256(public_key).hexdigest()[:16]


def sign(payload: bytes, payload_type: str, private_key: Ed25519PrivateKey) -> bytes:
    """Sign a payload.

    Args:
        payload: The statement, as it shall be read again.
        payload_type: Its media type, which the signature covers.
        private_key: The signer's identity or release key.

    Returns:
        The envelope, canonical JSON.
    """
    signature = private_key.sign(pae(payload, payload_type))
    signer = key_id(private_key.public_key().public_bytes_raw())
    return strict_json.canonical(
        {
            "payload": base64.b64encode(payload).decode(),
            "payloadType": payload_type,
            "signatures": [{"keyid": signer, "sig": base64.b64encode(signature).decode()}],
        },
    )


def verify(envelope: bytes, public_key: bytes, *, payload_type: str) -> bytes:
    """Open an envelope.

    Args:
        envelope: The bytes as they came; any well-formed DSSE envelope, canonical or not.
        public_key: Raw Ed25519 key, 32 bytes, that the caller already trusts; a key id in the envelope is only a hint.
        payload_type: The media type the caller expects; another is refused, so that no statement passes for one of another kind.

    Returns:
        The payload.

    Raises:
        InvalidProvenance: Not an envelope.
        SignatureInvalid: Not of this type, or no signature of this key, or one that does not verify.
    """
    kind, payload, signatures = _parse(envelope)
    if kind != payload_type:
        msg = f"The envelope holds {_shown(kind)}, not {payload_type}; ask for the document that was meant."
        raise SignatureInvalid(msg)
    mine = [signature for signer, signature in signatures if signer in ("", key_id(public_key))]
    if not mine:
        msg = f"The envelope has no signature of key {key_id(public_key)}; it was signed by someone else."
        raise SignatureInvalid(msg)
    if not all(ed25519.verifies(public_key, signature, pae(payload, kind)) for signature in mine):
        msg = f"The signature of key {key_id(public_key)} does not verify; do not use this document."
        raise SignatureInvalid(msg)
    return payload


def unsafe_payload(envelope: bytes, *, payload_type: str) -> bytes:
    """Open an envelope without checking who signed it: for text that is shown as its bearer's word, and nothing else.

    Args:
        envelope: The bytes as they came.
        payload_type: The media type the caller expects.

    Raises:
        InvalidProvenance: Not an envelope, or not of this type.
    """
    kind, payload, _ = _parse(envelope)
    if kind != payload_type:
        raise InvalidProvenance(f"The envelope holds {_shown(kind)}, not {payload_type}; ask for the document that was meant.")
    return payload


def _parse(envelope: bytes) -> tuple[str, bytes, list[tuple[str, bytes]]]:
    fields = strict_json.parse(envelope, what="The envelope", limit=MAX_ENVELOPE, error=InvalidProvenance)
    match fields:
        case {"payload": str(payload), "payloadType": str(kind), "signatures": [*entries]} if (
            len(fields) == _FIELDS and 1 <= len(entries) <= MAX_SIGNATURES
        ):
            return kind, _decode(payload), [_signature(entry) for entry in entries]
    raise _not_an_envelope()


def _signature(entry: object) -> tuple[str, bytes]:
    match entry:
        case {"sig": str(sig), "keyid": str(signer), **rest} if not rest:
            return signer, _decode(sig)
        case {"sig": str(sig), **rest} if not rest:
            return "", _decode(sig)
    raise _not_an_envelope()


def _decode(text: str) -> bytes:
    try:
        raw = base64.b64decode(text.encode("ascii"), validate=True)
    except ValueError:
        raise _not_an_envelope() from None
    if base64.b64encode(raw).decode() != text:  # spare bits of the last character must be zero: one payload, one text
        raise _not_an_envelope()
    return raw


def _not_an_envelope() -> InvalidProvenance:
    return InvalidProvenance("These bytes are not a DSSE envelope; sign the statement with formats.dsse.sign.")


def _shown(text: str) -> str:
    return text[:80].encode("unicode_escape").decode("ascii")
