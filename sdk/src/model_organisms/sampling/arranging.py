"""Decides which row of a batch is served from which place of a table of organisms. Numbers only: no tensors here.

A table holds one organism a place, and one batched product serves `width` rows from each place. Every place costs the reading of
one organism, every row beyond what is needed costs arithmetic, and rows that do not lie as the table does cost two more copies.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    T = TypeVar("T", bound=Hashable)

_ROW = 0.12
"""What computing one row costs, where reading the organism costs 1."""


@dataclass(frozen=True, slots=True)
class Arrangement:
    """Rows in places.

    - row `first + i` is served from slot `slots[i]` of `places x width` slots, place by place; -1 where it is not served here;
    - `holds[p]` is the organism (by whatever stands for it) of place p, None for nobody.
    """

    first: int
    slots: tuple[int, ...]
    width: int
    holds: tuple[object | None, ...]

    @property
    def straight(self) -> bool:
        """Whether the rows lie as the slots do, so that nothing need be moved; a row not served here must meet nobody."""
        return len(self.slots) == len(self.holds) * self.width and all(
            slot == index or (slot == -1 and self.holds[index // self.width] is None) for index, slot in enumerate(self.slots)
        )


def arrange(wanted: Sequence[T | None], held: Sequence[T | None], *, moving: float) -> Arrangement:
    """Choose the cheapest of the arrangements: a place for each row, or so many rows a place.

    Args:
        wanted: What each row of the batch asks of this table; None where it asks nothing of it.
        held: What the table's places hold now; who stays where it is need not be copied.
        moving: What moving rows costs, where reading one organism costs 1.

    Returns:
        The arrangement. `wanted` must ask for something.
    """
    asking = [row for row, name in enumerate(wanted) if name is not None]
    first, last = asking[0], asking[-1]
    span = wanted[first : last + 1]
    counts = Counter(name for name in span if name is not None)
    choices = [_by_row(first, span)]
    choices += [_by_width(first, span, counts, held, width) for width in range(1, max(counts.values()) + 1)]
    return min(choices, key=lambda choice: _cost(choice, moving))


def _cost(choice: Arrangement, moving: float) -> float:
    return len(choice.holds) * (1 + _ROW * choice.width) + (0 if choice.straight else moving)


def _by_row(first: int, span: Sequence[T | None]) -> Arrangement:
    slots = tuple(-1 if name is None else index for index, name in enumerate(span))
    return Arrangement(first, slots, 1, tuple(span))


def _by_width(first: int, span: Sequence[T | None], counts: Counter[T], held: Sequence[T | None], width: int) -> Arrangement:
    needed = Counter({name: -(-count // width) for name, count in counts.items()})
    places = needed.total()
    holds: list[T | None] = []
    for name in held[:places]:  # who is there already stays
        holds.append(name if name is not None and needed[name] else None)
        if name is not None and needed[name]:
            needed[name] -= 1
    coming = iter([name for name, count in needed.items() for _ in range(count)])
    full = [next(coming, None) if name is None else name for name in holds]
    full += list(coming)
    free: dict[T, list[int]] = {}
    for place, name in enumerate(full):
        if name is not None:
            free.setdefault(name, []).extend(range(place * width, (place + 1) * width))
    slots = tuple(-1 if name is None else free[name].pop(0) for name in span)
    return Arrangement(first, slots, width, tuple(full))
