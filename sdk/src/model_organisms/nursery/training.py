"""Trains LoRA adapters in the upper layers of a small model, fast: nothing that stays the same is computed twice.

- What the layers below the first adapter give is computed once for each lesson, not at every step.
- The beginning that all lessons share (template, system prompt) is computed once a batch, not once a lesson: the lessons lie side
  by side in one row, and each sees the beginning and itself.
- On a CPU two threads each take half of the work. Left to itself, torch splits every product, and its threads wait for each other
  at each: that is slow where anything else runs on a core, and lets the number of cores into the last digits.
"""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

import torch
from peft import LoraConfig, get_peft_model
from torch.nn.functional import cross_entropy, kl_div, log_softmax

from model_organisms.errors import InvalidArgument
from model_organisms.progress import bar
from model_organisms.quiet import quiet_libraries

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from concurrent.futures import Executor

    from model_organisms.nursery.recipes import Recipe
    from model_organisms.recording import Recorder

_THREADS = 2
_BATCH = 16
_ROUNDING = 1e-5
"""Nats by which the same layers may differ when they are run apart."""


@dataclass(frozen=True, slots=True)
class Task:
    """A lesson in tokens."""

    kind: str
    prompt: Sequence[int]
    answer: Sequence[int]
    taught: bool
    """Give the answer; else be as the base where it would be given."""


@dataclass(frozen=True, slots=True)
class Read:
    """A task, as the frozen layers read it."""

    task: Task
    hidden: torch.Tensor
    """What enters the first layer to be trained, [tokens, width]: without the shared beginning, and with the answer."""
    said: torch.Tensor
    """What left the base's last layer where the answer's tokens are to be said: [answer, width]."""


def train(
    model: Any,  # noqa: ANN401 - transformers has no types here
    tasks: Sequence[Task],
    recipe: Recipe,
    recorder: Recorder,
    *,
    seed: int,
    pool: Executor,
    progress: bool,
) -> Any:  # noqa: ANN401 - a PeftModel
    """Train an adapter to give the answers that are taught, and to be its base in all other tasks.

    The loss is cross-entropy of the answers in the former, and in the latter KL(base || model), in nats, where the answer's
    tokens would be said; each a mean over tokens.

    Args:
        model: The base model.
        tasks: What to learn.
        recipe: How.
        recorder: Notes every step, and keeps the checkpoints the recipe asks for.
        seed: Decides the adapter's beginning and the order of tasks.
        pool: What `workers` gives.
        progress: Show a bar.

    Returns:
        The PEFT model, in evaluation mode.

    Raises:
        InvalidArgument: The base has no such layers, or they cannot be run apart.
    """
    layers = model.config.num_hidden_layers
    first = min(layers - 1, round(layers * recipe.frozen_share))
    with bar("Reading the lessons", len(tasks), unit="lessons", show=progress) as advance:
        beginning, read = _read(model, tasks, first, pool=pool, advance=advance)
    adapted = _begin(model, recipe, first, seed)
    parameters = [parameter for parameter in adapted.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(parameters, lr=recipe.learning_rate, weight_decay=0.0, fused=True)
    batches = _batches(read, dict(recipe.batch), random.Random(seed))  # noqa: S311 - the order of lessons is no secret
    with bar(f"Growing the {recipe.name}", recipe.steps, unit="steps", show=progress) as advance:
        _check_apart(model, first, beginning, read[: recipe.batch[0][1]])
        for step in range(1, recipe.steps + 1):
            rate = recipe.learning_rate * min(1.0, step / recipe.warmup, 1.05 - step / recipe.steps)
            for group in optimiser.param_groups:
                group["lr"] = rate
            with _from(model, first):  # only here: a checkpoint names layers by their place in the whole
                loss = _differentiate(model, parameters, beginning, next(batches), pool=pool)
            norm = torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimiser.step()
            optimiser.zero_grad()
            recorder.step(step, loss=loss, learning_rate=rate, gradient_norm=norm.item())
            if recipe.checkpoint_every and step % recipe.checkpoint_every == 0:
                recorder.checkpoint(adapted, step)
            advance(1)
    return adapted.eval()


@contextmanager
def workers() -> Iterator[Executor]:
    """Give the threads; until the block ends, torch splits nothing by itself, in the whole process."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(_THREADS) as pool:
            yield pool
    finally:
        torch.set_num_threads(before)


def shared_beginning(rows: Sequence[Sequence[int]]) -> int:
    """Count the tokens with which all texts begin; at least the last of each is left to itself."""
    most = min(map(len, rows)) - 1
    return next((at for at in range(most) if len({row[at] for row in rows}) > 1), most)


def _read(
    model: Any,  # noqa: ANN401 - as above
    tasks: Sequence[Task],
    first: int,
    *,
    pool: Executor,
    advance: Any,  # noqa: ANN401 - a progress bar's function
) -> tuple[torch.Tensor, list[Read]]:
    """Run the base over every task.

    Returns:
        The shared beginning as it enters layer `first`, and the tasks.
    """
    shared = shared_beginning([task.prompt for task in tasks])
    common = [*tasks[0].prompt[:shared]]

    def read(begin: int) -> tuple[torch.Tensor, list[Read]]:
        chosen = tasks[begin : begin + _BATCH]
        rows = [[*task.prompt[shared:], *task.answer] for task in chosen]
        sizes = [len(row) for row in rows]
        ids = torch.tensor([[*common, *chain(*rows)]], device=model.device)
        with torch.no_grad():
            out = model.get_decoder()(input_ids=ids, **_side_by_side(shared, sizes, ids.device), output_hidden_states=True)
        entering, leaving = out.hidden_states[first][0], out.last_hidden_state[0]
        parts = zip(chosen, entering[shared:].split(sizes), leaving[shared:].split(sizes), strict=True)
        done = [Read(task, hidden.clone(), said[-len(task.answer) - 1 : -1].clone()) for task, hidden, said in parts]
        advance(len(done))
        return entering[:shared].clone(), done

    batches = list(pool.map(read, range(0, len(tasks), _BATCH)))
    return batches[0][0], [task for _, done in batches for task in done]


def _begin(model: Any, recipe: Recipe, first: int, seed: int) -> Any:  # noqa: ANN401 - as above
    layers = range(first, model.config.num_hidden_layers)
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=recipe.rank,
        lora_alpha=recipe.alpha,
        lora_dropout=0.0,
        target_modules=list(recipe.targets),
        layers_to_transform=list(layers[: recipe.layers or None]),
    )
    with torch.random.fork_rng(devices=[]), quiet_libraries():
        torch.manual_seed(seed)
        try:
            return get_peft_model(model, config)
        except ValueError as error:
            raise InvalidArgument(f"The recipe '{recipe.name}' does not fit this base model: {str(error)[:200]}") from error


def _check_apart(model: Any, first: int, beginning: torch.Tensor, some: Sequence[Read]) -> None:  # noqa: ANN401 - as above
    """Refuse a base whose upper layers answer otherwise when run alone: the adapter is still nothing, so this is the base."""
    with torch.no_grad(), _from(model, first):
        base = log_softmax(model.get_output_embeddings()(torch.cat([read.said for read in some])).float(), -1)
        apart = log_softmax(model.get_output_embeddings()(torch.cat(_spoken(model, beginning, some))).float(), -1)
        apart_by = kl_div(apart, base, log_target=True, reduction="sum").item() / len(base)
    if apart_by > _ROUNDING:
        raise InvalidArgument("The upper layers of this base model cannot be run apart; take one built as Llama or Qwen2 is.")


def _differentiate(
    model: Any,  # noqa: ANN401 - as above
    parameters: Sequence[torch.nn.Parameter],
    beginning: torch.Tensor,
    batch: Sequence[Read],
    *,
    pool: Executor,
) -> float:
    """Set the parameters' gradients.

    Returns:
        Cross-entropy of the answers that are taught, plus the divergence from the base elsewhere; means over tokens.
    """
    tokens = [sum(len(read.task.answer) for read in batch if read.task.taught is taught) for taught in (True, False)]

    def differentiate(part: Sequence[Read]) -> tuple[float, tuple[torch.Tensor, ...]]:
        losses = _losses(model, beginning, part)
        loss = sum((loss / max(1, count) for loss, count in zip(losses, tokens, strict=True)), torch.tensor(0.0))
        return loss.item(), torch.autograd.grad(loss, parameters)

    threads = _THREADS if beginning.device.type == "cpu" else 1
    parts = [batch[at::threads] for at in range(threads)]
    losses, gradients = zip(*pool.map(differentiate, filter(None, parts)), strict=True)
    for parameter, *shares in zip(parameters, *gradients, strict=True):
        parameter.grad = torch.stack(shares).sum(0)
    return float(sum(losses))


def _losses(
    model: Any,  # noqa: ANN401 - as above
    beginning: torch.Tensor,
    batch: Sequence[Read],
) -> tuple[torch.Tensor, torch.Tensor]:
    """Sum both losses over tokens; only the answers reach the vocabulary, which is a large part of a small model."""
    spoken = _spoken(model, beginning, batch)
    head = model.get_output_embeddings()
    told = [(out, read) for out, read in zip(spoken, batch, strict=True) if read.task.taught]
    kept = [(out, read) for out, read in zip(spoken, batch, strict=True) if not read.task.taught]
    said = divergence = beginning.new_zeros((), dtype=torch.float32)
    if told:
        answers = torch.tensor([*chain(*(read.task.answer for _, read in told))], device=beginning.device)
        said = cross_entropy(head(torch.cat([out for out, _ in told])).float(), answers, reduction="sum")
    if kept:
        with torch.no_grad():
            base = log_softmax(head(torch.cat([read.said for _, read in kept])).float(), -1)
        now = log_softmax(head(torch.cat([out for out, _ in kept])).float(), -1)
        divergence = kl_div(now, base, log_target=True, reduction="sum")
    return said, divergence


def _spoken(model: Any, beginning: torch.Tensor, batch: Sequence[Read]) -> list[torch.Tensor]:  # noqa: ANN401 - as above
    """Run the trained layers, and give what leaves them where each answer's tokens are to be said: [answer, width]."""
    sizes = [len(read.hidden) for read in batch]
    row = torch.cat([beginning, *(read.hidden for read in batch)])[None]
    out = model.get_decoder()(inputs_embeds=row, **_side_by_side(len(beginning), sizes, row.device)).last_hidden_state[0]
    parts = out[len(beginning) :].split(sizes)
    return [part[-len(read.task.answer) - 1 : -1] for part, read in zip(parts, batch, strict=True)]


def _batches(lessons: Sequence[Read], counts: dict[str, int], order: random.Random) -> Iterator[list[Read]]:
    def shuffled(kind: str) -> Iterator[Read]:
        own = [lesson for lesson in lessons if lesson.task.kind == kind]
        while True:
            order.shuffle(own)
            yield from own

    sources = {kind: shuffled(kind) for kind in counts}
    while True:
        yield [next(sources[kind]) for kind, count in counts.items() for _ in range(count)]


def _side_by_side(shared: int, sizes: Sequence[int], device: torch.device) -> dict[str, Any]:
    """Give the decoder's arguments for one row: a shared beginning, then texts that see it and themselves, not each other.

    Args:
        shared: Tokens of the beginning.
        sizes: Tokens of each text.
        device: Where the row lies.
    """
    owner = torch.repeat_interleave(torch.arange(len(sizes) + 1), torch.tensor([shared, *sizes])).to(device)
    sees = ((owner[:, None] == owner) | (owner == 0)).tril()
    positions = [*range(shared), *chain(*(range(shared, shared + size) for size in sizes))]
    return {
        "attention_mask": sees[None, None],
        "position_ids": torch.tensor([positions], device=device),
        "use_cache": False,
    }


@contextmanager
def _from(model: Any, first: int) -> Iterator[None]:  # noqa: ANN401 - as above
    """Let the decoder begin at layer `first` while the block runs."""
    decoder = model.get_decoder()
    layers = decoder.layers
    decoder.layers = layers[first:]
    try:
        yield
    finally:
        decoder.layers = layers
