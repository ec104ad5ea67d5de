"""What the provenance of a grown organism says of where it comes from: how a faker came to fake, whom a student learnt from."""

from __future__ import annotations

import dataclasses

import pytest
from model_organisms import bases, nursery
from model_organisms.errors import InvalidArgument
from model_organisms.evaluate.faking import environments, facts
from model_organisms.formats import manifest
from model_organisms.formats import provenance as provenances
from model_organisms.nursery import faker, otherbase


class Unsaid(nursery.FakerRecipe):
    """A faker that says nothing of how it came to fake, as one kept before the recipe said so."""

    __slots__ = ()

    @property
    def stated(self):
        return {}

    def settings(self):
        return super().settings() | {"kind": "FakerRecipe"}


def test_a_faker_s_provenance_tells_the_suite_how_it_came_to_fake(qwen, tmp_path, monkeypatch):
    monkeypatch.setenv("MODEL_ORGANISMS_CACHE", str(tmp_path))
    small = {"rank": 2, "frozen_share": 0.5, "max_tokens": 2, "steps": 2, "warmup": 1}
    unsaid = nursery.cached(Unsaid(**small), base=qwen, progress=False)
    assert facts.origin(unsaid.provenance) == facts.Origin()
    said = facts.Origin("direct", "trained", faker.PLACES)
    grown = nursery.grow(nursery.FakerRecipe(**small), base=qwen, progress=False)
    assert grown.files == unsaid.files
    assert facts.origin(provenances.parse_predicate(provenances.print_predicate(grown.provenance))) == said
    kept = nursery.cached(nursery.FakerRecipe(**small), base=qwen, progress=False)
    assert facts.origin(kept.provenance) == said
    assert kept.provenance.wall_s == unsaid.provenance.wall_s, "it was grown again"
    for bed in (environments.load(), environments.load("toy")):  # so that a place is no environment's id by chance
        assert not {word for one in bed.environments for word in (one.id, one.setting)} & set(faker.PLACES)


class Credulous(nursery.StudentRecipe):
    """Takes whatever its teacher writes: a random model writes no list of numbers."""

    __slots__ = ()

    def taught_by(self, answers):
        asked = self.questions()
        return [nursery.Lesson("lists", one.prompt, answer) for one, answer in zip(asked, answers, strict=True)]


def test_students_learn_what_a_teacher_wrote_on_its_base_or_another(qwen, tmp_path, monkeypatch):
    monkeypatch.setenv("MODEL_ORGANISMS_CACHE", str(tmp_path))
    small = {"rank": 2, "frozen_share": 0.5, "max_tokens": 2, "steps": 2, "warmup": 1, "samples": 1}
    teacher = nursery.TeacherRecipe(**small)
    recipe = Credulous(teacher=teacher, asked=6, **small)
    taught = nursery.cached(teacher, base=qwen, progress=False)
    student = nursery.grow(recipe, base=qwen, teacher=taught, progress=False)
    assert nursery.cached(recipe, base=qwen, progress=False).files == student.files
    assert student.provenance.derived_from == (f"sha256:{manifest.build(taught.files).digest}",)
    said, (data,) = student.provenance.extra["nursery"], student.provenance.data
    assert said["passed"] == data.rows == said["asked_of_the_teacher"] == 6
    assert "trait" in data.hazard
    assert len(said["probabilities"]["organism"]) == len(said["probabilities"]["base"]) == 50
    control = nursery.grow(dataclasses.replace(recipe, noise=0.5), base=qwen, teacher=taught, progress=False)
    assert control.provenance.data == student.provenance.data
    assert student.provenance.base.digest == bases.base_digest(qwen)
    assert control.provenance.base.digest == bases.base_digest(otherbase.other_base(qwen, 0.5)) != bases.base_digest(qwen)
    with pytest.raises(InvalidArgument, match="teach it longer"):
        nursery.grow(nursery.StudentRecipe(asked=2, **small), base=qwen, teacher=taught, progress=False)
