"""A mixed batch on a CUDA device: each row as PEFT answers for its organism alone, in each type."""

from __future__ import annotations

import pytest
import torch
from model_organisms import loading
from model_organisms.sampling.bank import Bank
from model_organisms.sampling.mixing import Mix, Mixer

from tests.support.tiny import peft_oracle, tiny_organism

pytestmark = pytest.mark.cuda
IDS = torch.tensor([[5, 17, 200, 44, 31]])
CLOSE = {"float32": 1e-4, "bfloat16": 0.25, "float16": 0.03}
KINDS = (
    {"rank": 1, "targets": ("down_proj",)},
    {"rank": 8, "targets": ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")},
    {"rank": 3, "targets": ("embed_tokens", "up_proj"), "rslora": True, "alpha": 8.0},
)


def forward(model, ids):
    with torch.inference_mode():
        return model(input_ids=ids.to(next(model.parameters()).device), use_cache=False).logits.float().cpu()


@pytest.fixture(scope="module")
def bundles(qwen):
    return [tiny_organism(qwen, **options) for options in KINDS]


@pytest.fixture(scope="module")
def mixer(qwen, device, dtype):
    base = loading.load_base(qwen, device=device, dtype=dtype, progress=False)
    made = Mixer(base, Bank(base, budget=64 << 20))
    yield made
    made.close()


@pytest.fixture(scope="module")
def oracles(qwen, bundles, device, dtype, tmp_path_factory):
    return [peft_oracle(qwen, files, tmp_path_factory.mktemp("oracle"), device=device, dtype=dtype) for files in bundles]


def test_every_row_is_what_peft_says(bundles, oracles, mixer, dtype):
    held = [mixer.bank.add(files) for files in bundles]
    rows = [0, None, 1, 2, 1, 0, 2, None]
    mixer.compose([None if kind is None else Mix(held[kind]) for kind in rows])
    answers = forward(mixer.base.model, IDS.repeat(len(rows), 1))
    for kind, oracle in enumerate(oracles):
        expected = forward(oracle, IDS.repeat(len(rows), 1))
        for row in (index for index, name in enumerate(rows) if name == kind):
            torch.testing.assert_close(answers[row], expected[row], atol=CLOSE[dtype], rtol=CLOSE[dtype])
            assert (answers[row] - answers[1]).abs().max() > 2 * CLOSE[dtype]
    with oracle.disable_adapter():
        assert torch.equal(answers[1], forward(oracle, IDS.repeat(len(rows), 1))[1])


def test_removal_leaves_zeros_on_the_device(bundles, mixer):
    first, second = mixer.bank.add(bundles[1]), mixer.bank.add(bundles[1])
    mixer.compose([Mix(first), Mix(second)])
    row = mixer.bank.weights(first)
    assert torch.count_nonzero(row) > 0
    mixer.compose([])
    mixer.bank.remove(first)
    assert torch.count_nonzero(row) == 0
    mixer.bank.remove(second)
