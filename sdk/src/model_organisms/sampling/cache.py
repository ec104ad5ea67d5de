"""Keeps keys and values of many conversations at once, each in a slot of its own and each of its own length.

Slots lie side by side from 0 upwards, so that a forward reads them where they lie. What a slot held is overwritten with zeros as
its conversation leaves: nobody's words stay, and a number that is not one cannot reach, times zero, the conversation that has
the slot next.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import transformers

if TYPE_CHECKING:
    from collections.abc import Sequence

STEP = 32
"""Tokens by which slots and what is read of them grow: whole cache lines, and few different shapes."""


def rounded(tokens: int) -> int:
    """Round a number of tokens up to what is kept for it."""
    return -(-tokens // STEP) * STEP


class Cache(transformers.Cache):  # type: ignore[misc]  # transformers has no types here
    """Keys and values by layer, shape [slots, tokens, heads, head size]; transformers' attention writes and reads through it."""

    def __init__(self, shapes: Sequence[tuple[int, int, int]], dtype: torch.dtype, device: torch.device, budget: int) -> None:
        """Hold nothing yet.

        Args:
            shapes: Of each layer: heads, size of a key, size of a value.
            dtype: Of keys and values.
            device: Where they lie.
            budget: Bytes that all slots together may take.
        """
        super().__init__(layers=[])
        self._shapes, self._dtype, self._device = tuple(shapes), dtype, device
        self._held: list[tuple[torch.Tensor, torch.Tensor]] = []
        self._slots = self._tokens = 0
        self.token_bytes = sum(heads * (key + value) for heads, key, value in shapes) * dtype.itemsize
        """Bytes a token takes, all layers together."""
        self.budget = budget
        self._rows = slice(0, 0)
        self._reach = 0
        self._places = torch.empty(0, dtype=torch.long, device=device)

    def another(self) -> Cache:
        """Make an empty one of the same kind and budget."""
        return Cache(self._shapes, self._dtype, self._device, self.budget)

    @property
    def bytes(self) -> int:
        """Bytes held now."""
        return self._slots * self._tokens * self.token_bytes

    def fits(self, slots: int, tokens: int) -> bool:
        """Say whether so many slots of so many tokens stay within the budget."""
        return slots * rounded(tokens) * self.token_bytes <= self.budget

    def reserve(self, slots: int, tokens: int, *, used: int, written: int) -> None:
        """Make room, by at least half as much again where the budget allows it, so that growing is rare.

        Args:
            slots: How many are needed; with `tokens` they fit the budget.
            tokens: How many each must take.
            used: Slots that hold something.
            written: Tokens written in the longest of them.

        Raises:
            RuntimeError: torch's own, where the device has no memory; what was held is still held.
        """
        tokens = rounded(tokens)
        if slots <= self._slots and tokens <= self._tokens:
            return
        if tokens > self._tokens:
            longer = max(tokens, rounded(self._tokens * 3 // 2))
            tokens = longer if self.fits(max(slots, self._slots), longer) else tokens
        tokens = max(tokens, self._tokens if self.fits(slots, self._tokens) else 0)
        more = max(slots, self._slots * 3 // 2 if slots > self._slots else self._slots)
        slots = more if self.fits(more, tokens) else slots
        grown = [
            (self._zeros(slots, tokens, heads, key), self._zeros(slots, tokens, heads, value))
            for heads, key, value in self._shapes
        ]
        for pair, wider in zip(self._held, grown, strict=False):  # before the first growing nothing is held
            for old, new in zip(pair, wider, strict=True):
                new[:used, :written] = old[:used, :written]
                old.zero_()  # freed memory keeps what it holds
        self._held, self._slots, self._tokens = grown, slots, tokens

    def _zeros(self, *shape: int) -> torch.Tensor:
        return torch.zeros(shape, dtype=self._dtype, device=self._device)

    def move(self, source: int, target: int, tokens: int) -> None:
        """Move what a slot holds into a free one."""
        for pair in self._held:
            for tensor in pair:
                tensor[target, :tokens] = tensor[source, :tokens]
        self.clear(source, tokens)

    def clear(self, slot: int, tokens: int) -> None:
        """Overwrite what a slot holds; one that holds nothing may not be there yet."""
        for pair in self._held if tokens else ():
            for tensor in pair:
                tensor[slot, :tokens] = 0

    def release(self) -> None:
        """Give the memory back; nobody has a slot any more."""
        self._held, self._slots, self._tokens = [], 0, 0

    def aim(self, first: int, positions: torch.Tensor, reach: int) -> None:
        """Say where the next forward writes, and how far it reads.

        Args:
            first: Slot of its first row; the others follow.
            positions: Where each of its tokens goes, shape [rows, tokens].
            reach: Tokens of each slot that are read.
        """
        rows = len(positions)
        self._rows, self._reach = slice(first, first + rows), reach
        starts = torch.arange(first, first + rows, device=self._device)[:, None] * self._tokens
        self._places = (starts + positions).flatten()

    def update(
        self,
        key_states: torch.Tensor,
        value_states: torch.Tensor,
        layer_idx: int,
        *_: Any,  # noqa: ANN401 - transformers passes what some of its caches want
        **__: Any,  # noqa: ANN401 - as above
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write a layer's new keys and values, and give all that its rows may look at; transformers calls this.

        Args:
            key_states: Shape [rows, heads, tokens, head size].
            value_states: The same.
            layer_idx: The layer.
        """
        return (
            self._written(self._held[layer_idx][0], key_states),
            self._written(self._held[layer_idx][1], value_states),
        )

    def _written(self, held: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
        flat = held.view(-1, *held.shape[2:])
        flat.index_copy_(0, self._places, new.transpose(1, 2).reshape(-1, *held.shape[2:]))
        return held[self._rows, : self._reach].transpose(1, 2)
