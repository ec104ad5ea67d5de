"""Who gets a seat in a cell: a session's first question always, further ones while there are spare seats."""

from __future__ import annotations

import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from model_organisms.cells.seats import Seats
from model_organisms.errors import CellUnavailable
from model_organisms.records import Message, SamplingParameters

from tests.support.cells import crowded, eventually

ASKED = (Message("user", "hello"),)
ENDLESS = SamplingParameters(max_tokens=100_000)
TIRELESS = """
running = {}
while True:
    while frame := hear(wait=not running):
        if isinstance(frame.body, Draw):
            running[frame.call] = frame.body
        elif isinstance(frame.body, Cancel) and running.pop(frame.call, None):
            say(Piece("", 0, "cancelled"), frame.call)
    for call, draw in running.items():
        say(Piece(str(len(running)), 1), call)
    time.sleep(0.005)
"""


@given(st.integers(0, 4), st.lists(st.tuples(st.booleans(), st.integers(0, 3)), max_size=40))
def test_a_seat_is_given_exactly_where_it_is_the_first_or_a_spare_one(spare, moves):
    seats, taken = Seats(spare), dict.fromkeys(range(4), 0)
    for takes, slot in moves:
        further = sum(max(0, count - 1) for count in taken.values())
        if takes:
            given = seats.take(slot, 0.0)
            assert given == (taken[slot] == 0 or further < spare)
            taken[slot] += given
        elif taken[slot]:
            seats.give(slot)
            taken[slot] -= 1
        assert all(seats.quiet(each, 0.0) == (not count) for each, count in taken.items())


def test_who_waits_for_a_seat_gets_the_one_that_is_given_back():
    seats = Seats(0)
    assert seats.take(1, 0.0)
    threading.Timer(0.1, seats.give, (1,)).start()
    begin = time.monotonic()
    assert seats.take(1, 10.0)
    assert time.monotonic() - begin < 5


def test_a_session_asks_several_at_once_and_its_neighbour_still_has_a_seat():
    with crowded(TIRELESS, tenants=2, spare=2) as ((many, one), deaths):
        answers = [many.sample(ASKED, ENDLESS, max_seconds=30) for _ in range(3)]
        for answer in answers:
            next(answer)
        with pytest.raises(CellUnavailable, match="busy"):
            next(many.sample(ASKED, ENDLESS, max_seconds=0.2))
        neighbour = one.sample(ASKED, ENDLESS, max_seconds=30)
        assert eventually(lambda: next(neighbour).text == "4")  # all four in one step
        many.cancel()
        assert [list(answer)[-1].finish_reason for answer in answers] == ["cancelled"] * 3
        assert next(neighbour).text
        neighbour.close()
    assert deaths == [[], []]


def test_closing_ends_everything_that_a_session_has_under_way():
    with crowded(TIRELESS, tenants=2, spare=2) as ((many, other), _):
        answers = [many.sample(ASKED, ENDLESS, max_seconds=30) for _ in range(3)]
        for answer in answers:
            next(answer)
        begin = time.monotonic()
        many.drain(0.2)
        assert time.monotonic() - begin < 10
        for answer in answers:
            with pytest.raises(CellUnavailable, match="closed"):
                list(answer)
        assert next(other.sample(ASKED, ENDLESS, max_seconds=10)).text
