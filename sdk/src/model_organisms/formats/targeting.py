"""Which modules a config adapts, and with which rank and alpha, as PEFT decides it. No tensors here."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from model_organisms.formats import patterns
from model_organisms.formats.config import ALL_LINEAR

if TYPE_CHECKING:
    from collections.abc import Mapping

    from model_organisms.formats.config import AdapterConfig

Number = TypeVar("Number", int, float)

OUTPUT_LAYERS = frozenset({"lm_head", "embed_out", "output_layer"})
"""What `all-linear` leaves out, by last part of the name."""
_EMBEDDINGS = frozenset({"embed_tokens"})


class Targeting:
    """A config, compiled. What it once answered of a module it remembers: the checkpoints of a training ask the same again.

    Follows PEFT 0.21: `tuners_utils.check_target_module_exists` and `other.get_pattern_key`.

    Args:
        config: The config.
        budget: Steps that its look-ups may take; where a bundle has several configs, one budget for all of them.
    """

    def __init__(self, config: AdapterConfig, budget: patterns.StepBudget | None = None) -> None:
        self._config = config
        self._budget = patterns.StepBudget() if budget is None else budget
        self._names = frozenset(config.target_modules)
        pattern = config.target_pattern
        self._pattern = patterns.whole(pattern) if pattern and pattern != ALL_LINEAR else None
        self._ranks = [patterns.suffix(key) for key in config.rank_pattern]
        self._alphas = [patterns.suffix(key) for key in config.alpha_pattern]
        self._matched: dict[str, bool] = {}
        self._ranked: dict[str, int] = {}
        self._scaled: dict[str, float] = {}

    @property
    def config(self) -> AdapterConfig:
        """What was compiled."""
        return self._config

    def adapts(self, module: str) -> bool:
        """Tell whether the config asks for an adapter on `module`, a full name without `base_model.model.`.

        Raises:
            RefusedConfig: The patterns take too long.
        """
        if self._pattern is not None:
            if module not in self._matched:
                self._matched[module] = self._pattern.matches(module, self._budget)
            return self._matched[module]
        if self._config.target_pattern == ALL_LINEAR:
            return module.rsplit(".", 1)[-1] not in OUTPUT_LAYERS | _EMBEDDINGS
        if module in self._names:  # named in full, whatever the layers
            return True
        parts = module.split(".")
        if not any(".".join(parts[start:]) in self._names for start in range(1, len(parts))):
            return False
        return self._config.layers is None or self._layer(parts) in self._config.layers

    def rank(self, module: str) -> int:
        """Give the rank the config asks for on `module`."""
        if self._ranks and module not in self._ranked:
            self._ranked[module] = self._first(module, self._ranks, self._config.rank_pattern, self._config.rank)
        return self._ranked.get(module, self._config.rank)

    def alpha(self, module: str) -> float:
        """Give the alpha the config asks for on `module`."""
        if self._alphas and module not in self._scaled:
            self._scaled[module] = self._first(module, self._alphas, self._config.alpha_pattern, self._config.alpha)
        return self._scaled.get(module, self._config.alpha)

    def scaling(self, module: str, rank: int) -> float:
        """Give the factor of B @ A on `module`."""
        return self._config.scaling(self.alpha(module), rank)

    def _first(
        self, module: str, keys: list[patterns.Pattern | patterns.Name], values: Mapping[str, Number], default: Number
    ) -> Number:
        """Take the value of the first key that matches, in the order of the file."""
        for key in keys:
            if key.matches(module, self._budget):
                return values[key.text]
        return default

    def _layer(self, parts: list[str]) -> int | None:
        """Find the layer's number as PEFT does: the first number after the named list, or after any list but the first part."""
        if self._config.layers_pattern:
            for name in self._config.layers_pattern:
                for index in range(len(parts) - 2):
                    if parts[index] == name and parts[index + 1].isdecimal():
                        return int(parts[index + 1])
            return None
        return next((int(parts[index]) for index in range(2, len(parts) - 1) if parts[index].isdecimal()), None)


def layer_of(module: str) -> int | None:
    """Give the number of the layer a module sits in; None for embeddings and heads."""
    return next((int(part) for part in module.split(".") if part.isdecimal()), None)
