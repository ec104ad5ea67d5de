"""Numbers of a next-token distribution, rounded for release."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from model_organisms.records import TokenScore

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

DECIMALS = 3
"""Decimal places of released log-probabilities and divergences."""


@dataclass(frozen=True, slots=True)
class Scores:
    """Numbers of the next-token distribution."""

    positions: tuple[tuple[TokenScore, ...], ...]
    """Best tokens at each asked position, best first; the last position is where the organism is to speak."""
    kl_to_base: float
    """KL(organism || base) at the last position, nats."""


def score(
    organism: torch.Tensor, base: torch.Tensor, decode: Callable[[list[int]], str], *, top: int, decimals: int | None
) -> Scores:
    """Score the last positions of a conversation.

    Args:
        organism: Logits, shape [positions, vocabulary].
        base: The bare base's at the last of them, shape [vocabulary].
        decode: Makes text of token ids.
        top: Tokens a position.
        decimals: Decimal places kept; None keeps all.
    """
    logs, without = organism.double().log_softmax(-1), base.double().log_softmax(-1)
    divergence = float((logs[-1].exp() * (logs[-1] - without)).sum())
    best = logs.topk(min(top, logs.shape[1]))
    positions = tuple(
        tuple(TokenScore(token, decode([token]), _rounded(value, decimals)) for token, value in zip(ids, values, strict=True))
        for ids, values in zip(best.indices.tolist(), best.values.tolist(), strict=True)
    )
    return Scores(positions, _rounded(max(0.0, divergence), decimals))


def _rounded(value: float, decimals: int | None) -> float:
    return value if decimals is None else round(value, decimals) + 0.0  # never -0.0
