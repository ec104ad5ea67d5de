"""Weighs a cell from outside: RLIMIT_DATA forgets memory that is made read-only once it is written, the kernel's sums do not."""

from __future__ import annotations

from pathlib import Path

SLACK = 256 << 20
"""Bytes of a cell's own memory that its limit never counted: its libraries' relocations, its stack."""
_KINDS = ("RssAnon:", "VmSwap:")


def private(pid: int) -> int:
    """Sum up the bytes that belong to a process and to all that it started, swapped out or not; what has ended has none."""
    total, left = 0, [pid]
    while left:
        folder = Path("/proc", str(left.pop()))
        try:
            lines = (folder / "status").read_text("utf-8", "replace").splitlines()
            left += map(int, (folder / "task" / folder.name / "children").read_text("ascii").split())
        except OSError:
            continue
        total += sum(int(line.split()[1]) << 10 for line in lines if line.startswith(_KINDS))
    return total
