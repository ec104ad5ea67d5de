"""Copies an organism's factors out of its bundle's bytes into a flat row, and wipes rows. Where what lies is `sites.py`'s."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from model_organisms.formats import buffers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from model_organisms.formats.tensors import TensorTable
    from model_organisms.records import AdapterFacts
    from model_organisms.sampling.sites import Layout, Site

_VALUE = 4
"""Bytes of a float32."""


@torch.inference_mode(mode=False)  # else nobody could write to it outside of that mode
def new_row(layout: Layout, device: torch.device) -> torch.Tensor:
    """Make a row of zeros; on a CPU in memory that core dumps leave out."""
    if device.type != "cpu":
        return torch.zeros(layout.size, device=device)
    return torch.frombuffer(buffers.anonymous(layout.size * _VALUE), dtype=torch.float32, count=layout.size)


def wipe_row(row: torch.Tensor) -> None:
    """Overwrite a row with zeros, where it lies."""
    row.zero_()


def fill(row: torch.Tensor, layout: Layout, facts: Sequence[AdapterFacts], tables: Sequence[TensorTable]) -> None:
    """Put an organism's factors into a row of zeros, as float32 whatever their type, as PEFT does.

    Args:
        row: Of `new_row`.
        layout: Its layout.
        facts: Of each adapter, in order of composition.
        tables: Their tensors.
    """
    if row.device.type == "cpu":
        _fill(row.numpy(), layout, facts, tables)
        return
    staged = new_row(layout, torch.device("cpu"))
    try:
        _fill(staged.numpy(), layout, facts, tables)
        row.copy_(staged)
    finally:
        wipe_row(staged)


def _fill(row: NDArray[np.float32], layout: Layout, facts: Sequence[AdapterFacts], tables: Sequence[TensorTable]) -> None:
    begun = dict.fromkeys(layout.places, 0)
    for fact, table in zip(facts, tables, strict=True):
        halves = {(tensor.module, tensor.half): tensor for tensor in table.tensors.values()}
        for module in fact.modules:
            place, rank, done = layout.places[module.module], module.rank, begun[module.module]
            site = place.site
            a = place.a + done * site.width_in
            b = place.b + done * site.width_out
            halves[module.module, "A"].write(row[a : a + rank * site.width_in].reshape(rank, -1))
            scaled = row[b : b + rank * site.width_out].reshape(rank, -1)
            halves[module.module, "B"].write(scaled)
            scaled *= np.float32(module.scaling * _embed_scale(site))
            begun[module.module] = done + rank


def _embed_scale(site: Site) -> float:
    """Give what some embeddings multiply their vectors with; a change passes the same way."""
    return float(getattr(site.module, "embed_scale", 1.0)) if site.embedding else 1.0
