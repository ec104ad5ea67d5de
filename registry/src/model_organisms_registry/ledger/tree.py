"""The Merkle tree as the ledger holds it in memory: its right edge, and older tiles read when a proof needs them. No files here.

Appending costs one to two hashes; a proof reads O(log n) nodes, almost all of them in memory. Nodes of complete subtrees never
change, so any thread may read while one appends, as long as it asks only about sizes that it was given.
"""

from __future__ import annotations

import threading
from struct import Struct
from typing import TYPE_CHECKING

from model_organisms.formats import merkle
from model_organisms.formats.merkle import HASH_SIZE
from model_organisms.formats.tiles import HEIGHT, WIDTH, Tile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_NODE = Struct(f"{HASH_SIZE}s")
_KEPT = 64
"""Older tiles kept in memory, with the nodes between their hashes: about 1 MB. One that is not there is a read of 8 kB."""


class _Nodes:
    """One tile and the nodes inside it: `rows[h]` are the complete subtrees of height h over its hashes, end to end.

    Bytes end to end take a third of the memory of as many objects.
    """

    __slots__ = ("number", "rows")

    def __init__(self, number: int, hashes: Iterable[bytes] = ()) -> None:
        self.number = number
        self.rows = [bytearray() for _ in range(HEIGHT)]
        for node in hashes:
            self.append(node)

    def append(self, node: bytes) -> bytes | None:
        """Add a hash; the one that fills the tile returns the hash of the whole."""
        for height, row in enumerate(self.rows):
            row.extend(node)
            last = len(row) // HASH_SIZE - 1
            if last % 2 == 0:
                return None
            node = merkle.node_hash(self.at(height, last - 1), node)
        return node

    def at(self, height: int, place: int) -> bytes:
        """Return one hash of a row; past its end there is none, and `struct.error` says so."""
        node: bytes = _NODE.unpack_from(self.rows[height], place * HASH_SIZE)[0]
        return node


class Tree:
    """The tree of the first `size` entries, growing.

    Args:
        size: Entries to begin with.
        load: Reads the hashes of any tile of the first `size` entries. It is asked for the last tile of each level now, and
            for full older ones when a proof needs them.
    """

    def __init__(self, size: int, load: Callable[[Tile], list[bytes]]) -> None:
        """Read the right edge."""
        self.size = size
        self._load = load
        self._edge: list[_Nodes] = []
        self._older: dict[tuple[int, int], _Nodes] = {}
        self._lock = threading.Lock()
        level = 0
        while size >> HEIGHT * level:
            number, width = divmod(size >> HEIGHT * level, WIDTH)
            self._edge.append(_Nodes(number, load(Tile(level, number, width)) if width else ()))
            level += 1

    def append(self, leaf: bytes) -> None:
        """Add an entry's leaf hash. Only one thread may."""
        node: bytes | None = leaf
        level = 0
        while node is not None:
            if level == len(self._edge):
                self._edge.append(_Nodes(0))
            tile = self._edge[level]
            node = tile.append(node)
            if node is not None:
                self._keep(level, tile)  # before it leaves the edge, so that no reader misses it
                self._edge[level] = _Nodes(tile.number + 1)
            level += 1
        self.size += 1

    def root(self, size: int | None = None) -> bytes:
        """Compute the head of the first `size` entries; of all, if none is given."""
        return merkle.root(self.size if size is None else size, self.hash_at)

    def hash_at(self, level: int, index: int) -> bytes:
        """Return the hash of a complete subtree, as the proofs of `merkle` ask for it."""
        tile_level, height = divmod(level, HEIGHT)
        number, at = divmod(index, WIDTH >> height)
        return self._nodes(tile_level, number).at(height, at)

    def hashes(self, tile: Tile) -> list[bytes]:
        """Return the hashes of one tile, as far as it is wide."""
        nodes = self._nodes(tile.level, tile.number)
        return [nodes.at(0, place) for place in range(tile.width)]

    def _nodes(self, level: int, number: int) -> _Nodes:
        edge = self._edge[level] if level < len(self._edge) else None
        if edge is not None and edge.number == number:
            return edge
        with self._lock:
            found = self._older.get((level, number))
        if found is None:
            found = _Nodes(number, self._load(Tile(level, number)))
            self._keep(level, found)
        return found

    def _keep(self, level: int, tile: _Nodes) -> None:
        with self._lock:
            self._older.pop((level, tile.number), None)
            self._older[level, tile.number] = tile
            while len(self._older) > _KEPT:
                del self._older[next(iter(self._older))]
