"""One token a row from logits: limits hold, frequencies are those of the distribution, and a row never minds its neighbours."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from model_organisms.errors import InvalidArgument
from model_organisms.records import SamplingParameters
from model_organisms.sampling.choosing import NONE, Marks, check_parameters, choose

LOGITS = torch.tensor([0.0, 2.0, 1.0, -1.0, 2.5])
ORDER = [4, 1, 2, 0, 3]
FREE = SamplingParameters()


def drawn(count=400, logits=LOGITS, **parameters):
    marks = Marks(7)
    wanted = [SamplingParameters(**parameters)] * count
    return choose(logits.expand(count, -1), wanted, [marks.next() for _ in range(count)])


def plain(logits, parameters, mark):
    """Choose as one would write it down: sort everything, in double precision; and say how near the mark was to a border."""
    if parameters.temperature == 0:
        return int(logits.argmax()), 1.0
    scaled, ids = logits.double() / parameters.temperature, torch.arange(len(logits))
    if 0 < parameters.top_k < len(logits) or parameters.top_p < 1:
        scaled, ids = scaled.sort(descending=True, stable=True)
    if 0 < parameters.top_k < len(logits):
        scaled, ids = scaled[: parameters.top_k], ids[: parameters.top_k]
    shares = scaled.softmax(0)
    borders = shares.cumsum(0) - shares
    near = 1.0
    if parameters.top_p < 1:
        near = float((borders - parameters.top_p).abs().min())
        shares = shares.where(borders < parameters.top_p, 0.0)
    heights = shares.cumsum(0)
    place = mark * heights[-1]
    at = min(int(torch.searchsorted(heights, place, right=True)), len(heights) - 1)
    return int(ids[at]), min(near, float((heights - place).abs().min()))


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


def limited(logits, parameters):
    """Give the exact probabilities under limits."""
    shares = (logits.double() / parameters.temperature).softmax(0)
    order = shares.argsort(descending=True, stable=True)
    if 0 < parameters.top_k < len(shares):
        shares[order[parameters.top_k :]] = 0
        shares /= shares.sum()
    sorted_shares = shares[order]
    shares[order[sorted_shares.cumsum(0) - sorted_shares >= parameters.top_p]] = 0
    return shares / shares.sum()


@pytest.mark.parametrize(
    "wanted", [{}, {"temperature": 1.7}, {"top_k": 40}, {"top_p": 0.8}, {"top_k": 300, "top_p": 0.95}, {"top_p": 0.97}]
)
def test_frequencies_are_those_of_the_distribution(wanted):
    parameters = SamplingParameters(**wanted)
    logits = torch.randn(600, generator=torch.Generator().manual_seed(1))
    count = 20_000
    expected = limited(logits, parameters) * count
    seen = torch.bincount(torch.tensor(drawn(count, logits, **wanted)), minlength=600).double()
    assert int(seen[expected == 0].sum()) == 0
    large = expected >= 5
    rest = ~large & (expected > 0)
    pairs = [(seen[large], expected[large]), (seen[rest].sum()[None], expected[rest].sum()[None])][: 1 + bool(rest.any())]
    observed, exact = (torch.cat(values) for values in zip(*pairs, strict=True))
    statistic = ((observed - exact) ** 2 / exact).sum()
    assert torch.special.gammaincc(torch.tensor((len(exact) - 1) / 2, dtype=torch.float64), statistic / 2) > 1e-4


PARAMETERS = st.builds(
    SamplingParameters,
    temperature=st.sampled_from([0.0, 1e-300, 0.01, 0.7, 1.0, 3.0, 1e6]),
    top_p=st.sampled_from([1e-9, 0.1, 0.5, 0.9, 0.99, 0.999999, 1.0]),
    top_k=st.sampled_from([0, 0, 1, 5, 255, 256, 257, 900, 2100, 100_000]),
)


@given(
    st.lists(PARAMETERS, min_size=1, max_size=6),
    st.sampled_from([3, 255, 256, 257, 700, 2500]),
    st.sampled_from([0.0, 0.3, 1.0, 4.0]),
    st.booleans(),
    st.integers(0, 10_000),
)
@settings(deadline=None, max_examples=150)
def test_every_row_has_the_token_of_the_plain_way_whatever_its_neighbours(wanted, vocabulary, spread, tied, seed):
    source = torch.Generator().manual_seed(seed)
    logits = torch.randn(len(wanted), vocabulary, generator=source) * spread
    if tied:
        logits = logits.round()
    marks = torch.rand(len(wanted), generator=source, dtype=torch.float64).tolist()
    together = choose(logits, wanted, marks)
    for row, parameters in enumerate(wanted):
        token, near = plain(logits[row], parameters, marks[row])
        alone = choose(logits[row : row + 1], [parameters], [marks[row]])[0]
        assert together[row] == alone
        assert alone == token or near < 1e-5


def test_the_ends_of_the_range_give_tokens_that_have_mass():
    logits = torch.full((2, 1000), -math.inf)
    logits[:, [300, 301]] = 0.0
    for wanted in (FREE, SamplingParameters(top_p=0.9999), SamplingParameters(top_k=500)):
        assert choose(logits, [wanted] * 2, [0.0, 1 - 2**-53]) == [300, 301]


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_a_row_whose_logits_are_not_numbers_has_no_token_and_its_neighbours_have_theirs(wrong):
    logits = LOGITS.repeat(6, 1)
    logits[1, 2] = logits[3, 0] = logits[5, 4] = wrong
    wanted = [kind for kind in (SamplingParameters(temperature=0), FREE, SamplingParameters(top_p=0.5)) for _ in range(2)]
    assert choose(logits, wanted, [0.0] * 6) == [4, NONE, 0, NONE, 4, NONE]
    assert choose(torch.full((1, 5), -math.inf), [FREE], [0.5]) == [NONE]


@given(st.integers(0, 2**64 - 1))
@settings(max_examples=20)
def test_a_seed_gives_the_same_numbers_again_whatever_else_draws(seed):
    def numbers():
        return [marks.next() for marks in [Marks(seed)] for _ in range(150)]

    first = numbers()
    torch.rand(3)
    assert first == numbers()
    assert all(0 <= number < 1 for number in first)


def test_samples_without_a_seed_differ():
    assert Marks(None).next() != Marks(None).next()


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
