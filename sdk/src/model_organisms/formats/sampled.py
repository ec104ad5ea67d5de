"""What the ledger says of a sample or a probe, so that text, numbers and receipt can be held against their entry; no I/O."""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from typing import TYPE_CHECKING

from model_organisms.formats import strict_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from model_organisms.records import SampleReceipt, TokenScore


def receipt_digest(receipt: SampleReceipt) -> str:
    """SHA-256, in hex, of a receipt's canonical JSON, as the result's entry holds it in the fact `receipt`.

    The entry's own place, `ledger_index`, is left out: the entry cannot say it. The seed is written as text, for it has 63 bits.
    """
    said = asdict(receipt)
    del said["ledger_index"]
    said["parameters"]["seed"] = str(receipt.parameters.seed)
    return hashlib.sha256(strict_json.canonical(said)).hexdigest()


def probe_text(positions: Sequence[Sequence[TokenScore]], kl_to_base: float) -> str:
    """The numbers of a probe as canonical JSON: what is kept of it, and what its receipt's digest is of.

    Args:
        positions: Next-token scores at each asked position, best first.
        kl_to_base: Divergence from the base model, nats.
    """
    scores = [[asdict(score) for score in position] for position in positions]
    return strict_json.canonical({"positions": scores, "kl_to_base": kl_to_base}).decode()
