"""Sealed streams: Tink's wire format both ways, any cut of the input, and no byte out of place."""

from __future__ import annotations

import os

import pytest
import tink
from hypothesis import given, settings
from hypothesis import strategies as st
from model_organisms.errors import CapsuleInvalid, InvalidArgument
from model_organisms.formats.streaming import (
    HEADER_BYTES,
    PLAIN_FIRST,
    PLAIN_SEGMENT,
    SEGMENT,
    Layout,
    Opener,
    Receiver,
    Sealer,
)

from tests.support.tink import tink_open, tink_seal

KEY = bytes(range(32))
BOUND = b"what the stream is bound to"
EDGES = [
    0,
    1,
    PLAIN_FIRST - 1,
    PLAIN_FIRST,
    PLAIN_FIRST + 1,
    PLAIN_FIRST + PLAIN_SEGMENT,
    PLAIN_FIRST + PLAIN_SEGMENT + 1,
    PLAIN_FIRST + 3 * PLAIN_SEGMENT + 12345,
]
SAMPLE = os.urandom(EDGES[-1])
sizes = st.one_of(st.sampled_from(EDGES), st.integers(0, EDGES[-1]))


def seal(plain, **options) -> bytes:
    return b"".join(Sealer(KEY, BOUND, **options).from_memory(plain))


def open_all(sealed, size, *, key=KEY, bound=BOUND, step=SEGMENT) -> bytes:
    out = bytearray(size)
    receiver = Receiver(key, bound, out)
    for start in range(0, len(sealed), step):
        receiver.feed(memoryview(sealed)[start : start + step])
    receiver.finish()
    return bytes(out)


@pytest.mark.parametrize("size", EDGES)
def test_tink_opens_ours_and_we_open_tinks(size):
    plain = SAMPLE[:size]
    assert tink_open(KEY, seal(plain), BOUND) == plain
    assert open_all(tink_seal(KEY, plain, BOUND), size) == plain


def test_tink_refuses_ours_under_another_binding():
    with pytest.raises(tink.TinkError):
        tink_open(KEY, seal(SAMPLE[:100]), b"something else")


@settings(max_examples=15, deadline=None)
@given(size=sizes, cut=st.integers(1, 3 * SEGMENT), data=st.data())
def test_any_cut_of_the_input_gives_the_same_stream(size, cut, data):
    plain = memoryview(SAMPLE)[:size]
    fixed = {"salt": bytes(32), "nonce_prefix": bytes(7)}
    whole = seal(plain, **fixed)
    chunks = [plain[start : start + cut] for start in range(0, size, cut)]
    assert b"".join(Sealer(KEY, BOUND, **fixed).from_chunks(chunks)) == whole
    assert open_all(whole, size, step=data.draw(st.integers(10_000, 2 * SEGMENT))) == plain


@given(size=sizes)
def test_layout_agrees_with_the_stream(size):
    layout = Layout(size)
    assert Layout.of_sealed(layout.sealed_size) == layout
    plain_at = sealed_at = 0
    for n in range(layout.segments):
        (start, length), (sealed_start, sealed_length) = layout.plain(n), layout.sealed(n)
        assert (start, sealed_start) == (plain_at, sealed_at)
        plain_at, sealed_at = start + length, sealed_start + sealed_length
    assert (plain_at, sealed_at) == (size, layout.sealed_size)
    assert len(seal(SAMPLE[:size])) == layout.sealed_size


@pytest.mark.parametrize("size", [0, 39, 55, SEGMENT + 1, SEGMENT + 16])
def test_no_stream_has_such_a_size(size):
    with pytest.raises(CapsuleInvalid):
        Layout.of_sealed(size)


@settings(max_examples=25, deadline=None)
@given(start=st.integers(0, 4))
def test_a_stream_is_made_again_from_any_segment(start):
    fixed = {"salt": os.urandom(32), "nonce_prefix": os.urandom(7)}
    whole = seal(SAMPLE, **fixed)
    tail = b"".join(Sealer(KEY, BOUND, **fixed).from_memory(SAMPLE, start=start))
    assert tail == whole[start * SEGMENT :]


@settings(max_examples=25, deadline=None)
@given(n=st.integers(0, 4))
def test_one_segment_opens_alone(n):
    layout = Layout(len(SAMPLE))
    sealed = seal(SAMPLE)
    start, length = layout.plain(n)
    at, size = layout.sealed(n)
    out = bytearray(length)
    Opener(KEY, BOUND, sealed[:HEADER_BYTES]).segment_into(n, sealed[at : at + size], out, last=layout.is_last(n))
    assert out == SAMPLE[start : start + length]


@settings(max_examples=25, deadline=None)
@given(stop=st.integers(0, 4 * SEGMENT), step=st.integers(1000, SEGMENT))
def test_an_interrupted_stream_goes_on_where_it_was_cut(stop, step):
    sealed = seal(SAMPLE)
    out = bytearray(len(SAMPLE))
    receiver = Receiver(KEY, BOUND, out)
    for start in range(0, stop, step):
        receiver.feed(sealed[start : min(start + step, stop)])
    resumed = receiver.cut()
    assert resumed % SEGMENT == 0
    assert stop - SEGMENT < resumed <= stop
    opened = receiver.layout.plain_size if resumed == len(sealed) else receiver.layout.plain(resumed // SEGMENT)[0]
    assert out[:opened] == SAMPLE[:opened]
    receiver.feed(sealed[resumed:])
    receiver.finish()
    assert out == SAMPLE


def test_what_is_not_authenticated_is_not_left_in_memory():
    sealed = bytearray(seal(SAMPLE))
    sealed[SEGMENT + 5] ^= 1
    out = bytearray(len(SAMPLE))
    receiver = Receiver(KEY, BOUND, out)
    with pytest.raises(CapsuleInvalid):
        receiver.feed(sealed)
    assert out[:PLAIN_FIRST] == SAMPLE[:PLAIN_FIRST]
    assert not any(out[PLAIN_FIRST:])


@settings(max_examples=60, deadline=None)
@given(bit=st.integers(0, (HEADER_BYTES + 100 + 16) * 8 - 1))
def test_no_flipped_bit_opens(bit):
    sealed = bytearray(seal(SAMPLE[:100]))
    sealed[bit // 8] ^= 1 << bit % 8
    with pytest.raises(CapsuleInvalid):
        open_all(sealed, 100)


@pytest.mark.parametrize("size", [PLAIN_FIRST, PLAIN_FIRST + 2 * PLAIN_SEGMENT, PLAIN_FIRST + 100])
@pytest.mark.parametrize("change", [-PLAIN_FIRST, -1, 1, PLAIN_SEGMENT])
def test_the_length_announced_must_be_the_length_sealed(size, change):
    with pytest.raises(CapsuleInvalid):
        open_all(seal(SAMPLE[:size]), size + change)


@pytest.mark.parametrize(
    ("n", "size", "last"),
    [
        (0, PLAIN_FIRST + 1, True),
        (0, PLAIN_FIRST - 1, False),
        (1, PLAIN_FIRST, False),
        (1, 0, True),
        (-1, 5, True),
        (1 << 32, 5, True),
    ],
)
def test_the_sealer_refuses_segments_that_tink_would_not_write(n, size, last):
    with pytest.raises(InvalidArgument):
        Sealer(KEY, BOUND).segment(n, bytes(size), last=last)


def test_keys_salts_and_buffers_of_the_wrong_size_are_refused():
    with pytest.raises(InvalidArgument):
        Sealer(KEY[:16], BOUND)
    with pytest.raises(InvalidArgument):
        Sealer(KEY, BOUND, salt=bytes(16))
    with pytest.raises(InvalidArgument):
        Sealer(KEY, BOUND, nonce_prefix=bytes(12))
    sealed = seal(b"abc")
    for out in (bytearray(4), bytes(3)):
        with pytest.raises(InvalidArgument):
            Opener(KEY, BOUND, sealed).segment_into(0, sealed, out, last=True)
    with pytest.raises(InvalidArgument):
        Layout(5).plain(1)
    with pytest.raises(InvalidArgument):
        Layout(-1)
