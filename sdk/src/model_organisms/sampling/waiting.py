"""Decides who comes next: who gets a slot, and whose prompt is read in the next step. Numbers only: no tensors here.

- Slots are given in order of arrival; who cannot have one yet is waited for, so a large request is never passed for ever.
- Prompts that fit one step are read together, in order. A longer one is read a chunk at a time, one long prompt after the
  other, taking turns with the short ones: neither kind waits for the other to run out.
- The more short prompts wait, the more are read in a step, so that a crowd which comes at once is through in a few: what each of
  those who are answered waits longer for one token, each of the crowd waits less for its first.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from model_organisms.sampling.answering import Answer

IDLE = 8
"""So many chunks are read in a step while nobody is answered, and so nobody is kept waiting; and at most, where many wait."""


class Line:
    """Those who wait."""

    def __init__(self, rows: int, chunk: int, fits: Callable[[int, int], bool]) -> None:
        """Open it.

        Args:
            rows: Slots there may be.
            chunk: Tokens of prompts that are read in a step beside answers; more where many prompts wait, and two a row in any
                case.
            fits: Whether so many slots of so many tokens fit the cache.
        """
        self._rows, self._chunk, self._fits = rows, chunk, fits
        self.waiting: deque[Answer] = deque()
        """Have no slot, in order of arrival."""
        self.joining: deque[Answer] = deque()
        """Have a slot to come to, and nothing of theirs is read."""
        self.long: Answer | None = None
        """Its prompt is being read, chunk by chunk."""
        self._shorts_turn = True

    def __len__(self) -> int:
        """Count those who are not answered yet."""
        return len(self.waiting) + len(self.joining) + (self.long is not None)

    @property
    def inside(self) -> list[Answer]:
        """Those who have left the line of arrival, and are not answered yet."""
        return [*([self.long] if self.long else []), *self.joining]

    def admit(self, present: Sequence[Answer], willing: Callable[[Answer], bool]) -> None:
        """Give slots to the first of the line, as long as there are some.

        Args:
            present: Those who are being answered.
            willing: Asked of the first before it is let in; a no leaves it first, unless it has left the line.
        """
        inside = [*present, *self.inside]
        longest = max((answer.need for answer in inside), default=0)
        count = len(inside)
        while self.waiting:
            first = self.waiting[0]
            need = max(longest, first.need)
            if count == self._rows or not self._fits(count + 1, need):
                return
            if willing(first):
                self.joining.append(self.waiting.popleft())
                count, longest = count + 1, need
            elif self.waiting and self.waiting[0] is first:
                return

    def next(self, answered: int) -> list[tuple[Answer, int]]:
        """Choose what is read in this step.

        Args:
            answered: How many are being answered meanwhile.

        Returns:
            Answers, and how many tokens of each: one long one, which is then `long`, or some short ones to the end of their
            prompts, which are no longer in the line.
        """
        tokens = max(self._chunk, 2 * answered) if answered else IDLE * self._chunk
        long = self.long or next((answer for answer in self.joining if answer.unread > tokens), None)
        crowd = min(IDLE, max(1, len(self.joining) // 2)) if answered else 1
        shorts = self._shorts(tokens, crowd * tokens)
        if long and not (shorts and self._shorts_turn):
            self._shorts_turn = True
            if long is not self.long:
                self.joining.remove(long)
                self.long = long
            return [(long, min(long.unread, tokens))]
        self._shorts_turn = False
        for answer in shorts:
            self.joining.remove(answer)
        return [(answer, answer.unread) for answer in shorts]

    def _shorts(self, tokens: int, together: int) -> list[Answer]:
        """Collect the first of those of so many tokens each that fit together; shorter ones are filled up to the longest."""
        chosen: list[Answer] = []
        longest = 0
        for answer in self.joining:
            if answer.unread > tokens:
                continue
            longest = max(longest, answer.unread)
            if longest * (len(chosen) + 1) > together:
                break
            chosen.append(answer)
        return chosen
