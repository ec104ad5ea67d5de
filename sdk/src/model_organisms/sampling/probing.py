"""Makes numbers of what a forward left: scores of tokens, divergence from the base, and what hidden states say along directions.

Arithmetic on tensors only. Nothing here is rounded, counted or permitted: what leaves a cell is for the registry to cut down.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from model_organisms.errors import InvalidArgument
from model_organisms.records import Measure, Reading, TokenScore

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from model_organisms.records import Inquiry

TOP = 5
"""Tokens scored at a position."""
_OF_LAYERS = frozenset({Measure.NORMS, Measure.PROJECTIONS, Measure.COSINES, Measure.ACTIVATIONS})
_OF_DIRECTIONS = frozenset({Measure.PROJECTIONS, Measure.COSINES})


@dataclass(frozen=True, slots=True)
class Measured:
    """Numbers of a probe."""

    positions: tuple[tuple[TokenScore, ...], ...]
    """Best tokens at each asked position, best first; the last position is where the organism is to speak."""
    kl: tuple[float, ...]
    """KL(organism || base) at each asked position, nats."""
    readings: tuple[Reading, ...] = ()
    """What was read of hidden states."""


def check_inquiry(inquiry: Inquiry, *, layers: int, tokens: int) -> None:
    """Refuse what cannot be answered.

    Args:
        inquiry: What is asked.
        layers: How many layers the model has.
        tokens: How many the conversation has.

    Raises:
        InvalidArgument: It asks for what is not there, or names no layers or directions where it needs some.
    """
    if not 1 <= inquiry.positions <= tokens:
        raise InvalidArgument(f"The conversation has {tokens} tokens; ask for 1 to {tokens} positions.", field="positions")
    if strange := [layer for layer in inquiry.layers if not 0 <= layer < layers]:
        raise InvalidArgument(f"Layer {strange[0]} is none; this model has 0 to {layers - 1}.", field="layers")
    asked = set(inquiry.measures)
    if asked & _OF_LAYERS and not inquiry.layers:
        raise InvalidArgument(f"Say after which layers, of 0 to {layers - 1}.", field="layers")
    if asked & _OF_DIRECTIONS and not inquiry.directions:
        raise InvalidArgument("Say along which directions; make one first.", field="directions")


def best_tokens(logits: torch.Tensor, tokenizer: Any, top: int = TOP) -> tuple[tuple[TokenScore, ...], ...]:  # noqa: ANN401 - transformers has no types here
    """Score the likeliest tokens at each position.

    Args:
        logits: Shape [positions, vocabulary].
        tokenizer: Makes their texts.
        top: Tokens a position.

    Returns:
        Log-probabilities in nats, best first.
    """
    best = logits.double().log_softmax(-1).topk(min(top, logits.shape[-1]))
    return tuple(
        tuple(TokenScore(token, tokenizer.decode([token]), score) for token, score in zip(ids, scores, strict=True))
        for ids, scores in zip(best.indices.tolist(), best.values.tolist(), strict=True)
    )


def divergences(organism: torch.Tensor, base: torch.Tensor) -> tuple[float, ...]:
    """Compute KL(organism || base) at each position.

    Args:
        organism: Logits, shape [positions, vocabulary].
        base: The base's, of the same shape.

    Returns:
        Nats, never below 0.
    """
    ours, theirs = organism.double().log_softmax(-1), base.double().log_softmax(-1)
    return tuple((ours.exp() * (ours - theirs)).sum(-1).clamp(min=0).tolist())


def readings(inquiry: Inquiry, states: Mapping[int, torch.Tensor], directions: Sequence[torch.Tensor]) -> tuple[Reading, ...]:
    """Read hidden states as an inquiry asks.

    Args:
        inquiry: What is asked.
        states: Hidden states after each of its layers, shape [positions, hidden].
        directions: Of length 1, in the inquiry's order, each of shape [hidden].

    Returns:
        One for each measure, layer and direction, in that order of nesting.
    """
    made = []
    exact = {layer: states[layer].double().cpu() for layer in inquiry.layers} if set(inquiry.measures) & _OF_LAYERS else {}
    vectors = [vector.double().cpu() for vector in directions]
    for measure in (measure for measure in inquiry.measures if measure in _OF_LAYERS):
        for layer, hidden in exact.items():
            if measure in _OF_DIRECTIONS:
                for name, vector in zip(inquiry.directions, vectors, strict=True):
                    made.append(Reading(measure, layer, name, tuple(_along(measure, hidden, vector).tolist())))
            else:
                values = hidden.norm(dim=-1) if measure is Measure.NORMS else hidden.flatten()
                made.append(Reading(measure, layer, "", tuple(values.tolist())))
    return tuple(made)


def cosines(vector: torch.Tensor, others: Sequence[torch.Tensor]) -> tuple[float, ...]:
    """Compare a direction with others, all of length 1 and of shape [hidden]."""
    return tuple(float((vector.double() @ other.double()).clamp(-1, 1)) for other in others)


def _along(measure: Measure, hidden: torch.Tensor, vector: torch.Tensor) -> torch.Tensor:
    along = hidden @ vector
    return along if measure is Measure.PROJECTIONS else along / hidden.norm(dim=-1).clamp(min=torch.finfo(torch.float64).tiny)
