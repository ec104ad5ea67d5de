"""The ledger's published files: plain tiles, bundles and a checkpoint that any tlog client can read. Who may sign is not here.

- A full tile is written once, durably, before a checkpoint covers it. Publishing the same bytes twice is fine, which makes
  recovery the same as the happy path; other bytes mean that somebody wrote there, and nothing is served until an operator looked.
- Partial tiles and the checkpoint are seen whole or not at all, but power loss may undo the newest: a start makes them again
  (`mend`). The entries themselves are durable in the database before any of this.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from model_organisms.errors import AlreadyExists, LedgerUnavailable, ModelOrganismsError, NotFound
from model_organisms.formats import tiles
from model_organisms.formats.merkle import HASH_SIZE
from model_organisms.formats.tiles import CHECKPOINT, COSIGNED, WIDTH, Tile

if TYPE_CHECKING:
    from collections.abc import Callable

    from model_organisms_registry.storage.blobs import Blobs

_LOG = logging.getLogger(__name__)
PREFIX = "ledger/"


class Published:
    """The files of one ledger in the blob store.

    Args:
        blobs: The store.
        prefix: Where in it the ledger's files are.
    """

    def __init__(self, blobs: Blobs, *, prefix: str = PREFIX) -> None:
        """Keep both."""
        self._blobs = blobs
        self._prefix = prefix

    def in_place(self) -> None:
        """Make sure that the store is still the one that was opened.

        Raises:
            Unavailable: Its folder was removed or replaced.
        """
        self._blobs.in_place()

    def checkpoint(self) -> bytes | None:
        """Read the published checkpoint; a ledger that was never published has none."""
        return self._read(CHECKPOINT)

    def cosigned(self) -> bytes | None:
        """Read the newest checkpoint that witnesses have cosigned; there may be none."""
        return self._read(COSIGNED)

    def publish_cosigned(self, note: bytes) -> None:
        """Write it, beside the checkpoint and after it: the ledger does not wait for its witnesses.

        Raises:
            Unavailable: The store cannot be written.
        """
        self._blobs.replace(self._prefix + COSIGNED, note, durable=False)

    def hashes(self, tile: Tile) -> list[bytes] | None:
        """Read a tile's hashes, from the full tile where the partial one has made way for it."""
        data = self._read(tiles.path(tile))
        if data is None and tile.width < WIDTH:
            data = self._read(tiles.path(tile.full))
            data = None if data is None else data[: tile.width * HASH_SIZE]
        return None if data is None else tiles.decode_hashes(data, width=tile.width)

    def publish(self, old_size: int, new_size: int, content: Callable[[Tile], bytes], note: bytes) -> None:
        """Write what a ledger that has grown needs: bundles, tiles, then the checkpoint over them.

        A crash in between leaves tiles that no checkpoint speaks of; the next run writes the same ones.

        Args:
            old_size: Entries of the checkpoint that is published.
            new_size: Entries of this one.
            content: Makes the bytes of a tile or bundle.
            note: The signed checkpoint.

        Raises:
            LedgerUnavailable: A file is there with other bytes.
            Unavailable: The store cannot be written.
        """
        for tile in tiles.tiles(old_size, new_size):
            self._create(tile, content(tile))
        self._blobs.replace(self._prefix + CHECKPOINT, note, durable=False)

    def mend(self, size: int, content: Callable[[Tile], bytes], note: bytes) -> None:
        """Make the partial tiles of the right edge, and the checkpoint, what they must be: power loss may have torn them."""
        for tile in tiles.tiles(size - size % WIDTH, size):
            if tile.width == WIDTH:
                continue
            whole = content(tile)
            for width in {tile.width, *self._partials(tile)}:
                narrower = Tile(tile.level, tile.number, width)
                wanted = whole if width == tile.width else content(narrower)
                if width <= tile.width and self._read(tiles.path(narrower)) != wanted:
                    _LOG.warning("the ledger's file %s was not what it must be; it was made again", tiles.path(narrower))
                    self._blobs.replace(self._prefix + tiles.path(narrower), wanted)
        if self.checkpoint() != note:
            self._blobs.replace(self._prefix + CHECKPOINT, note)

    def tidy(self, old_size: int, new_size: int) -> None:
        """Delete the partial tiles that full ones have made obsolete. What stays behind is harmless, so no failure matters."""
        try:
            for tile in tiles.tiles(old_size, new_size):
                if tile.width == WIDTH:
                    for width in self._partials(tile):
                        self._blobs.delete(self._prefix + tiles.path(Tile(tile.level, tile.number, width)), durable=False)
        except ModelOrganismsError:
            _LOG.warning("the ledger's obsolete partial tiles could not be deleted", exc_info=True)

    def _partials(self, tile: Tile) -> list[int]:
        """List the widths of a tile's partial forms."""
        found = self._blobs.list(self._prefix + tiles.partial_prefix(tile).rstrip("/"))
        names = [path.rsplit("/", 1)[-1] for path in found]
        return [int(name) for name in names if name.isdecimal() and 0 < int(name) < WIDTH]

    def _create(self, tile: Tile, data: bytes) -> None:
        path = tiles.path(tile)
        try:
            self._blobs.put(self._prefix + path, data, create_only=True, durable=tile.width == WIDTH)
        except AlreadyExists as error:
            if self._read(path) != data:
                msg = f"The ledger's file {path} holds other bytes than the ledger; run `mo-registry fsck`, and keep it."
                raise LedgerUnavailable(msg) from error

    def _read(self, path: str) -> bytes | None:
        try:
            return bytes(self._blobs.get(self._prefix + path))
        except NotFound:
            return None
