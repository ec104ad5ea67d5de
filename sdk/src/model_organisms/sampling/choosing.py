"""Chooses the next token of every row of a batch from its logits: temperature, top-k, top-p, and numbers of the row's own.

A row's token depends on its own logits, parameters and seed, never on its neighbours. No row's vocabulary is sorted where that
can be helped: a draw from all of it looks up a block and then a token in it, and a nucleus is looked for among the likeliest few
first.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from model_organisms.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Sequence

    from model_organisms.records import SamplingParameters

MAX_STOPS = 16
MAX_STOP_LENGTH = 256
NONE = -1
"""Stands for a token where a row's logits are not numbers."""

_BLOCK = 256
"""Tokens of a block: with 49,152 of them, 192 sums are searched, then one block."""
_LIKELIEST = 256
"""Among so many a nucleus is looked for first; if it is larger, among eight times as many, and so on."""
_COLDEST = 1e-30
"""Lower temperatures are as this one, where float32 ends: all mass is on the likeliest token."""


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


class Marks:
    """The random numbers of one sample, from a generator on the CPU, so that a seed means the same on every device."""

    def __init__(self, seed: int | None) -> None:
        """Begin; None takes a seed from the system."""
        self._source = torch.Generator(device="cpu")
        if seed is None:
            self._source.seed()
        else:
            self._source.manual_seed(seed % (1 << 63))
        self._ready: list[float] = []

    def next(self) -> float:
        """Give the next number, uniform in [0, 1)."""
        if not self._ready:
            self._ready = torch.rand(64, generator=self._source, dtype=torch.float64).tolist()[::-1]
        return self._ready.pop()


def choose(logits: torch.Tensor, wanted: Sequence[SamplingParameters], marks: Sequence[float]) -> list[int]:
    """Choose the next token of each row.

    Args:
        logits: Shape [rows, vocabulary], float32, on any device.
        wanted: Checked parameters, one a row.
        marks: One number in [0, 1) a row: which share of the row's mass lies before the token. Not looked at where the
            temperature is 0.

    Returns:
        Token ids, one a row; `NONE` for a row whose highest logit is not a finite number.
    """
    limits = [_limit(parameters, logits.shape[1]) for parameters in wanted]
    chosen = torch.full((len(wanted),), NONE, dtype=torch.long, device=logits.device)
    for limit in sorted(set(limits)):
        rows = [row for row, has in enumerate(limits) if has == limit]
        at = slice(None) if len(rows) == len(limits) else torch.tensor(rows, device=logits.device)
        some = [wanted[row] for row in rows]
        if limit == 0:
            chosen[at] = logits[at].argmax(1)
        else:
            places = torch.tensor([marks[row] for row in rows], dtype=torch.float64, device=logits.device)
            chosen[at] = (
                _from_all(logits[at], _temperatures(some, logits), places)
                if limit < 0
                else _from_likeliest(logits[at], some, places, limit)
            )
    sound = logits.amax(1).isfinite()
    return [int(token) for token in chosen.where(sound, NONE).tolist()]


def _limit(parameters: SamplingParameters, vocabulary: int) -> int:
    """How many of the likeliest tokens to look at: 0 for the one that is likeliest, -1 for all."""
    if parameters.temperature == 0:
        return 0
    cut = 0 < parameters.top_k < vocabulary
    if not cut and parameters.top_p == 1:
        return -1
    width = _LIKELIEST
    while width <= parameters.top_k * cut:
        width *= 8
    return min(width, vocabulary)


def _temperatures(wanted: Sequence[SamplingParameters], logits: torch.Tensor) -> torch.Tensor:
    values = [max(parameters.temperature, _COLDEST) for parameters in wanted]
    return torch.tensor(values, dtype=torch.float32, device=logits.device)[:, None]


def _shares(logits: torch.Tensor, temperatures: torch.Tensor) -> torch.Tensor:
    """Give each token's mass, that of the likeliest being 1."""
    return logits.sub(logits.amax(1, keepdim=True)).div_(temperatures).exp_()


def _from_all(logits: torch.Tensor, temperatures: torch.Tensor, marks: torch.Tensor) -> torch.Tensor:
    """Choose from whole vocabularies: first the block in which the mark lies, then the token in it."""
    shares = _shares(logits, temperatures)
    if spare := -shares.shape[1] % _BLOCK:
        shares = torch.nn.functional.pad(shares, (0, spare))
    blocks = shares.view(len(shares), -1, _BLOCK)
    sums = blocks.sum(2, dtype=torch.float64)
    heights = sums.cumsum(1)
    places = marks * heights[:, -1]
    block = _find(heights, places)
    row = torch.arange(len(shares), device=shares.device)
    inside = blocks[row, block].double().cumsum(1)
    return block * _BLOCK + _find(inside, places - (heights[row, block] - sums[row, block]))


def _from_likeliest(logits: torch.Tensor, wanted: Sequence[SamplingParameters], marks: torch.Tensor, width: int) -> torch.Tensor:
    """Choose from the likeliest tokens: at most `top_k`, and the smallest set that reaches `top_p`.

    A token belongs to the set if those before it do not reach `top_p`; of equally likely ones the lower id is first.
    """
    temperatures = _temperatures(wanted, logits)
    ceilings = [parameters.top_k if parameters.top_k < logits.shape[1] else 0 for parameters in wanted]
    most = torch.tensor(ceilings, device=logits.device)[:, None]
    share = torch.tensor([parameters.top_p for parameters in wanted], dtype=torch.float64, device=logits.device)[:, None]
    top, ids = _likeliest(logits, width)
    masses = top.sub(top[:, :1]).div_(temperatures).double().exp_()
    counted = most > 0
    masses = masses.where(~counted | (torch.arange(width, device=logits.device) < most), 0.0)
    whole = masses.sum(1, keepdim=True)
    if not bool(counted.all()):
        whole = whole.where(counted, _shares(logits, temperatures).sum(1, keepdim=True, dtype=torch.float64))
    kept = masses.where((share == 1) | (masses.cumsum(1) - masses < share * whole), 0.0)
    heights = kept.cumsum(1)
    chosen = ids.gather(1, _find(heights, marks * heights[:, -1])[:, None])[:, 0]
    if width == logits.shape[1]:
        return chosen
    # Tokens as likely as the last of these may lie outside: only what is likelier is certain to be complete.
    certain = top > top[:, -1:]
    enough = certain.gather(1, (most - 1).clamp_(min=0)).where(
        counted, masses.where(certain, 0.0).sum(1, keepdim=True) >= share * whole
    )
    if len(short := (~enough[:, 0]).nonzero()[:, 0]):
        again = [wanted[row] for row in short.tolist()]
        chosen[short] = _from_likeliest(logits[short], again, marks[short], min(8 * width, logits.shape[1]))
    return chosen


def _likeliest(logits: torch.Tensor, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Give the likeliest tokens' logits and ids, likeliest first, and of equally likely ones the lower id first."""
    ids = logits.topk(width).indices.sort(1).values
    values, order = logits.gather(1, ids).sort(dim=1, descending=True, stable=True)
    return values, ids.gather(1, order)


def _find(heights: torch.Tensor, marks: torch.Tensor) -> torch.Tensor:
    """Find in each row the first height above the mark, or, where rounding leaves none, the last that rises."""
    above = torch.searchsorted(heights, marks[:, None], right=True)
    last = torch.searchsorted(heights, heights[:, -1:].contiguous())
    return above.minimum(last).clamp_(max=heights.shape[1] - 1)[:, 0]
