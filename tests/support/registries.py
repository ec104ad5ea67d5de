"""Running registries for tests: one for a module, with a publisher, a researcher and reviewers of three organisations."""

from __future__ import annotations

import pytest
from model_organisms_registry.testing import running, settings

PEOPLE = (
    ("pia", "publisher", "nursery-lab"),
    ("rosa", "researcher", "detection-lab"),
    ("ravi", "reviewer", "safety-institute"),
    ("rena", "reviewer", "other-university"),
    ("aud", "auditor", "audit-office"),
)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("registry") / "data"
    with running(settings(folder), people=PEOPLE) as running_world:
        yield running_world
