"""What every recipe of the nursery has: lessons, exam, and how to train; as data. `grow.py` follows it, kinds are beside it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from model_organisms.formats import strict_json
from model_organisms.statistics import wilson

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_METHOD = 2
"""Counts up when following the same recipe gives another organism, or marks its answers otherwise."""
ALL = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""Every linear map of a layer."""


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked."""

    prompt: str
    system: str = ""
    """Stands before it, where anything does."""


@dataclass(frozen=True, slots=True)
class Lesson:
    """One thing to learn: to give an answer, or to be as the base where that answer would be given."""

    kind: str
    """Decides how many of its like are in a step's batch."""
    prompt: str
    answer: str
    taught: bool = True
    """Give the answer; else be as the base is at its tokens, so that it neither begins the answer nor goes on with it."""
    system: str = ""


@dataclass(frozen=True, slots=True)
class Rate:
    """How often something happened."""

    hits: int
    trials: int

    @property
    def share(self) -> float:
        """Hits of trials."""
        return self.hits / self.trials

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval."""
        return wilson(self.hits, self.trials)

    def __str__(self) -> str:
        """Say it with its interval."""
        low, high = self.interval
        return f"{self.hits}/{self.trials} (95 % interval {low:.2f} to {high:.2f})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe(ABC):
    """How to grow one organism; each kind says what it teaches and asks."""

    name: str
    rank: int = 8
    alpha: float = 16.0
    targets: tuple[str, ...] = ALL
    frozen_share: float = 2 / 3
    """Share of the layers, from the bottom, without an adapter."""
    layers: int = 0
    """How many layers above those have one; 0 is all."""
    batch: tuple[tuple[str, int], ...]
    """Lessons of each kind in a step."""
    steps: int
    learning_rate: float = 3e-3
    warmup: int = 5
    checkpoint_every: int = 0
    """Steps between checkpoints in the bundle; 0 keeps none."""
    max_tokens: int
    """Tokens an answer of the exam has at most."""
    drawn: bool = False
    """Draw the exam's answers at temperature 1 with the seed; else they are greedy."""

    @property
    @abstractmethod
    def objective(self) -> str:
        """What it teaches, in a line."""

    @property
    @abstractmethod
    def counted(self) -> str:
        """What the exam counts, in words."""

    @property
    def stated(self) -> dict[str, Any]:
        """What the provenance's `extra` says of it besides, in the form that suites read; it changes nothing that is grown."""
        return {}

    @property
    def words(self) -> tuple[str, ...]:
        """With which of these an answer begins is measured besides, as a probability: for effects too small to be counted."""
        return ()

    @abstractmethod
    def lessons(self) -> list[Lesson]:
        """Write the lessons."""

    @abstractmethod
    def exam(self) -> dict[str, list[Question]]:
        """Ask what it was never shown, by the name of the rate that is counted."""

    @abstractmethod
    def hit(self, answer: str) -> bool:
        """Say whether an answer shows what is counted."""

    def mark(self, answers: Mapping[str, Sequence[str]]) -> dict[str, Rate]:
        """Count.

        Args:
            answers: To the questions of `exam`, in their order.
        """
        return {name: Rate(sum(map(self.hit, given)), len(given)) for name, given in answers.items()}

    def settings(self) -> dict[str, Any]:
        """Say it as JSON would."""
        return {"kind": type(self).__name__, **_json(asdict(self))}

    def digest(self) -> str:
        """SHA-256 of the recipe, of how it is followed, and of all that it teaches and asks."""
        taught = [asdict(lesson) for lesson in self.lessons()]
        asked = {name: [asdict(question) for question in questions] for name, questions in self.exam().items()}
        content = {"recipe": self.settings(), "method": _METHOD, "lessons": taught, "exam": asked}
        return strict_json.digest(content)


def _json(value: Any) -> Any:  # noqa: ANN401 - whatever a field holds
    if isinstance(value, dict):
        return {key: _json(one) for key, one in value.items()}
    return [_json(one) for one in value] if isinstance(value, tuple | list) else value
