"""What a probe may ask, what each number costs, and how it is cut down."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from model_organisms.errors import BudgetExhausted, CellUnavailable, InvalidArgument
from model_organisms.records import Budget, Inquiry, Measure, Reading, SamplingParameters, Steer, TokenScore
from model_organisms_registry.domain import probing, sandbox

HERE = "sessions/" + "0" * 26
ELSEWHERE = "sessions/" + "1" * 26
HIDDEN = 32
D1, D2 = f"{HERE}/directions/1", f"{HERE}/directions/2"


@st.composite
def inquiries(draw):
    return Inquiry(
        positions=draw(st.integers(1, 5)),
        measures=tuple(draw(st.lists(st.sampled_from(Measure), min_size=1, unique=True))),
        layers=tuple(draw(st.lists(st.integers(0, 9), min_size=1, max_size=4, unique=True))),
        directions=tuple(draw(st.lists(st.sampled_from([D1, D2]), min_size=1, unique=True))),
    )


def honest(inquiry, number):
    """What a cell answers; `number` makes each number."""
    positions, kl, readings = (), (), []
    for measure in inquiry.measures:
        if measure is Measure.LOGPROBS:
            positions = tuple(tuple(TokenScore(at, "x", number()) for at in range(5)) for _ in range(inquiry.positions))
        elif measure is Measure.KL:
            kl = tuple(number() for _ in range(inquiry.positions))
        else:
            along = inquiry.directions if measure in {Measure.PROJECTIONS, Measure.COSINES} else ("",)
            size = inquiry.positions * (HIDDEN if measure is Measure.ACTIVATIONS else 1)
            readings += [
                Reading(measure, layer, name, tuple(number() for _ in range(size))) for layer in inquiry.layers for name in along
            ]
    return probing.Answer(positions, kl, tuple(readings))


@given(inquiries())
def test_an_honest_answer_has_as_many_numbers_as_were_paid_for(inquiry):
    probing.check_inquiry(inquiry, HERE)
    answer = probing.cut_down(inquiry, honest(inquiry, lambda: 0.5), hidden=HIDDEN)
    assert Budget(probe_values=answer.values) == probing.inquiry_cost(inquiry, hidden=HIDDEN)


def test_the_plain_probe_costs_what_it_always_did():
    assert probing.inquiry_cost(Inquiry(), hidden=HIDDEN) == Budget(probe_values=11)
    assert probing.direction_cost(3) == Budget(probe_values=4)
    left = Budget(probe_values=11)
    assert sandbox.affordable(Budget(probe_values=11), left) == left
    with pytest.raises(BudgetExhausted):
        sandbox.affordable(Budget(probe_values=12), left)


def test_more_than_an_answer_may_have_is_refused_and_what_is_not_known_costs_nothing_and_so_releases_nothing():
    wide = Inquiry(64, (Measure.ACTIVATIONS,), tuple(range(128)))
    with pytest.raises(InvalidArgument, match="at most"):
        probing.inquiry_cost(wide, hidden=HIDDEN)
    taken = probing.inquiry_cost(wide, hidden=0)
    assert taken == Budget()
    with pytest.raises(BudgetExhausted):
        sandbox.settle(taken, Budget(probe_values=1))


@given(inquiries(), st.data())
def test_an_answer_of_another_shape_is_not_taken(inquiry, data):
    answer = honest(inquiry, lambda: 0.5)
    score, more = TokenScore(1, "x", 0.5), Reading(Measure.NORMS, 0, "", (1.0,))
    wrong = [
        replace(answer, kl=(*answer.kl, 0.5)),
        replace(answer, positions=(*answer.positions, (score,))),
        replace(answer, readings=(*answer.readings, more)),
    ]
    if answer.positions:
        wrong.append(replace(answer, positions=((score,) * 6, *answer.positions[1:])))
    if answer.readings:
        first, *rest = answer.readings
        wrong += [
            replace(answer, readings=tuple(rest)),
            replace(answer, readings=(replace(first, values=(*first.values, 1.0)), *rest)),
            replace(answer, readings=(replace(first, layer=99), *rest)),
            replace(answer, readings=(replace(first, direction=f"{ELSEWHERE}/directions/1"), *rest)),
        ]
    with pytest.raises(CellUnavailable, match="not asked for"):
        probing.cut_down(inquiry, data.draw(st.sampled_from(wrong)), hidden=HIDDEN)


@given(st.text(), st.integers(0, 600))
def test_the_text_of_a_token_is_cut_to_what_tokens_are(text, times):
    wide = probing.Answer(((TokenScore(1, text * times, 0.5),),))
    (((score,),), *_) = (probing.cut_down(Inquiry(1, (Measure.LOGPROBS,)), wide, hidden=HIDDEN).positions,)
    assert (text * times).startswith(score.text)
    size = len((text * times).encode())
    assert min(size, probing.MOST_TEXT) - 3 <= len(score.text.encode()) <= probing.MOST_TEXT


@given(inquiries(), st.sampled_from([math.nan, math.inf, -math.inf]))
def test_what_is_no_number_is_not_released(inquiry, number):
    raw = inquiry.measures == (Measure.ACTIVATIONS,)
    if not raw:
        inquiry = replace(inquiry, measures=tuple(m for m in inquiry.measures if m is not Measure.ACTIVATIONS))
    with pytest.raises(InvalidArgument, match="overflow"):
        probing.cut_down(inquiry, honest(inquiry, lambda: number), hidden=HIDDEN)


@given(st.floats(allow_nan=False, allow_infinity=False, width=32))
def test_rounding_is_final_and_keeps_three_digits(value):
    for measure in (Measure.KL, Measure.COSINES, Measure.LOGPROBS):
        once = probing.rounded(value, measure)
        assert once == probing.rounded(once, measure)
        assert abs(once - value) <= 0.0005 + abs(value) * (1e-12 if abs(value) < 1000 else 5e-6)
    for measure in (Measure.NORMS, Measure.PROJECTIONS):
        once = probing.rounded(value, measure)
        assert once == probing.rounded(once, measure)
        assert abs(once - value) <= 0.005 * abs(value)
    assert math.copysign(1, probing.rounded(-0.0, Measure.KL)) == 1
    assert probing.rounded(value, Measure.ACTIVATIONS) == value


def test_what_leaves_uncounted_beside_numbers_is_less_than_what_is_counted_as_text():
    inquiry = Inquiry(64, (Measure.LOGPROBS, Measure.KL))
    score = TokenScore(1, "\u4e01" * 300, -1234567890123.456)  # no honest cell has such
    lie = probing.Answer(((score,) * 5,) * 64, (9007199254740993.0,) * 64)
    found = probing.cut_down(inquiry, lie, hidden=HIDDEN)
    beside = sum(len(one.text.encode()) for position in found.positions for one in position)
    assert beside <= 32 * found.values
    assert {one.logprob for position in found.positions for one in position} == {-1.23457e12}
    assert set(found.kl) == {9.0072e15}


def test_rounding_by_example():
    assert probing.rounded(-999.9996, Measure.LOGPROBS) == -1000.0
    assert probing.rounded(-987.6543, Measure.LOGPROBS) == -987.654
    assert probing.rounded(1234.5, Measure.NORMS) == 1230.0
    assert probing.rounded(-0.0012345, Measure.PROJECTIONS) == -0.00123
    assert probing.rounded(0.12345, Measure.COSINES) == 0.123


def test_an_inquiry_that_means_nothing_is_refused():
    good = Inquiry(2, (Measure.COSINES,), (0,), (D1,), (Steer(D1, 0, 2.0),), 0.5)
    assert probing.check_inquiry(good, HERE) is good
    for wrong in (
        replace(good, positions=0),
        replace(good, positions=65),
        replace(good, measures=()),
        replace(good, measures=(Measure.COSINES, Measure.COSINES)),
        replace(good, layers=()),
        replace(good, layers=(1, 1)),
        replace(good, layers=tuple(range(129))),
        replace(good, directions=()),
        replace(good, directions=(D1, D1)),
        replace(good, directions=(f"{ELSEWHERE}/directions/1",)),
        replace(good, directions=("directions/1",)),
        replace(good, steer=(Steer(f"{ELSEWHERE}/directions/1", 0, 2.0),)),
        replace(good, steer=(Steer(D1, 0),)),
        replace(good, steer=(Steer(D1, -1, 1.0),)),
        replace(good, steer=(Steer(D1, 0, math.nan),)),
        replace(good, steer=(Steer(D1, 0, 2e6),)),
        replace(good, steer=(Steer(D1, 0, 1.0),) * 9),
        replace(good, scale=-0.1),
        replace(good, scale=1001.0),
        replace(good, scale=math.nan),
    ):
        with pytest.raises(InvalidArgument):
            probing.check_inquiry(wrong, HERE)


def test_a_sample_is_changed_by_steering_or_a_dose_and_by_nothing_else():
    assert not probing.changes(SamplingParameters(temperature=0, top_k=3))
    assert probing.changes(SamplingParameters(scale=1.0))  # said, so it counts, whatever it does
    assert probing.changes(SamplingParameters(steer=(Steer(D1, 0, 1.0),)))
