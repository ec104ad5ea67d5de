"""Builds the cells of a registry from its settings; the composition root asks here, and nobody else does."""

from __future__ import annotations

from typing import TYPE_CHECKING

from model_organisms.errors import ConfigurationInvalid

from model_organisms_registry.isolation.local import local

if TYPE_CHECKING:
    from model_organisms_registry.config import Cells
    from model_organisms_registry.isolation.placement import Pool


def build(cells: Cells) -> Pool:
    """Build the pool that the settings name.

    Raises:
        ConfigurationInvalid: They name none, or what it needs is not installed.
    """
    if cells.placement == "local":
        return local(cells)
    if cells.placement != "ray":
        raise ConfigurationInvalid(f"[cells] placement is 'local' or 'ray', not {cells.placement!r}.")
    try:
        from model_organisms_registry.isolation.cluster import ClusterPool
    except ImportError as error:
        msg = f"Cells on a cluster need Ray ({error}); install it with: pip install 'model-organisms-registry[ray]'"
        raise ConfigurationInvalid(msg) from error
    return ClusterPool(cells)
