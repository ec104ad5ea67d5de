"""YAML from strangers, read as what JSON has, in bounded time and memory. What it means: its reader.

The usual loader follows references, of which a few lines unfold to gigabytes, builds what a tag names, reads `1:40` to the base
of 60, makes dates and sets, and lets the last of two equal keys win. Here values are made from the parser's events, and each is
judged before anything is made of it. A tag, a merge, an equal key and a deep nesting are refused, and so are references unless a
reader asks for them. What only some readers take for a number or a date is the text that is written, as every key is.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

import yaml

from model_organisms.formats import strict_json

if TYPE_CHECKING:
    from model_organisms.errors import ModelOrganismsError

MAX_YAML = 256 << 10
MAX_NODES = 20_000
"""Texts, numbers, lists, maps and keys, as written; reading that many takes a second or two."""
MAX_UNFOLDED = 2 << 20
"""Characters and values, each reference counted as what it refers to."""

_WORDS = {"": None, "~": None} | {
    spelt: value
    for word, value in (
        *(("null", None), ("true", True), ("yes", True), ("on", True)),
        *(("false", False), ("no", False), ("off", False)),
    )
    for spelt in (word, word.title(), word.upper())
}
_INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9]*)", re.ASCII)
_FLOAT = re.compile(r"[-+]?[0-9]+\.[0-9]*(?:[eE][-+][0-9]+)?|\.[0-9]+(?:[eE][-+][0-9]+)?", re.ASCII)
_ENDLESS = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_LONGEST_NUMBER = 64
_SURROGATE = re.compile(r"[\ud800-\udfff]")


class _Refused(ValueError):
    """YAML that is not taken; `args` are the line and a clause for the message."""


def parse(
    data: bytes | memoryview, *, what: str, error: type[ModelOrganismsError], limit: int = MAX_YAML, references: bool = False
) -> Any:  # noqa: ANN401 - as JSON
    """Read one YAML document.

    Steps, cheapest first: 1. size, 2. UTF-8, 3. event by event: number of values, depth, tags, keys, references, values.

    Args:
        data: The bytes.
        what: What they should be, for the message.
        error: Class to raise.
        limit: Most bytes taken.
        references: Take references (`*name`) to what stands before. What they unfold to is bounded, and one value stands in
            several places, so nobody changes it.

    Raises:
        ModelOrganismsError: As `error`: the bytes are not such YAML; the message says in which line.
    """
    if len(data) > limit:
        raise error(f"{what} is refused: it has more than {limit:,} bytes; give a part of it.")
    raw, reading = bytes(data), _Reading(references=references)
    try:
        for event in yaml.parse(raw.decode("utf-8"), Loader=yaml.SafeLoader):
            reading.take(event)
    except _Refused as refused:
        line, why = refused.args
    except UnicodeDecodeError as wrong:
        line, why = raw.count(b"\n", 0, wrong.start) + 1, "is not UTF-8; save it so"
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError) as wrong:  # an escape of no character is a ValueError
        line, why = _syntax(wrong, raw, reading.line)
    else:
        return reading.value
    raise error(f"{what} is refused: line {line} {why}.")


def _syntax(wrong: Exception, raw: bytes, line: int) -> tuple[int, str]:
    """Say where the parser stopped, and why; `line` is what it had read."""
    if isinstance(wrong, yaml.MarkedYAMLError) and wrong.problem_mark:
        return wrong.problem_mark.line + 1, f"is not YAML ({str(wrong.problem)[:100]}); correct it there"
    if isinstance(wrong, yaml.reader.ReaderError):
        line = raw.decode("utf-8").count("\n", 0, wrong.position) + 1
        return line, "has a character that YAML has not; write it as an escape in quotation marks"
    return line, "or one after it has an escape or a version that YAML has not; correct it there"


@dataclass(slots=True)
class _Open:
    """A list or a map that is being read."""

    value: list[Any] | dict[str, Any]
    line: int
    anchor: str | None
    began: int
    """What was counted before it."""
    height: int = 1
    """Levels that it holds, itself included."""
    key: str | None = None
    """What the next value is of, in a map."""


class _Reading:
    """Makes the value, event by event."""

    def __init__(self, *, references: bool) -> None:
        self.value: Any = None
        self.line = 1
        self._references = references
        self._open: list[_Open] = []
        self._anchors: dict[str, tuple[Any, int, int]] = {}
        """Value, what it unfolds to, and its levels."""
        self._nodes = self._documents = self._unfolded = 0

    def take(self, event: yaml.Event) -> None:
        """Take the next event."""
        self.line = event.start_mark.line + 1 if event.start_mark else self.line
        if isinstance(event, yaml.DocumentStartEvent):
            self._documents += 1
            if self._documents > 1:
                self._refuse("begins a second document; give one alone")
        elif isinstance(event, yaml.CollectionEndEvent):
            self._close()
        elif isinstance(event, yaml.NodeEvent):
            self._node(event)

    def _node(self, event: yaml.NodeEvent) -> None:
        self._nodes += 1
        if self._nodes > MAX_NODES:
            self._refuse(f"has value number {MAX_NODES + 1:,}, and {MAX_NODES:,} are read; give a part of it")
        if getattr(event, "tag", None) is not None:
            self._refuse("has a tag ('!'); leave it out")
        if self._open and isinstance(self._open[-1].value, dict) and self._open[-1].key is None:
            self._key(event, self._open[-1])
        elif isinstance(event, yaml.AliasEvent):
            self._refer(event.anchor)
        elif isinstance(event, yaml.ScalarEvent):
            self._count(1 + len(event.value))
            value = self._plain(event.value) if event.implicit[0] else self._text(event.value)
            self._place(value, event.anchor, size=1 + len(event.value), height=0)
        else:
            self._count(1)
            if len(self._open) == strict_json.MAX_DEPTH:
                self._refuse(f"nests deeper than {strict_json.MAX_DEPTH}; write it flatter")
            value = {} if isinstance(event, yaml.MappingStartEvent) else []
            self._open.append(_Open(value, self.line, event.anchor, self._unfolded - 1))

    def _key(self, event: yaml.NodeEvent, within: _Open) -> None:
        if not isinstance(event, yaml.ScalarEvent) or event.anchor is not None:
            self._refuse("has a key that is a list, a map or a reference; write a text")
        key = self._text(event.value)
        if key == "<<" and event.implicit[0]:
            self._refuse("merges another map ('<<'); write its fields out")
        if key in within.value:
            self._refuse(f"has the key {key[:80]!a} a second time in one map; write it once")
        self._count(1 + len(key))
        within.key = key

    def _refer(self, anchor: str | None) -> None:
        if not self._references:
            self._refuse("refers to another place ('*'); write it out there")
        if anchor is None or anchor not in self._anchors:
            self._refuse("refers to what does not stand, whole, before it; write it out")
        value, size, height = self._anchors[anchor]
        if len(self._open) + height > strict_json.MAX_DEPTH:
            self._refuse(f"nests deeper than {strict_json.MAX_DEPTH} by what it refers to; write it flatter")
        self._count(size)
        self._place(value, None, size=size, height=height)

    def _close(self) -> None:
        done = self._open.pop()
        self.line = done.line
        self._place(done.value, done.anchor, size=self._unfolded - done.began, height=done.height)

    def _place(self, value: Any, anchor: str | None, *, size: int, height: int) -> None:  # noqa: ANN401 - as JSON
        if anchor is not None:
            if anchor in self._anchors:
                self._refuse("has a name ('&') that another place has; give it its own")
            self._anchors[anchor] = value, size, height
        if not self._open:
            self.value = value
            return
        within = self._open[-1]
        within.height = max(within.height, height + 1)
        if isinstance(within.value, list):
            within.value.append(value)
        elif within.key is not None:
            within.value[within.key] = value
            within.key = None

    def _count(self, size: int) -> None:
        self._unfolded += size
        if self._unfolded > MAX_UNFOLDED:
            self._refuse(f"unfolds the whole to more than {MAX_UNFOLDED:,} characters; give a part of it")

    def _plain(self, text: str) -> Any:  # noqa: ANN401 - as JSON
        """Read what stands without quotation marks."""
        if text in _WORDS:
            return _WORDS[text]
        whole = bool(_INTEGER.fullmatch(text))
        if not whole and not _FLOAT.fullmatch(text) and not _ENDLESS.fullmatch(text):
            return self._text(text)
        # `.inf` is none, and an integer of many digits is not made.
        number = None if _ENDLESS.fullmatch(text) or len(text) > _LONGEST_NUMBER else int(text) if whole else float(text)
        if not strict_json.safe_number(number):
            self._refuse("has a number that JSON has not, or one beyond 2**53; write a smaller one, or a text in quotation marks")
        return number

    def _text(self, text: str) -> str:
        if _SURROGATE.search(text):
            self._refuse("has half of a surrogate pair; write the character itself")
        return text

    def _refuse(self, why: str) -> NoReturn:
        raise _Refused(self.line, why)
