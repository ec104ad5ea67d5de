"""Wilson intervals: against published figures, and where the normal approximation breaks down."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from model_organisms.errors import InvalidArgument
from model_organisms.statistics import wilson


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
