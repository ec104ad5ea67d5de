r"""Regular expressions from strangers, matched in linear time with a budget. Our own patterns use `re`.

PEFT takes expressions in `target_modules` and as keys of `rank_pattern` and `alpha_pattern`; Python's `re` backtracks, so one
line of config can hold a process for ever. This is the subset that names of modules need, compiled to a position automaton
(Glushkov 1961) and determinised as it runs: literals, `.`, `\d`, `\w`, escaped punctuation, classes, groups, `|`, `*`, `+`, `?`
and their lazy forms. Whether a whole name matches does not depend on greed. Anything else is refused.
"""

from __future__ import annotations

import string
from dataclasses import dataclass, field
from typing import NoReturn

from model_organisms.errors import RefusedConfig

MAX_LENGTH = 512
MAX_GROUPS = 16
STEPS = 10_000_000
"""Default budget: under two seconds of matching for one config."""
_CACHE = 65_536

_ALPHABET = frozenset(string.ascii_letters + string.digits + "_.-")
"""What a module's name is made of; classes are subsets of it."""
_CLASSES = {"d": frozenset(string.digits), "w": frozenset(string.ascii_letters + string.digits + "_")}
_PLAIN = frozenset(string.ascii_letters + string.digits + "_.")
_META = frozenset("\\.[]()|*+?{}^$")


@dataclass(slots=True)
class StepBudget:
    """Automaton steps that one config may still take."""

    left: int = STEPS

    def spend(self, steps: int) -> None:
        """Take `steps` away.

        Raises:
            RefusedConfig: The budget is spent.
        """
        self.left -= steps
        if self.left < 0:
            raise RefusedConfig("The patterns of adapter_config.json take too long to match; list the module names instead.")


@dataclass(frozen=True, slots=True)
class _Part:
    """A piece of the expression, as Glushkov has it; positions are bits of an int."""

    nullable: bool
    first: int
    last: int


_EMPTY = _Part(nullable=True, first=0, last=0)


@dataclass(slots=True)
class Pattern:
    """An expression that either matches a whole name or does not.

    Invariants:
    - bit 0 of a state is the start; bit i + 1 is position i of the expression;
    - `follow[i]` is what may come after position i, `follow[0]` what may come first;
    - a transition is computed once while the cache has room, so a name costs one look-up a character.
    """

    text: str
    follow: list[int]
    sets: list[frozenset[str]]
    accepting: int
    _cache: dict[tuple[int, str], int] = field(default_factory=dict)

    def matches(self, name: str, budget: StepBudget) -> bool:
        """Tell whether the whole of `name` matches.

        Raises:
            RefusedConfig: The budget is spent.
        """
        budget.spend(len(name))
        state = 1
        for char in name:
            following = self._cache.get((state, char))
            if following is None:
                following = self._step(state, char, budget)
                if len(self._cache) < _CACHE:
                    self._cache[state, char] = following
            if following == 0:
                return False
            state = following
        return bool(state & self.accepting)

    def _step(self, state: int, char: str, budget: StepBudget) -> int:
        budget.spend(state.bit_count() + len(self.sets))
        candidates = 0
        while state:
            low = state & -state
            candidates |= self.follow[low.bit_length() - 1]
            state ^= low
        reached = 0
        while candidates:
            low = candidates & -candidates
            if char in self.sets[low.bit_length() - 2]:
                reached |= low
            candidates ^= low
        return reached


@dataclass(frozen=True, slots=True)
class Name:
    """An expression without operators but `.`: what most are. It needs no automaton."""

    text: str
    suffix: bool

    def matches(self, name: str, budget: StepBudget) -> bool:
        """Tell whether `name` matches, or with `suffix` its end does, after a dot.

        Raises:
            RefusedConfig: The budget is spent.
        """
        budget.spend(1)
        start = len(name) - len(self.text)
        if start and not (self.suffix and start > 0 and name[start - 1] == "."):
            return False
        if name[start:] == self.text:
            return True
        if "." not in self.text:
            return False
        budget.spend(len(self.text))
        return all(mine in (".", theirs) for mine, theirs in zip(self.text, name[start:], strict=True))


def whole(text: str) -> Pattern | Name:
    """Compile an expression for whole names, as `re.fullmatch` reads `target_modules`.

    Raises:
        RefusedConfig: It is outside the subset.
    """
    return _compile(text, suffix=False)


def suffix(text: str) -> Pattern | Name:
    """Compile a key of `rank_pattern` or `alpha_pattern`: PEFT matches it against the end of a name, after any dot.

    Raises:
        RefusedConfig: It is outside the subset.
    """
    return _compile(text, suffix=True)


def _compile(text: str, *, suffix: bool) -> Pattern | Name:
    if not 0 < len(text) <= MAX_LENGTH:
        _refuse(text, f"a pattern has 1 to {MAX_LENGTH} characters")
    if _PLAIN.issuperset(text):
        return Name(text, suffix)
    anchored = text.startswith("^")
    if anchored and suffix and "|" in text:
        _refuse(text, "'^' with '|' may mean two things")
    parser = _Parser(text)
    part = parser.parse()
    if suffix and not anchored:
        part = parser.after_any_prefix(part)
    parser.follow[0] = part.first
    accepting = part.last | (1 if part.nullable else 0)
    return Pattern(text=text, follow=parser.follow, sets=parser.sets, accepting=accepting)


class _Parser:
    """Recursive descent over one expression, building positions as it reads."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.groups = 0
        self.sets: list[frozenset[str]] = []
        self.follow: list[int] = [0]

    def parse(self) -> _Part:
        """Read the whole expression; `^` first and `$` last say nothing about a whole name."""
        self._take("^")
        part = self._alternatives()
        self._take("$")
        if self.at != len(self.text):
            _refuse(self.text, f"'{self.text[self.at]}' is not understood at position {self.at + 1}")
        return part

    def after_any_prefix(self, part: _Part) -> _Part:
        r"""Put `(.*\.)?` before `part`, as PEFT does."""
        anything = self._repeat(self._position(_ALPHABET), "*")
        return self._join(self._repeat(self._join(anything, self._position(frozenset("."))), "?"), part)

    def _alternatives(self) -> _Part:
        part = self._sequence()
        while self._take("|"):
            other = self._sequence()
            part = _Part(part.nullable or other.nullable, part.first | other.first, part.last | other.last)
        return part

    def _sequence(self) -> _Part:
        part = _EMPTY
        while self.at < len(self.text) and self.text[self.at] not in "|)$":
            part = self._join(part, self._repeated())
        return part

    def _repeated(self) -> _Part:
        part = self._atom()
        if self.at < len(self.text) and self.text[self.at] in "*+?":
            part = self._repeat(part, self.text[self.at])
            self.at += 1
            self._take("?")
            if self.at < len(self.text) and self.text[self.at] in "*+?":
                _refuse(self.text, "a quantifier follows a quantifier")
        return part

    def _atom(self) -> _Part:
        char = self.text[self.at]
        if char == "(":
            return self._group()
        if char == "[":
            return self._position(self._class())
        self.at += 1
        if char == "\\":
            return self._position(self._escape())
        if char == ".":
            return self._position(_ALPHABET)
        if char in _META:
            _refuse(self.text, f"'{char}' is not understood at position {self.at}")
        return self._position(frozenset(char))

    def _group(self) -> _Part:
        self.at += 1
        self.groups += 1
        if self.groups > MAX_GROUPS:
            _refuse(self.text, f"it has more than {MAX_GROUPS} groups")
        if self._take("?") and not self._take(":"):
            _refuse(self.text, "of the groups that begin with '(?' only '(?:' is taken")
        part = self._alternatives()
        if not self._take(")"):
            _refuse(self.text, "a group is not closed")
        return part

    def _class(self) -> frozenset[str]:
        self.at += 1
        negated = self._take("^")
        chars: set[str] = set()
        while not self._take("]"):
            members = self._member()
            if (
                len(members) == 1
                and self.text[self.at : self.at + 1] == "-"
                and self.text[self.at + 1 : self.at + 2] not in ("]", "")
            ):
                self.at += 1
                end = self._member()
                low, high = min(members), min(end)
                if len(end) != 1 or low > high:
                    _refuse(self.text, "a class has a range that runs backwards or to a class")
                members = frozenset(char for char in _ALPHABET if low <= char <= high)
            chars |= members
        if not chars:
            _refuse(self.text, "a class is empty")
        return _ALPHABET - chars if negated else frozenset(chars)

    def _member(self) -> frozenset[str]:
        if self.at >= len(self.text):
            _refuse(self.text, "a class is not closed")
        char = self.text[self.at]
        self.at += 1
        if char == "\\":
            return self._escape()
        if char == "[":
            _refuse(self.text, "a class holds '['")
        return frozenset(char)

    def _escape(self) -> frozenset[str]:
        char = self.text[self.at : self.at + 1]
        self.at += 1
        if char in _CLASSES:
            return _CLASSES[char]
        if not char or char.isalnum() or not char.isascii():
            _refuse(self.text, f"'\\{char}' is not one of '\\d', '\\w' and escaped punctuation")
        return frozenset(char)

    def _take(self, char: str) -> bool:
        taken = self.text[self.at : self.at + 1] == char
        self.at += taken
        return taken

    def _position(self, chars: frozenset[str]) -> _Part:
        self.sets.append(chars)
        self.follow.append(0)
        bit = 1 << len(self.sets)
        return _Part(nullable=False, first=bit, last=bit)

    def _join(self, left: _Part, right: _Part) -> _Part:
        self._link(left.last, right.first)
        return _Part(
            nullable=left.nullable and right.nullable,
            first=left.first | (right.first if left.nullable else 0),
            last=right.last | (left.last if right.nullable else 0),
        )

    def _repeat(self, part: _Part, quantifier: str) -> _Part:
        if quantifier != "?":
            self._link(part.last, part.first)
        return _Part(nullable=part.nullable or quantifier != "+", first=part.first, last=part.last)

    def _link(self, sources: int, targets: int) -> None:
        while sources:
            low = sources & -sources
            self.follow[low.bit_length() - 1] |= targets
            sources ^= low


def _refuse(text: str, why: str) -> NoReturn:
    msg = f"The pattern {text[:80]!a} is refused: {why}; list the module names instead."
    raise RefusedConfig(msg, pattern=text[:80].encode("unicode_escape").decode("ascii"))
