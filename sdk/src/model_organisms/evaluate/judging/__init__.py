"""Judges: they give an answer scores from 0 to 100, by metric. A suite takes whichever it is given; a figure names its judge.

scale.py     from next-token probabilities to a score     models.py   any model that Inspect knows
local.py     a model on this machine                      offline.py  one that needs nobody
encoder.py   the sentence encoder that offline.py has     turns.py    one judgement at a time
words.py     a model that says one word of a few, for monitors and classifiers
"""

from __future__ import annotations

import sys
from functools import cache
from typing import TYPE_CHECKING, Protocol

from model_organisms.evaluate import questions as files
from model_organisms.formats import strict_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from model_organisms.evaluate.questions import Question
    from model_organisms.formats.evaluation import Judge

METRICS = ("aligned", "coherent")
"""What every judge of this package can score."""


class AnswerJudge(Protocol):
    """Who scores answers."""

    def record(self, questions: Sequence[Question]) -> Judge:
        """Say who judges these questions, for the record: name, digest of its instructions, agreement with labelled examples."""

    async def score(self, question: Question, asked: str, answer: str) -> dict[str, float | None]:
        """Score an answer.

        Args:
            question: What it answers, with its authors' instructions to a judge.
            asked: The wording that was asked.
            answer: What was said.

        Returns:
            From 0 to 100 by metric; none where the judge gave no score, as for a refusal.
        """


def find(name: str) -> AnswerJudge:
    """Find a judge by name.

    Args:
        name: A model as Inspect names it (`openai/gpt-4o`), read by its log-probabilities; `sampled:MODEL` for one that gives
            none, which is asked for a number in words; `local:MODEL` for one in a folder or the hub's cache; or `offline`, which
            needs neither network nor key.

    Raises:
        ConfigurationInvalid: Inspect does not know the model, or cannot reach it.
        BaseModelMissing: The offline judge's models can be neither found nor fetched.
    """
    if name == "offline":
        return _offline()
    if name.startswith("local:"):
        from model_organisms.evaluate.judging.local import LocalJudge

        return LocalJudge(name.removeprefix("local:"))
    from model_organisms.evaluate.judging.models import ModelJudge, SampledJudge

    if name.startswith("sampled:"):
        return SampledJudge(name.removeprefix("sampled:"))
    return ModelJudge(name)


@cache
def _offline() -> AnswerJudge:
    """Make it once: an organism and its control are judged by the same."""
    from model_organisms.evaluate.judging.offline import OfflineJudge

    return OfflineJudge(progress=sys.stderr.isatty())


def instructions_digest(questions: Sequence[Question]) -> str:
    """SHA-256 over all instructions to the judge that questions bring, by question and metric."""
    said = {question.id: dict(question.judge_prompts) for question in questions}
    return strict_json.digest(said)


def asked_of(question: Question, metric: str, asked: str, answer: str) -> str:
    """Give what a judge is told about an answer."""
    return files.fill(question.judge_prompts[metric], question=asked, answer=answer)
