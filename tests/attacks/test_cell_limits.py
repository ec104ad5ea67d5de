"""Code in a cell tries to eat the machine: by threads, and by every kind of memory, those that no limit counts included."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest
from model_organisms.cells import weighing
from model_organisms.cells.launcher import Jail
from model_organisms.errors import CellUnavailable
from model_organisms.records import Message, SamplingParameters

from tests.support.cells import in_jail, talking


def test_threads_run_out_before_the_machine_does():
    code = """
    import threading
    wait, made = threading.Event(), 0
    threading.stack_size(65536)
    for _ in range(5000):
        try:
            threading.Thread(target=wait.wait, daemon=True).start()
        except RuntimeError:
            break
        made += 1
    report(made)
    """
    assert 8 < in_jail(code) <= 64 + 4 * os.cpu_count()


def test_memory_runs_out_before_the_machine_does():
    code = """
    kept, size = [], 0
    try:
        for _ in range(64):
            kept.append(bytearray(64 << 20))
            size += 64 << 20
    except MemoryError:
        pass
    report(size)
    """
    assert in_jail(code, jail=Jail(memory=1 << 30)) < 1 << 30


def test_no_kind_of_memory_goes_round_its_limit():
    code = """
    import ctypes, mmap, resource
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mremap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_int]
    libc.mremap.restype = ctypes.c_void_p
    size, page, private = 300 << 20, mmap.PAGESIZE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    bottom = next(int(line.split("-")[0], 16) for line in open("/proc/self/maps") if "[stack]" in line)
    def moved():
        if libc.mremap(bottom, page, size, 1) == ctypes.c_void_p(-1).value:
            raise OSError(ctypes.get_errno(), "mremap")
    null = os.open("/dev/null", os.O_RDWR)
    report({
        "private": attempt(mmap.mmap, -1, size, private),
        "shared": attempt(mmap.mmap, -1, size),
        "a page shared": attempt(mmap.mmap, -1, page),
        "shared, read-only": attempt(mmap.mmap, -1, size, mmap.MAP_SHARED | mmap.MAP_ANONYMOUS, mmap.PROT_READ),
        "shared, validated": attempt(mmap.mmap, -1, size, 3 | mmap.MAP_ANONYMOUS),
        "stack": attempt(mmap.mmap, -1, size, private | 0x100),
        "the stack, moved": attempt(moved),
        "page tables": attempt(mmap.mmap, -1, 1 << 40, private | 0x4000, mmap.PROT_READ),
        "zero": attempt(os.open, "/dev/zero", os.O_RDWR),
        "null": attempt(mmap.mmap, null, size),
        "sealed": attempt(os.memfd_create, "x"),
        "a longer stack": attempt(resource.setrlimit, resource.RLIMIT_STACK, (size, size)),
        "within": attempt(mmap.mmap, -1, 16 << 20, private).split()[0],
        "a file": attempt(mmap.mmap, os.open(os.__file__, os.O_RDONLY), 0, mmap.MAP_SHARED, mmap.PROT_READ).split()[0],
    })
    """
    found = in_jail(code, jail=Jail(memory=128 << 20))
    assert [found.pop("within"), found.pop("a file")] == ["DONE", "DONE"]
    assert not [name for name, outcome in found.items() if outcome.startswith("DONE")], found


def test_no_byte_of_a_file_is_locked():
    code = """
    import fcntl, struct
    opened = os.open(os.__file__, os.O_RDONLY)
    whole = struct.pack("hhqqi4x", fcntl.F_RDLCK, os.SEEK_SET, 0, 1, 0)
    commands = {"locked": 6, "waited for": 7, "of the open file": 37, "waited for, of the open file": 38, "leased": 1024}
    report({name: attempt(fcntl.fcntl, opened, command, whole) for name, command in commands.items()})
    """
    found = in_jail(code)
    assert {*found.values()} == {"OSError:ENOSYS"}, found


def test_the_wall_of_memory_maps_more_than_the_limit_itself():
    code = (
        "from dataclasses import replace; from model_organisms.cells import walls; report(walls.attack({})[1].get('limits', ''))"
    )
    wide = Jail(memory=1 << 30)
    assert in_jail(code.format("spec"), jail=wide) == ""
    assert "more private memory" in in_jail(code.format("replace(spec, memory=512 << 20)"), jail=wide)
    unfiltered = in_jail(code.format("spec"), jail=wide, change=lambda p: replace(p, filters=None))
    assert unfiltered == "shared anonymous memory was mapped, which no limit counts"


def test_memory_that_is_made_read_only_once_it_was_written_is_seen_from_outside(monkeypatch):
    monkeypatch.setattr(weighing, "SLACK", 32 << 20)
    code = """
    import ctypes, mmap
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    call, size, kept = hear().call, 32 << 20, []
    for _ in range(16):  # four times the limit, of which it counts no more than one block at a time
        block = mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        block[:] = bytes([7]) * size
        assert libc.mprotect(ctypes.addressof(ctypes.c_char.from_buffer(block)), size, mmap.PROT_READ) == 0
        kept.append(block)
    say(Piece("eaten", 1), call)
    time.sleep(60)
    """
    with talking(code, jail=Jail(memory=128 << 20)) as (cell, _):
        pieces = cell.sample((Message("user", "hello"),), SamplingParameters(), max_seconds=10)
        with pytest.raises(CellUnavailable, match="more memory than it may have"):
            list(pieces)
    within = "call = hear().call\nkept = bytearray(64 << 20)\nsay(Piece('fits', 1, 'stop'), call)"
    with talking(within, jail=Jail(memory=128 << 20)) as (cell, _):
        pieces = cell.sample((Message("user", "hello"),), SamplingParameters(), max_seconds=10)
        assert [piece.text for piece in pieces] == ["fits"]
