"""Which turns of sessions the registry must say again: drawn by lot from the ledger itself, so that anybody can draw it too.

The lot of a turn is made of the leaf hash of its result's entry. That hash holds a random number of 63 bits and everything that
the entry says, so nobody who speaks to the registry can choose it. The entry states the share in force, so a registry that
changes its settings later changes nothing of what it owes.
"""

from __future__ import annotations

import hashlib
import math

from model_organisms.errors import InvalidArgument

FACT = "rerun"
"""The fact of a result's entry that holds the share; a turn without it was not in the draw."""
_PREFIX = b"rerun"
_LOT_BYTES = 8


def lot(leaf: bytes) -> int:
    """Draw the lot of a turn: the first 64 bits of SHA-256 over `rerun` and the leaf hash.

    Args:
        leaf: Leaf hash (RFC 6962, 2.1) of the entry of its result, 32 bytes.
    """
    return int.from_bytes(hashlib.sha256(_PREFIX + leaf).digest()[:_LOT_BYTES], "big")


def due(leaf: bytes, share: str) -> bool:
    """Whether a turn is to be said again.

    Args:
        leaf: Leaf hash of the entry of its result, 32 bytes.
        share: What that entry states; see `FACT`.

    Raises:
        InvalidArgument: The share is none.
    """
    return lot(leaf) < read_share(share) * 2.0 ** (8 * _LOT_BYTES)


def print_share(share: float) -> str:
    """Print a share as the entry states it, so that reading it gives the same number."""
    return repr(float(share))


def read_share(text: str) -> float:
    """Read a share.

    Raises:
        InvalidArgument: It is not a number from 0 to 1.
    """
    try:
        share = float(text)
    except ValueError:
        share = math.nan
    if not 0 <= share <= 1:
        raise InvalidArgument(f"A share is a number from 0 to 1, not {text!r}.", field=FACT)
    return share
