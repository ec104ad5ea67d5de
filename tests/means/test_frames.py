"""Frames, the socket that carries them, and sealed memory: what passes between a registry and a cell, and what does not."""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from model_organisms.cells.channel import LARGEST, Channel
from model_organisms.cells.frames import (
    Ask,
    Cancel,
    CellInfo,
    Direct,
    Directed,
    Draw,
    Failed,
    Frame,
    Hello,
    Load,
    Numbers,
    Piece,
    Ready,
    decode,
    encode,
)
from model_organisms.cells.seal import map_sealed, sealed_memory
from model_organisms.errors import CellUnavailable, DeadlineExceeded, InvalidArgument
from model_organisms.records import Inquiry, Measure, Message, NewDirection, Reading, SamplingParameters, Steer, TokenScore

from tests.support.cells import jailed, said

words = st.text(max_size=40)
counts = st.integers(0, 2**32 - 1)
messages = st.lists(st.builds(Message, words, words), max_size=4).map(tuple)
steers = st.lists(st.builds(Steer, words, counts, st.floats(-1e6, 1e6), st.booleans()), max_size=3).map(tuple)
scales = st.none() | st.floats(0, 1000)
parameters = st.builds(
    SamplingParameters,
    max_tokens=counts,
    temperature=st.floats(0, 10),
    top_p=st.floats(0, 1),
    top_k=counts,
    stop=st.lists(words, max_size=3).map(tuple),
    seed=st.integers(0, 2**63 - 1),
    steer=steers,
    scale=scales,
)
names = st.lists(words, max_size=3).map(tuple)
numbers = st.lists(st.floats(-1e9, 1e9), max_size=4).map(tuple)
measures = st.lists(st.sampled_from(Measure), max_size=6).map(tuple)
inquiries = st.builds(Inquiry, counts, measures, st.lists(counts, max_size=3).map(tuple), names, steers, scales)
prompts = st.lists(messages, max_size=3).map(tuple)
sought = st.builds(NewDirection, st.binary(max_size=32), prompts, prompts, counts, names, words)
readings = st.lists(st.builds(Reading, st.sampled_from(Measure), counts, words, numbers), max_size=3).map(tuple)
scores = st.lists(st.builds(TokenScore, counts, words, st.floats(-1e9, 0)), max_size=5).map(tuple)
bodies = st.one_of(
    st.builds(Hello, st.lists(words).map(tuple), st.dictionaries(words, words, max_size=4)),
    st.builds(Ready, words),
    st.builds(CellInfo, words, words, words, st.lists(words, max_size=3).map(tuple), counts, words, st.booleans(), counts),
    st.builds(Piece, words, counts, words),
    st.builds(Numbers, st.lists(scores, max_size=3).map(tuple), numbers, readings),
    st.builds(Directed, st.floats(0, 1e9), numbers, words),
    st.builds(Failed, words, words),
    st.builds(Load, words, words),
    st.builds(Draw, messages, parameters),
    st.builds(Ask, messages, inquiries, counts),
    st.builds(Direct, sought, counts),
    st.just(Cancel()),
)


@pytest.fixture
def pair():
    ours, theirs = (Channel(end) for end in socket.socketpair())
    yield ours, theirs
    ours.close()
    theirs.close()


@given(body=bodies, call=counts)
def test_every_frame_reads_back_as_it_was_written(body, call):
    assert decode(encode(Frame(body, call))) == Frame(body, call)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_frame_or_refused(payload):
    try:
        frame = decode(payload)
    except CellUnavailable:
        return
    assert decode(encode(frame)) == frame


def test_a_frame_over_the_limit_is_not_sent_and_not_read(pair):
    ours, theirs = pair
    with pytest.raises(InvalidArgument, match="shorten"):
        ours.send(Frame(Piece("x" * (LARGEST + 1), 1)))
    theirs._socket.send(struct.pack(">I", LARGEST + 1))
    with pytest.raises(CellUnavailable, match="not a frame"):
        ours.receive(time.monotonic() + 5)


def test_a_frame_of_the_largest_size_passes(pair):
    ours, theirs = pair
    frame = Frame(Piece("x" * (LARGEST - 64), 1))
    sender = threading.Thread(target=ours.send, args=(frame,))
    sender.start()
    assert theirs.receive(time.monotonic() + 10) == frame
    sender.join()


def test_what_comes_late_is_kept(pair):
    ours, theirs = pair
    data = encode(Frame(Piece("half", 1)))
    whole = struct.pack(">I", len(data)) + data
    theirs._socket.send(whole[:7])
    with pytest.raises(DeadlineExceeded):
        ours.receive(time.monotonic() + 0.05)
    theirs._socket.send(whole[7:])
    assert ours.receive(time.monotonic() + 5).body == Piece("half", 1)


def test_a_hung_reader_is_noticed(pair):
    ours, _ = pair
    with pytest.raises(CellUnavailable, match="listen"):  # noqa: PT012 - which of the frames fills the buffer is the kernel's affair
        for _ in range(10):
            ours.send(Frame(Piece("x" * 900_000, 1)), within_s=0.2)


def test_the_registry_takes_no_descriptor_from_a_cell(pair):
    ours, theirs = pair
    before = len(list(Path("/proc/self/fd").iterdir()))
    with Path("/dev/null").open("rb") as file:
        theirs.send(Frame(Piece("with a gift", 1)), descriptor=file.fileno())
    assert ours.receive(time.monotonic() + 5).body == Piece("with a gift", 1)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_sealed_memory_cannot_be_changed():
    descriptor = sealed_memory(b"bundle")
    try:
        for attempt in (
            lambda: os.write(descriptor, b"x"),
            lambda: os.ftruncate(descriptor, 3),
            lambda: os.ftruncate(descriptor, 9),
        ):
            with pytest.raises(PermissionError):
                attempt()
        with pytest.raises(PermissionError):
            fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)
        with map_sealed(descriptor) as mapped:
            assert mapped[:] == b"bundle"
    finally:
        os.close(descriptor)


def test_a_cell_takes_no_bundle_from_memory_that_could_change(tmp_path):
    (tmp_path / "file").write_bytes(b"bundle")
    for descriptor in (os.memfd_create("open", os.MFD_ALLOW_SEALING), os.open(tmp_path / "file", os.O_RDONLY)):
        try:
            with pytest.raises(CellUnavailable, match="sealed"):
                map_sealed(descriptor)
        finally:
            os.close(descriptor)


def test_the_cell_gets_the_bundle_sealed_and_whole():
    code = """
    import socket
    connected = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, spec.socket)
    data, descriptors, _, _ = socket.recv_fds(connected, 4096, 1)
    from model_organisms.cells.seal import map_sealed
    mapped = map_sealed(descriptors[0])
    report([len(mapped), mapped[:8].decode(), attempt(os.ftruncate, descriptors[0], 0), attempt(os.write, descriptors[0], b"x")])
    """
    with jailed(code) as empty:
        descriptor = sealed_memory(b"organism" * 1000)
        empty.channel.send(Frame(Load("d" * 64)), descriptor=descriptor)
        os.close(descriptor)
        size, start, truncated, written = said(empty)
    assert (size, start) == (8000, "organism")
    assert not truncated.startswith("DONE")
    assert not written.startswith("DONE")
