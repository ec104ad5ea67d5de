"""The products of low rank that turn a base module's output into an organism's: two batched ones a module, whatever the number.

Row i's output gains `x A^T B`, with `A` [rank, in] and `B` [rank, out] of its own organism (Hu et al. 2021). Factors are float32
and so is the product, whatever the base computes in, as in PEFT: an organism's small factors keep their digits, and a base of
half precision rounds once, when the change is added.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from model_organisms.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Sequence

    from model_organisms.sampling.arranging import Arrangement
    from model_organisms.sampling.sites import Place


_TALL = 8
"""From this rank, one token a place is multiplied as a column: measured, a tenth faster."""


@dataclass(slots=True)
class Moves:
    """How the rows of a batch reach their places and come back; the same for every module of one layout."""

    rows: int
    """Of the whole batch."""
    places: int
    first: int
    last: int
    take: torch.Tensor | None
    """Which row each slot takes, [slots]; None where rows lie as slots do."""
    back: torch.Tensor | None
    """Which slot each served row comes back from, [served]."""
    served: torch.Tensor | None
    """Which rows are served, [served]; None where it is all from `first` to `last`."""
    scale: float
    """What every change is multiplied with."""
    scales: torch.Tensor | None
    """What each slot's change is multiplied with, [slots, 1, 1], where they differ."""

    @classmethod
    def of(cls, arrangement: Arrangement, scales: Sequence[float], rows: int, device: torch.device) -> Moves:
        """Lay out the moves of an arrangement.

        Args:
            arrangement: Which row is served from which slot.
            scales: Of every row of the batch; those of rows not served here say nothing.
            rows: Rows of the batch.
            device: Where the base lies.
        """
        places, width, first = len(arrangement.holds), arrangement.width, arrangement.first
        served = [(first + index, slot) for index, slot in enumerate(arrangement.slots) if slot >= 0]
        last = first + len(arrangement.slots)
        by_slot = {slot: row for row, slot in served}
        different = len({scales[row] for row, _ in served}) > 1
        spread = [scales[by_slot[slot]] if slot in by_slot else 0.0 for slot in range(places * width)] if different else []
        straight = arrangement.straight

        def index(values: list[int]) -> torch.Tensor:
            return torch.tensor(values, dtype=torch.int64, device=device)

        return cls(
            rows=rows,
            places=places,
            first=first,
            last=last,
            take=None if straight else index([by_slot.get(slot, served[0][0]) for slot in range(places * width)]),
            back=None if straight else index([slot for _, slot in served]),
            served=None if straight or len(served) == last - first else index([row for row, _ in served]),
            scale=1.0 if different else scales[served[0][0]],
            scales=torch.tensor(spread, device=device).view(-1, 1, 1) if different else None,
        )


class Part:
    """What one module gets from one table: the factors of its places, and the moves."""

    __slots__ = ("_a", "_b", "_embedding", "_moves")

    def __init__(self, memory: torch.Tensor, place: Place, moves: Moves) -> None:
        """View the factors where they lie.

        Args:
            memory: The table, [places or more, layout.size].
            place: Where the module's factors lie in a row.
            moves: The moves.
        """
        rank, site, step, start = place.rank, place.site, memory.stride(0), memory.storage_offset()
        self._a = memory.as_strided((moves.places, rank, site.width_in), (step, site.width_in, 1), start + place.a)
        self._b = memory.as_strided((moves.places, rank, site.width_out), (step, site.width_out, 1), start + place.b)
        self._embedding = site.embedding
        self._moves = moves

    def __call__(self, x: torch.Tensor, out: torch.Tensor) -> None:
        """Add the changes.

        Args:
            x: What went into the module, [rows, tokens, in], or token ids, [rows, tokens].
            out: What came out, [rows, tokens, out]; it is changed in place.
        """
        moves, places = self._moves, self._moves.places
        if x.shape[0] != moves.rows or x.dim() != (2 if self._embedding else 3):
            raise InvalidArgument(
                f"The composition has {moves.rows} rows and the forward {list(x.shape)}; compose the rows of this forward first."
            )
        # 1. Bring each row to its place. 2. x A^T, of all places at once. 3. Times B. 4. Bring it back, and add it.
        come = x[moves.first : moves.last] if moves.take is None else x.index_select(0, moves.take)
        slots, tokens = come.shape[:2]
        low = self._low(come.reshape(places, slots // places * tokens, *come.shape[2:]))
        if moves.scales is not None:
            low = low.reshape(slots, tokens, -1).mul_(moves.scales).view(low.shape)
        if moves.take is None and out.dtype == low.dtype and out.is_contiguous():
            view = out[moves.first : moves.last].view(places, -1, out.shape[2])
            view.baddbmm_(low, self._b, alpha=moves.scale)
            return
        change = torch.bmm(low, self._b)
        if moves.scale != 1.0:
            change.mul_(moves.scale)
        change = change.view(slots, tokens, -1)
        if moves.back is not None:
            change = change.index_select(0, moves.back)
        if moves.served is not None:
            out[moves.served] = (out[moves.served] + change).to(out.dtype)
        else:
            out[moves.first : moves.last].add_(change)

    def _low(self, come: torch.Tensor) -> torch.Tensor:
        """Give x A^T, [places, width * tokens, rank]; of an embedding, the columns of A that the ids name."""
        if not self._embedding:
            x = come.to(self._a.dtype)
            if x.shape[1] == 1 and self._a.shape[1] >= _TALL:
                return torch.bmm(self._a, x.mT).mT
            return torch.bmm(x, self._a.mT)
        ids = come.unsqueeze(1).expand(-1, self._a.shape[1], -1)
        return self._a.gather(2, ids).mT
