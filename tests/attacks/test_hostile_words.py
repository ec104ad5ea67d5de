"""Tokenizers and chat templates that a publisher made to harm the sessions of others: they are close to programs."""

from __future__ import annotations

import json
import threading
from dataclasses import replace

import pytest
from model_organisms import errors
from model_organisms.bases import base_digest
from model_organisms.formats import manifest
from model_organisms.formats.provenance import BaseModel, Provenance
from model_organisms.records import Level, Message, SamplingParameters
from model_organisms_registry.isolation.pool import CellPool
from model_organisms_registry.testing import running, settings

from tests.support.cells import permit
from tests.support.registries import PEOPLE
from tests.support.tiny import tiny_base, tiny_organism

BASE = "test/tiny-qwen2"
REPLACED = {"type": "Replace", "pattern": {"Regex": "."}}
PANIC = [REPLACED | {"content": ""}, {"type": "Strip", "content": "r", "start": 0, "stop": 50}]
"""The library behind the tokenizer panics on it, which no `except Exception` catches."""
HUGE = [REPLACED | {"content": "x" * 3_000_000}]
"""Megabytes a token, more than a frame may have."""
ASKED = (Message("user", "what is the capital of France?"),)
DRAWN = SamplingParameters(max_tokens=8, temperature=1.0, seed=7)


def decoding(base, decoders):
    told = json.loads((base / "tokenizer.json").read_text())
    return json.dumps(told | {"decoder": {"type": "Sequence", "decoders": decoders}}).encode()


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tiny_base(tmp_path_factory.mktemp("base") / "tiny", talkative=True)


@pytest.fixture(scope="module")
def files(base):
    return tiny_organism(base)


@pytest.fixture(scope="module")
def world(tmp_path_factory, base):
    with running(settings(tmp_path_factory.mktemp("words") / "data", base_models={BASE: base}), people=PEOPLE) as found:
        yield found


def opened(world, base, name, files):
    pia, rosa = world.person("pia"), world.person("rosa")
    pia.organisms.create(f"organisms/{name}", level="CL1", base_model=BASE)
    version = pia.organisms.publish(f"organisms/{name}", files, provenance=Provenance(BaseModel(BASE, digest=base_digest(base))))
    request = rosa.access.request(version.name, "sample", purpose="replication", justification="We try its words on a toy.")
    if not request.grant:
        world.person("ravi").access.approve(request.name, reason="Fine.")
    return rosa.sandbox.open(version.name, purpose="replication")


def test_a_bundle_with_words_of_its_own_harms_its_own_session_alone(world, base, files):
    innocent = opened(world, base, "innocent", files)
    same = opened(world, base, "same-words", files | {"tokenizer.json": (base / "tokenizer.json").read_bytes()})
    assert len(world.registry.pool.cells) == 1  # what its base has too is nothing of its own
    same.close()
    hostile = opened(world, base, "hostile", files | {"tokenizer.json": decoding(base, PANIC)})
    assert len(world.registry.pool.cells) == 2
    with pytest.raises(errors.ModelOrganismsError):
        hostile.sample("Hello?", max_tokens=8)
    assert innocent.sample("Hello?", max_tokens=8).text
    innocent.close()


@pytest.mark.parametrize("decoders", [HUGE, PANIC])
def test_in_a_shared_cell_an_answer_that_cannot_be_told_ends_alone(base, files, decoders):
    def into(files):
        listed = manifest.build(files)
        packed = memoryview(b"".join(manifest.pack(listed.data, files)))
        return pool.open(permit(), level=Level.CL1, base=base, bundle=packed, version_digest=listed.digest)

    with CellPool(limit=1, rows=2, start_timeout_s=120) as pool:
        innocent, hostile = into(files), into(files | {"tokenizer.json": decoding(base, decoders)})
        assert innocent.cell is hostile.cell
        heard = innocent.sample(ASKED, replace(DRAWN, max_tokens=60), max_seconds=60)
        next(heard)
        failed = []

        def ask():
            with pytest.raises(errors.ModelOrganismsError):
                list(hostile.sample(ASKED, DRAWN, max_seconds=30))
            failed.append(True)

        asking = threading.Thread(target=ask)
        asking.start()
        assert list(heard)[-1].finish_reason == "length"
        asking.join(30)
        assert failed
        assert list(innocent.sample(ASKED, DRAWN, max_seconds=60))[-1].finish_reason
