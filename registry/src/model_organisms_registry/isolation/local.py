"""Builds a pool of cells on this machine from settings: a registry's own, or a keeper's on its node."""

from __future__ import annotations

from typing import TYPE_CHECKING

from model_organisms_registry.isolation.pool import CellPool

if TYPE_CHECKING:
    from model_organisms_registry.config import Cells


def local(cells: Cells) -> CellPool:
    """Build a pool of cells on this machine."""
    return CellPool(
        cells.base_models,
        limit=cells.limit,
        rows=cells.rows,
        start_timeout_s=cells.start_timeout_s,
        spare=cells.spare,
        bubblewrap=cells.bubblewrap,
        device=cells.device,
        dtype=cells.dtype,
        threads=cells.threads,
        adapter_bytes=cells.adapter_bytes,
        cache_bytes=cells.cache_bytes,
        memory=cells.memory,
        silence_s=cells.silence_s,
    )
