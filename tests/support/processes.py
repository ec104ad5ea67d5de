"""Looks at other processes from outside, as root may: who stands below whom, and what their memory is made of."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from tests.support.cells import eventually


@dataclass(frozen=True)
class Pages:
    """Bytes of a mapped file."""

    shared: int
    private: int


def innermost(pid: int) -> int:
    """Find a cell's own process, below bubblewrap's two."""
    assert eventually(lambda: len(descendants(pid)) >= 2)
    return descendants(pid)[-1]


def descendants(pid: int) -> list[int]:
    """List the processes below one, parents first."""
    found = []
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        found += [int(child), *descendants(int(child))]
    return found


def shared_clean(pid: int, name: str) -> Pages:
    """Sum the resident pages of the mappings of a file: shared with other processes, and this one's alone."""
    shared = private = 0
    counted = False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
            counted = line.endswith(name)
        elif counted and (found := re.match(r"(Shared_Clean|Private_Clean|Private_Dirty|Shared_Dirty): +(\d+) kB", line)):
            kind, size = found[1], int(found[2]) * 1024
            shared, private = (shared + size, private) if kind == "Shared_Clean" else (shared, private + size)
    return Pages(shared, private)
