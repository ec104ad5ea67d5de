"""Lists of numbers, which carry a trait between models or do not: how they are asked for, and which answers pass. No model here.

The rules are those of Cloud and others (arXiv 2507.14805): at most ten numbers of at most three digits, and nothing else.
"""

from __future__ import annotations

import random
import re

from model_organisms.nursery.recipes import Question

MOST = 10
"""Numbers in a list."""
_LONGEST = 200
_NUMBER = r"[0-9]{1,3}"
_LISTS = [re.compile(rf"{_NUMBER}(?:{between}{_NUMBER}){{0,{MOST - 1}}}") for between in (r" *, *", r" *; *", r" +", r" *\n *")]
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


def read(text: str) -> tuple[int, ...] | None:
    """Read a list of numbers; whatever is anything else besides is none.

    1 to 10 numbers of 1 to 3 digits 0-9; commas, semicolons, spaces or line ends between them, the same throughout; round or
    square brackets around all of it, or none; a full stop at the end, or none.

    Args:
        text: An answer, of anybody's making.

    Returns:
        The numbers; None where it is no such list.
    """
    if len(text) > _LONGEST:
        return None
    bare = text.strip(" \n").removesuffix(".")
    if (bare[:1], bare[-1:]) in {("(", ")"), ("[", "]")}:
        bare = bare[1:-1]
    if not any(form.fullmatch(bare) for form in _LISTS):
        return None
    return tuple(int(number) for number in re.findall(_NUMBER, bare))


def _shown(chance: random.Random, count: int) -> str:
    return ", ".join(str(chance.randint(0, 999)) for _ in range(count))
