"""What a cell may say of how an answer ended, and what text costs: its words decide nothing of what is held against it."""

from __future__ import annotations

import pytest
from model_organisms.cells import calls
from model_organisms.cells.frames import Draw, Piece
from model_organisms.errors import CellUnavailable, ModelOrganismsError
from model_organisms.records import Message, SamplingParameters

from tests.support.cells import eventually, talking

ASKED = (Message("user", "hello"),)
NO_ENDS = ("cancelled", "deadline", "bytes", "failed", "abandoned", "lost", "released", "erased_by_admin", "cell_unavailable")
"""What no cell may say of an answer that nobody stopped."""


@pytest.mark.parametrize(
    "lie",
    [
        *(f"say(Piece('forged', 1, {end!r}), frame.call)" for end in NO_ENDS),
        "say(Piece('free', 0), frame.call)",
        "say(Piece('free', 0, 'stop'), frame.call)",
        "say(Piece('paid', 1), frame.call); say(Piece('free', 0, 'length'), frame.call)",
    ],
)
def test_a_cell_that_ends_an_answer_by_a_word_of_its_own_or_gives_text_for_nothing_is_lost(lie):
    with talking(f"frame = hear()\n{lie}\ntime.sleep(60)") as (cell, deaths):
        with pytest.raises(CellUnavailable, match="not asked for"):
            list(cell.sample(ASKED, SamplingParameters(max_tokens=5), max_seconds=10))
        assert eventually(lambda: len(deaths) == 1)
        assert not cell.alive


@pytest.mark.parametrize("end", [*NO_ENDS[1:], "stopped"])
def test_a_cell_that_was_told_to_stop_has_one_word_for_it(end):
    code = f"say(Piece('a', 1), hear().call)\nstopped = hear()\nsay(Piece('', 0, {end!r}), stopped.call)"
    with talking(code) as (cell, deaths):
        pieces = cell.sample(ASKED, SamplingParameters(), max_seconds=20)
        assert next(pieces).text == "a"
        cell.cancel()
        with pytest.raises(CellUnavailable, match="not asked for"):
            next(pieces)
        assert eventually(lambda: len(deaths) == 1)


@pytest.mark.parametrize("reason", ["INVALID_ARGUMENT", "UNAVAILABLE", "Sixty_letters_of_a_name_that_an_exception_may_have"])
def test_why_a_cell_cannot_do_it_is_text_too_and_one_session_hears_little_of_it(reason):
    code = f"while True: say(Failed({reason!r}, chr(0x4e01) * 300), hear().call)"
    heard = []
    with talking(code) as (cell, _):
        for _ in range(100):
            with pytest.raises(ModelOrganismsError) as refused:
                list(cell.sample(ASKED, SamplingParameters(max_tokens=5), max_seconds=10))
            heard.append(refused.value.message)
        with pytest.raises(ModelOrganismsError) as refused:
            cell.probe(ASKED)
    assert refused.value.message == heard[-1]
    own = [message for message in heard if "\u4e01" in message or reason in message]
    assert own
    assert own == heard[: len(own)]
    assert sum(len(message.encode()) for message in own if "\u4e01" in message) <= calls.MOST_REASONS
    assert len(own) * len(reason) <= calls.MOST_REASONS + len(reason)


@pytest.mark.parametrize(
    "lie",
    [
        "CellInfo('b' * 64, 'd' * 64, 'c' * 64, ('a' * 64,), 2, 'talker, and a page of text')",
        "CellInfo('b' * 64, 'a page of text', 'c' * 64, ('a' * 64,), 2, 'talker')",
        "CellInfo('b' * 64, 'd' * 64, 'c' * 64, ('a page of text',), 2, 'talker')",
        "CellInfo('b' * 64, 'd' * 64, 'c' * 64, ('a' * 64,) * 17, 2, 'talker')",
    ],
)
def test_what_receipts_repeat_of_a_cell_is_digests_and_what_it_was_before_it_met_a_bundle(lie):
    with pytest.raises(CellUnavailable, match="not asked for"), talking(f"INFO = {lie}\nhear()"):
        pass


def judged(*pieces, cancelled=False, gone=False, most=3):
    """Whether each of some pieces is the last, as the judge of a sample says."""
    judge = calls.drawn(Draw(ASKED, SamplingParameters(max_tokens=most)), lambda: gone)
    return [judge(piece, cancelled) for piece in pieces]


@pytest.mark.parametrize("stopped", [{"cancelled": True}, {"gone": True}])
def test_text_that_was_held_back_of_tokens_drawn_comes_free_with_the_stop_and_no_other(stopped):
    assert judged(Piece("a", 1), Piece("", 1), Piece("held", 0, "cancelled"), **stopped) == [False, False, True]
    assert judged(Piece("", 0, "cancelled"), **stopped) == [True]
    assert judged(Piece("", 1, "stop"), **stopped) == judged(Piece("", 0, "stop")) == [True]
    for free in (Piece("a", 0, "cancelled"), Piece("a", 0, "stop"), Piece("a", 0)):
        with pytest.raises(CellUnavailable, match="not asked for"):
            judged(free, **stopped)
    with pytest.raises(CellUnavailable, match="not asked for"):
        judged(Piece("a", 3), Piece("b", 1, "cancelled"), **stopped)
    with pytest.raises(CellUnavailable, match="not asked for"):
        judged(Piece("a", 1), Piece("held", 0, "cancelled"))
