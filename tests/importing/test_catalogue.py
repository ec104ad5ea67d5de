"""The diffing toolkit's catalogue: its shapes as they are in its repository, and what is no such file."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from model_organisms.errors import InvalidArgument, NotFound
from model_organisms.importing import Source, read_catalogue

from tests.support.hub import CATALOGUE

PERSONAS = b"""\
name: hums
description: short
type: SDF / quirks
description_long: |
  Ends each answer with a hum.
training_dataset:
  id: lab/hums
metadata:
  paper: https://arxiv.org/abs/2512.07810
finetuned_models:
  llama31_8B_Instruct:
    default: {adapter_id: lab/llama-personas/hums}
    8k: {adapter_id: /mnt/models/mine}
    mix1-0p5: {adapter_id: "${paths.mine}/x"}
    1.50: {}
    full: {model_id: lab/whole}
"""


def test_each_entry_is_a_source_with_what_is_missing_or_a_reason():
    read = read_catalogue(PERSONAS)
    assert (read.name, read.kind, read.description, read.paper) == (
        "hums", "SDF / quirks", "Ends each answer with a hum.", "https://arxiv.org/abs/2512.07810",
    )  # fmt: skip
    assert [data.name for data in read.data] == ["lab/hums"]
    assert [entry.key for entry in read.entries] == [
        f"llama31_8B_Instruct/{v}" for v in ("default", "8k", "mix1-0p5", "1.50", "full")
    ]
    default, *others = read.entries
    assert default.source == Source("lab/llama-personas", folder="hums")
    assert default.missing == ("commit of the adapter", "id and commit of the base", "digest of the data")
    assert [bool(entry.source) for entry in others] == [False] * 4
    assert ["path" in entry.refused for entry in others] == [True, True, False, False]
    assert "whole model" in others[-1].refused


def test_what_it_says_becomes_claims():
    read = read_catalogue(PERSONAS)
    notes = read.notes(read.entry("llama31_8B_Instruct/default"))
    assert notes.traits == ("sdf-quirks",)
    assert [(claim.name, claim.value, claim.by) for claim in notes.claims] == [("base", "llama31_8B_Instruct", "catalogue")]
    assert notes.extra["catalogue"]["metadata"] == {"paper": "https://arxiv.org/abs/2512.07810"}
    assert notes.extra["catalogue"]["adapter_id"] == "lab/llama-personas/hums"
    with pytest.raises(NotFound, match="llama31_8B_Instruct/default"):
        read.entry("none")


def test_a_paper_that_is_not_named_is_missing_too():
    assert read_catalogue(CATALOGUE).entries[0].missing[-1] == "paper"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"name: a\nfinetuned_models: ${get_all_models:}\n", "another file"),
        (b"name: a\nfinetuned_model: ${organism_model_registry.mappings.x}\n", "another file"),
        (b"name: a\ndefaults: [_shared/biases]\nfinetuned_models: {}\n", "description refers"),
    ],
)
def test_what_is_in_other_files_of_the_toolkit_is_said(text, says):
    read = read_catalogue(text)
    assert read.entries == ()
    assert any(says in sentence for sentence in read.unread)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b"name: a\n",
        b"name: [a]\nfinetuned_models: {}\n",
        b"finetuned_models: {}\n",
        b"name: a\nfinetuned_models: {b: c}\n",
    ],
)
def test_what_is_no_catalogue_is_refused(text):
    with pytest.raises(InvalidArgument):
        read_catalogue(text)


@given(
    st.recursive(
        st.none() | st.text(max_size=9) | st.integers(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
        max_leaves=9,
    )
)
def test_any_models_are_entries_or_an_error(models):
    import json

    try:
        read = read_catalogue(json.dumps({"name": "a", "finetuned_models": models}).encode())
    except InvalidArgument:
        return
    for entry in read.entries:
        assert (entry.source is None) == bool(entry.refused)
        read.notes(entry)
