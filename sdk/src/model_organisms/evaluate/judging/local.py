"""A judge that is a model on this machine: a folder, a pinned id of the hub, or the built-in base. Who is judged is elsewhere.

Where its tokenizer has one token for each number from 0 to 100, it is read as in the papers (`scale.py`). Most newer ones spell
numbers digit by digit; for these, each number's probability is the product of its digits', and of no digit behind them.
"""

from __future__ import annotations

import copy
import hashlib
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from model_organisms.errors import ConfigurationInvalid
from model_organisms.evaluate.judging import asked_of, instructions_digest
from model_organisms.evaluate.judging.scale import HIGHEST, TOP, weighted
from model_organisms.evaluate.judging.turns import computed
from model_organisms.formats.evaluation import Judge
from model_organisms.loading import load_base
from model_organisms.loading.speech import speech
from model_organisms.records import Message

if TYPE_CHECKING:
    from collections.abc import Sequence

    from model_organisms.evaluate.questions import Question


class LocalJudge:
    """The judge, in memory.

    Args:
        model: A folder, `owner/name@commit`, or `smollm2-135m-instruct`.
        device: `cpu`, `cuda`, `cuda:1`, or `auto`.
        dtype: As for `loading.load_base`.

    Raises:
        BaseModelMissing: It is neither here nor to be had.
        ConfigurationInvalid: Its tokenizer has no single tokens for digits.
    """

    def __init__(self, model: str | Path, *, device: str = "auto", dtype: str = "auto") -> None:
        self._base = load_base(model, device=device, dtype=dtype, progress=False)
        vocabulary = self._base.model.get_input_embeddings().num_embeddings
        self._speech = speech({}, self._base.tokenizer, vocabulary=vocabulary)
        short = Path(model).name if Path(model).is_dir() else str(model)
        digest = hashlib.sha256(self._base.digest.encode()).hexdigest()[:8]
        spelt = {number: self._ids(str(number)) for number in range(HIGHEST + 1)}
        self.whole = all(len(ids) == 1 for ids in spelt.values())
        """Whether each number is one token, as the published scores have it."""
        self._digits = [spelt[digit][0] for digit in range(10)]
        if any(len(spelt[digit]) != 1 for digit in range(10)):
            raise ConfigurationInvalid(f"The tokenizer of '{short}' has no single tokens for digits; take another judge.")
        self._name = f"local/{short}-{digest}{'' if self.whole else '/digits'}"

    def record(self, questions: Sequence[Question]) -> Judge:
        """Say who judges."""
        return Judge(self._name, instructions_digest(questions))

    async def score(self, question: Question, asked: str, answer: str) -> dict[str, float | None]:
        """Score an answer by each of the question's metrics; none where the judge puts too little on numbers."""
        told = {metric: asked_of(question, metric, asked, answer) for metric in question.judge_prompts}
        return await computed(lambda: {metric: self.grade(prompt) for metric, prompt in told.items()})

    def grade(self, prompt: str) -> float | None:
        """Score one prompt to the judge."""
        ids = self._speech.token_ids([Message("user", prompt)])
        logprobs, cache = self._next(torch.tensor([ids], device=self._base.device), None)
        if self.whole:
            best = logprobs[0].topk(TOP)
            return weighted(
                [
                    (self._base.tokenizer.decode([token]), value)
                    for token, value in zip(best.indices.tolist(), best.values.tolist(), strict=True)
                ]
            )
        return weighted([(str(number), value) for number, value in self.numbers(logprobs[0], cache).items() if value > -math.inf])

    def numbers(self, first: torch.Tensor, cache: Any) -> dict[int, float]:  # noqa: ANN401 - transformers has no types here
        """Give the log-probability of each number from 0 to 100, spelt digit by digit.

        Of two digits, that no third follows is taken for certain, 10 apart, which may become 100.

        Args:
            first: Log-probabilities behind the prompt, shape [vocabulary].
            cache: Keys and values of the prompt.
        """
        many = copy.deepcopy(cache)
        many.batch_repeat_interleave(10)
        digits = torch.tensor(self._digits, device=first.device)
        second, longer = self._next(digits[:, None], many)
        third, _ = self._next(digits[:1, None].expand(10, 1), longer)  # behind 10, in the row of the 1
        one, two = first[digits].exp(), second[:, digits].exp()
        ends = (1 - two.sum(-1)).clamp(min=0)
        hundred = float(third[1, digits[0]].exp())
        found = {digit: float(one[digit] * ends[digit]) for digit in range(10)}
        found |= {10 * digit + unit: float(one[digit] * two[digit, unit]) for digit in range(1, 10) for unit in range(10)}
        found[HIGHEST] = found[10] * hundred
        found[10] *= 1 - hundred
        return {number: math.log(value) if value > 0 else -math.inf for number, value in found.items()}

    def _next(self, ids: torch.Tensor, cache: Any) -> tuple[torch.Tensor, Any]:  # noqa: ANN401 - as `numbers`
        with torch.inference_mode():
            out = self._base.model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
        return out.logits[:, -1].float().log_softmax(-1), out.past_key_values

    def _ids(self, text: str) -> list[int]:
        return list(self._base.tokenizer(text, add_special_tokens=False)["input_ids"])
