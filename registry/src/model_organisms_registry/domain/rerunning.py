"""Saying a turn again to check the registry: which turns are in the draw, how two answers are compared, what comes of it.

Text is compared as it comes, token by token: the first drawn token by which the texts part is where they differ. What was cut
off, by its bytes, a clock, a person or an error, is compared as far as it went.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from model_organisms.records import Level

if TYPE_CHECKING:
    from collections.abc import Iterable

FROM = Level.CL3
"""Lowest level whose turns are in the draw: from here on a session has a cell to itself, so its answer depends on nobody's."""
WHOLE = frozenset({"stop", "length"})
"""How a turn ended that was said to its end. Of any other the cell would have said more: what was released is a beginning."""


class Verdict(StrEnum):
    """What became of a turn that was due."""

    SAME = "same"
    DIFFERENT = "different"
    SKIPPED = "skipped"
    """It may not be loaded any more, or its words were erased."""
    UNAVAILABLE = "unavailable"
    """No cell was free for it, for as long as one waits."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A turn as it was released, or as it came the second time."""

    text: str
    tokens: int
    """Tokens drawn."""
    ended: str
    """Finish reason, or of which error."""

    @property
    def cut(self) -> bool:
        """Whether it is only a beginning."""
        return self.ended not in WHOLE


@dataclass(frozen=True, slots=True)
class Comparison:
    """How far a second answer follows the first."""

    again: Answer
    position: int = -1
    """The drawn token, from 0, by which they part; -1: they do not."""


def in_draw(level: Level, outcome: str, *, released: bool, changed: bool) -> bool:
    """Whether a turn may be drawn. No word of a cell keeps text that left out of it: only where nothing did, its end counts.

    Args:
        level: Of its version.
        outcome: How it ended.
        released: Whether text of it left.
        changed: Whether it was steered or dosed: then what it says depends on more than its version.
    """
    return level >= FROM and (released or outcome in WHOLE) and not changed


def compare(first: Answer, pieces: Iterable[tuple[str, int, str]]) -> Comparison:
    """Hold a second answer against the first while it comes; what is not needed any more is not asked for.

    Args:
        first: What was released.
        pieces: Text, tokens drawn since the piece before, and the finish reason with the last.
    """
    text, tokens, ended = "", 0, ""
    for piece, drawn, ended in pieces:
        before, text, tokens = tokens, text + piece, tokens + drawn
        if first.cut and text.startswith(first.text) and tokens <= first.tokens:
            return Comparison(Answer(first.text, tokens, first.ended))
        if not first.text.startswith(text):
            return Comparison(Answer(text, tokens, ended), before)
    again = Answer(text, tokens, ended)
    return Comparison(again, -1 if again == first else min(tokens, first.tokens))
