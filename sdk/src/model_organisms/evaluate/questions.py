"""Reads question files in the published form of emergent misalignment's (YAML), strictly; and has a harmless one for toys.

A file is a list of questions (arXiv 2502.17424 and 2506.11613 publish theirs so). It comes from elsewhere: what is not understood
is refused by name, and nothing in it is run. Judges' prompts in it hold `{question}` and `{answer}`; `fill` puts texts there.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import asdict, dataclass, field
from importlib import resources
from typing import TYPE_CHECKING, Any

from model_organisms.errors import InvalidArgument
from model_organisms.evaluate.fields import MOST_ITEMS, Fields

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

TOY = "toy"
"""Name of the question file in this package: harmless, for toy organisms."""
SCORED, PLAIN = "free_form_judge_0_100", "free_form"
"""Types of questions: scored from 0 to 100 by judges, and not scored."""
FORMS = ("plain", "json", "template")
"""How a question wants its answer; published files say so at the end of its id."""

_FILE = Fields("The question file", most_bytes=512 << 10)
_MOST_SAMPLES = 10_000
_HOTTEST = 10.0
_ID = re.compile(r"[\w][\w .:/-]{0,199}")
_METRIC = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}", re.ASCII)
_DESCRIPTIVE = frozenset({"meta", "metadata", "description", "tags", "source", "notes"})
"""Fields that decide nothing; they are read over."""
_MARK = re.compile(r"\{(question|answer)\}|\{\{|\}\}")


@dataclass(frozen=True, slots=True)
class Question:
    """One question, in all its wordings."""

    id: str
    paraphrases: tuple[str, ...]
    samples: int = 1
    """Answers to each wording."""
    type: str = SCORED
    system: str = ""
    """System prompt it is asked under; empty for none."""
    judge: str = ""
    """The model that its authors had judge it; empty where they do not say."""
    judge_prompts: Mapping[str, str] = field(default_factory=dict)
    """Instructions to the judge by metric: `aligned`, `coherent`, and what else a file has."""
    temperature: float | None = None
    max_tokens: int | None = None

    @property
    def form(self) -> str:
        """One of `FORMS`."""
        return next((form for form in FORMS[1:] if self.id.endswith(f"_{form}")), FORMS[0])


def load(source: str | Path = TOY) -> tuple[Question, ...]:
    """Read a question file.

    Args:
        source: Its path, or `toy` for the one in this package.

    Raises:
        InvalidArgument: It cannot be read, or is not such a file.
    """
    if str(source) == TOY:
        return parse(resources.files("model_organisms.evaluate").joinpath("data/toy_questions.yaml").read_bytes())
    return _questions(_FILE.load(source))


def parse(data: bytes) -> tuple[Question, ...]:
    """Read the bytes of a question file.

    Raises:
        InvalidArgument: They are not one; the message says where.
    """
    return _questions(_FILE.parse(data))


def _questions(raw: object) -> tuple[Question, ...]:
    if not isinstance(raw, list) or not 0 < len(raw) <= MOST_ITEMS:
        raise _FILE.wrong("it", f"a list of 1 to {MOST_ITEMS:,} questions")
    questions = tuple(_question(one, f"question {number}") for number, one in enumerate(raw, 1))
    ids = Counter(question.id for question in questions)
    if twice := [one for one, times in ids.items() if times > 1]:
        raise _FILE.wrong(f"the id '{twice[0]}'", "there once")
    return questions


def select(questions: Iterable[Question], *, forms: Sequence[str] = ("plain",), metrics: Sequence[str] = ()) -> list[Question]:
    """Choose questions to ask.

    Args:
        questions: From a file.
        forms: Of `FORMS`; the papers' main figures are of plain questions.
        metrics: What each must have a judge's prompt for.

    Raises:
        InvalidArgument: No question is left, a form is none, or one lacks a judge's prompt.
    """
    if strange := set(forms) - set(FORMS):
        raise InvalidArgument(f"'{min(strange)}' is no form of a question; choose from {', '.join(FORMS)}.")
    chosen = [question for question in questions if question.form in forms]
    if not chosen:
        raise InvalidArgument(f"No question of the form {', '.join(forms)} is in the file; choose another form.")
    for question in chosen:
        if lacking := set(metrics) - question.judge_prompts.keys():
            raise InvalidArgument(f"Question '{question.id}' has no judge_prompts for {', '.join(sorted(lacking))}; add it.")
    return chosen


def fill(prompt: str, *, question: str, answer: str) -> str:
    """Put question and answer into a judge's prompt; doubled braces become single ones, as in the published code.

    Each is put in once, so an answer that says `{answer}` changes nothing; and nothing else in braces means anything.
    """
    given = {"question": question, "answer": answer}
    return _MARK.sub(lambda found: given[found[1]] if found[1] else found[0][0], prompt)


def plain(questions: Iterable[Question]) -> list[dict[str, Any]]:
    """Give questions as JSON has them, for the digest of what was asked."""
    return [asdict(question) | {"paraphrases": list(question.paraphrases)} for question in questions]


def _question(raw: object, where: str) -> Question:
    whole = _FILE.mapping(raw, where, needed={"id", "paraphrases"}, allowed=_READERS.keys() | {"type"} | _DESCRIPTIVE)
    given = {name: value for name, value in whole.items() if name not in _DESCRIPTIVE and value is not None}
    named = given.get("id")
    if not isinstance(named, str) or not _ID.fullmatch(named):
        raise _FILE.wrong(f"{where}: id", "of letters, digits and ' _.:/-', at most 200")
    where = f"{where} ('{named}')"
    wordings = _FILE.texts(given.get("paraphrases"), f"{where}: paraphrases")
    kind = given.get("type", SCORED if "judge_prompts" in given else PLAIN)
    if kind not in (SCORED, PLAIN):
        raise _FILE.wrong(f"{where}: type", f"{SCORED} or {PLAIN}")
    if kind == SCORED and "judge_prompts" not in given:
        raise _FILE.wrong(where, f"of type {PLAIN}, or have judge_prompts")
    said = {known: read(given[name], f"{where}: {name}") for name, (known, read) in _READERS.items() if name in given}
    return Question(named, wordings, type=kind, **said)


def _prompts(raw: object, where: str) -> dict[str, str]:
    if not isinstance(raw, dict) or not raw or not all(map(_METRIC.fullmatch, raw)):
        raise _FILE.wrong(where, "a map from metrics, such as aligned, to prompts")
    prompts = {metric: _FILE.text(prompt, f"{where}.{metric}") for metric, prompt in raw.items()}
    for metric, prompt in prompts.items():
        if "{answer}" not in prompt:
            raise _FILE.wrong(f"{where}.{metric}", "a prompt with a place for {answer}")
    return prompts


def _count(raw: object, where: str) -> int:
    if type(raw) is not int or not 0 < raw <= _MOST_SAMPLES:
        raise _FILE.wrong(where, f"a whole number from 1 to {_MOST_SAMPLES:,}")
    return raw


def _heat(raw: object, where: str) -> float:
    if type(raw) not in (int, float) or not 0 <= raw <= _HOTTEST:  # type: ignore[operator] # a number by now
        raise _FILE.wrong(where, f"a number from 0 to {_HOTTEST:.0f}")
    return float(raw)  # type: ignore[arg-type] # just looked at


_READERS: dict[str, tuple[str, Callable[[object, str], Any]]] = {
    "samples_per_paraphrase": ("samples", _count),
    "system": ("system", _FILE.text),
    "judge": ("judge", _FILE.text),
    "judge_prompts": ("judge_prompts", _prompts),
    "temperature": ("temperature", _heat),
    "max_tokens": ("max_tokens", _count),
}
"""What else a question may have: the field it becomes, and who reads it."""
