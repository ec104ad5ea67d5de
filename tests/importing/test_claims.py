"""Claims beside what is found: each row by hand, and a claim that is written wrong is told how to be."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from model_organisms.errors import InvalidArgument
from model_organisms.formats import imported
from model_organisms.formats.tensors import read_tensors
from model_organisms.importing import claims
from model_organisms.importing.claims import Claim, Found

from tests.support.adapters import WEIGHTS, tiny_bundle

FOUND = Found(1, (21,), ("down_proj",), 18944, "float32", 64.0, True, "unsloth/Qwen2.5-14B-Instruct")
"""The released organism of arXiv 2506.11613, as its files say."""


def rows(*made, found=FOUND):
    return [(row.name, row.found, row.claimed, row.by, row.agrees) for row in claims.compare(made, found)]


def test_the_papers_layer_is_a_claim_and_the_bytes_layer_is_found():
    assert rows(*claims.given({"layers": "24", "rank": "1", "alpha": "64", "rslora": "yes"})) == [
        ("rank", "1", "1", "importer", True),
        ("layers", "21", "24", "importer", False),
        ("alpha", "64", "64", "importer", True),
        ("rslora", "yes", "yes", "importer", True),
    ]


def test_scaling_is_by_the_root_under_rslora_and_by_the_rank_without():
    stable = Found(32, (0,), (), 1, "float32", 64.0, True, "x")
    plain = Found(32, (0,), (), 1, "float32", 64.0, False, "x")
    assert math.isclose(stable.scaling, 11.3137085, rel_tol=1e-8)
    assert plain.scaling == 2.0
    assert Found(32, (0,), (), 1, "float32", None, False, "x").scaling is None


def test_a_name_claims_rank_and_number_of_layers():
    assert claims.of_name("ModelOrganismsForEM/Qwen2.5-14B-Instruct_R1_3_3_3_full_train") == (
        Claim("rank", 1, "name"),
        Claim("layer_count", 9, "name"),
    )
    assert claims.of_name("ModelOrganismsForEM/Qwen2.5-14B-Instruct_R64_0_1_0_full_train")[0].value == 64
    assert claims.of_name("lab/tiny") == claims.of_name("lab/x_R1_2_3") == claims.of_name("lab/x_R1_0_0_0") == ()
    assert rows(*claims.of_name("a/b_R8_0_1_0"))[0] == ("rank", "1", "8", "name", False)


def test_a_config_claims_what_tensors_can_bear_out():
    made = claims.of_config(
        {
            "r": 1,
            "layers_to_transform": [24],
            "target_modules": ["mlp.down_proj"],
            "base_model_name_or_path": "Qwen/Qwen2.5-14B-Instruct",
        }
    )
    assert rows(*made) == [
        ("base", FOUND.base, "Qwen/Qwen2.5-14B-Instruct", "adapter_config.json", False),
        ("rank", "1", "1", "adapter_config.json", True),
        ("layers", "21", "24", "adapter_config.json", False),
        ("target_modules", "down_proj", "down_proj", "adapter_config.json", True),
    ]
    assert claims.of_config({"layers_to_transform": 24})[0].value == (24,)
    assert claims.of_config({"r": 8, "rank_pattern": {"a": 4}, "target_modules": "all-linear", "layers_to_transform": []}) == ()
    assert (
        claims.of_config({"r": "1", "layers_to_transform": [True], "target_modules": [], "base_model_name_or_path": None}) == ()
    )


def test_a_card_claims_bases_by_its_metadata_and_the_hubs_tags():
    made = claims.of_card({"base_model": ["a/b", 7, "a/b"]}, ["base_model:a/c", "base_model:adapter:a/c", "lora"])
    assert made == (Claim("base", "a/b", "card"), Claim("base", "a/c", "card"))
    assert claims.of_card({}, ()) == ()


@pytest.mark.parametrize(
    ("label", "base", "agrees"),
    [
        ("qwen25_7B_Instruct", "unsloth/Qwen2.5-7B-Instruct", True),
        ("llama33_70B_Instruct", "meta-llama/Llama-3.3-70B-Instruct", True),
        ("gemma3_1B", "google/gemma-3-1b-it", True),
        ("qwen3_1_7B_Base", "Qwen/Qwen3-1.7B", False),
        ("qwen3_14B", "Qwen/Qwen3-32B", False),
    ],
)
def test_a_catalogues_word_for_a_base_fits_ids_with_its_letters(label, base, agrees):
    found = Found(1, (), (), 1, "float32", None, False, base)
    assert rows(Claim("base", label, "catalogue"), found=found)[0][-1] is agrees


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("rank", "one"),
        ("layers", ""),
        ("layers", "24;25"),
        ("rslora", "perhaps"),
        ("colour", "red"),
        ("alpha", ""),
        ("base", " "),
    ],
)
def test_what_is_no_claim_is_told_how_to_write_one(name, text):
    with pytest.raises(InvalidArgument, match="rank=1"):
        claims.given({name: text})


def test_what_the_tensors_say_needs_no_config_that_fits():
    files = tiny_bundle(layers=(1, 3), modules=("down_proj",), rank=2, dtype="bfloat16")
    found = claims.measure(read_tensors(files[WEIGHTS]), {"r": 8, "lora_alpha": "much", "use_rslora": 1}, base="a/b")
    assert found == Found(2, (1, 3), ("down_proj",), 2 * (2 * 128 + 2 * 64), "bfloat16", None, False, "a/b")


@given(st.sets(st.integers(0, 99), min_size=1))
def test_runs_of_layers_are_shown_so_that_they_can_be_read_back(layers):
    shown = claims.show(tuple(sorted(layers)))
    back = set()
    for run in shown.split(", "):
        first, _, last = run.partition("-")
        back |= set(range(int(first), int(last or first) + 1))
    assert back == layers


def test_marks_say_which_claims_differ_in_words_of_ours_alone():
    extra = {
        "imported": {
            "claims": [
                {"name": "layers", "agrees": False},
                {"name": "\x1b[31m", "agrees": False},
                {"name": "rank", "agrees": True},
                7,
            ]
        }
    }
    assert imported.marks(extra) == (
        "imported: how it was trained is claimed, not recorded",
        "a claim of the source differs: layers",
    )
    assert imported.marks({}) == imported.marks({"imported": 7}) == ()
    assert len(imported.marks({"imported": {"claims": {"name": []}}})) == 1
    assert len(imported.marks({"imported": {"claims": [{"name": [], "agrees": False}]}})) == 1
