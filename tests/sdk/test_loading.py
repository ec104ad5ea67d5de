"""Bundles onto base models: as PEFT does it where PEFT is right, and refused where PEFT would only warn."""

from __future__ import annotations

import json

import pytest
import torch
from model_organisms import loading
from model_organisms.errors import (
    AdapterKeysMismatch,
    BaseModelMismatch,
    ConfigurationInvalid,
    Conflict,
    InvalidBundle,
    LoadingFailed,
    ShapeMismatch,
)
from safetensors.torch import load as parse
from safetensors.torch import save

from tests.support.tiny import peft_oracle, tiny_base, tiny_organism

IDS = torch.tensor([[5, 17, 200, 44, 31]])
WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"


def answers(model, ids=IDS):
    with torch.inference_mode():
        return model(input_ids=ids).logits


def changed(files, **fields):
    return files | {CONFIG: json.dumps(json.loads(files[CONFIG]) | fields).encode()}


@pytest.mark.parametrize("form", [{}, {"rslora": True, "rank": 3}, {"layers": (1,), "rank": 1, "targets": ("down_proj",)}])
def test_logits_are_pefts_own(each_base, tmp_path, form):
    files = tiny_organism(each_base, **form)
    organism = loading.load(files, each_base)
    oracle = peft_oracle(each_base, files, tmp_path)
    assert torch.equal(answers(organism.model), answers(oracle))
    assert organism.modules_applied == sum(len(fact.modules) for fact in organism.facts)
    assert not any(tensor.requires_grad for tensor in organism.model.parameters())
    assert not organism.model.training
    assert all(layer.p == 0 for layer in organism.model.modules() if isinstance(layer, torch.nn.Dropout))


def test_adapters_compose_in_order(qwen, tmp_path):
    parts = [tiny_organism(qwen, seed=seed, targets=targets) for seed, targets in ((1, ("q_proj",)), (2, ("q_proj", "up_proj")))]
    files = {f"{number}/{path}": data for number, part in enumerate(parts) for path, data in part.items()}
    organism = loading.load(files, qwen)
    assert [fact.path for fact in organism.facts] == ["0", "1"]
    assert organism.modules_applied == 2 + 4
    assert len(set(organism.adapter_digests)) == 2
    state = answers(organism.model)
    # Folding one adapter after the other into the base's weights is what composing means.
    ground = peft_oracle(qwen, parts[0], tmp_path).merge_and_unload()
    ground.save_pretrained(tmp_path / "folded")
    folded = peft_oracle(tmp_path / "folded", parts[1], tmp_path)
    assert torch.allclose(state, answers(folded), atol=1e-4)


@pytest.mark.parametrize("borrow", [False, True])
def test_a_copy_survives_its_bytes_and_a_borrowed_one_is_them(qwen, qwen_files, borrow):
    memory = bytearray(qwen_files[WEIGHTS])
    base = loading.load_base(qwen)
    organism = loading.attach(base, qwen_files | {WEIGHTS: memoryview(memory)}, borrow=borrow)
    before = answers(organism.model)
    memory[-4096:] = bytes(4096)
    assert torch.equal(before, answers(organism.model)) is not borrow


def test_half_precision_tensors_become_float32(qwen, qwen_files):
    for dtype in (torch.float16, torch.bfloat16):
        halved = {name: tensor.to(dtype) for name, tensor in parse(qwen_files[WEIGHTS]).items()}
        organism = loading.load(qwen_files | {WEIGHTS: save(halved)}, qwen)
        held = {tensor.dtype for name, tensor in organism.model.named_parameters() if "lora_" in name}
        assert held == {torch.float32}
        doubled = {name: tensor.float() for name, tensor in halved.items()}
        assert torch.equal(answers(organism.model), answers(loading.load(qwen_files | {WEIGHTS: save(doubled)}, qwen).model))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_on_a_base_in_half_precision_an_adapter_keeps_its_digits(qwen, qwen_files, tmp_path, dtype):
    organism = loading.load(qwen_files, qwen, dtype=dtype)
    assert {tensor.dtype for name, tensor in organism.model.named_parameters() if "lora_" in name} == {torch.float32}
    assert torch.equal(answers(organism.model), answers(peft_oracle(qwen, qwen_files, tmp_path, dtype=dtype)))


def test_trainable_adapters_take_gradients_and_the_base_does_not(qwen, qwen_files):
    organism = loading.load(qwen_files, qwen, trainable=True)
    organism.model(input_ids=IDS, labels=IDS).loss.backward()
    graded = {name for name, tensor in organism.model.named_parameters() if tensor.grad is not None}
    assert graded
    assert all("lora_" in name for name in graded)


def test_after_detaching_the_base_is_as_it_was(qwen, qwen_files):
    base = loading.load_base(qwen)
    names, before = [name for name, _ in base.model.named_modules()], answers(base.model)
    organism = loading.attach(base, qwen_files)
    assert not torch.equal(before, answers(base.model))
    with pytest.raises(Conflict):
        loading.attach(base, qwen_files)
    assert loading.detach(organism) is base
    assert [name for name, _ in base.model.named_modules()] == names
    assert torch.equal(before, answers(base.model))
    loading.attach(base, qwen_files)


def test_a_bundle_that_fails_late_leaves_the_base_as_it_was(qwen, qwen_files):
    base = loading.load_base(qwen)
    before = answers(base.model)
    zeros = {
        name: torch.zeros_like(tensor) if "lora_B" in name else tensor for name, tensor in parse(qwen_files[WEIGHTS]).items()
    }
    with pytest.raises(LoadingFailed):
        loading.attach(base, qwen_files | {WEIGHTS: save(zeros)})
    assert torch.equal(before, answers(base.model))
    loading.attach(base, qwen_files)


def renamed(files, old, new):
    return files | {WEIGHTS: save({name.replace(old, new): tensor for name, tensor in parse(files[WEIGHTS]).items()})}


def test_tensors_without_a_place_are_refused_where_peft_would_warn(tmp_path, qwen_files):
    # An architecture whose plan of layers is not known, so that only the loading itself can tell.
    base = tiny_base(tmp_path, "qwen2")
    loaded = loading.load_base(base)
    unknown = loading.LoadedBase(
        loaded.model, loaded.tokenizer, loaded.folder, loaded.digest, loaded.config | {"model_type": "else"}
    )
    stranger = changed(renamed(qwen_files, "mlp.down_proj", "mlp.sideways_proj"), target_modules=["q_proj", "sideways_proj"])
    with pytest.raises(AdapterKeysMismatch) as caught:
        loading.attach(unknown, stranger)
    assert "sideways_proj" in caught.value.details["key"]
    pair = {"base_model.model.x.lora_A.weight": torch.ones(4, 8), "base_model.model.x.lora_B.weight": torch.ones(8, 4)}
    nothing = changed(qwen_files | {WEIGHTS: save(pair)}, target_modules=["x"])
    with pytest.raises(AdapterKeysMismatch):
        loading.attach(unknown, nothing)
    loading.attach(unknown, qwen_files)


def test_what_the_reader_refuses_never_reaches_the_model(qwen, qwen_files):
    half = {name: tensor for name, tensor in parse(qwen_files[WEIGHTS]).items() if "layers.1.mlp.down_proj.lora_B" not in name}
    with pytest.raises(ShapeMismatch):
        loading.load(qwen_files | {WEIGHTS: save(half)}, qwen)
    with pytest.raises(ShapeMismatch):
        loading.load(renamed(qwen_files, "layers.1", "layers.2"), qwen)
    with pytest.raises(InvalidBundle):
        loading.load(qwen_files | {"adapter_model.bin": b"\x80\x04."}, qwen)


def test_checkpoints_in_a_bundle_are_passed_over(qwen, qwen_files):
    files = qwen_files | {f"checkpoints/5/{path}": b"not even an adapter" for path in (WEIGHTS, CONFIG)}
    assert loading.load(files, qwen).modules_applied == 4


def test_names_of_older_files_are_understood(qwen, qwen_files):
    older = renamed(renamed(qwen_files, "lora_A.weight", "lora_A.default.weight"), "lora_B.weight", "lora_B.default.weight")
    assert torch.equal(answers(loading.load(older, qwen).model), answers(loading.load(qwen_files, qwen).model))


def test_devices_and_dtypes_are_checked_before_anything_is_read(qwen, qwen_files):
    for wrong in ({"device": "cuda:99"}, {"device": "toaster"}, {"dtype": "int8"}):
        with pytest.raises(ConfigurationInvalid):
            loading.load(qwen_files, qwen, **wrong)
    assert loading.load_base(qwen, dtype="bfloat16").dtype == "bfloat16"
    assert loading.load_base(qwen).dtype == "float32"


def test_another_base_than_the_provenance_names_is_refused(qwen, qwen_files, tmp_path):
    digest = loading.load_base(qwen).digest
    assert loading.load(qwen_files, qwen, base_digest=digest).base.digest == digest
    other = tiny_base(tmp_path, "qwen2", seed=9)
    with pytest.raises(BaseModelMismatch):
        loading.load(qwen_files, other, base_digest=digest)
    assert loading.load_base(other, known_digest=digest).digest == digest


def test_a_base_that_needs_code_of_its_own_is_refused(tmp_path):
    folder = tiny_base(tmp_path)
    config = json.loads((folder / "config.json").read_text())
    config |= {
        "model_type": "homemade",
        "auto_map": {"AutoModelForCausalLM": "modeling.Homemade", "AutoConfig": "modeling.Config"},
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "modeling.py").write_text("raise SystemExit('ran')")
    with pytest.raises(LoadingFailed):
        loading.load_base(folder)
