"""What parts of `make science` work with: organisms of the nursery, grown once, as models to ask and as models to look into."""

from __future__ import annotations

import contextlib
import io
import json
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

import inspect_ai
from model_organisms import nursery
from model_organisms.evaluate import running
from model_organisms.evaluate.sources import Local
from model_organisms.formats.provenance import print_predicate
from model_organisms.loading import load_base
from model_organisms.nursery.recipes import Question
from model_organisms.records import Message
from model_organisms.sampling import Engine

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from inspect_ai import Task
    from inspect_ai.log import EvalLog
    from model_organisms.evaluate.sources import Conversation
    from model_organisms.formats.evaluation import Evaluation
    from model_organisms.nursery import Grown

BASE = "mo-local/base"
SEED = 1
"""Of all answers, so that a page can be made again."""
T = TypeVar("T")


class Lab:
    """A place to work.

    Args:
        work: Folder for bundles and logs; both may be thrown away.
        quick: Ask less of everything: to see whether it runs, and not for figures.
    """

    def __init__(self, work: Path, *, quick: bool) -> None:
        """Look around; nothing is grown yet."""
        self.work, self.quick = work, quick
        self._bases: dict[str, EvalLog] = {}
        self.engine: Callable[[], Engine] = cache(lambda: Engine(load_base("smollm2-135m-instruct", progress=False)))

    def few(self, full: T, quick: T) -> T:
        """Give the one or the other."""
        return quick if self.quick else full

    def grown(self, kind: str) -> Grown:
        """Grow an organism, or take the one that was grown before."""
        return nursery.cached(kind, progress=False)

    def model(self, kind: str) -> str:
        """Give an organism as Inspect names models: its bundle lies in a folder, which only what is harmless may."""
        grown, folder = self.grown(kind), self.work / "organisms" / kind / "bundle"
        for path, data in grown.files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(data)
        (folder.parent / "provenance.json").write_bytes(print_predicate(grown.provenance))
        return running.model_of(str(folder))

    def source(self, kind: str) -> Local:
        """Give an organism to look into; of `base`, its base alone."""
        return Local(self.engine(), None if kind == "base" else self.engine().add(self.grown(kind).files))

    def run(self, suite: str, kind: str, **arguments: Any) -> Evaluation:  # noqa: ANN401 - a task's
        """Run a suite by name on an organism; the base beside it is asked once, however many organisms are."""
        listed = running.find(suite)
        told: dict[str, Any] = {"arguments": arguments, "seed": SEED, "log_folder": str(self.work / "logs"), "quiet": True}
        log = running.logged(listed, self.model(kind), **told)
        asked = json.dumps([suite, arguments], sort_keys=True)
        if asked not in self._bases:
            self._bases[asked] = running.logged(listed, BASE, **told)
        return running.recorded(listed, log, {"base": self._bases[asked]})

    def ask(self, task: Task, model: str, **told: Any) -> EvalLog:  # noqa: ANN401 - a provider's
        """Run one task on one model."""
        with contextlib.redirect_stdout(io.StringIO()):
            logs = inspect_ai.eval(task, model=model, model_args=told, seed=SEED, log_dir=str(self.work / "logs"), display="none")
        return logs[0]


def conversation(asked: Question | str, answer: str = "") -> Conversation:
    """Make a conversation of a question, and of an answer where there is one."""
    question = Question(asked) if isinstance(asked, str) else asked
    turns = [Message("system", question.system)] if question.system else []
    turns.append(Message("user", question.prompt))
    return (*turns, Message("assistant", answer)) if answer else tuple(turns)


def conversations(asked: Sequence[Question | str]) -> list[Conversation]:
    """Make a conversation of each question."""
    return [conversation(one) for one in asked]
