"""A table of organisms of one layout, side by side, as one batched product reads them. It copies only what is not there yet."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from model_organisms.formats import buffers

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from model_organisms.sampling.bank import Organism
    from model_organisms.sampling.sites import Layout


class Table:
    """Places for organisms; a place holds one, or zeros."""

    @torch.inference_mode(mode=False)
    def __init__(self, layout: Layout, device: torch.device) -> None:
        """Begin without places."""
        self._layout, self._device = layout, device
        self.memory = torch.zeros(0, layout.size, device=device)
        """float32, [places, layout.size]; a new tensor each time the table grows."""
        self.holds: list[Organism | None] = []

    def hold(self, wanted: Sequence[Organism | None], weights: Callable[[Organism], torch.Tensor]) -> torch.Tensor:
        """See that the first places hold these.

        Args:
            wanted: Who is to be where; None wants zeros.
            weights: Gives an organism's row.

        Returns:
            float32 on the device, [len(wanted) or more, layout.size].
        """
        self._grow(len(wanted))
        for place, organism in enumerate(wanted):
            if self.holds[place] is organism:
                continue
            self._put(place, organism, weights)
        return self.memory

    @property
    def empty(self) -> bool:
        """Whether every place is free."""
        return not any(self.holds)

    def drop(self, organism: Organism) -> None:
        """Wipe an organism wherever it stands."""
        for place, held in enumerate(self.holds):
            if held is organism:
                self.memory[place].zero_()
                self.holds[place] = None

    def wipe(self) -> None:
        """Wipe every place."""
        self.memory.zero_()
        self.holds = [None] * len(self.holds)

    def _put(self, place: int, organism: Organism | None, weights: Callable[[Organism], torch.Tensor]) -> None:
        row = weights(organism) if organism else None
        try:
            if row is None:
                self.memory[place].zero_()
            else:
                self.memory[place].copy_(row)
            self.holds[place] = organism
        except BaseException:
            self.memory[place].zero_()
            self.holds[place] = None
            raise

    @torch.inference_mode(mode=False)
    def _grow(self, places: int) -> None:
        """Make room; what was there moves, and its old place is wiped."""
        have = len(self.holds)
        if places <= have:
            return
        size = max(places, 2 * have)
        if self._device.type == "cpu":
            flat = torch.frombuffer(buffers.anonymous(4 * size * self._layout.size), dtype=torch.float32)
            memory = flat.view(size, self._layout.size)
        else:
            memory = torch.zeros(size, self._layout.size, device=self._device)
        memory[:have].copy_(self.memory)
        self.memory.zero_()
        self.memory, self.holds = memory, self.holds + [None] * (size - have)
