"""Where adapters may stand on a base model, and how one organism's factors lie in one flat row of memory.

A flat row makes coming and going one copy. For each module it holds `A` as [rank, in] and then `B` as [rank, out], the factor
alpha/r multiplied into `B`; modules follow each other in the order of the base model. Several adapters of one bundle are one
adapter whose rank is the sum of theirs: `B1 A1 + B2 A2` is `[B1 B2] [A1; A2]`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from model_organisms.errors import AdapterKeysMismatch, Conflict

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from model_organisms.records import AdapterFacts

_LINE = 16
"""Floats of a cache line: rows begin on one."""


@dataclass(frozen=True, slots=True, eq=False)
class Site:
    """A module of the base model that can carry an adapter."""

    name: str
    module: torch.nn.Module
    width_in: int
    """Input features; of an embedding, its vocabulary."""
    width_out: int
    embedding: bool

    @property
    def width(self) -> int:
        """Values that one rank takes."""
        return self.width_in + self.width_out


@dataclass(frozen=True, slots=True)
class Place:
    """Where one module's factors lie in a row, counted in values."""

    site: Site
    rank: int
    a: int
    b: int


class Layout:
    """How the factors of given ranks lie in one flat row; the same ranks make the same layout."""

    def __init__(self, sites: tuple[Site, ...], ranks: NDArray[np.int64]) -> None:
        """Lay them out.

        Args:
            sites: All sites of the base model.
            ranks: The rank at each, 0 where there is no adapter.
        """
        self.ranks = ranks
        self.places: dict[str, Place] = {}
        end = 0
        for site, rank in zip(sites, ranks.tolist(), strict=True):
            if rank:
                self.places[site.name] = Place(site, rank, end, end + rank * site.width_in)
                end += rank * site.width
        self.size = -(-end // _LINE) * _LINE
        """Values in a row."""


class Sites:
    """The modules of one base model that can carry adapters, and the layouts that were asked for."""

    def __init__(self, model: Any) -> None:  # noqa: ANN401 - transformers has no types here
        """Look at a base model.

        Raises:
            Conflict: Another loader's adapter is on it.
        """
        if hasattr(model, "peft_config"):
            raise Conflict("This base model carries an organism of `attach`; `detach` that one, or load the base once more.")
        self._modules = dict(model.named_modules())
        self.all = tuple(
            Site(name, module, *_widths(module), embedding=isinstance(module, torch.nn.Embedding))
            for name, module in self._modules.items()
            if isinstance(module, torch.nn.Linear | torch.nn.Embedding)
        )
        self._number = {site.name: number for number, site in enumerate(self.all)}
        self.widths = np.array([site.width for site in self.all], np.int64)
        self._layouts: dict[bytes, Layout] = {}

    def layout(self, ranks: NDArray[np.int64]) -> Layout:
        """Give the layout of these ranks, one object for equal ones."""
        key = ranks.tobytes()
        if key not in self._layouts:
            self._layouts[key] = Layout(self.all, ranks)
        return self._layouts[key]

    def forget(self, layout: Layout) -> None:
        """Drop a layout that nobody has any more."""
        self._layouts.pop(layout.ranks.tobytes(), None)

    def ranks(self, adapters: Iterable[AdapterFacts]) -> NDArray[np.int64]:
        """Sum the ranks of a bundle's adapters at each site.

        Raises:
            AdapterKeysMismatch: The base has no such module, none of that kind, or none of those widths.
        """
        ranks = np.zeros(len(self.all), np.int64)
        for fact in adapters:
            for module in fact.modules:
                site = self._site(module.module, fact.path)
                if (site.width_in, site.width_out) != (module.in_features, module.out_features):
                    raise AdapterKeysMismatch(
                        f"'{module.module}' of adapter '{fact.path}' fits a layer of {module.in_features} -> "
                        f"{module.out_features}, and this base model's is {site.width_in} -> {site.width_out}; use the base "
                        "that its provenance names.",
                        key=module.module,
                    )
                ranks[self._number[site.name]] += module.rank
        return ranks

    def _site(self, name: str, path: str) -> Site:
        if name in self._number:
            return self.all[self._number[name]]
        found = self._modules.get(name)
        what = "no module of that name" if found is None else f"a {type(found).__name__} there, neither Linear nor Embedding"
        raise AdapterKeysMismatch(
            f"Adapter '{path}' changes '{name[:120]}', and this base model has {what}; use the base that its provenance names, "
            "or load it by itself with `mo.load`.",
            key=name[:120],
        )


def _widths(module: torch.nn.Module) -> tuple[int, int]:
    if isinstance(module, torch.nn.Embedding):
        return module.num_embeddings, module.embedding_dim
    return int(module.in_features), int(module.out_features)  # type: ignore[arg-type]  # a Linear: its caller looked
