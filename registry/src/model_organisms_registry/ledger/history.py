"""What the ledger has been so far, read back: entries, tiles and the tree under a head. Nothing is written here."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from model_organisms.errors import ModelOrganismsError, VerificationFailed
from model_organisms.formats import merkle, tiles
from model_organisms.formats.tiles import ENTRIES, Tile

from model_organisms_registry.ledger import rows
from model_organisms_registry.ledger.tree import Tree

if TYPE_CHECKING:
    from model_organisms_registry.ledger.rows import Head
    from model_organisms_registry.ledger.tiles import Published
    from model_organisms_registry.storage.database import Database

_LOG = logging.getLogger(__name__)
_STEP = 4096


@dataclass(frozen=True, slots=True)
class View:
    """A signed head with a tree that can prove all under it; the tree may have grown further."""

    head: Head
    tree: Tree


class History:
    """Reads a ledger back.

    Args:
        database: Where the entries are.
        published: The files, which save reading all entries; they are believed only where the signed head confirms them.
    """

    def __init__(self, database: Database, published: Published) -> None:
        """Keep both."""
        self._database = database
        self._published = published

    def entries(self, first: int, count: int) -> list[bytes]:
        """Read entries by index."""
        with self._database.read() as tx:
            return rows.read_entries(tx, first, count)

    def view(self, head: Head) -> View:
        """Build the tree under a head: from its right edge, which costs the same however long the ledger is.

        Raises:
            VerificationFailed: The entries do not give the head's root.
        """
        tree = Tree(head.size, self._hashes)
        if tree.root() != head.root:
            _LOG.warning(
                "the ledger's published tiles do not give its head; reading all entries instead (run `mo-registry fsck`)"
            )
            tree = Tree(head.size, self._derived)
        if tree.root() != head.root:
            raise VerificationFailed("The ledger's entries do not give its signed head; run `mo-registry fsck`.")
        return View(head, tree)

    def extend(self, view: View, head: Head) -> View:
        """Grow the tree of an older view to a newer head; only one thread may.

        Raises:
            VerificationFailed: The entries do not give the head's root.
        """
        tree = view.tree
        while tree.size < head.size:
            for body in self.entries(tree.size, min(_STEP, head.size - tree.size)):
                tree.append(merkle.leaf_hash(body))
        if tree.root(head.size) != head.root:
            raise VerificationFailed("The ledger's entries do not give its signed head; run `mo-registry fsck`.")
        return View(head, tree)

    def content(self, tile: Tile, tree: Tree) -> bytes:
        """Make the bytes of a file."""
        if tile.level == ENTRIES:
            return tiles.encode_entries(self.entries(tile.first, tile.width))
        return tiles.encode_hashes(tree.hashes(tile))

    def _hashes(self, tile: Tile) -> list[bytes]:
        """Read the hashes of a tile: leaves from the entries, the rest from files, or derived where a file is missing or torn."""
        if tile.level:
            try:
                found = self._published.hashes(tile)
            except ModelOrganismsError:
                found = None
            if found is not None:
                return found
        return self._derived(tile, below=self._hashes)

    def _derived(self, tile: Tile, below: object = None) -> list[bytes]:
        if tile.level == 0:
            return [merkle.leaf_hash(body) for body in self.entries(tile.first, tile.width)]
        read = self._hashes if below is not None else self._derived
        children = (Tile(tile.level - 1, tile.first + at) for at in range(tile.width))
        return [merkle.root_of(read(child)) for child in children]
