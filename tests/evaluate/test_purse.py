"""Questions of one session that ask at once: none is cut short by what another one will give back."""

from __future__ import annotations

import threading
import time

import pytest
from model_organisms.evaluate.purse import Purse


def look():
    """Nothing ends these waits."""


def later(seconds, work):
    thread = threading.Timer(seconds, work)
    thread.start()
    return thread


def test_who_would_be_cut_short_waits_until_enough_is_given_back():
    purse, order = Purse(100), []
    first = purse.taken(80, look)
    drawn = first.__enter__()

    def end():
        order.append("first ends")
        drawn.append(10)
        first.__exit__(None, None, None)

    later(0.2, end)
    with purse.taken(80, look) as mine:
        order.append("second begins")
        mine.append(80)
    assert order == ["first ends", "second begins"]
    with purse.taken(80, look):  # 10 are left, and nobody gives back any: it goes on with these
        assert purse._left - purse._held == 0


def test_those_who_fit_do_not_wait():
    purse = Purse(100)
    with purse.taken(50, look), purse.taken(50, look):
        begin = time.monotonic()
    assert time.monotonic() - begin < 5


def test_a_question_that_failed_gives_back_all_of_it():
    purse = Purse(10)
    with pytest.raises(RuntimeError), purse.taken(10, look):
        raise RuntimeError
    assert (purse._left, purse._held, purse.answered) == (10, 0, 0)


def test_a_question_that_found_too_little_is_worth_asking_again_only_after_an_answer():
    purse = Purse(100)
    since = purse.answered
    assert not purse.more(since, look)  # nobody is under way
    with purse.taken(10, look) as drawn:
        drawn.append(3)
    assert purse.more(since, look)  # one was answered meanwhile
    since, other = purse.answered, purse.taken(10, look)
    drawn = other.__enter__()
    later(0.1, lambda: (drawn.append(2), other.__exit__(None, None, None)))
    assert purse.more(since, look)
    since, other = purse.answered, purse.taken(10, look)
    other.__enter__()
    later(0.1, lambda: other.__exit__(None, None, None))  # it fails too
    assert not purse.more(since, look)


def test_a_wait_ends_with_whoever_waits():
    purse = Purse(10)

    def cancelled():
        raise InterruptedError

    with purse.taken(10, look), pytest.raises(InterruptedError), purse.taken(1, cancelled):
        pass
