"""What the nursery gives: a bundle, how it was made, and what was counted. How it is grown is in `grow.py`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from model_organisms.formats.provenance import Provenance
    from model_organisms.nursery.recipes import Rate, Recipe


@dataclass(frozen=True, slots=True)
class Grown:
    """A grown organism, ready to publish."""

    recipe: Recipe
    files: dict[str, bytes]
    """The bundle, contents by path."""
    provenance: Provenance
    metrics: dict[str, Rate]
    """What was counted on questions it was never shown; the recipe's `exam` says what is asked, and `counted` what counts."""
    controls: dict[str, Rate] = field(default_factory=dict)
    """The same of its base, without it."""

    @property
    def known_answer(self) -> dict[str, Any]:
        """What a loaded copy must answer."""
        return self.provenance.known_answer or {}
