"""One token from logits: limits hold, frequencies are those of the distribution, a seed says all."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from model_organisms.errors import InvalidArgument
from model_organisms.records import SamplingParameters
from model_organisms.sampling.choosing import check_parameters, choose, generator

LOGITS = torch.tensor([0.0, 2.0, 1.0, -1.0, 2.5])
ORDER = [4, 1, 2, 0, 3]


def drawn(count=400, **parameters):
    source = generator(7)
    return [choose(LOGITS, SamplingParameters(**parameters), source) for _ in range(count)]


def test_zero_temperature_takes_the_likeliest():
    assert set(drawn(10, temperature=0.0)) == {4}


@pytest.mark.parametrize("k", [1, 2, 3, 5, 9])
def test_top_k_keeps_the_k_likeliest(k):
    assert set(drawn(top_k=k, temperature=3.0)) == set(ORDER[:k])


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("top_p", [0.05, 0.5, 0.7, 0.9, 1.0])
def test_top_p_keeps_the_smallest_set_that_reaches_it(top_p, temperature):
    shares = (LOGITS.double() / temperature).softmax(0)[ORDER]
    size = int((shares.cumsum(0) < top_p - 1e-9).sum()) + 1
    assert set(drawn(3000, top_p=top_p, temperature=temperature)) <= set(ORDER[:size])
    assert ORDER[size - 1] in drawn(3000, top_p=top_p, temperature=temperature) or shares[size - 1] < 0.01


def test_frequencies_are_those_of_the_distribution():
    seen = torch.bincount(torch.tensor(drawn(20_000, temperature=1.3)), minlength=5) / 20_000
    assert torch.allclose(seen.double(), (LOGITS.double() / 1.3).softmax(0), atol=0.015)


@given(st.integers(0, 2**64 - 1))
@settings(max_examples=20)
def test_a_seed_gives_the_same_tokens_again_whatever_else_draws(seed):
    parameters = SamplingParameters()
    first = [choose(LOGITS, parameters, source) for source in [generator(seed)] for _ in range(20)]
    torch.rand(3)
    assert first == [choose(LOGITS, parameters, source) for source in [generator(seed)] for _ in range(20)]


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_tokens": 0},
        {"temperature": -0.1},
        {"temperature": float("nan")},
        {"temperature": float("inf")},
        {"top_p": 0.0},
        {"top_p": 1.01},
        {"top_p": float("nan")},
        {"top_k": -1},
        {"stop": ("",)},
        {"stop": ("x",) * 17},
        {"stop": ("x" * 257,)},
    ],
)
def test_parameters_that_mean_nothing_are_refused_by_name(wrong):
    with pytest.raises(InvalidArgument) as caught:
        check_parameters(SamplingParameters(**wrong))
    assert caught.value.details["field"] in wrong
