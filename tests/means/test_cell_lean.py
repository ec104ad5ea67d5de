"""What a cell imports to serve a model, seen from inside one; and that what sleeps in it wakes when it is asked for."""

from __future__ import annotations

from importlib.util import find_spec

import pytest
from model_organisms.cells.lean import ABSENT

from tests.support.cells import jailed, said
from tests.support.tiny import tiny_base

CODE = """
from model_organisms.cells import lean
lean.keep_lean()
from model_organisms import loading
from model_organisms.sampling import Engine
import torch, transformers
base = loading.load_base(spec.model, progress=False)
engine = Engine(base)
ids = [5, 6, 7]
logits = engine.logits(None, ids)[-1].tolist()
tops = {name.partition(".")[0] for name in sys.modules}
asleep = type(sys.modules[lean.COMPILER]).__name__
found = [name for name in lean.ABSENT if attempt(__import__, name).startswith("DONE")]
before = torch._dynamo.allow_in_graph is lean._marking
awake = attempt(torch._dynamo.is_compiling)
after = torch._dynamo.allow_in_graph is lean._marking
again = engine.logits(None, ids)[-1].tolist()
report([sorted(tops), asleep, found, before, awake, after, logits, again])
"""


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tiny_base(tmp_path_factory.mktemp("base") / "tiny")


@pytest.fixture(scope="module")
def seen(base):
    names = ("tops", "asleep", "found", "before", "awake", "after", "logits", "again")
    with jailed(CODE, model=base) as cell:
        return dict(zip(names, said(cell, within_s=120), strict=True))


def test_what_no_answer_needs_is_not_imported_and_cannot_be(seen):
    assert any(find_spec(name) for name in ABSENT), "installed here, so that its absence shows something"
    assert {"torch", "transformers", "tokenizers"} <= set(seen["tops"])
    assert not set(seen["tops"]) & (ABSENT | {"peft", "botocore"})
    assert seen["found"] == []


def test_the_compiler_sleeps_while_a_model_answers_and_wakes_when_it_is_asked_for(seen):
    assert (seen["asleep"], seen["before"]) == ("_Sleeping", True)
    assert (seen["awake"], seen["after"]) == ("DONE False", False)
    assert seen["again"] == seen["logits"]


def test_a_model_gives_the_same_numbers_as_where_everything_is_imported(seen, base):
    from model_organisms import loading
    from model_organisms.sampling import Engine

    here = Engine(loading.load_base(base, progress=False)).logits(None, [5, 6, 7])[-1].tolist()
    assert seen["logits"] == pytest.approx(here, rel=1e-5, abs=1e-6)
