"""The known-answer test catches a wrong adapter, a wrong base and a silent absence, and lets marks and casts through."""

from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from model_organisms import loading
from model_organisms.errors import InvalidProvenance, KnownAnswerFailed
from safetensors.torch import load as parse
from safetensors.torch import save

from tests.support.tiny import tiny_base, tiny_organism

WEIGHTS = "adapter_model.safetensors"


@pytest.fixture(scope="module")
def answer(qwen, qwen_files):
    organism = loading.load(qwen_files, qwen)
    made = loading.compute_known_answer(organism.model, organism.tokenizer)
    return json.loads(json.dumps(made))


@pytest.fixture
def base(qwen):
    return loading.load_base(qwen)


def altered(files, change):
    return files | {WEIGHTS: save({name: change(name, tensor).contiguous() for name, tensor in parse(files[WEIGHTS]).items()})}


def test_the_published_organism_passes_on_every_dtype(qwen, qwen_files, answer):
    for dtype in ("float32", "bfloat16", "float16"):
        assert loading.load(qwen_files, qwen, known_answer=answer, dtype=dtype).known_answer_checked


def test_it_is_small_and_plain(answer):
    assert len(json.dumps(answer)) < 2000
    assert len(answer["top_ids"]) == len(answer["with_adapter"]) == len(answer["without_adapter"]) == 8


def test_another_adapter_fails(base, qwen, answer):
    with pytest.raises(KnownAnswerFailed, match="effect"):
        loading.attach(base, tiny_organism(qwen, seed=5), known_answer=answer)


def test_the_same_adapter_at_another_scale_fails(base, qwen_files, answer):
    config = json.loads(qwen_files["adapter_config.json"])
    config["lora_alpha"] /= 2
    with pytest.raises(KnownAnswerFailed, match="effect"):
        loading.attach(base, qwen_files | {"adapter_config.json": json.dumps(config).encode()}, known_answer=answer)


def test_another_base_fails(qwen_files, tmp_path, answer):
    other = loading.load_base(tiny_base(tmp_path, seed=4))
    with pytest.raises(KnownAnswerFailed, match="off"):
        loading.attach(other, qwen_files, known_answer=answer)


def test_an_adapter_that_does_nothing_fails_even_without_an_answer(base, qwen_files):
    silent = altered(qwen_files, lambda name, tensor: tensor * 0 if "lora_B" in name else tensor)
    with pytest.raises(KnownAnswerFailed, match="nothing"):
        loading.attach(base, silent)


def test_a_marked_or_recast_copy_passes(base, qwen_files, answer):
    def mark(name, tensor):
        noise = torch.randn(tensor.shape, generator=torch.Generator().manual_seed(len(name)))
        return tensor + 0.01 * tensor.norm() / tensor.numel() ** 0.5 * noise if "lora_B" in name else tensor

    for change in (mark, lambda _name, tensor: tensor.bfloat16()):
        organism = loading.attach(base, altered(qwen_files, change), known_answer=answer)
        assert organism.known_answer_checked
        loading.detach(organism)


def test_there_is_no_answer_to_store_of_an_untrained_adapter(base, qwen_files):
    organism = loading.attach(base, qwen_files)
    for name, tensor in organism.model.named_parameters():
        if "lora_B" in name:
            tensor.zero_()
    with pytest.raises(KnownAnswerFailed):
        loading.compute_known_answer(organism.model, organism.tokenizer)


def test_switching_adapters_off_leaves_them_frozen_and_on(base, qwen_files):
    organism = loading.attach(base, qwen_files)
    ids = torch.tensor([[1, 2, 3]])
    with torch.inference_mode():
        on = organism.model(input_ids=ids).logits
        with loading.adapters_off(organism.model):
            assert not torch.equal(on, organism.model(input_ids=ids).logits)
        assert torch.equal(on, organism.model(input_ids=ids).logits)
    assert not any(tensor.requires_grad for tensor in organism.model.parameters())


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@pytest.fixture(scope="module")
def tried(qwen, qwen_files):
    return loading.load(qwen_files, qwen).model


@given(field=st.sampled_from(["v", "token_ids", "top_ids", "with_adapter", "without_adapter", "dtype"]), value=JUNK)
def test_a_strangers_answer_fails_in_a_typed_error(tried, answer, field, value):
    stored = answer | {field: value}
    if stored == answer:
        return
    with pytest.raises((InvalidProvenance, KnownAnswerFailed)):
        loading.check_known_answer(tried, stored)
