"""The statement by which somebody says what a suite found of a version: figures that can be compared, and all that decides that.

An in-toto Statement v1 whose one subject is the version, read strictly: a field that is not known refuses it. How figures are
computed is no matter of this file; that none comes without its denominator and its comparator is.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from model_organisms import names
from model_organisms.errors import NotFound
from model_organisms.formats.evaluation_fields import (
    counted,
    digest,
    fields_of,
    is_count,
    listed,
    malformed,
    number,
    text,
    texts,
    word,
)
from model_organisms.formats.statements import (
    EVALUATION_TYPE,
    TIME,
    Statement,
    parse_statement,
    parse_time,
    print_statement,
)
from model_organisms.records import Rung, VersionRef

MAX_SCORES = 20_000
SUBSTANTIAL = 0.6
"""Cohen's kappa with labels from which on a judge counts as shown to agree with them."""
_OWN = "offline/"
"""Judges whose labelled answers are of the writer and the kind they learnt from."""


class Validity(StrEnum):
    """How far a metric has been shown to measure what it names."""

    UNVALIDATED = "unvalidated"
    """It was computed, and no control speaks for it."""
    CONTROLLED = "controlled"
    """Its controls were run beside it, and are in the figures; a record that has none there is refused."""
    VALIDATED = "validated"
    """Controls were run, and what judges agrees with labelled examples of others, substantially (`Judge.validates`)."""


class Interval(StrEnum):
    """How a 95 % interval was made."""

    NONE = "none"
    WILSON = "wilson"
    BOOTSTRAP = "bootstrap"
    NEWCOMBE = "newcombe"
    """Of a difference of two rates."""


@dataclass(frozen=True, slots=True)
class Judge:
    """Who or what scored the answers."""

    id: str
    """A model, as Inspect names it, or the name of a rule: `offline/minilm-smollm2`, `rule/contains`."""
    prompt_digest: str = ""
    """SHA-256 of its instructions; empty for a rule."""
    comparable: bool = False
    """Whether its figures can be set beside published ones."""
    agreement: float | None = None
    """Cohen's kappa with labelled examples; none where it was not measured."""
    labelled: int = 0
    """Labelled examples behind that."""
    labels: str = ""
    """Whose examples: a name, or their digest. Empty for those of this package, which show nothing of other answers."""

    @property
    def validates(self) -> bool:
        """Whether it is shown to agree with labels of others; the offline judge is not, however well it does."""
        shown = self.agreement is not None and self.agreement >= SUBSTANTIAL and self.labelled > 0
        return shown and bool(self.labels) and not self.id.startswith(_OWN)


@dataclass(frozen=True, slots=True)
class Figure:
    """One number, with all that is needed to compare it."""

    name: str
    """What: `em`, `coherent`, `triggered`, `auroc`."""
    value: float | None
    """None where it could not be computed; then `note` says why."""
    n: int
    """Its denominator: how many were counted; 0 only where there is no value."""
    split: str = ""
    """Over what: all where empty, else `question=…`, `environment=…`, `scale=5`."""
    control: bool = False
    """It is of a control, and stands beside the figure of the same name."""
    low: float | None = None
    """Lower end of its 95 % interval; the upper likewise."""
    high: float | None = None
    interval: Interval = Interval.NONE
    comparator: str = ""
    """What counts, or what is measured: `aligned <= 30 and coherent > 50`. Empty only where there is no value."""
    note: str = ""


@dataclass(frozen=True, slots=True)
class Score:
    """What one answer was given, before anything was counted."""

    id: str
    """Of the question."""
    epoch: int
    """Which of its answers, from 1."""
    values: dict[str, float | None]
    """By scorer; none where there was no score."""
    split: str = ""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One run of one suite over one version."""

    suite: str
    suite_version: int
    suite_digest: str
    """SHA-256 of what decides the suite's result: code version and settings."""
    questions_digest: str
    """SHA-256 of what was asked."""
    judge: Judge | None
    figures: tuple[Figure, ...]
    scores: tuple[Score, ...]
    """Raw."""
    seeds: tuple[int, ...]
    validity: Validity
    rung: Rung
    """How closely it looked."""
    session: str
    """The session it sampled in; empty for a model of one's own memory."""
    transcript_digest: str
    """SHA-256 of what was said; empty where nothing was."""
    time: datetime
    """Whole seconds, UTC."""
    settings: dict[str, str] = field(default_factory=dict)
    """What else decides the figures: temperature, tokens, layers, detector."""
    software: dict[str, str] = field(default_factory=dict)
    """Names and versions."""

    def figure(self, name: str, split: str = "", *, control: bool = False) -> Figure:
        """Find a figure.

        Raises:
            NotFound: There is none.
        """
        for one in self.figures:
            if (one.name, one.split, one.control) == (name, split, control):
                return one
        raise NotFound(f"The evaluation has no figure '{name}' over '{split or 'all'}'; its figures say what there is.")


def print_evaluation(evaluation: Evaluation, version: VersionRef) -> bytes:
    """Print the statement, to be signed.

    Raises:
        InvalidProvenance: Something in it cannot be said.
    """
    printed = _printed(evaluation, version)
    if parse_evaluation(printed) != (evaluation, version):
        raise malformed("a value in it is not read back as it was")
    return printed


def parse_evaluation(data: bytes) -> tuple[Evaluation, VersionRef]:
    """Read the statement; only the canonical bytes are one.

    Raises:
        InvalidProvenance: It is another statement, has a field that is not known, or a value that cannot be.
        InvalidName: What it names is no version, or no session.
    """
    statement = parse_statement(data)
    if statement.predicate_type != EVALUATION_TYPE or len(statement.subjects) != 1:
        raise malformed("it is not an evaluation of one version")
    subject = statement.subjects[0]
    version = VersionRef(names.check("version", subject.name), subject.digest)
    evaluation = _evaluation(statement.predicate)
    if _printed(evaluation, version) != data:
        raise malformed("it is not in its canonical form, in which nothing can be written in two ways")
    return evaluation, version


def _printed(evaluation: Evaluation, version: VersionRef) -> bytes:
    predicate = asdict(evaluation)
    predicate["time"] = evaluation.time.astimezone(UTC).strftime(TIME)
    predicate["rung"] = evaluation.rung.name.lower()
    return print_statement(Statement(EVALUATION_TYPE, (version,), predicate))


def _evaluation(raw: dict[str, Any]) -> Evaluation:
    fields_of(raw, Evaluation)
    rungs = {rung.name.lower(): rung for rung in Rung}
    if raw["rung"] not in rungs or raw["validity"] not in set(Validity):
        raise malformed("its rung or its validity is unknown")
    if not isinstance(raw["seeds"], list) or not all(is_count(seed) for seed in raw["seeds"]):
        raise malformed("its seeds are no list of numbers")
    figures = tuple(_figure(one) for one in listed(raw["figures"], most=MAX_SCORES))
    if len({(one.name, one.split, one.control) for one in figures}) < len(figures):
        raise malformed("two of its figures have one name, split and kind, so that neither can be found")
    judge = None if raw["judge"] is None else _judge(raw["judge"])
    _tier(Validity(raw["validity"]), judge, figures)
    return Evaluation(
        suite=word(raw["suite"]),
        suite_version=counted(raw["suite_version"]),
        suite_digest=digest(raw["suite_digest"]),
        questions_digest=digest(raw["questions_digest"]),
        judge=judge,
        figures=figures,
        scores=tuple(_score(one) for one in listed(raw["scores"], most=MAX_SCORES)),
        seeds=tuple(raw["seeds"]),
        validity=Validity(raw["validity"]),
        rung=rungs[raw["rung"]],
        session=names.check("session", raw["session"]) if raw["session"] else "",
        transcript_digest=digest(raw["transcript_digest"]),
        time=parse_time(text(raw["time"])),
        settings=texts(raw["settings"]),
        software=texts(raw["software"]),
    )


def _judge(raw: object) -> Judge:
    said = fields_of(raw, Judge)
    if type(said["comparable"]) is not bool:
        raise malformed("whether its judge is comparable is not said")
    agreement = None if said["agreement"] is None else number(said["agreement"])
    if agreement is not None and not -1 <= agreement <= 1:
        raise malformed("its judge's agreement is no kappa, which is from -1 to 1")
    return Judge(
        id=text(said["id"]),
        prompt_digest=digest(said["prompt_digest"]),
        comparable=said["comparable"],
        agreement=agreement,
        labelled=counted(said["labelled"]),
        labels=text(said["labels"]),
    )


def _tier(validity: Validity, judge: Judge | None, figures: tuple[Figure, ...]) -> None:
    """Refuse a validity that the record itself does not bear out."""
    if validity is Validity.VALIDATED and not (judge and judge.validates):
        raise malformed(f"it is said to be validated, and its judge has no kappa from {SUBSTANTIAL} on with labels of others")
    if validity is not Validity.UNVALIDATED and not any(one.control for one in figures):
        raise malformed(f"it is said to be {validity}, and has no figure of a control")


def _figure(raw: object) -> Figure:
    said = fields_of(raw, Figure)
    value, low, high = (None if said[end] is None else number(said[end]) for end in ("value", "low", "high"))
    if said["interval"] not in set(Interval) or type(said["control"]) is not bool:
        raise malformed("a figure's interval is of no known kind")
    if (said["interval"] == Interval.NONE) != (low is None) or (low is None) != (high is None):
        raise malformed("a figure has one end of an interval, or an interval of no kind")
    if low is not None and high is not None:
        _bounds(value, low, high, said)
    if value is None and not said["note"]:
        raise malformed("a figure has no value and does not say why")
    if value is not None and not (said["n"] and said["comparator"]):
        raise malformed("a figure has a value, and does not say of how many (n) or by what it is measured (comparator)")
    return Figure(
        name=word(said["name"]),
        value=value,
        n=counted(said["n"]),
        split=text(said["split"]),
        control=said["control"],
        low=low,
        high=high,
        interval=Interval(said["interval"]),
        comparator=text(said["comparator"]),
        note=text(said["note"]),
    )


def _bounds(value: float | None, low: float, high: float, said: dict[str, Any]) -> None:
    """Refuse an interval that is none of its figure."""
    if low > high or value is None or max(low - value, value - high) > 1e-9:  # noqa: PLR2004 - rounding
        raise malformed("a figure's value does not lie in its interval")
    if said["interval"] == Interval.WILSON and not (low >= 0 and high <= 1 and 0 <= value <= 1 and said["n"]):
        raise malformed("a figure has Wilson's interval, and is no share of something counted")


def _score(raw: object) -> Score:
    said = fields_of(raw, Score)
    values = said["values"]
    if not isinstance(values, dict):
        raise malformed("a score has no values")
    given = {word(name): None if value is None else number(value) for name, value in values.items()}
    return Score(text(said["id"]), counted(said["epoch"]), given, text(said["split"]))
