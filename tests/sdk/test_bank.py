"""Organisms come from their bytes, stay within a budget, come back by themselves, and leave zeros behind."""

from __future__ import annotations

import json
import weakref
from contextlib import ExitStack

import pytest
import torch
from model_organisms import loading
from model_organisms.errors import (
    AdapterKeysMismatch,
    ConfigurationInvalid,
    Conflict,
    InvalidProvenance,
    KnownAnswerFailed,
    RefusedConfig,
    Unavailable,
)
from model_organisms.sampling.bank import Bank
from model_organisms.sampling.mixing import Mix, Mixer

from tests.support.tiny import tiny_organism

IDS = torch.tensor([[5, 17, 200, 44, 31]])
WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"


@pytest.fixture(scope="module")
def base(qwen):
    return loading.load_base(qwen, progress=False)


@pytest.fixture(scope="module")
def bundles(qwen):
    """Five of one layout."""
    return [tiny_organism(qwen, rank=4, targets=("q_proj", "up_proj"), seed=seed) for seed in range(5)]


@pytest.fixture
def small(base, bundles):
    """Makes a bank with room for so many of `bundles`, and its mixer."""
    with ExitStack() as stack:
        size = Bank(base).add(bundles[0]).bytes

        def make(room):
            bank = Bank(base, budget=room * size)
            mixer = Mixer(base, bank)
            stack.callback(mixer.close)
            return bank, mixer

        yield make


@pytest.fixture
def pair(small):
    return small(1000)


@pytest.fixture
def bank(pair):
    return pair[0]


@pytest.fixture
def mixer(pair):
    return pair[1]


def answer(base, mixer, *organisms):
    mixer.compose([Mix(organism) if organism else None for organism in organisms])
    with torch.inference_mode():
        return base.model(input_ids=IDS.repeat(len(organisms), 1), use_cache=False).logits


def attached(qwen, files):
    """What the one-organism loader says, through PEFT."""
    organism = loading.attach(loading.load_base(qwen, progress=False), files)
    with torch.inference_mode():
        return organism.model(input_ids=IDS, use_cache=False).logits[0]


def test_adapters_of_one_bundle_are_composed_in_order(qwen, base, bank, mixer):
    first = tiny_organism(qwen, rank=2, targets=("q_proj", "down_proj"), seed=1)
    second = tiny_organism(qwen, rank=5, targets=("q_proj", "up_proj"), seed=2, rslora=True)
    files = {f"{folder}/{name}": part[name] for folder, part in enumerate((first, second)) for name in (WEIGHTS, CONFIG)}
    files["README.md"] = first["README.md"]
    organism = bank.add(files)
    assert organism.modules_applied == 8
    torch.testing.assert_close(answer(base, mixer, None, organism)[1], attached(qwen, files), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_factors_of_half_precision_keep_their_digits(qwen, base, bank, mixer, dtype):
    from safetensors.torch import load, save

    files = tiny_organism(qwen)
    files[WEIGHTS] = save({name: tensor.to(getattr(torch, dtype)) for name, tensor in load(files[WEIGHTS]).items()})
    torch.testing.assert_close(answer(base, mixer, bank.add(files))[0], attached(qwen, files), atol=1e-4, rtol=1e-4)


def test_ranks_and_alphas_by_pattern(qwen, base, bank, mixer):
    import numpy as np
    from safetensors.numpy import load, save

    files = tiny_organism(qwen, rank=4, targets=("q_proj", "up_proj"))
    config = json.loads(files[CONFIG]) | {"rank_pattern": {"up_proj": 2}, "alpha_pattern": {"layers.1.self_attn.q_proj": 7}}
    tensors = load(files[WEIGHTS])
    for name, value in tensors.items():
        if "up_proj" in name:
            tensors[name] = np.ascontiguousarray(value[:2] if "lora_A" in name else value[:, :2])
    files = files | {CONFIG: json.dumps(config).encode(), WEIGHTS: save(tensors)}
    torch.testing.assert_close(answer(base, mixer, bank.add(files))[0], attached(qwen, files), atol=1e-4, rtol=1e-4)


def test_who_was_used_longest_ago_is_evicted_and_comes_back_when_asked_for(base, small, bundles):
    bank, mixer = small(2)
    first, second = bank.add(bundles[0]), bank.add(bundles[1])
    before = answer(base, mixer, first).clone()
    third = bank.add(bundles[2])
    assert set(bank.resident) == {first, third}
    assert bank.used == bank.budget
    assert second in bank
    answer(base, mixer, third)
    answer(base, mixer, second)
    assert set(bank.resident) == {third, second}
    assert torch.equal(answer(base, mixer, first), before)


def test_who_is_in_use_or_composed_is_not_evicted(small, bundles):
    bank, mixer = small(2)
    first, second = bank.add(bundles[0]), bank.add(bundles[1])
    mixer.compose([Mix(second)])
    with bank.using(first):
        with pytest.raises(Unavailable, match="wait for requests to end, or raise"):
            bank.add(bundles[2])
        assert set(bank.resident) == {first, second}
        with pytest.raises(Conflict, match="in use"):
            bank.remove(first)
    with pytest.raises(Conflict, match="Nobody uses"):
        bank.release(first)
    assert len(bank) == 2
    third = bank.add(bundles[2])
    assert set(bank.resident) == {second, third}


def test_a_batch_that_does_not_fit_the_budget_is_refused_and_answers_nothing(base, small, bundles):
    bank, mixer = small(2)
    held = [bank.add(files) for files in bundles[:3]]
    with pytest.raises(Unavailable):
        answer(base, mixer, *held)
    with pytest.raises(Conflict), torch.inference_mode():
        base.model(input_ids=IDS.repeat(3, 1))
    assert answer(base, mixer, held[0], held[1]).shape[0] == 2


def test_an_organism_larger_than_the_budget_is_refused(base, bundles):
    bank = Bank(base, budget=100)
    with pytest.raises(ConfigurationInvalid, match="raise `adapter_bytes`"):
        bank.add(bundles[0])
    assert len(bank) == 0
    with pytest.raises(ConfigurationInvalid):
        Bank(base, budget=0)


def test_removal_leaves_zeros_in_the_bank_and_in_the_tables(base, bank, mixer, bundles):
    held = [bank.add(files) for files in bundles]
    answer(base, mixer, *held)
    row, (table,) = bank.weights(held[1]), mixer._tables.values()
    copied = table.memory[table.holds.index(held[1])]
    assert row.abs().sum() > 0
    assert torch.equal(row, copied)
    bank.remove(held[1])
    assert torch.count_nonzero(row) == torch.count_nonzero(copied) == 0
    assert held[1] not in table.holds
    rows = [bank.weights(organism) for organism in held if organism in bank]
    mixer.close()
    bank.close()
    assert not any(map(torch.count_nonzero, [table.memory, *rows]))


def test_tables_and_layouts_of_nobody_are_given_back(base, qwen, bank, mixer, bundles):
    stays = [bank.add(files) for files in bundles[:2]]
    answer(base, mixer, *stays)
    mixer.compose([])
    own, layouts = mixer.table_bytes, len(bank.sites._layouts)
    assert own > 0
    for rank in range(1, 8):
        guests = [bank.add(tiny_organism(qwen, rank=rank, targets=("v_proj",), seed=seed)) for seed in (1, 2, 3)]
        answer(base, mixer, *guests, *stays)
        if rank % 2:
            mixer.compose([])
        assert mixer.table_bytes > own
        memory = [weakref.ref(table.memory) for table in mixer._tables.values()]
        for guest in guests:
            bank.remove(guest)
        assert mixer.table_bytes == own
        assert sum(one() is not None for one in memory) == 1  # no plan keeps it either
        assert len(bank.sites._layouts) == layouts
    for organism in stays:
        bank.remove(organism)
    assert mixer.table_bytes == 0
    assert not bank.sites._layouts


def test_eviction_leaves_zeros_too(small, bundles):
    bank, _ = small(1)
    row = bank.weights(bank.add(bundles[0]))
    bank.add(bundles[1])
    assert torch.count_nonzero(row) == 0


def test_files_that_were_wiped_meanwhile_are_noticed_when_it_comes_back(small, bundles):
    bank, _ = small(1)
    files = {path: bytearray(data) for path, data in bundles[0].items()}
    organism = bank.add(files)
    bank.add(bundles[1])
    files[WEIGHTS][-4096:] = bytes(4096)
    with pytest.raises(Conflict, match="wiped or changed; remove it"):
        bank.weights(organism)
    bank.remove(organism)


def test_it_is_held_against_what_was_published(qwen, base, bank, mixer, bundles):
    published = loading.attach(loading.load_base(qwen, progress=False), bundles[0])
    stored = loading.compute_known_answer(published.model, published.tokenizer)
    assert bank.add(bundles[0], known_answer=stored).known_answer_checked
    before = answer(base, mixer, None)
    with pytest.raises(KnownAnswerFailed, match="differ from the published"):
        bank.add(bundles[1], known_answer=stored)
    with pytest.raises(InvalidProvenance):
        bank.add(bundles[1], known_answer=stored | {"v": 2})
    assert len(bank) == len(bank.resident) == 1
    assert torch.equal(answer(base, mixer, None), before)


def test_an_adapter_of_nothing_is_refused(bank, bundles):
    from safetensors.torch import load, save

    tensors = {name: tensor * 0 if "lora_B" in name else tensor for name, tensor in load(bundles[0][WEIGHTS]).items()}
    with pytest.raises(KnownAnswerFailed, match="changes nothing"):
        bank.add(bundles[0] | {WEIGHTS: save(tensors)})
    assert len(bank) == 0


def test_dora_is_refused_by_name(bank, bundles):
    config = json.dumps(json.loads(bundles[0][CONFIG]) | {"use_dora": True}).encode()
    with pytest.raises(RefusedConfig, match=r"use_dora.*train without it"):
        bank.add(bundles[0] | {CONFIG: config})


def test_a_module_that_is_no_linear_layer_is_refused_by_name(qwen, bundles):
    class Other(torch.nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.weight = inner.weight

    base = loading.load_base(qwen, progress=False)
    layer = base.model.model.layers[1].mlp
    layer.up_proj = Other(layer.up_proj)
    with pytest.raises(AdapterKeysMismatch, match=r"layers\.1\.mlp\.up_proj.*a Other there"):
        Bank(base).add(bundles[0])


def test_a_base_of_other_widths_is_refused(qwen, bundles):
    base = loading.load_base(qwen, progress=False)
    layer = base.model.model.layers[1].mlp
    layer.up_proj = torch.nn.Linear(16, 64)
    with pytest.raises(AdapterKeysMismatch, match="32 -> 64, and this base model's is 16 -> 64"):
        Bank(base).add(bundles[0])


def test_a_base_that_carries_an_organism_is_refused(qwen, bundles):
    base = loading.load_base(qwen, progress=False)
    organism = loading.attach(base, bundles[0])
    with pytest.raises(Conflict, match="detach"):
        Bank(base)
    Bank(loading.detach(organism)).add(bundles[0])


def test_a_bank_has_one_mixer(base, bank, mixer):
    with pytest.raises(Conflict):
        Mixer(base, bank)
    assert bank.mixer is mixer
