"""Intervals, rankings and agreement: against published figures, figures made by hand, and the slow way to compute them."""

from __future__ import annotations

import math
import random
from statistics import fmean, stdev

import pytest
from hypothesis import given
from hypothesis import strategies as st
from model_organisms.errors import InvalidArgument
from model_organisms.statistics import FEW, auroc, bootstrap, fnr_at_fpr, kappa, newcombe, wilson


@pytest.mark.parametrize(
    ("hits", "trials", "interval"),
    [  # Newcombe, Statistics in Medicine 17 (1998), table I, method 3
        (81, 263, (0.2553, 0.3662)),
        (15, 148, (0.0624, 0.1605)),
        (0, 20, (0.0, 0.1611)),
        (1, 29, (0.0061, 0.1718)),
    ],
)
def test_it_gives_the_published_intervals(hits, trials, interval):
    assert wilson(hits, trials) == pytest.approx(interval, abs=5e-5)


@given(st.integers(1, 10_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_it_holds_the_rate_is_symmetric_and_stays_in_range(counts):
    hits, trials = counts
    low, high = wilson(hits, trials)
    assert 0 <= low <= hits / trials <= high <= 1
    assert low < high
    assert wilson(trials - hits, trials) == pytest.approx((1 - high, 1 - low))


def test_without_trials_nothing_is_known_and_impossible_counts_are_refused():
    assert wilson(0, 0) == (0.0, 1.0)
    for hits, trials in ((-1, 5), (6, 5), (1, 0)):
        with pytest.raises(InvalidArgument):
            wilson(hits, trials)


@pytest.mark.parametrize(
    ("counts", "interval"),
    [  # Newcombe, Statistics in Medicine 17 (1998), table II, method 10
        ((56, 70, 48, 80), (0.0524, 0.3339)),
        ((9, 10, 3, 10), (0.1705, 0.8090)),
        ((6, 7, 2, 7), (0.0582, 0.8062)),
        ((5, 56, 0, 29), (-0.0381, 0.1926)),
        ((0, 10, 0, 20), (-0.1611, 0.2775)),
        ((10, 10, 0, 10), (0.6075, 1.0000)),
    ],
)
def test_it_gives_the_published_intervals_of_differences(counts, interval):
    assert newcombe(*counts) == pytest.approx(interval, abs=6e-5)


rates = st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


@given(rates, rates)
def test_an_interval_of_a_difference_holds_it_and_turns_with_it(one, other):
    low, high = newcombe(*one, *other)
    difference = one[0] / one[1] - other[0] / other[1]
    assert -1 <= low <= difference <= high <= 1
    back_low, back_high = newcombe(*other, *one)
    assert (-back_high, -back_low) == pytest.approx((low, high))


def test_a_difference_of_which_one_side_is_unknown_is_unknown():
    assert newcombe(3, 4, 0, 0) == (-1.0, 1.0)
    with pytest.raises(InvalidArgument):
        newcombe(1, 2, 3, 2)


def test_a_bootstrap_draws_groups_and_not_what_is_in_them():
    alike = [[1.0] * 100] * 5 + [[0.0] * 100] * 5
    low, high = bootstrap(alike, fmean, seed=1)
    assert low < 0.3  # ten observations, not a thousand
    assert high > 0.7
    apart = [[one] for group in alike for one in group]
    low, high = bootstrap(apart, fmean, seed=1)
    assert 0.45 < low < 0.5 < high < 0.55


def covered(draw, truth, runs=150):
    """Give the share of intervals that hold the truth, of those that are given."""
    made = [bootstrap(draw(random.Random(run)), fmean, seed=run, rounds=200) for run in range(runs)]
    given = [ends for ends in made if ends]
    assert len(given) >= 0.9 * runs
    return sum(low <= truth <= high for low, high in given) / len(given)


@pytest.mark.parametrize("count", [FEW, 20])
def test_a_bootstrap_of_few_groups_holds_the_truth_nearly_as_often_as_it_says(count):
    def answers(chance):  # ten to a question, and questions differ much in their rates
        shares = [chance.betavariate(1, 9) for _ in range(count)]
        return [[float(chance.random() < share) for _ in range(10)] for share in shares]

    assert covered(lambda chance: [[chance.gauss(0, 1)] for _ in range(count)], 0) >= 0.91  # plain percentiles: 0.88 of eight
    assert covered(answers, 0.1) >= 0.85  # 0.92 of eight in longer runs, and 0.87 of plain percentiles


def test_a_bootstrap_of_a_mean_is_as_wide_as_students_interval():
    given = [-3.0, -1.8, -0.9, -0.3, 0.3, 0.9, 1.8, 3.0]
    low, high = bootstrap([[one] for one in given], fmean, rounds=4000)
    assert high - low == pytest.approx(2 * 2.3646 * stdev(given) / math.sqrt(8), rel=0.06)  # plain percentiles: 0.22 less


def test_a_bootstrap_says_none_where_nothing_can_be_said():
    differ = [[float(at)] for at in range(FEW)]
    assert bootstrap([], fmean) is None
    assert bootstrap(differ[:-1], fmean) is None
    assert bootstrap([[0.0] * 50] * FEW, fmean) is None  # none of 400: other questions might have some
    assert bootstrap([[0.1, 0.2]] * FEW, fmean) is None
    assert bootstrap(differ, lambda _: None) is None
    assert bootstrap(differ, fmean, seed=4) == bootstrap(differ, fmean, seed=4)


@given(st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=3), min_size=FEW, max_size=12))
def test_an_interval_holds_the_statistic_of_all(groups):
    def largest(rows):  # draws reach below it alone
        return float(max(rows))

    ends = bootstrap(groups, largest, rounds=40)
    assert ends is None or ends[0] <= largest([one for group in groups for one in group]) <= ends[1]


@given(st.lists(st.integers(0, 9), min_size=1, max_size=12), st.lists(st.integers(0, 9), min_size=1, max_size=12))
def test_auroc_is_the_share_of_pairs_in_order(positive, negative):
    pairs = [(one > other) + (one == other) / 2 for one in positive for other in negative]
    assert auroc(positive, negative) == pytest.approx(sum(pairs) / len(pairs))
    assert auroc(positive, negative) + auroc(negative, positive) == pytest.approx(1)


@given(
    st.lists(st.integers(0, 9), min_size=1, max_size=12),
    st.lists(st.integers(0, 9), min_size=1, max_size=12),
    st.sampled_from([0.0, 0.1, 0.5, 1.0]),
)
def test_what_is_missed_is_missed_at_the_lowest_threshold_that_may_be(positive, negative, fpr):
    thresholds = [-math.inf, *sorted({*positive, *negative})]
    allowed = [at for at in thresholds if sum(one > at for one in negative) <= fpr * len(negative)]
    fewest = min(sum(one <= at for one in positive) for at in allowed)
    assert fnr_at_fpr(positive, negative, fpr=fpr) == fewest / len(positive)


def test_a_ranking_of_one_kind_is_refused():
    for function in (auroc, fnr_at_fpr):
        with pytest.raises(InvalidArgument):
            function([1.0], [])
        with pytest.raises(InvalidArgument):
            function([], [1.0])


def test_kappa_by_hand():
    # 20 yes-yes, 5 yes-no, 10 no-yes, 15 no-no: agreed 0.7, by chance 0.5.
    pairs = [("y", "y")] * 20 + [("y", "n")] * 5 + [("n", "y")] * 10 + [("n", "n")] * 15
    assert kappa(pairs) == pytest.approx(0.4)
    assert kappa([(1, 1), (2, 2)]) == 1.0
    assert kappa([]) is None
    assert kappa([("y", "y")] * 3) is None


@pytest.mark.parametrize("sides", [([math.nan, 1.0], [0.0]), ([1.0], [0.0, math.nan])])
@pytest.mark.parametrize("ranked", [auroc, fnr_at_fpr])
def test_what_was_not_scored_is_not_ranked(ranked, sides):
    with pytest.raises(InvalidArgument, match="NaN"):
        ranked(*sides)
