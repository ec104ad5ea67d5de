"""What the ledger says of a sample or a probe, so that text, numbers and receipt can be held against their entry; no I/O."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

from model_organisms.formats import strict_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from model_organisms.records import SampleReceipt, TokenScore

PROBE_TOP = 5
"""Tokens of which a probe releases the log-probability, at each position."""
PROBE_DIGITS = 3
"""Decimals of a released log-probability."""


def receipt_digest(receipt: SampleReceipt) -> str:
    """SHA-256, in hex, of a receipt's canonical JSON, as the result's entry holds it in the fact `receipt`.

    The entry's own place, `ledger_index`, is left out: the entry cannot say it. So is `local` where it is false. The seed is
    written as text, for it has 63 bits.
    """
    said = asdict(receipt)
    del said["ledger_index"]
    if not receipt.local:
        del said["local"]
    said["parameters"]["seed"] = str(receipt.parameters.seed)
    return hashlib.sha256(strict_json.canonical(said)).hexdigest()


def released(positions: Iterable[Sequence[TokenScore]]) -> tuple[tuple[TokenScore, ...], ...]:
    """What a probe releases of the scores at each position: the best few, rounded."""
    return tuple(
        tuple(replace(score, logprob=rounded(score.logprob)) for score in position[:PROBE_TOP]) for position in positions
    )


def rounded(number: float) -> float:
    """A number as a probe releases it."""
    return round(number, PROBE_DIGITS)


def probe_text(positions: Sequence[Sequence[TokenScore]], kl_to_base: float) -> str:
    """The numbers of a probe as canonical JSON: what is kept of it, and what its receipt's digest is of.

    Args:
        positions: Next-token scores at each asked position, best first.
        kl_to_base: Divergence from the base model, nats.
    """
    scores = [[asdict(score) for score in position] for position in positions]
    return strict_json.canonical({"positions": scores, "kl_to_base": kl_to_base}).decode()
