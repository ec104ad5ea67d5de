"""Text that streams: characters across tokens, stop strings across pieces."""

from __future__ import annotations

import functools

from hypothesis import given
from hypothesis import strategies as st
from model_organisms.sampling.wording import Detokenizer, StopFilter

from tests.support.tiny import tiny_tokenizer

tokenizer = functools.cache(tiny_tokenizer)


def streamed(ids):
    words = Detokenizer(tokenizer())
    return [*(words.push(token) for token in ids), words.finish()]


@given(st.text(max_size=40))
def test_any_text_streams_whole_and_never_breaks_a_character(text):
    pieces = streamed(tokenizer()(text, add_special_tokens=False)["input_ids"])
    assert "".join(pieces) == text
    assert "\N{REPLACEMENT CHARACTER}" in text or not any("\N{REPLACEMENT CHARACTER}" in piece for piece in pieces)


@given(st.lists(st.integers(0, 319), max_size=60))
def test_any_ids_stream_to_what_they_decode_to(ids):
    whole = tokenizer().decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    assert "".join(streamed(ids)) == whole


def test_a_character_of_several_tokens_comes_out_with_its_last():
    ids = tokenizer()("🙂", add_special_tokens=False)["input_ids"]
    assert len(ids) > 1
    assert streamed(ids) == [""] * (len(ids) - 1) + ["🙂", ""]


@given(
    st.lists(st.text("abc", max_size=4), max_size=12),
    st.lists(st.text("abc", min_size=1, max_size=4), max_size=3),
)
def test_stopping_gives_what_searching_the_whole_text_gives(pieces, stops):
    stopper = StopFilter(stops)
    given_out = "".join([*(stopper.push(piece) for piece in pieces), stopper.finish()])
    whole = "".join(pieces)
    # The stream ends at the first piece that completes a stop string, so what is searched ends there too.
    for count in range(len(pieces) + 1):
        seen = "".join(pieces[:count])
        found = [at for stop in stops if (at := seen.find(stop)) >= 0]
        if found:
            assert stopper.stopped
            assert given_out == seen[: min(found)]
            return
    assert not stopper.stopped
    assert given_out == whole
