"""A ledger read from its public files (C2SP tlog-tiles), in a folder or over HTTP: no account, nothing but a verifier key.

Whoever serves the files is not believed: what is read counts once it gives the root of a head that the key signed.
"""

from __future__ import annotations

import http.client
import ssl
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Self
from urllib.parse import urlsplit

from model_organisms.errors import ConfigurationInvalid, LedgerForked, RegistryUnreachable, VerificationFailed
from model_organisms.formats import checkpoint as checkpoints
from model_organisms.formats import merkle, note, tiles
from model_organisms.formats.tiles import CHECKPOINT, COSIGNED, ENTRIES, WIDTH, Tile

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import TracebackType

    from model_organisms.records import Checkpoint

_LIMITS = {CHECKPOINT: note.MAX_NOTE_SIZE, COSIGNED: note.MAX_NOTE_SIZE}
_MOST = WIDTH * (2 + tiles.MAX_ENTRY_SIZE)
"""Bytes of the largest bundle."""


@dataclass(frozen=True, slots=True)
class Verified:
    """What a verification has read."""

    head: Checkpoint
    entries: int
    """Entries whose own bytes were there; 0 where only hashes are public."""
    tiles: int


class Published:
    """The public files of one ledger.

    Args:
        source: A folder, or an address that begins with http:// or https://.
        vkey: The ledger's verifier key, from somewhere else than the files.
        origin: Name of the ledger; by default that of its key.
        timeout_s: Longest wait for one file, in seconds.

    Raises:
        ConfigurationInvalid: No folder, no address, or no verifier key.
    """

    def __init__(self, source: str, vkey: str, *, origin: str = "", timeout_s: float = 30.0) -> None:
        """Read nothing yet."""
        self.key = note.parse_vkey(vkey)
        self.origin = origin or self.key.name
        self._source = _Site(source, timeout_s) if "://" in source else _Folder(source)
        self._read = self._source.read

    def close(self) -> None:
        """Hang up."""
        self._source.close()

    def __enter__(self) -> Self:
        """Use it."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Hang up."""
        self.close()

    def checkpoint(self) -> Checkpoint:
        """Read the newest head, signed by the ledger's key. That it continues an older one is for the caller to check.

        Raises:
            SignatureInvalid: It is not.
            VerificationFailed: There is none.
        """
        data = self._read(CHECKPOINT)
        if data is None:
            raise VerificationFailed("There is no checkpoint among the files; name the folder or address that holds it.")
        return checkpoints.verified(data, self.key, origin=self.origin)

    def cosigned(self) -> bytes:
        """Read the newest checkpoint that witnesses have cosigned; empty where there is none."""
        return self._read(COSIGNED) or b""

    def leaves(self, start: int, end: int) -> Iterator[tuple[bytes, bytes]]:
        """Read leaves in order, believing nothing: they count once their root is that of a signed head.

        Args:
            start: First index.
            end: Index after the last; no more than the size of a published head.

        Yields:
            Leaf hash, and the entry's bytes, which give that hash; these are empty where entries are not public.

        Raises:
            VerificationFailed: A file is missing or cut, or an entry does not give its hash.
        """
        for number in range(start // WIDTH, -(-end // WIDTH)):
            width = min(WIDTH, end - number * WIDTH)
            hashes = self._hashes(Tile(0, number, width))
            bundle = self._tile(Tile(ENTRIES, number, width))
            entries = self._entries(bundle, width) if bundle is not None else [b""] * width
            for at in range(max(0, start - number * WIDTH), width):
                if entries[at] and merkle.leaf_hash(entries[at]) != hashes[at]:
                    raise LedgerForked(f"Entry {number * WIDTH + at} is not the one the ledger signed; keep the files and tell.")
                yield hashes[at], entries[at]

    def verify(self) -> Verified:
        """Hold every file against the signed head: nothing was changed, left out or added.

        Raises:
            LedgerForked: The files do not give the head.
            VerificationFailed: A file is missing, cut, or not signed by the ledger's key.
        """
        head = self.checkpoint()
        leaves: list[bytes] = []
        entries = 0
        for leaf, entry in self.leaves(0, head.size):
            leaves.append(leaf)
            entries += bool(entry)
        if merkle.root_of(leaves) != head.root:
            raise LedgerForked(f"The files do not give the signed head of {head.size} entries; keep them and tell.")
        if entries not in {0, head.size}:
            raise VerificationFailed(f"Of {head.size} entries {head.size - entries} are missing from the files; get them all.")
        return Verified(head, entries, self._upper(leaves, head.size))

    def _upper(self, below: Sequence[bytes], size: int) -> int:
        """Check the tiles above the leaves, which are there for those who read only some; how many tiles there are."""
        count, level = 0, 0
        for tile in tiles.tiles(0, size):
            count += tile.level != ENTRIES
            if tile.level <= 0:
                continue
            if tile.level > level:
                level = tile.level
                below = [merkle.root_of(below[at : at + WIDTH]) for at in range(0, len(below) - WIDTH + 1, WIDTH)]
            if self._hashes(tile) != list(below[tile.first : tile.first + tile.width]):
                raise LedgerForked(f"{tiles.path(tile)} is not what the leaves give; keep the files and tell.")
        return count

    def _hashes(self, tile: Tile) -> list[bytes]:
        data = self._tile(tile)
        if data is None:
            raise VerificationFailed(f"{tiles.path(tile)} is missing from the files; get them all.")
        return tiles.decode_hashes(data[: tile.width * merkle.HASH_SIZE], width=tile.width)

    def _tile(self, tile: Tile) -> bytes | None:
        """Read a tile; a narrow one may have made way for the full one."""
        data = self._read(tiles.path(tile))
        return self._read(tiles.path(tile.full)) if data is None and tile.width < WIDTH else data

    @staticmethod
    def _entries(bundle: bytes, width: int) -> list[bytes]:
        """Read a bundle, of which only the first entries may be under the head."""
        entries: list[bytes] = []
        at = 0
        while at < len(bundle) and len(entries) < width:
            end = at + 2 + int.from_bytes(bundle[at : at + 2], "big")
            entries.append(bundle[at + 2 : end])
            at = end
        if len(entries) < width or at > len(bundle):
            raise VerificationFailed(f"A bundle does not hold {width} whole entries; get it again.")
        return entries


class _Folder:
    def __init__(self, source: str) -> None:
        self._root = Path(source)
        if not self._root.is_dir():
            raise ConfigurationInvalid(f"There is no folder {source}; name one, or an address that begins with https://.")

    def close(self) -> None:
        pass

    def read(self, path: str) -> bytes | None:
        try:
            with (self._root / path).open("rb") as file:
                return _bounded(file.read(_LIMITS.get(path, _MOST) + 1), path)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return None
        except OSError as error:
            raise RegistryUnreachable(f"{self._root / path} cannot be read ({error.strerror}).") from error


class _Site:
    """Reads over HTTP, by one connection that is opened anew where it was closed. Redirects are not followed."""

    def __init__(self, source: str, timeout_s: float) -> None:
        parts = urlsplit(source)
        if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment:
            raise ConfigurationInvalid(
                f"'{source}' is no address of a ledger's files; write https://registry.example.org/ledger."
            )
        self._source, self._prefix = source.rstrip("/"), parts.path.rstrip("/")
        self._connection = (
            http.client.HTTPSConnection(parts.hostname, parts.port, timeout=timeout_s, context=ssl.create_default_context())
            if parts.scheme == "https"
            else http.client.HTTPConnection(parts.hostname, parts.port, timeout=timeout_s)
        )

    def close(self) -> None:
        self._connection.close()

    def read(self, path: str) -> bytes | None:
        for again in (True, False):
            try:
                self._connection.request("GET", f"{self._prefix}/{path}")
                response = self._connection.getresponse()
                data = response.read(_LIMITS.get(path, _MOST) + 1)
                break
            except (OSError, http.client.HTTPException) as error:
                self._connection.close()
                if not again:
                    msg = f"{self._source}/{path} cannot be read ({type(error).__name__}); check the address."
                    raise RegistryUnreachable(msg) from error
        if response.status == HTTPStatus.NOT_FOUND:
            return None
        if response.status != HTTPStatus.OK:
            raise RegistryUnreachable(f"{self._source}/{path} cannot be read (HTTP {response.status}); check the address.")
        return _bounded(data, path)


def _bounded(data: bytes, path: str) -> bytes:
    if len(data) > _LIMITS.get(path, _MOST):
        raise VerificationFailed(f"{path} is larger than any such file; it is not a ledger's.")
    return data
