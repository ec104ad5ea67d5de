"""The short form of the soak, and whether its line through the readings sees what grows."""

import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.soak.flat import slope
from tests.support.tree import ROOT


@given(
    growth=st.floats(-5000, 5000),
    noise=st.lists(st.floats(-1000, 1000), min_size=40, max_size=40),
)
def test_a_line_with_noise_has_its_slope_within_the_interval_or_near(growth, noise):
    xs = [100.0 * (number + 1) for number in range(40)]
    fit = slope(xs, [1e8 + growth * x + wobble for x, wobble in zip(xs, noise, strict=True)])
    # The noise moves the slope by at most its own spread over the length of the run.
    assert abs(fit.value - growth) <= 2 * 1000 / 1000
    assert fit.half >= 0


def test_what_leaks_is_above_the_bound_and_what_only_wobbles_is_not():
    xs = [100.0 * (number + 1) for number in range(80)]
    wobbling = [1e8 + (number % 5) * 200_000 for number in range(80)]
    assert slope(xs, wobbling).most < 2048
    assert slope(xs, [at + 4096 * x for at, x in zip(wobbling, xs, strict=True)]).most > 2048


def test_a_step_in_the_beginning_is_not_taken_for_flat():
    xs = [100.0 * (number + 1) for number in range(80)]
    assert slope(xs, [1e8 + (number > 40) * 5e7 for number in range(80)]).most > 2048


def test_fewer_than_three_readings_have_no_slope():
    with pytest.raises(ValueError, match="three readings"):
        slope([1, 2], [1, 2])


@pytest.mark.timeout(280)
def test_two_hundred_samples_leave_memory_as_it_was():
    short = ["--samples", "200", "--rounds", "10", "--bound", "131072", "--json"]
    done = subprocess.run([sys.executable, "-m", "tests.soak", *short], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    report = json.loads(done.stdout)
    assert report["samples"] >= 200
    assert report["wrong"] == []
    assert len(report["readings"]) >= 10
