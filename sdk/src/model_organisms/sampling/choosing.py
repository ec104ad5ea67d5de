"""Chooses one token from logits: temperature, top-k, top-p, and a generator of its own, so that a seed gives the same text."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from model_organisms.errors import InvalidArgument

if TYPE_CHECKING:
    from model_organisms.records import SamplingParameters

MAX_STOPS = 16
MAX_STOP_LENGTH = 256


def check_parameters(parameters: SamplingParameters) -> None:
    """Refuse parameters that mean nothing.

    Raises:
        InvalidArgument: One of them; the message names it.
    """
    if parameters.max_tokens < 1:
        raise InvalidArgument(f"max_tokens is {parameters.max_tokens}; give at least 1.", field="max_tokens")
    if not (math.isfinite(parameters.temperature) and parameters.temperature >= 0):
        raise InvalidArgument(
            f"temperature is {parameters.temperature}; give 0 (always the likeliest token) or more.", field="temperature"
        )
    if not 0 < parameters.top_p <= 1:
        raise InvalidArgument(f"top_p is {parameters.top_p}; give more than 0 and at most 1.", field="top_p")
    if parameters.top_k < 0:
        raise InvalidArgument(f"top_k is {parameters.top_k}; give 0 (no limit) or more.", field="top_k")
    if len(parameters.stop) > MAX_STOPS or not all(0 < len(stop) <= MAX_STOP_LENGTH for stop in parameters.stop):
        raise InvalidArgument(f"Give at most {MAX_STOPS} stop strings of 1 to {MAX_STOP_LENGTH} characters.", field="stop")


def generator(seed: int | None) -> torch.Generator:
    """Make the generator of one sample; it lies on the CPU, so that a seed means the same on every device."""
    source = torch.Generator(device="cpu")
    if seed is None:
        source.seed()
    else:
        source.manual_seed(seed % (1 << 63))
    return source


def choose(logits: torch.Tensor, parameters: SamplingParameters, source: torch.Generator) -> int:
    """Choose the next token.

    Args:
        logits: Of one position, shape [vocabulary], on the CPU.
        parameters: Checked ones.
        source: Gives one number per call, unless temperature is 0.

    Returns:
        A token id.
    """
    if parameters.temperature == 0:
        return int(logits.argmax())
    scaled = logits.double() / parameters.temperature
    if 0 < parameters.top_k < len(scaled):
        scaled, ids = scaled.topk(parameters.top_k)
    elif parameters.top_p < 1:
        scaled, ids = scaled.sort(descending=True, stable=True)
    else:
        ids = None
    shares = scaled.softmax(0)
    if parameters.top_p < 1:
        # The smallest set of the likeliest tokens that reaches top_p: one belongs if those before it do not.
        shares = shares.where(shares.cumsum(0) - shares < parameters.top_p, 0.0)
    heights = shares.cumsum(0)
    mark = torch.rand((), generator=source, dtype=torch.float64) * heights[-1]
    at = min(int(torch.searchsorted(heights, mark, right=True)), len(heights) - 1)
    return at if ids is None else int(ids[at])
