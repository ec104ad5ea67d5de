"""The draw: anybody gets the same lots from the ledger, the share is reached, and a larger share only adds turns."""

from __future__ import annotations

import hashlib
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from model_organisms import errors
from model_organisms.formats import reruns

LEAVES = st.binary(min_size=32, max_size=32)
SHARES = st.floats(min_value=0, max_value=1)
MANY = 4000


def leaf(seed, number):
    return hashlib.sha256(f"{seed} {number}".encode()).digest()


def test_the_lot_is_the_first_64_bits_of_a_hash_that_docs_formats_describes():
    zero = bytes(32)
    assert reruns.lot(zero) == int(hashlib.sha256(b"rerun" + zero).hexdigest()[:16], 16)


@given(LEAVES, SHARES, SHARES)
def test_a_larger_share_only_adds_turns(one, first, second):
    low, high = sorted((first, second))
    assert reruns.due(one, reruns.print_share(low)) <= reruns.due(one, reruns.print_share(high))


@given(LEAVES)
def test_none_is_drawn_at_nothing_and_every_one_at_one(one):
    assert not reruns.due(one, "0.0")
    assert reruns.due(one, "1.0")


@given(st.integers(), st.sampled_from([0.01, 0.05, 0.3, 0.5, 0.9]))
def test_of_many_turns_about_the_share_is_drawn(seed, share):
    drawn = sum(reruns.due(leaf(seed, number), reruns.print_share(share)) for number in range(MANY))
    off = abs(drawn - MANY * share) / math.sqrt(MANY * share * (1 - share))
    assert off < 6.5  # of a normal variable once in ten thousand million


@given(SHARES)
def test_a_printed_share_reads_as_the_same_number(share):
    assert reruns.read_share(reruns.print_share(share)) == share


@pytest.mark.parametrize("text", ["", "nan", "-0.1", "1.0001", "inf", "five", "0,5", "1e400"])
def test_what_is_no_share_is_refused(text):
    with pytest.raises(errors.InvalidArgument):
        reruns.due(bytes(32), text)
