"""Reads question files in the published form of emergent misalignment's (YAML), strictly; and has a harmless one for toys.

A file is a list of questions (arXiv 2502.17424 and 2506.11613 publish theirs so). It comes from elsewhere: what is not understood
is refused by name, and nothing in it is run. Judges' prompts in it hold `{question}` and `{answer}`; `fill` puts texts there.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import yaml

from model_organisms.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

TOY = "toy"
"""Name of the question file in this package: harmless, for toy organisms."""
SCORED, PLAIN = "free_form_judge_0_100", "free_form"
"""Types of questions: scored from 0 to 100 by judges, and not scored."""
FORMS = ("plain", "json", "template")
"""How a question wants its answer; published files say so at the end of its id."""

_MOST_BYTES = 512 << 10
_MOST_QUESTIONS = 1_000
_MOST_TEXT = 20_000
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
    try:
        with Path(source).open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise InvalidArgument(f"The question file '{source}' cannot be read ({error.strerror}); check the path.") from error
    return parse(data)


def parse(data: bytes) -> tuple[Question, ...]:
    """Read the bytes of a question file.

    Steps: 1. size, 2. YAML without tags, merges and double keys, 3. each question's fields.

    Raises:
        InvalidArgument: They are not one; the message says where.
    """
    if len(data) > _MOST_BYTES:
        _refuse(f"it has more than {_MOST_BYTES:,} bytes")
    try:
        raw = _Plain(data.decode("utf-8")).get_single_data()
    except (yaml.YAMLError, ValueError, RecursionError, OverflowError) as error:
        where = f" (line {mark.line + 1})" if (mark := getattr(error, "problem_mark", None)) else ""
        why = getattr(error, "problem", None) or type(error).__name__
        _refuse(f"it is no plain YAML{where}: {str(why)[:100]}")
    if not isinstance(raw, list) or not 0 < len(raw) <= _MOST_QUESTIONS:
        _refuse(f"it is no list of 1 to {_MOST_QUESTIONS:,} questions")
    questions = tuple(_question(one, f"question {number}") for number, one in enumerate(raw, 1))
    ids = [question.id for question in questions]
    if twice := {one for one in ids if ids.count(one) > 1}:
        _refuse(f"the id '{min(twice)}' is there more than once")
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


class _Ambiguous(yaml.MarkedYAMLError):
    """YAML that two readers may take in two ways."""


class _Plain(yaml.SafeLoader):
    """YAML's safe loader, which still lets the last of two equal keys win, and merges that double with each line."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT002 - yaml's own form
        keys = [key.value for key, _ in node.value]
        if any(key.tag == "tag:yaml.org,2002:merge" for key, _ in node.value):
            raise _Ambiguous(problem="'<<' merges are not read", problem_mark=node.start_mark)
        if len({str(key) for key in keys}) != len(keys):
            raise _Ambiguous(problem="a key is there twice", problem_mark=node.start_mark)
        return super().construct_mapping(node, deep=deep)

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Merge nothing."""


def _question(raw: object, where: str) -> Question:
    if not isinstance(raw, dict) or not all(isinstance(key, str) for key in raw):
        _refuse(f"{where} is no mapping of names")
    where = f"{where} ('{raw['id']}')" if isinstance(raw.get("id"), str) and _ID.fullmatch(raw["id"]) else where
    given = {name: value for name, value in raw.items() if name not in _DESCRIPTIVE and value is not None}
    if strange := given.keys() - _READERS.keys() - {"id", "paraphrases", "type"}:
        _refuse(f"{where} has the field '{min(strange)[:60]}', which is not known")
    if not isinstance(given.get("id"), str) or not _ID.fullmatch(given["id"]):
        _refuse(f"{where} has no id of letters, digits and ' _.:/-', at most 200")
    wordings = given.get("paraphrases")
    if not isinstance(wordings, list) or not 0 < len(wordings) <= _MOST_QUESTIONS:
        _refuse(f"{where} has no list of paraphrases")
    kind = given.get("type", SCORED if "judge_prompts" in given else PLAIN)
    if kind not in (SCORED, PLAIN):
        _refuse(f"{where} is of another type than {SCORED} and {PLAIN}")
    if kind == SCORED and "judge_prompts" not in given:
        _refuse(f"{where} is {SCORED} and has no judge_prompts")
    said = {known: read(given[name], where, name) for name, (known, read) in _READERS.items() if name in given}
    return Question(given["id"], tuple(_text(one, where, "paraphrases") for one in wordings), type=kind, **said)


def _text(raw: object, where: str, name: str) -> str:
    if not isinstance(raw, str) or not raw.strip() or len(raw) > _MOST_TEXT:
        _refuse(f"in {where}, {name} is no text of 1 to {_MOST_TEXT:,} characters")
    return raw


def _prompts(raw: object, where: str, name: str) -> dict[str, str]:
    if not isinstance(raw, dict) or not raw or not all(isinstance(key, str) and _METRIC.fullmatch(key) for key in raw):
        _refuse(f"in {where}, {name} is no mapping from metrics, such as aligned, to prompts")
    prompts = {key: _text(value, where, f"{name}.{key}") for key, value in raw.items()}
    for metric, prompt in prompts.items():
        if "{answer}" not in prompt:
            _refuse(f"in {where}, {name}.{metric} has no place for {{answer}}")
    return prompts


def _count(raw: object, where: str, name: str) -> int:
    if type(raw) is not int or not 0 < raw <= _MOST_SAMPLES:
        _refuse(f"in {where}, {name} is no whole number from 1 to {_MOST_SAMPLES:,}")
    return raw


def _heat(raw: object, where: str, name: str) -> float:
    if type(raw) not in (int, float) or not 0 <= raw <= _HOTTEST:  # type: ignore[operator] # a number by now
        _refuse(f"in {where}, {name} is no number from 0 to {_HOTTEST:.0f}")
    return float(raw)  # type: ignore[arg-type] # just looked at


_READERS: dict[str, tuple[str, Callable[[object, str, str], Any]]] = {
    "samples_per_paraphrase": ("samples", _count),
    "system": ("system", _text),
    "judge": ("judge", _text),
    "judge_prompts": ("judge_prompts", _prompts),
    "temperature": ("temperature", _heat),
    "max_tokens": ("max_tokens", _count),
}
"""What else a question may have: the field it becomes, and who reads it."""


def _refuse(why: str) -> NoReturn:
    raise InvalidArgument(f"The question file is refused: {why}.")
