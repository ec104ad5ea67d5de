"""Every path of the ledger's files, and what is in them (C2SP tlog-tiles); who reads or writes the files is not here.

    checkpoint                          the signed tree head
    checkpoint.cosigned                 the newest one that witnesses have cosigned, with their lines; a file of ours
    tile/<L>/<N>[.p/<W>]                256 hashes at tree level 8 x L, fewer in the last tile of a level
    tile/entries/<N>[.p/<W>]            the 256 entries under tile/0/<N>, each with its length in front

`<N>` is written in groups of three digits, all but the last with an x in front: 1234067 is x001/x234/067.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from model_organisms.errors import InvalidArgument, VerificationFailed
from model_organisms.formats.merkle import HASH_SIZE

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

CHECKPOINT = "checkpoint"
COSIGNED = "checkpoint.cosigned"
HEIGHT = 8
WIDTH = 1 << HEIGHT
"""Hashes of a full tile, entries of a full bundle."""

ENTRIES = -1
"""The level of entry bundles; hashes begin at level 0."""

MAX_LEVEL = 63
MAX_ENTRY_SIZE = 65_535
"""What a 16-bit length can say; our own entries are smaller (`formats/entry.py`)."""

_PATH = re.compile(
    r"tile/(?P<level>entries|0|[1-9][0-9]?)/(?P<number>(?:x[0-9]{3}/){0,6}[0-9]{3})(?:\.p/(?P<width>[1-9][0-9]{0,2}))?",
    re.ASCII,
)


@dataclass(frozen=True, slots=True, order=True)
class Tile:
    """Where a run of hashes or entries stands: level, number within the level, and how many there are."""

    level: int
    number: int
    width: int = WIDTH

    @property
    def first(self) -> int:
        """Index, within its level, of the first hash."""
        return self.number * WIDTH

    @property
    def full(self) -> Tile:
        """The tile this one is, or will grow into."""
        return Tile(self.level, self.number)


def path(tile: Tile) -> str:
    """Print where a tile is kept."""
    level = "entries" if tile.level == ENTRIES else str(tile.level)
    groups = [f"{tile.number % 1000:03d}"]
    rest = tile.number // 1000
    while rest:
        groups.insert(0, f"x{rest % 1000:03d}")
        rest //= 1000
    suffix = "" if tile.width == WIDTH else f".p/{tile.width}"
    return f"tile/{level}/{'/'.join(groups)}{suffix}"


def partial_prefix(tile: Tile) -> str:
    """Print the folder of the partial tiles that a full one makes obsolete."""
    return path(tile.full) + ".p/"


def parse_path(text: str) -> Tile:
    """Read where a tile is kept.

    Raises:
        InvalidArgument: It is not the one way to write a tile's path.
    """
    found = _PATH.fullmatch(text)
    if found:
        level = ENTRIES if found["level"] == "entries" else int(found["level"])
        tile = Tile(level, int(re.sub("[x/]", "", found["number"])), int(found["width"] or WIDTH))
        if level <= MAX_LEVEL and tile.width <= WIDTH and path(tile) == text:
            return tile
    raise InvalidArgument(f"{text[:80]!r} is no tile's path; write it like tile/0/x001/234 or tile/entries/000.p/17.")


def tiles(old_size: int, new_size: int) -> Iterator[Tile]:
    """List the tiles to write when a ledger grows, bundles first, each as wide as the new size makes it.

    Args:
        old_size: Entries that were published before; 0 lists every tile of the ledger.
        new_size: Entries now.

    Yields:
        Tiles in an order in which no tile comes before what it is computed from.
    """
    for level in (ENTRIES, *range(MAX_LEVEL + 1)):
        shift = HEIGHT * max(level, 0)
        before, now = old_size >> shift, new_size >> shift
        if now == 0:
            return
        if now == before:
            continue
        for number in range(before // WIDTH, (now + WIDTH - 1) // WIDTH):
            yield Tile(level, number, min(WIDTH, now - number * WIDTH))


def encode_hashes(hashes: Sequence[bytes]) -> bytes:
    """Write the hashes of a tile."""
    return b"".join(hashes)


def decode_hashes(data: bytes, *, width: int) -> list[bytes]:
    """Read the hashes of a tile.

    Raises:
        VerificationFailed: There are not exactly `width` hashes.
    """
    if len(data) != width * HASH_SIZE:
        raise VerificationFailed(f"The tile holds {len(data)} bytes instead of {width * HASH_SIZE}; run `mo-registry fsck`.")
    return [data[at : at + HASH_SIZE] for at in range(0, len(data), HASH_SIZE)]


def encode_entry(entry: bytes) -> bytes:
    """Write one entry as a bundle holds it; a bundle is its entries, one after the other.

    Raises:
        InvalidArgument: It is longer than the format can say.
    """
    if len(entry) > MAX_ENTRY_SIZE:
        raise InvalidArgument(
            f"A ledger entry is limited to {MAX_ENTRY_SIZE} bytes; keep the content elsewhere and commit to it."
        )
    return len(entry).to_bytes(2, "big") + entry


def encode_entries(entries: Sequence[bytes]) -> bytes:
    """Write an entry bundle.

    Raises:
        InvalidArgument: An entry is longer than the format can say.
    """
    return b"".join(map(encode_entry, entries))


def decode_entries(data: bytes, *, width: int) -> list[bytes]:
    """Read an entry bundle.

    Raises:
        VerificationFailed: It does not hold exactly `width` whole entries.
    """
    entries: list[bytes] = []
    at = 0
    while at < len(data) and len(entries) < width:
        end = at + 2 + int.from_bytes(data[at : at + 2], "big")
        if at + 2 > len(data) or end > len(data):
            break
        entries.append(data[at + 2 : end])
        at = end
    if at != len(data) or len(entries) != width:
        raise VerificationFailed(f"The bundle does not hold {width} whole entries and nothing else; run `mo-registry fsck`.")
    return entries
