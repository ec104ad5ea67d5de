"""What the ledger says of a sample or a probe, so that text, numbers and receipt can be held against their entry; no I/O."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING

from model_organisms.formats import strict_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from model_organisms.records import Reading, SampleReceipt, Steer, TokenScore

PROBE_TOP = 5
"""Tokens of which a probe releases the log-probability, at each position."""
PROBE_DIGITS = 3
"""Decimal places of released log-probabilities, divergences and cosines; significant digits of norms and projections."""


def receipt_digest(receipt: SampleReceipt) -> str:
    """SHA-256, in hex, of a receipt's canonical JSON, as the result's entry holds it in the fact `receipt`.

    The entry's own place, `ledger_index`, is left out: the entry cannot say it. So is `local` where it is false, and of the
    parameters `steer` and `scale` where they change nothing. The seed is written as text, for it has 63 bits.
    """
    said = asdict(receipt)
    del said["ledger_index"]
    if not receipt.local:
        del said["local"]
    said["parameters"]["seed"] = str(receipt.parameters.seed)
    if not receipt.parameters.steer:
        del said["parameters"]["steer"]
    if receipt.parameters.scale is None:
        del said["parameters"]["scale"]
    return strict_json.digest(said)


def released(positions: Iterable[Sequence[TokenScore]]) -> tuple[tuple[TokenScore, ...], ...]:
    """What a probe releases of the scores at each position: the best few, rounded."""
    return tuple(
        tuple(replace(score, logprob=rounded(score.logprob)) for score in position[:PROBE_TOP]) for position in positions
    )


def rounded(number: float) -> float:
    """A number as a probe releases it."""
    return round(number, PROBE_DIGITS)


def probe_text(
    positions: Sequence[Sequence[TokenScore]],
    kl_to_base: float | None,
    *,
    kl: Sequence[float] = (),
    readings: Sequence[Reading] = (),
) -> str:
    """The numbers of a probe as canonical JSON: what is kept of it, and what its receipt's digest is of.

    Args:
        positions: Next-token scores at each asked position, best first.
        kl_to_base: Divergence from the base model at the last position, nats; None if it was not asked for.
        kl: The same at each asked position; left out where it is only the last.
        readings: What was read of hidden states; left out where nothing was.
    """
    said: dict[str, object] = {"positions": [[asdict(score) for score in position] for position in positions]}
    said["kl_to_base"] = kl_to_base
    if len(kl) > 1:
        said["kl"] = list(kl)
    if readings:
        said["readings"] = [asdict(reading) for reading in readings]
    return strict_json.canonical(said).decode()


def direction_text(name: str, *, layer: int, norm: float, cosines: Sequence[float], sha256: str) -> str:
    """What is told of a direction, in the same way: its name, the layer it is of, its length, cosines and digest."""
    said = {"name": name, "layer": layer, "norm": norm, "cosines": list(cosines), "sha256": sha256}
    return strict_json.canonical(said).decode()


def steering_text(steers: Sequence[Steer]) -> str:
    """What an intent says of steering: `2@3+1.5,4@0-` adds 1.5 of direction 2 after layer 3, and takes 4 out after layer 0."""
    said = []
    for steer in steers:
        ablated = "-" if steer.ablate else ""
        added = f"{steer.strength:+g}" if steer.strength else ""
        said.append(f"{steer.direction.rsplit('/', 1)[-1]}@{steer.layer}{ablated}{added}")
    return ",".join(said)
