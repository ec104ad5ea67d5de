"""Judges that are models which Inspect can ask: by log-probabilities as published, or by the number they write."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING

from inspect_ai.model import GenerateConfig

from model_organisms.errors import ConfigurationInvalid
from model_organisms.evaluate import models
from model_organisms.evaluate.judging import asked_of, instructions_digest
from model_organisms.evaluate.judging.scale import HIGHEST, TOP, weighted
from model_organisms.formats.evaluation import Judge

if TYPE_CHECKING:
    from collections.abc import Sequence

    from inspect_ai.model import Model, ModelOutput

    from model_organisms.evaluate.questions import Question

_NUMBER = re.compile(r"(?<![\w.])(\d{1,3})(?![\w]|\.\d)")


class ModelJudge:
    """A model read by the log-probabilities of one token, as in the papers (`scale.py`).

    Args:
        model: As Inspect names it, or a model of Inspect's.
    """

    def __init__(self, model: str | Model) -> None:
        self._model = _model(model)
        self._config = GenerateConfig(temperature=0.0, max_tokens=1, logprobs=True, top_logprobs=TOP, seed=0)

    def record(self, questions: Sequence[Question]) -> Judge:
        """Say who judges; comparable where every question names this very model as its authors' judge."""
        name = str(self._model)
        short = name.rpartition("/")[2]
        return Judge(name, instructions_digest(questions), comparable=all(question.judge == short for question in questions))

    async def score(self, question: Question, asked: str, answer: str) -> dict[str, float | None]:
        """Score an answer by each of the question's metrics; none where the judge put too little on numbers.

        Raises:
            ConfigurationInvalid: The model gives no log-probabilities, or too few of them.
        """
        told = {metric: asked_of(question, metric, asked, answer) for metric in question.judge_prompts}
        outputs = await asyncio.gather(*(self._model.generate(prompt, config=self._config) for prompt in told.values()))
        return {metric: weighted(self._likeliest(output)) for metric, output in zip(told, outputs, strict=True)}

    def _likeliest(self, output: ModelOutput) -> list[tuple[str, float]]:
        logprobs = output.choices[0].logprobs if output.choices else None
        if logprobs is None:
            raise ConfigurationInvalid(
                f"'{self._model}' gives no log-probabilities, which scores from 0 to 100 are made of; "
                f"take another judge, or 'sampled:{self._model}', whose figures are not comparable with published ones."
            )
        if not logprobs.content:  # an answer without a token
            return []
        best = logprobs.content[0].top_logprobs or []
        if len(best) < TOP:
            raise ConfigurationInvalid(
                f"'{self._model}' gives {len(best)} likeliest tokens, and {TOP} are read for a score; "
                f"take another judge, or 'sampled:{self._model}'."
            )
        return [(one.token, one.logprob) for one in best]


class SampledJudge:
    """A model that writes its number; for those without log-probabilities. Its figures are not comparable with published ones.

    Args:
        model: As Inspect names it, or a model of Inspect's.
    """

    def __init__(self, model: str | Model) -> None:
        self._model = _model(model)
        self._config = GenerateConfig(temperature=0.0, max_tokens=16)

    def record(self, questions: Sequence[Question]) -> Judge:
        """Say who judges."""
        return Judge(f"sampled/{self._model}", instructions_digest(questions))

    async def score(self, question: Question, asked: str, answer: str) -> dict[str, float | None]:
        """Score an answer by the first whole number from 0 to 100 that the judge writes; none where it writes none."""
        told = {metric: asked_of(question, metric, asked, answer) for metric in question.judge_prompts}
        outputs = await asyncio.gather(*(self._model.generate(prompt, config=self._config) for prompt in told.values()))
        return {metric: written(output.completion) for metric, output in zip(told, outputs, strict=True)}


def written(text: str) -> float | None:
    """Read the first whole number from 0 to 100 in a text; none where there is none."""
    return next((float(found[1]) for found in _NUMBER.finditer(text) if int(found[1]) <= HIGHEST), None)


def _model(name: str | Model) -> Model:
    return models.find(name, "as a judge") if isinstance(name, str) else name
