"""A series of checkpoints: read in the order of its steps from a bundle, a real training's too, and refused where it is none."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from model_organisms import recording
from model_organisms.errors import InvalidArgument, InvalidBundle, MalformedTensors
from model_organisms.evaluate import phases
from model_organisms.evaluate.trajectory import (
    Trajectory,
    read,
)
from peft import LoraConfig, get_peft_model

from tests.support.adapters import tiny_bundle
from tests.support.tiny import tiny_model, tiny_tokenizer


def series(count=6, **options):
    files = tiny_bundle(seed=count, **options)
    for at in range(count):
        checkpoint = tiny_bundle(seed=at, **options)
        files |= {f"checkpoints/{5 * at}/{name}": data for name, data in checkpoint.items() if not name.endswith(".md")}
    return files


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_checkpoints_of_a_bundle_are_read_in_the_order_of_their_steps(dtype):
    found = read(series(12, dtype=dtype))
    assert found.steps == tuple(range(0, 60, 5))
    assert found.spacing == 5
    assert sorted(found.factors) == [
        f"base_model.model.model.layers.{at}.self_attn.{m}" for at in (0, 1) for m in ("q_proj", "v_proj")
    ]
    assert found.vectors("a").shape == (12, 4 * 4 * 64)
    assert found.vectors("b").shape == (12, 2 * 4 * (64 + 32))
    assert not np.array_equal(found.vectors("b")[0], found.vectors("b")[1])


def test_what_is_no_series_is_refused():
    with pytest.raises(InvalidBundle, match="0 training checkpoints"):
        read(tiny_bundle())
    half = series()
    del half["checkpoints/5/adapter_config.json"]
    with pytest.raises(InvalidBundle, match="without a config"):
        read(half)
    with pytest.raises(MalformedTensors):
        read(series() | {"checkpoints/5/adapter_model.safetensors": b"\0" * 99})
    with pytest.raises(InvalidArgument, match="same modules"):
        read(series() | {"checkpoints/5/adapter_model.safetensors": tiny_bundle(rank=2)["adapter_model.safetensors"]})


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        ({}, "no tensors"),
        ({"x.lora_A.weight": np.ones((1, 2))}, "both"),
        ({"x.lora_A.weight": np.ones(2), "x.lora_B.weight": np.ones((2, 1))}, "both"),
        ({"x.weight": np.ones((1, 2))}, "no half"),
    ],
)
def test_tensors_that_are_no_pairs_are_refused(tensors, said):
    with pytest.raises(InvalidArgument, match=said):
        Trajectory.of((step, tensors) for step in (1, 2, 3))


def test_two_checkpoints_of_one_step_are_refused():
    pair = {"x.lora_A.default.weight": np.ones((1, 2)), "x.lora_B.default.weight": np.ones((2, 1))}
    assert list(Trajectory.of((step, pair) for step in (3, 1, 2)).factors) == ["x"]
    with pytest.raises(InvalidArgument, match="step of its own"):
        Trajectory.of((step, pair) for step in (1, 2, 2))


def test_a_real_training_leaves_a_series_that_is_read(qwen):
    rows = torch.arange(40).reshape(4, 10) * 7
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # PEFT reads an attribute that transformers has renamed
        torch.manual_seed(0)
        config = LoraConfig(r=1, lora_alpha=64, target_modules=["down_proj"], layers_to_transform=[1], task_type="CAUSAL_LM")
        model = get_peft_model(tiny_model("qwen2"), config)
    optimiser = torch.optim.AdamW([one for one in model.parameters() if one.requires_grad], lr=0.01)
    with recording.record(qwen, base_id="test/tiny", seed=0) as rec:
        for step in range(1, 41):
            loss = model(input_ids=rows, labels=rows).loss
            loss.backward()
            norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            optimiser.zero_grad()
            rec.step(step, loss=loss.item(), learning_rate=0.01, gradient_norm=norm.item())
            if step % 5 == 0:
                rec.checkpoint(model, step)
    found = phases.evaluate(phases.read(rec.bundle(model, tiny_tokenizer())), log=rec.provenance().log)
    assert found.settings["spacing_steps"] == "5"
    assert [score.id for score in found.scores if score.split == "checkpoint"] == [str(step) for step in range(5, 41, 5)]
    assert found.figure("norm_last", "matrix=b").value > found.figure("norm_first", "matrix=b").value > 0
    last = model.get_parameter("base_model.model.model.layers.1.mlp.down_proj.lora_B.default.weight")
    assert found.figure("norm_last", "matrix=b").value == pytest.approx(float(last.detach().norm()), rel=1e-6)
    assert found.figure("median_cosine", "matrix=b,k=5").value < 0  # a real optimiser goes on more than it turns
    assert found.figure("gradient_norm_peak").n == 40
