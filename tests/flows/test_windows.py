"""An answer leaves in windows: short ones for who reads along, long ones for who wants it whole, where nobody must read along."""

from __future__ import annotations

import pytest
from model_organisms.bases import base_digest
from model_organisms.formats.provenance import BaseModel, Provenance
from model_organisms.records import SamplingParameters
from model_organisms_registry.config import Limits
from model_organisms_registry.testing import running, settings

from tests.support.registries import PEOPLE
from tests.support.tiny import tiny_base, tiny_organism

BASE = "test/talkative"
TOKENS = 400
OWN_WORDS = {"chat_template.jinja": b"{% for message in messages %}{{ message.content }}\n{% endfor %}"}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("windows")
    base = tiny_base(folder / "base", talkative=True)
    config = settings(folder / "data", base_models={BASE: base}, limits=Limits(release_s=0.02))
    with running(config, people=PEOPLE) as running_world:
        pia = running_world.person("pia")
        stated = Provenance(BaseModel(BASE, digest=base_digest(base)))
        for name, own, rank in (("shares", {}, 4), ("alone", OWN_WORDS, 4), ("heavy", {}, 520)):
            pia.organisms.create(f"organisms/{name}", level="CL1", base_model=BASE)
            version = pia.organisms.publish(f"organisms/{name}", tiny_organism(base, rank=rank) | own, provenance=stated)
            why = "We count the windows of an answer."
            running_world.person("rosa").access.request(version.name, "sample", purpose="replication", justification=why)
        yield running_world


def windows(world, sample):
    entries = [entry for _, entry in world.person("aud").audit.entries()]
    return sum(one.type == "sandbox.sample.release" and one.subject == sample.receipt.sample for one in entries)


def streamed(session):
    answer = session.stream("Tell me.", SamplingParameters(max_tokens=TOKENS, temperature=0))
    while True:
        try:
            next(answer)
        except StopIteration as end:
            return end.value


@pytest.mark.parametrize(("name", "fewer"), [("shares", True), ("alone", False), ("heavy", False)])
def test_a_whole_answer_leaves_in_few_windows_unless_its_cell_is_its_own(world, name, fewer):
    with world.person("rosa").sandbox.open(f"organisms/{name}/versions/1", purpose="replication") as session:
        grown = streamed(session)
        whole = session.sample("Tell me.", max_tokens=TOKENS, temperature=0)
    assert whole.text == grown.text
    assert whole.receipt.tokens == grown.receipt.tokens == TOKENS
    many, few = windows(world, grown), windows(world, whole)
    assert many > 5
    assert (few < many / 2) == fewer
