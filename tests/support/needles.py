"""Looks for plaintext weights where they must never be: in files, in what processes hold open, and in the memory of processes."""

from __future__ import annotations

import mmap
import os
import stat
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import BinaryIO

NEEDLE = 64
_BLOCK = 4 << 20
SHARED = (Path(tempfile.gettempdir()), Path("/var/tmp"), Path("/dev/shm"), Path("~/.cache").expanduser())  # noqa: S108 - searched


def needles_of(weights: bytes) -> tuple[bytes, ...]:
    """Cut the values of a safetensors file into pieces: of any 127 bytes in a row, one piece is whole."""
    start = 8 + int.from_bytes(weights[:8], "little")  # before that is the header, which many adapters share
    return tuple(weights[at : at + NEEDLE] for at in range(start, len(weights) - NEEDLE + 1, NEEDLE))


def holding(places: Iterable[Path], needles: Iterable[bytes], *, since: float) -> set[Path]:
    """Find the files below some places, written since a time, that have a needle in them."""
    needles, places = tuple(needles), set(places)
    outermost = [place for place in places if places.isdisjoint(place.parents)]
    return {path.resolve() for place in outermost for path in _written(place, since) if _holds(path, needles, since)}


def held_open(processes: Iterable[int], needles: Iterable[bytes], *, since: float) -> set[str]:
    """Find the files with a needle that processes have open or mapped, deleted ones too; anonymous memory is none."""
    needles, found = tuple(needles), set()
    held: dict[tuple[int, int], bool] = {}
    for link in _links(processes):
        with suppress(OSError):
            name, status = str(link.readlink()), link.stat()
            if name.startswith("/memfd:") or not _recent(status, since):
                continue
            file = status.st_dev, status.st_ino  # often open and mapped, by several
            if file not in held:
                held[file] = _holds(link, needles, since)
            if held[file]:
                found.add(name)
    return found


def needles_in_any_form(weights: bytes, *scales: float) -> tuple[bytes, ...]:
    """Cut the tensors of a safetensors file into pieces, as they lie there and otherwise.

    Otherwise is: as float32, transposed, multiplied by some factors, and without their signs.
    """
    import torch
    from safetensors.torch import load

    pieces: list[bytes] = []
    for tensor in load(weights).values():
        for kind in {tensor.dtype, torch.float32}:
            cast = tensor.to(kind)
            for form in (*(cast * scale for scale in (1.0, *scales)), cast.abs()):
                for turned in (form, form.T):
                    data = turned.contiguous().flatten().view(torch.uint8).numpy().tobytes()
                    data = data[0 if kind == tensor.dtype else 2 :]  # widened halves begin with zeros, as most of a memory does
                    pieces += [data[at : at + NEEDLE] for at in range(0, len(data) - NEEDLE + 1, NEEDLE)]
    return tuple(dict.fromkeys(pieces))


def holding_memory(pid: int, needles: Iterable[bytes]) -> set[str]:
    """Find the mappings of a process in whose memory a needle is, files that it cannot change aside; only root may look."""
    needles, found = tuple(needles), set()
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            span, mode, _, _, _, *name = line.split(maxsplit=5)
            if "r" not in mode or (name and name[0].startswith("/") and "w" not in mode and not name[0].startswith("/memfd:")):
                continue
            start, end = (int(part, 16) for part in span.split("-"))
            data = _read(memory, start, end)
            if any(data.find(needle) >= 0 for needle in _begun(data, needles)):
                found.add(line)
    return found


def _read(memory: BinaryIO, start: int, end: int) -> bytes:
    parts = []
    with suppress(OSError):  # not to be read, or gone meanwhile
        memory.seek(start)
        while start < end and (part := memory.read(min(end - start, _BLOCK))):
            parts.append(part)
            start += len(part)
    return b"".join(parts)


def _written(place: Path, since: float) -> Iterator[Path]:
    """Find the files below a place that were written since a time; others work there too, so folders vanish."""
    folders = [str(place)]
    while folders:
        with suppress(OSError), os.scandir(folders.pop()) as entries:
            for entry in entries:
                with suppress(OSError):
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
                    elif not entry.is_symlink() and _recent(entry.stat(follow_symlinks=False), since):
                        yield Path(entry.path)


def _recent(status: os.stat_result, since: float) -> bool:
    """Tell whether a file was written since a time, or made, moved or linked."""
    return max(status.st_mtime, status.st_ctime) >= since


def _links(processes: Iterable[int]) -> Iterator[Path]:
    for pid in processes:
        for kind in ("fd", "map_files"):
            with suppress(OSError):  # gone, or closed to us as it is to others
                yield from Path(f"/proc/{pid}/{kind}").iterdir()


def _holds(path: Path, needles: tuple[bytes, ...], since: float) -> bool:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return False  # gone, or not ours to read
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or not status.st_size or not _recent(status, since):
            return False
        with mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ) as data:
            return any(data.find(needle) >= 0 for needle in _begun(data, needles))
    finally:
        os.close(descriptor)


def _begun(data: mmap.mmap | bytes, needles: tuple[bytes, ...]) -> list[bytes]:
    """Keep the needles whose first eight bytes stand anywhere: one pass for all of them, not one for each."""
    starts = np.unique(np.frombuffer(b"".join(needle[:8] for needle in needles), "<u8"))
    first = np.zeros(1 << 16, bool)
    first[(starts & np.uint64(0xFFFF)).astype(np.intp)] = True  # two bytes rule out nearly every place, by one look-up
    seen: set[int] = set()
    for at in range(0, len(data) - 7, _BLOCK):
        block = np.frombuffer(data[at : at + _BLOCK + 7], np.uint8)
        windows = np.lib.stride_tricks.sliding_window_view(block, 8)
        for shift in (0, 1):
            pairs = block[shift : shift + (len(windows) - shift + 1) // 2 * 2].view("<u2")
            words = windows[np.flatnonzero(first[pairs]) * 2 + shift].view("<u8").ravel()
            seen.update(words[np.isin(words, starts)].tolist())
    return [needle for needle in needles if int.from_bytes(needle[:8], "little") in seen]
