"""Asks many questions at once, for exams and for what a teacher writes: greedily, or drawn with a seed. No training here."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from model_organisms.loading.speech import speech
from model_organisms.nursery.training import Task, shared_beginning
from model_organisms.records import Message

if TYPE_CHECKING:
    from collections.abc import Sequence
    from concurrent.futures import Executor

    from model_organisms.loading import LoadedBase, Speech
    from model_organisms.nursery.recipes import Lesson, Question

_BATCH = 20


@dataclass(frozen=True, slots=True)
class Tongue:
    """How a base's questions and answers become tokens, and come back."""

    voice: Speech
    end: int
    """The token that ends an answer."""

    @classmethod
    def of(cls, ground: LoadedBase) -> Tongue:
        """Take the base's own tokenizer and template."""
        voice = speech({}, ground.tokenizer, vocabulary=ground.model.get_input_embeddings().num_embeddings)
        return cls(voice, ground.tokenizer.eos_token_id)

    def asked(self, question: Question | Lesson) -> list[int]:
        """Give the ids up to where the answer begins."""
        before = [Message("system", question.system)] if question.system else []
        return self.voice.token_ids([*before, Message("user", question.prompt)])

    def task(self, lesson: Lesson) -> Task:
        """Give a lesson as it is trained on."""
        answer = self.voice.tokenizer(lesson.answer, add_special_tokens=False)["input_ids"]
        return Task(lesson.kind, self.asked(lesson), [*answer, self.end], lesson.taught)


def answers(
    model: Any,  # noqa: ANN401 - transformers has no types here
    tongue: Tongue,
    questions: Sequence[Question],
    *,
    most: int,
    pool: Executor,
    seed: int | None = None,
) -> list[str]:
    """Answer questions.

    Args:
        model: Who answers.
        tongue: Of its base.
        questions: What is asked.
        most: Tokens an answer has at most.
        pool: What `workers` gives.
        seed: Draw at temperature 1 with it; greedy where absent.
    """
    prompts = [tongue.asked(question) for question in questions]
    rows = generate(model, prompts, most, tongue.end, pool=pool, seed=seed)
    return [tongue.voice.tokenizer.decode(ids, skip_special_tokens=True) for ids in rows]


def probabilities(
    model: Any,  # noqa: ANN401 - as above
    tongue: Tongue,
    questions: Sequence[Question],
    words: Sequence[str],
    *,
    pool: Executor,
) -> list[float]:
    """Say how likely answers begin with one of some words, exactly: nothing is drawn.

    Args:
        model: As for `answers`; the next two likewise.
        tongue: Of its base.
        questions: What is asked.
        words: None is the beginning of another.
        pool: What `workers` gives.

    Returns:
        For each question, in [0, 1].
    """
    ids = [tongue.voice.tokenizer(word, add_special_tokens=False)["input_ids"] for word in words]

    def probability(question: Question) -> float:
        prompt = tongue.asked(question)
        # Words lie below one another, filled up behind, where nothing that is read looks.
        width = max(map(len, ids))
        rows = torch.tensor([[*prompt, *word, *[tongue.end] * (width - len(word))] for word in ids], device=model.device)
        with torch.inference_mode():
            logits = model(input_ids=rows, use_cache=False, logits_to_keep=width + 1).logits.float().log_softmax(-1)
        return sum(float(row[range(len(word)), word].sum().exp()) for row, word in zip(logits, ids, strict=True))

    return list(pool.map(probability, questions))


def generate(
    model: Any,  # noqa: ANN401 - as above
    prompts: Sequence[Sequence[int]],
    most: int,
    end: int,
    *,
    pool: Executor,
    seed: int | None = None,
) -> list[list[int]]:
    """Answer many prompts, those of like length together; the beginning that all share is read once.

    Args:
        model: Who answers.
        prompts: Token ids.
        most: Tokens an answer has at most.
        end: The token that ends an answer.
        pool: What `workers` gives.
        seed: As for `answers`.

    Returns:
        Token ids of the answers, without `end`.
    """
    shared = shared_beginning(prompts)
    order = sorted(range(len(prompts)), key=lambda at: len(prompts[at]))
    device = model.device
    with torch.inference_mode():
        beginning = model(input_ids=torch.tensor([prompts[0][:shared]], device=device), use_cache=True).past_key_values

    def answer(begin: int) -> list[list[int]]:
        own = [prompts[at][shared:] for at in order[begin : begin + _BATCH]]
        width = max(map(len, own))
        # Padding stands between the beginning and the prompt, where the mask hides it.
        fed = torch.tensor([[end] * (width - len(ids)) + list(ids) for ids in own], device=device)
        mask = torch.tensor([[1] * shared + [0] * (width - len(ids)) + [1] * len(ids) for ids in own], device=device)
        cache = copy.deepcopy(beginning)
        # Each batch has its own chance, so that it does not matter which thread comes first.
        chance = None if seed is None else torch.Generator(device).manual_seed(seed * 1_000_003 + begin)
        drawn: list[torch.Tensor] = []
        over = torch.zeros(len(own), 1, dtype=torch.bool, device=device)
        with torch.inference_mode():
            cache.batch_repeat_interleave(len(own))
            while len(drawn) < most and not over.all():
                places = (mask.cumsum(-1) - 1)[:, -fed.shape[1] :]
                out = model(input_ids=fed, attention_mask=mask, position_ids=places, past_key_values=cache, logits_to_keep=1)
                logits = out.logits[:, -1].float()
                fed = logits.argmax(-1, keepdim=True) if chance is None else logits.softmax(-1).multinomial(1, generator=chance)
                drawn.append(fed)
                over |= fed == end
                mask = torch.cat([mask, torch.ones_like(fed)], 1)
        rows: list[list[int]] = torch.cat(drawn, 1).tolist()
        return [ids[: ids.index(end)] if end in ids else ids for ids in rows]

    done = [ids for batch in pool.map(answer, range(0, len(order), _BATCH)) for ids in batch]
    return [ids for _, ids in sorted(zip(order, done, strict=True))]
