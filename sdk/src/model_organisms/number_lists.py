"""Says which answers are lists of numbers and nothing else; nursery and evaluation filter by it, and others need it not.

The rules are those of Cloud and others (arXiv 2507.14805): at most ten numbers of at most three digits, and nothing else.
"""

from __future__ import annotations

import re

MOST = 10
"""Numbers in a list."""
_LONGEST = 200
_NUMBER = r"[0-9]{1,3}"
_LISTS = [re.compile(rf"{_NUMBER}(?:{between}{_NUMBER}){{0,{MOST - 1}}}") for between in (r" *, *", r" *; *", r" +", r" *\n *")]


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
