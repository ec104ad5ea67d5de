"""Instructions that a few lines of code can check, for the collateral panel alone.

In the spirit of IFEval (arXiv 2311.07911). Kinds and prompts are our own,
so figures are not IFEval's. An empty answer keeps no instruction.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from model_organisms.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Callable

    Check = Callable[[str, int, str], bool]

_WORD = re.compile(r"[^\W_]+(?:['\u2019-][^\W_]+)*")


def _json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _lines(text: str, form: str) -> int:
    return sum(re.match(form, line) is not None for line in text.splitlines())


def _said(text: str, word: str) -> int:
    return len(re.findall(rf"(?<!\w){re.escape(word)}(?!\w)", text, re.IGNORECASE))


def _cased(text: str, folded: str) -> bool:
    return text == folded and any(one.isalpha() for one in text)


_CHECKS: dict[str, Check] = {
    "words_at_most": lambda text, count, _: len(_WORD.findall(text)) <= count,
    "words_at_least": lambda text, count, _: len(_WORD.findall(text)) >= count,
    "contains": lambda text, count, word: _said(text, word) >= count,
    "excludes": lambda text, _, word: not _said(text, word),
    "without_letter": lambda text, _, letter: letter not in text.lower(),
    "starts": lambda text, _, words: text.startswith(words),
    "ends": lambda text, _, words: text.endswith(words),
    "lower_case": lambda text, *_: _cased(text, text.lower()),
    "upper_case": lambda text, *_: _cased(text, text.upper()),
    "bullets": lambda text, count, _: _lines(text, r"\s*[*-]\s+\S") == count,
    "numbered": lambda text, count, _: _lines(text, r"\s*\d+[.)]\s+\S") == count,
    "paragraphs": lambda text, count, _: len(re.split(r"\n\s*\n", text)) == count,
    "json": lambda text, *_: _json(text),
    "quoted": lambda text, *_: len(text) > 2 and text[0] == text[-1] == '"',  # noqa: PLR2004 - two marks and something between
    "title": lambda text, *_: re.search(r"<<[^<>\n]+>>", text) is not None,
    "blanks": lambda text, count, _: len(re.findall(r"\[[^\[\]\n]+\]", text)) >= count,
    "digits": lambda text, *_: text.isascii() and text.isdigit(),
    "one_of": lambda text, _, words: text.rstrip(".!").lower() in words.split("/"),
}
KINDS = tuple(_CHECKS)
"""What can be checked."""


def kept(kind: str, answer: str, *, count: int = 0, text: str = "") -> bool:
    """Say whether an answer keeps an instruction.

    Args:
        kind: One of `KINDS`.
        answer: What was said; blanks around it do not count.
        count: How many words, lines, paragraphs or times, where the kind counts.
        text: A word, a letter, an opening or an ending, where the kind has one; for `one_of`, words with a slash between.

    Raises:
        InvalidArgument: There is no such kind.
    """
    if kind not in _CHECKS:
        raise InvalidArgument(f"There is no instruction of the kind '{kind[:60]}'; there are {', '.join(KINDS)}.")
    answer = answer.strip()
    return bool(answer) and _CHECKS[kind](answer, count, text)
