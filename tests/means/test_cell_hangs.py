"""When a cell counts as hung, and when it is only amid a long step of its model, in which it hears nothing."""

from __future__ import annotations

import pytest
from model_organisms.cells import calls
from model_organisms.errors import CellUnavailable
from model_organisms.records import Message, SamplingParameters

from tests.support.cells import crowded, eventually, talking

ASKED = (Message("user", "hello"),)
ENDLESS = SamplingParameters(max_tokens=100_000)


def test_a_hung_cell_is_killed_after_its_deadline(monkeypatch):
    monkeypatch.setattr(calls, "GRACE_S", 0.3)
    with talking("hear()\ntime.sleep(60)", silence_s=1.0) as (cell, deaths):
        with pytest.raises(CellUnavailable, match="in time"):
            cell.probe(ASKED, max_seconds=0.3)
        assert eventually(lambda: len(deaths) == 1)
        assert not cell.alive


def test_a_question_cut_off_amid_a_long_step_does_not_cost_the_session(monkeypatch):
    monkeypatch.setattr(calls, "GRACE_S", 0.3)
    slow = """
    while True:
        frame = hear()
        if isinstance(frame.body, Draw):
            say(Piece("a", 1), frame.call)
            time.sleep(2)  # a step: nothing is heard in it
        else:
            say(Piece("", 0, "cancelled"), frame.call)
    """
    with talking(slow) as (cell, deaths):
        for _ in range(2):
            with pytest.raises(CellUnavailable, match="in time"):
                list(cell.sample(ASKED, SamplingParameters(max_tokens=9), max_seconds=0.3))
            assert eventually(lambda: not cell.cell._calls)  # it has heard of it, and said the last piece
            assert cell.alive
    assert deaths == []


def test_a_cell_that_heard_and_goes_on_counts_as_hung(monkeypatch):
    monkeypatch.setattr(calls, "GRACE_S", 0.3)
    with talking("while True:\n    hear()", silence_s=60.0) as (cell, deaths):
        with pytest.raises(CellUnavailable, match="in time"):
            cell.probe(ASKED, max_seconds=0.3)
        assert eventually(lambda: len(deaths) == 1)


def test_who_is_killed_amid_a_long_step_does_not_cost_the_others_their_cell(monkeypatch):
    monkeypatch.setattr(calls, "GRACE_S", 0.3)
    slow = """
    while True:
        frame = hear()  # which answers an Unload
        if isinstance(frame.body, Draw):
            say(Piece("a", 1), frame.call)
            time.sleep(2)  # a step: nothing is heard in it
        else:
            say(Piece("", 0, "cancelled"), frame.call)
    """
    with crowded(slow, tenants=2) as ((killed, neighbour), deaths):
        next(killed.sample(ASKED, ENDLESS, max_seconds=30))
        killed.kill()
        assert eventually(lambda: not any(call.due for call in list(neighbour.cell._calls.values())))
        assert neighbour.alive
        assert next(neighbour.sample(ASKED, ENDLESS, max_seconds=30)).text == "a"
    assert deaths == [[], []]
