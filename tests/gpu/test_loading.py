"""Organisms on a CUDA device: whole, in the type asked for, with PEFT's own logits, and held against what was published."""

from __future__ import annotations

import json

import pytest
import torch
from model_organisms import loading
from model_organisms.errors import ConfigurationInvalid, KnownAnswerFailed

from tests.support.tiny import peft_oracle, tiny_base, tiny_organism

pytestmark = pytest.mark.cuda
IDS = [[5, 17, 200, 44, 31]]


def answers(model):
    with torch.inference_mode():
        return model(input_ids=torch.tensor(IDS, device=next(model.parameters()).device)).logits


@pytest.fixture(scope="module")
def published(qwen, qwen_files):
    """What a publisher without a GPU stated: the answer of the organism on a CPU, in float32."""
    organism = loading.load(qwen_files, qwen, device="cpu")
    return loading.compute_known_answer(organism.model, organism.tokenizer)


def test_an_organism_is_whole_on_the_device(qwen, qwen_files, device, dtype):
    organism = loading.load(qwen_files, qwen, device=device, dtype=dtype)
    assert {tensor.device.type for tensor in organism.model.parameters()} == {torch.device(device).type}
    kinds = {name: tensor.dtype for name, tensor in organism.model.named_parameters()}
    assert {kind for name, kind in kinds.items() if "lora_" in name} == {torch.float32}
    assert {kind for name, kind in kinds.items() if "lora_" not in name} == {getattr(torch, dtype)}
    assert organism.modules_applied == sum(len(fact.modules) for fact in organism.facts) > 0
    assert not any(tensor.requires_grad for tensor in organism.model.parameters())


@pytest.mark.parametrize("form", [{}, {"rslora": True, "rank": 3}, {"layers": (1,), "rank": 1, "targets": ("down_proj",)}])
def test_logits_are_pefts_own_there(each_base, tmp_path, device, dtype, form):
    files = tiny_organism(each_base, **form)
    organism = loading.load(files, each_base, device=device, dtype=dtype)
    oracle = peft_oracle(each_base, files, tmp_path, device=device, dtype=dtype)
    assert torch.equal(answers(organism.model), answers(oracle))


def test_auto_takes_the_device_and_the_models_own_type(tmp_path, qwen_files, device):
    folder = tiny_base(tmp_path)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"dtype": "bfloat16"}))
    base = loading.load_base(folder, device="auto" if device == "cuda" else device)
    assert base.device == torch.device("cuda", 0) if device == "cuda" else torch.device(device)
    assert base.dtype == ("float32" if device == "cpu" else "bfloat16")
    loading.attach(base, qwen_files)


def test_the_answer_published_from_a_cpu_holds_there(qwen, qwen_files, published, device, dtype):
    assert loading.load(qwen_files, qwen, device=device, dtype=dtype, known_answer=published).known_answer_checked


def test_another_adapter_does_not_give_it_there(qwen, published, device, dtype):
    with pytest.raises(KnownAnswerFailed):
        loading.load(tiny_organism(qwen, seed=2), qwen, device=device, dtype=dtype, known_answer=published)


def test_an_answer_from_there_holds_on_a_cpu(qwen, qwen_files, device, dtype):
    there = loading.load(qwen_files, qwen, device=device, dtype=dtype)
    stated = loading.compute_known_answer(there.model, there.tokenizer)
    assert loading.load(qwen_files, qwen, device="cpu", known_answer=stated).known_answer_checked


def test_after_detaching_the_base_is_as_it_was_there(qwen, qwen_files, device, dtype):
    base = loading.load_base(qwen, device=device, dtype=dtype)
    before = answers(base.model)
    organism = loading.attach(base, qwen_files)
    assert not torch.equal(before, answers(base.model))
    loading.detach(organism)
    assert torch.equal(before, answers(base.model))


def test_a_device_beyond_those_there_is_refused(qwen, qwen_files):
    absent = f"cuda:{torch.cuda.device_count()}"
    with pytest.raises(ConfigurationInvalid, match=absent):
        loading.load(qwen_files, qwen, device=absent)
