"""Anonymous memory: empty, out of core dumps, and wiped where it lies."""

from __future__ import annotations

import ctypes
import re
from pathlib import Path

import pytest
from model_organisms.errors import InvalidArgument
from model_organisms.formats.buffers import anonymous, wipe


def _mapping_of(memory) -> str:
    """Return the smaps entry of the mapping, found by the bytes written into it."""
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    for entry in re.split(r"\n(?=[0-9a-f]+-[0-9a-f]+ )", Path("/proc/self/smaps").read_text()):
        start, end = (int(part, 16) for part in entry.split(" ", 1)[0].split("-"))
        if start <= address < end:
            return entry
    pytest.fail("the mapping is not in smaps")


@pytest.mark.parametrize("size", [1, 4096, 5 << 20])
def test_memory_is_private_anonymous_and_never_dumped(size):
    memory = anonymous(size)
    assert len(memory) == size
    assert not any(memory[:4096])
    entry = _mapping_of(memory)
    flags = re.search(r"VmFlags: (.*)", entry).group(1).split()
    assert "dd" in flags  # MADV_DONTDUMP
    assert "sh" not in flags  # private: not in tmpfs, not shared with a child that writes
    assert "/" not in entry.splitlines()[0]  # no file behind it


def test_what_is_written_stays_off_swap_and_nothing_is_touched_before():
    memory = anonymous(1 << 20)
    memory[:1] = b"x"
    entry = _mapping_of(memory)
    assert "lo" in re.search(r"VmFlags: (.*)", entry).group(1).split()
    assert int(re.search(r"^Rss: +(\d+) kB", entry, re.MULTILINE)[1]) < 64


@pytest.mark.parametrize("size", [0, 1, 3 << 20])
def test_wiping_leaves_zeros(size):
    memory = anonymous(size)
    memory[:size] = b"\xaa" * size
    wipe(memory)
    assert not any(memory[:])
    part = bytearray(b"keep this, not that")
    wipe(memoryview(part)[:4])
    assert part == b"\0\0\0\0 this, not that"
    wipe(bytearray())


def test_read_only_memory_cannot_be_wiped():
    with pytest.raises(TypeError):
        wipe(b"constant")


def test_a_negative_size_is_refused():
    with pytest.raises(InvalidArgument):
        anonymous(-1)
