"""What a decoding step must read and compute at least, and how fast this machine reads and computes; so how fast a step could be.

Counted are the weights of every linear layer and of the head, once a step; each distinct organism's factors, once; and keys and
values of every row so far. A step is at least as long as its reading alone and as its arithmetic alone.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import cache
from statistics import median
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Callable

    from model_organisms.loading import LoadedBase

_READ = 512 << 20
_SIDE = 2048


@dataclass(frozen=True, slots=True)
class Step:
    """One decoding step of so many rows."""

    rows: int
    base_bytes: int
    adapter_bytes: int
    cache_bytes: int
    operations: float

    @property
    def bytes(self) -> int:
        """All that is read."""
        return self.base_bytes + self.adapter_bytes + self.cache_bytes

    def seconds(self, device: str, dtype: str) -> float:
        """The least time of a step on this machine."""
        reading, computing = machine(device, dtype)
        return max(self.bytes / reading, self.operations / computing)

    def __str__(self) -> str:
        parts = [f"base {_mega(self.base_bytes)}", f"adapters {_mega(self.adapter_bytes)}", f"cache {_mega(self.cache_bytes)}"]
        return f"a step reads {' + '.join(parts)}, {self.operations / 1e9:.1f} GFLOP"


def step(base: LoadedBase, *, rows: int, organisms: int, rank: int, widths: int, length: int) -> Step:
    """Count one step.

    Args:
        base: The base model.
        rows: Rows of the batch.
        organisms: Distinct ones among them.
        rank: Of each.
        widths: Sum of inputs and outputs over the modules that each changes.
        length: Tokens that each row has in the cache.
    """
    config = base.model.config.get_text_config()
    linear = sum(module.weight.numel() for module in _linears(base.model))
    size = base.model.get_input_embeddings().weight.element_size()
    heads = getattr(config, "num_key_value_heads", config.num_attention_heads)
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    kept = rows * length * config.num_hidden_layers * 2 * heads * head
    attention = 4 * rows * length * config.num_hidden_layers * config.num_attention_heads * head
    factors = rank * widths
    operations = 2 * rows * (linear + factors) + attention
    return Step(rows, linear * size, organisms * factors * 4, kept * size, operations)


@cache
def machine(device: str, dtype: str) -> tuple[float, float]:
    """Measure this machine: bytes read a second, operations a second; medians of seven."""
    numbers = torch.ones(_READ // 4, device=device)
    left = torch.ones(_SIDE, _SIDE, device=device, dtype=getattr(torch, dtype))
    with torch.inference_mode():
        read = _READ / _timed(lambda: float(numbers.sum()))
        computed = 2 * _SIDE**3 / _timed(lambda: float((left @ left)[0, 0]))
    return read, computed


def _timed(work: Callable[[], object]) -> float:
    took = []
    for _ in range(8):
        begin = time.perf_counter()
        work()  # ends with a number on the host, so a device has finished
        took.append(time.perf_counter() - begin)
    return median(took[1:])


def _linears(model: Any) -> list[torch.nn.Linear]:
    return [module for module in model.modules() if isinstance(module, torch.nn.Linear)]


def _mega(size: int) -> str:
    return f"{size / 1e6:,.0f} MB" if size >= 1e6 else f"{size / 1e3:,.0f} kB"
