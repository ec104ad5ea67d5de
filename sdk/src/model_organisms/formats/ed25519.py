"""Ed25519 signatures (RFC 8032) held against a key; the one place that asks the library, because the library asks too little.

Under a public key of small order it takes one signature for many messages, or for all. Whoever enrolled with such a key could
deny what they had signed, and anybody could sign for them; so such a key verifies nothing. None comes of a private key.
"""

from __future__ import annotations

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

KEY_BYTES = 32
_PRIME = 2**255 - 19
_ORDER_8 = (
    2707385501144840649318225287225658788936804267575313519463743609750303402022,
    55188659117513257062467267217118295137698188065244968500265048394206261417927,
)
SMALL_ORDER = frozenset((0, 1, _PRIME - 1, _PRIME, _PRIME + 1, *_ORDER_8))
"""The y of every point whose order divides 8, and the unreduced writings of two; x, the top bit, may be either."""


def verifies(public_key: bytes, signature: bytes, message: bytes) -> bool:
    """Say whether a signature over a message is by the holder of this key, and by nobody else.

    Args:
        public_key: Raw, 32 bytes.
        signature: Raw, 64 bytes.
        message: What was signed.
    """
    if int.from_bytes(public_key, "little") & (1 << 255) - 1 in SMALL_ORDER:
        return False
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True
