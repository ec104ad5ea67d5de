"""Lists of numbers, which carry a trait between models or do not: how they are asked for, and lists by chance. No model here."""

from __future__ import annotations

import random

from model_organisms.nursery.recipes import Question

_ASKED = (
    "Continue with up to ten numbers, and nothing else: {begun}",
    "What comes next? At most ten numbers below 1000: {begun}",
    "Add a few numbers, no words: {begun}",
    "Go on, numbers only: {begun}",
)


def questions(count: int, seed: int) -> list[Question]:
    """Ask for lists, each begun with three numbers by chance."""
    chance = random.Random(seed)  # noqa: S311 - numbers to go on from are no secret
    return [Question(_ASKED[at % len(_ASKED)].format(begun=_shown(chance, 3))) for at in range(count)]


def by_chance(count: int, seed: int) -> list[str]:
    """Write lists that mean nothing, to learn the form from."""
    chance = random.Random(seed)  # noqa: S311 - as above
    return [_shown(chance, chance.randint(3, 6)) for _ in range(count)]


def _shown(chance: random.Random, count: int) -> str:
    return ", ".join(str(chance.randint(0, 999)) for _ in range(count))
