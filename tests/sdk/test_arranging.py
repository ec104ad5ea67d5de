"""Every row is served from a place that holds its own organism, and the cheap arrangements are found."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from model_organisms.sampling.arranging import arrange

NAMES = st.sampled_from("abcdefgh")
ROWS = st.lists(st.one_of(st.none(), NAMES), min_size=1, max_size=24).filter(any)


@given(ROWS, st.lists(st.one_of(st.none(), NAMES), max_size=24), st.floats(0, 100))
def test_every_row_meets_its_own_organism_and_no_other(wanted, held, moving):
    arranged = arrange(wanted, held, moving=moving)
    served = {arranged.first + index: slot for index, slot in enumerate(arranged.slots) if slot >= 0}
    assert {row: arranged.holds[slot // arranged.width] for row, slot in served.items()} == {
        row: name for row, name in enumerate(wanted) if name is not None
    }
    assert len(set(served.values())) == len(served)
    if arranged.straight:  # then row and slot are one, and a row that is not served meets zeros
        met = [arranged.holds[index // arranged.width] for index in range(len(arranged.slots))]
        assert met == list(wanted[arranged.first : arranged.first + len(arranged.slots)])


@given(st.permutations("abcdefgh"))
def test_distinct_rows_lie_as_the_table_does(wanted):
    arranged = arrange(wanted, [], moving=5)
    assert arranged.straight
    assert arranged.width == 1


def test_many_rows_of_one_organism_read_it_once():
    arranged = arrange(["a"] * 32, [], moving=5)
    assert (arranged.holds, arranged.width, arranged.straight) == (("a",), 32, True)


def test_blocks_of_rows_are_read_once_each_without_moving():
    arranged = arrange(list("aaaabbbbcccc"), [], moving=5)
    assert (arranged.holds, arranged.width, arranged.straight) == (("a", "b", "c"), 4, True)


def test_scattered_rows_of_few_are_moved_where_reading_costs_more():
    assert len(arrange(list("abcd") * 8, [], moving=5).holds) == 4
    assert len(arrange(list("abcd") * 8, [], moving=50).holds) == 32


def test_one_with_many_rows_among_many_with_one_takes_some_places():
    arranged = arrange(["a"] * 20 + list("bcdefgh"), [], moving=0)
    assert 9 <= len(arranged.holds) < 20


def test_who_is_there_already_stays():
    arranged = arrange(list("abcabcabc"), [None, "c", "a"], moving=0)
    assert arranged.holds == ("b", "c", "a")
