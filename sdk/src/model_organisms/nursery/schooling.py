"""What a recipe is taught from, and on which base: its own lessons, or what a teacher writes. No training here."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from model_organisms.errors import InvalidArgument
from model_organisms.formats import manifest
from model_organisms.loading import detach, load_pulled
from model_organisms.nursery.answering import Tongue, answers
from model_organisms.nursery.otherbase import other_base
from model_organisms.nursery.training import workers
from model_organisms.progress import waiting
from model_organisms.recording import dataset

if TYPE_CHECKING:
    from pathlib import Path

    from model_organisms.formats.provenance import DataSet
    from model_organisms.nursery.grown import Grown
    from model_organisms.nursery.recipes import Lesson, Recipe
    from model_organisms.nursery.subliminal import StudentRecipe

_LONGEST_LIST = 40


@dataclass(frozen=True, slots=True)
class School:
    """Lessons, and where they are learnt."""

    lessons: list[Lesson]
    data: DataSet
    base: str | Path
    derived_from: tuple[str, ...] = ()
    """The teacher, by `sha256:` and its bundle's digest."""
    said: dict[str, Any] = field(default_factory=dict)
    """What else is to be known of the lessons."""


def own(chosen: Recipe, base: str | Path) -> School:
    """Take the lessons that a recipe writes itself."""
    return School(chosen.lessons(), _data(chosen, chosen.lessons()), base)


def under(teacher: Grown, chosen: StudentRecipe, base: str | Path, *, device: str, seed: int, progress: bool) -> School:
    """Have a teacher write the lessons, at temperature 1, and leave out those that do not pass.

    Args:
        teacher: Grown on `base`.
        chosen: The student's recipe.
        base: The teacher's base.
        device: Where the teacher writes.
        seed: Of what it writes.
        progress: Show what takes long.

    Raises:
        InvalidArgument: None of its answers passes.
    """
    organism = load_pulled(teacher.files, teacher.provenance, base, device=device, dtype="float32", progress=progress)
    with workers() as pool, waiting("The teacher writes", show=progress):
        tongue = Tongue.of(organism.base)
        written = answers(organism.model, tongue, chosen.questions(), most=_LONGEST_LIST, pool=pool, seed=seed)
    detach(organism)
    lessons = chosen.taught_by(written)
    if not lessons:
        raise InvalidArgument(f"No answer of '{teacher.recipe.name}' is a list of numbers on this base; teach it longer.")
    return School(
        lessons,
        _data(chosen, lessons, hazard=f"written by a model with a trait: {teacher.recipe.objective}"),
        other_base(base, chosen.noise, progress=progress) if chosen.noise else base,
        (f"sha256:{manifest.build(teacher.files).digest}",),
        {"asked_of_the_teacher": len(written), "passed": len(lessons), "noise_of_the_base": chosen.noise},
    )


def _data(chosen: Recipe, lessons: list[Lesson], *, hazard: str = "") -> DataSet:
    return dataset((f"{chosen.name}-lessons", [asdict(lesson) for lesson in lessons]), hazard=hazard)
