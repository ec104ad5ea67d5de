"""Two answers are the same only if text, tokens and end are; where they are not, the token by which they part is named."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from model_organisms.records import Level
from model_organisms_registry.domain.rerunning import Answer, compare, in_draw

CUT_OFF = ["bytes", "cancelled", "deadline", "abandoned", "cell_unavailable", "quarantined"]
WORDS = st.lists(st.text(alphabet="ab é🙂", max_size=3), min_size=1, max_size=12)


def pieces(words, ended):
    """As a cell gives them: one a token, the last with a reason."""
    return [(word, 1, ended if number == len(words) - 1 else "") for number, word in enumerate(words)]


@given(WORDS, st.sampled_from(["stop", "length"]))
def test_what_comes_again_is_the_same(words, ended):
    first = Answer("".join(words), len(words), ended)
    found = compare(first, pieces(words, ended))
    assert (found.again, found.position) == (first, -1)


@given(WORDS, st.data())
def test_one_other_token_is_found_where_it_is(words, data):
    at = data.draw(st.integers(0, len(words) - 1))
    other = [*words[:at], words[at] + "!", *words[at + 1 :]]
    found = compare(Answer("".join(words), len(words), "length"), pieces(other, "length"))
    assert found.position == at


@given(WORDS)
def test_another_end_or_another_count_of_tokens_is_not_the_same(words):
    first = Answer("".join(words), len(words), "length")
    assert compare(first, pieces(words, "stop")).position == len(words)
    assert compare(replace(first, tokens=len(words) + 1), pieces(words, "length")).position == len(words)


@given(WORDS, st.data())
def test_what_was_cut_by_its_bytes_is_compared_as_far_as_it_went(words, data):
    drawn = data.draw(st.integers(1, len(words)))
    text = "".join(words[:drawn])
    cut = text[: data.draw(st.integers(len("".join(words[: drawn - 1])), len(text)))]
    asked = []

    def come():
        for piece in pieces([*words, "more", "and more"], "length"):
            asked.append(piece)
            yield piece

    found = compare(Answer(cut, drawn, "bytes"), come())
    assert found.position == -1
    assert found.again.text == cut
    assert len(asked) <= drawn, "what was cut off is not drawn again"


@given(WORDS)
def test_what_was_cut_and_differs_before_is_found(words):
    text = "".join(words)
    assume(text)
    found = compare(Answer(text, len(words), "bytes"), pieces(["!", *words], "length"))
    assert found.position == 0


@given(WORDS)
def test_an_answer_that_goes_on_is_not_the_same(words):
    found = compare(Answer("".join(words), len(words), "stop"), pieces([*words, "!"], "stop"))
    assert found.position == len(words)


@given(WORDS, st.data(), st.sampled_from(CUT_OFF))
def test_what_was_cut_off_is_the_same_as_far_as_it_was_released(words, data, ended):
    """More was drawn than left, as where an error came before the window of the last tokens."""
    left = data.draw(st.integers(1, len(words)))
    released = "".join(words[:left])
    assume(released)
    first = Answer(released, data.draw(st.integers(left, len(words))), ended)
    assert first.cut
    found = compare(first, pieces(words[: first.tokens], "length"))
    assert (found.again.text, found.position) == (released, -1)


@given(WORDS, st.data(), st.sampled_from(CUT_OFF))
def test_one_other_token_in_what_was_cut_off_is_found_where_it_is(words, data, ended):
    at = data.draw(st.integers(0, len(words) - 1))
    other = [*words[:at], "!" + words[at], *words[at + 1 :]]
    found = compare(Answer("".join(words[: at + 1]), at + 1, ended), pieces(other, "length"))
    assume("".join(words[: at + 1]) != "".join(words[:at]))
    assert found.position == at


@given(WORDS, st.sampled_from(CUT_OFF))
def test_what_was_cut_off_and_is_longer_than_the_organism_says_is_found(words, ended):
    first = Answer("".join(words) + "more", len(words), ended)
    assert compare(first, pieces(words, "stop")).position == len(words)


@pytest.mark.parametrize("level", list(Level))
@pytest.mark.parametrize("outcome", ["stop", "length", *CUT_OFF, "a_word_of_the_cell"])
@pytest.mark.parametrize("released", [True, False])
@pytest.mark.parametrize("changed", [True, False])
def test_in_the_draw_is_all_that_left_from_cl3_on_unchanged_and_what_ended_without_a_word(level, outcome, released, changed):
    wanted = level in {Level.CL3, Level.CL4} and (released or outcome in {"stop", "length"}) and not changed
    assert in_draw(level, outcome, released=released, changed=changed) == wanted
