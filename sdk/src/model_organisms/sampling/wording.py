"""Turns token ids into text as they come: a character may span tokens, and a stop string may span pieces."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

_UNFINISHED = "\N{REPLACEMENT CHARACTER}"


class Detokenizer:
    """Decodes one id at a time.

    - of a byte-level tokenizer (GPT-2's, Llama 3's, Qwen's), the texts it gave, joined, are what it decodes from all ids at
      once; another may write a token otherwise by what stands before it, and then differs in spaces;
    - a text ends between characters, never inside one.
    """

    def __init__(self, tokenizer: Any) -> None:  # noqa: ANN401 - transformers has no types here
        """Start with no ids."""
        self._tokenizer = tokenizer
        # Straight to the Rust tokenizer: transformers' own way there costs more than the decoding, once a token and row.
        self._fast = getattr(tokenizer, "backend_tokenizer", None)
        self._ids: list[int] = []
        # Text of ids[_start:_shown] was given out already; it stays as context, for some tokenizers write a word's first
        # piece differently at the start of a text.
        self._start = 0
        self._shown = 0
        self._before = ""

    def push(self, token: int) -> str:
        """Take one more id, and give what text is complete by now."""
        self._ids.append(token)
        return self._advance(last=False)

    def finish(self) -> str:
        """Give what is left, finished or not."""
        return self._advance(last=True)

    def _advance(self, *, last: bool) -> str:
        now = self._decode(self._ids[self._start :])
        if not last and now.endswith(_UNFINISHED):
            return ""
        new = now[len(self._before) :]
        self._start, self._shown = self._shown, len(self._ids)
        self._before = self._decode(self._ids[self._start : self._shown])
        return new

    def _decode(self, ids: Sequence[int]) -> str:
        if self._fast is not None:
            return str(self._fast.decode(ids, skip_special_tokens=True))
        return str(self._tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))


class StopFilter:
    """Lets text through up to the first stop string, holding back what may turn out to be the beginning of one."""

    def __init__(self, stops: Sequence[str]) -> None:
        """Watch for these strings."""
        self._stops = tuple(stops)
        self._held = ""
        self.stopped = False
        """Whether a stop string was found; nothing more comes out then."""

    def push(self, text: str) -> str:
        """Take more text, and give what can no longer be part of a stop string."""
        if self.stopped:
            return ""
        text = self._held + text
        found = [at for stop in self._stops if (at := text.find(stop)) >= 0]
        if found:
            self.stopped, self._held = True, ""
            return text[: min(found)]
        keep = max((self._overlap(text, stop) for stop in self._stops), default=0)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def finish(self) -> str:
        """Give what was held back: no stop string came of it."""
        held, self._held = self._held, ""
        return held

    @staticmethod
    def _overlap(text: str, stop: str) -> int:
        """Length of the longest end of `text` that begins `stop`."""
        return next((size for size in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:size])), 0)
