"""Each row of a batch is its own organism's: logits as PEFT gives for it alone, whatever stands in the other rows."""

from __future__ import annotations

import math

import pytest
import torch
from model_organisms import loading
from model_organisms.errors import Conflict, InvalidArgument
from model_organisms.sampling.bank import Bank
from model_organisms.sampling.mixing import Mix, Mixer

from tests.support.tiny import peft_oracle, tiny_organism

IDS = torch.tensor([[5, 17, 200, 44, 31]])
ALL = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
KINDS = {
    "rank 1": {"rank": 1, "targets": ("down_proj",)},
    "every module": {"rank": 8, "targets": ALL},
    "another of the same": {"rank": 8, "targets": ALL, "seed": 2},
    "one layer": {"rank": 3, "targets": ("v_proj", "up_proj"), "layers": (1,)},
    "rslora": {"rank": 16, "targets": ("q_proj", "gate_proj"), "rslora": True, "alpha": 8.0},
    "words": {"rank": 2, "targets": ("embed_tokens", "q_proj")},
    "head": {"rank": 2, "targets": ("lm_head",)},
}


def forward(model, ids):
    with torch.inference_mode():
        return model(input_ids=ids.to(model.device), use_cache=False).logits.float().cpu()


@pytest.fixture(scope="module")
def base(each_base):
    return loading.load_base(each_base, progress=False)


@pytest.fixture(scope="module")
def bundles(each_base):
    return {name: tiny_organism(each_base, **options) for name, options in KINDS.items()}


@pytest.fixture(scope="module")
def answers(each_base, bundles, tmp_path_factory):
    """What PEFT says, one organism at a time; nobody is the bare base."""
    told = {}
    for name, files in bundles.items():
        oracle = peft_oracle(each_base, files, tmp_path_factory.mktemp("oracle"))
        told[name] = forward(oracle, IDS)
    with oracle.disable_adapter():
        told[None] = forward(oracle, IDS)
    return told


@pytest.fixture
def bank(base):
    made = Bank(base, budget=64 << 20)
    yield made
    made.close()


@pytest.fixture
def mixer(base, bank):
    made = Mixer(base, bank)
    yield made
    made.close()


def test_a_mixed_batch_is_row_by_row_what_peft_says(base, bank, mixer, bundles, answers):
    held = {name: bank.add(files) for name, files in bundles.items()}
    rows = [*KINDS, None, *reversed(KINDS), None, "rank 1"]
    mixer.compose([Mix(held[name]) if name else None for name in rows])
    for row, name in zip(forward(base.model, IDS.repeat(len(rows), 1)), rows, strict=True):
        torch.testing.assert_close(row, answers[name][0], atol=1e-4, rtol=1e-4, msg=lambda text, who=name: f"{who}: {text}")
        if name:
            assert (answers[name] - answers[None]).abs().max() > 1e-2


def test_without_a_composition_the_base_is_untouched(base, bank, mixer, bundles, answers):
    organism = bank.add(bundles["every module"])
    assert not any(module._forward_hooks for module in base.model.modules())
    mixer.compose([Mix(organism)])
    assert sum(bool(module._forward_hooks) for module in base.model.modules()) == organism.modules_applied == 14
    mixer.compose([None, None])
    assert not any(module._forward_hooks for module in base.model.modules())
    assert torch.equal(forward(base.model, IDS), answers[None])


def test_a_scale_of_nothing_is_the_base_and_half_is_half_the_product(base, bank, mixer, bundles, answers):
    organism = bank.add(bundles["head"])
    scales = [0.0, 0.5, 1.0, 2.5, -1.0]
    mixer.compose([Mix(organism, scale) for scale in scales])
    rows = forward(base.model, IDS.repeat(len(scales), 1))
    torch.testing.assert_close(rows[0], answers[None][0], atol=1e-5, rtol=1e-5)
    cap = getattr(base.model.config, "final_logit_softcapping", None)

    def straight(logits):
        return cap * torch.atanh(logits / cap) if cap else logits  # Gemma 2 bends its logits after the head

    bare = straight(answers[None][0])
    change = straight(answers["head"][0]) - bare
    assert change.abs().max() > 1e-2
    for scale, row in zip(scales, rows, strict=True):
        torch.testing.assert_close(straight(row), bare + scale * change, atol=1e-3, rtol=1e-3)


def test_a_forward_of_other_rows_than_composed_is_refused(base, bank, mixer, bundles):
    organism = bank.add(bundles["rank 1"])
    mixer.compose([Mix(organism), None])
    with pytest.raises(InvalidArgument, match="composition has 2 rows"):
        forward(base.model, IDS)


@pytest.mark.parametrize("scale", [math.nan, math.inf])
def test_a_scale_that_is_no_number_is_refused(bank, bundles, scale):
    with pytest.raises(InvalidArgument, match="finite"):
        Mix(bank.add(bundles["rank 1"]), scale)


def test_a_removed_organism_is_nobodys_and_its_row_is_not_answered_by_the_base(base, bank, mixer, bundles):
    organism, other = bank.add(bundles["rank 1"]), bank.add(bundles["rslora"])
    mixer.compose([Mix(organism), Mix(other)])
    bank.remove(organism)
    with pytest.raises(Conflict, match="has left"):
        forward(base.model, IDS.repeat(2, 1))
    with pytest.raises(Conflict, match="not in the bank"):
        mixer.compose([Mix(organism)])
    bank.add(bundles["rank 1"])  # its test must not open the way either
    with pytest.raises(Conflict, match="has left"):
        forward(base.model, IDS.repeat(2, 1))


def test_what_was_composed_in_inference_mode_lets_gradients_through_outside(base, bank, mixer, bundles):
    with torch.inference_mode():
        organism = bank.add(bundles["every module"])
        mixer.compose([Mix(organism), None, Mix(organism, 0.5)])
    embedded = base.model.get_input_embeddings()(IDS.repeat(3, 1)).requires_grad_()
    base.model(inputs_embeds=embedded, use_cache=False).logits[:, -1].sum().backward()
    assert embedded.grad.abs().sum((1, 2)).min() > 0
    bank.remove(organism)  # wiped, outside of that mode
