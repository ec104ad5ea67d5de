"""An independent check of a ledger: everything is derived again from the entries, and held against what is stored and published.

It shares no code with the sequencer but the formats. A finding names the exact place.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from model_organisms.errors import ModelOrganismsError, NotFound
from model_organisms.formats import checkpoint, merkle, tiles
from model_organisms.formats import entry as entry_format
from model_organisms.formats.tiles import ENTRIES, HEIGHT, Tile
from sqlalchemy import func, select

from model_organisms_registry.ledger import schema
from model_organisms_registry.ledger.signer import read_head
from model_organisms_registry.ledger.tiles import PREFIX

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from model_organisms.formats.note import VerifierKey

    from model_organisms_registry.storage.blobs import Blobs
    from model_organisms_registry.storage.database import Connection


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not as it must be."""

    place: str
    what: str


def check_database(tx: Connection, key: VerifierKey, *, origin: str) -> tuple[list[bytes], list[Finding]]:
    """Check the entries and the head in the database.

    Returns:
        The entries under the head, and what is wrong.
    """
    found: list[Finding] = []
    head = tx.execute(select(schema.head)).one_or_none()
    if head is None:
        return [], [Finding("ledger_head", "there is no head; the registry was never started, or the row was removed")]
    stored = tx.execute(select(schema.entries.c.idx, schema.entries.c.body).order_by(schema.entries.c.idx)).all()
    for at, row in enumerate(stored):
        if row.idx != at:
            found.append(Finding(f"ledger_entries {at}", f"the next row has index {row.idx}"))
            break
        found += _entry(f"ledger_entries {at}", row.body)
    bodies = [row.body for row in stored][: head.size]
    if len(bodies) < head.size:
        found.append(Finding("ledger_entries", f"{len(bodies)} entries are there, the head covers {head.size}"))
    if merkle.root_of(merkle.leaf_hash(body) for body in bodies) != head.root:
        found.append(Finding("ledger_head", "the entries do not give its root: an entry or the root was changed"))
    try:
        signed = checkpoint.verified(head.note, key, origin=origin)
        if (signed.size, signed.root) != (head.size, head.root):
            found.append(Finding("ledger_head", "its row and its signed note differ"))
    except ModelOrganismsError as error:
        found.append(Finding("ledger_head", f"its note does not verify: {error.message}"))
    return bodies, found


def unsequenced(tx: Connection) -> int:
    """Entries that transactions have asked for and no head covers yet."""
    pending = tx.execute(select(func.count()).select_from(schema.pending)).scalar_one()
    size = tx.execute(select(schema.head.c.size)).scalar_one_or_none() or 0
    staged = tx.execute(select(func.count()).select_from(schema.entries).where(schema.entries.c.idx >= size)).scalar_one()
    return int(pending) + int(staged)


def check_published(
    blobs: Blobs, key: VerifierKey, *, origin: str, bodies: Sequence[bytes] | None = None, prefix: str = PREFIX
) -> tuple[int, list[Finding]]:
    """Check the published files, alone or against the entries of the database.

    Args:
        blobs: Where they are.
        key: The ledger's verifier key.
        origin: Its name.
        bodies: Entries of the database; where absent, the published bundles are taken at their word and held to the checkpoint.
        prefix: Where in the store they are.

    Returns:
        The size of the published checkpoint, and what is wrong.
    """
    try:
        head = checkpoint.verified(blobs.get(prefix + tiles.CHECKPOINT), key, origin=origin)
    except ModelOrganismsError as error:
        return 0, [Finding("checkpoint", f"it is missing or does not verify: {error.message}")]
    found: list[Finding] = []
    if bodies is None:
        bodies = list(_bundled(blobs, prefix, head.size, found))
    elif len(bodies) < head.size:
        return head.size, [Finding("checkpoint", f"it covers {head.size} entries, the database has {len(bodies)}")]
    covered = bodies[: head.size]
    levels = _levels(covered)
    if len(covered) != head.size or (levels[0] and merkle.root_of(levels[0]) != head.root):
        found.append(Finding("checkpoint", "the entries do not give its root"))
    for tile in tiles.tiles(0, head.size):
        expected = _expected(tile, covered, levels)
        found += _held_against(blobs, prefix, tile, expected)
    return head.size, found


def check_signer(path: Path, bodies: Sequence[bytes], *, origin: str) -> list[Finding]:
    """Check that the signer's own memory is of this history."""
    try:
        size, root, _ = read_head(path.read_bytes(), origin=origin)
    except (OSError, ModelOrganismsError) as error:
        return [Finding(path.name, f"the signer's memory cannot be read: {error}")]
    if size <= len(bodies) and merkle.root_of(merkle.leaf_hash(body) for body in bodies[:size]) != root:
        return [Finding(path.name, "the signer remembers another history: this ledger was forked or rolled back")]
    if size > len(bodies):
        return [Finding(path.name, f"the signer has signed {size} entries, {len(bodies)} are here: entries were removed")]
    return []


def _entry(place: str, body: bytes) -> list[Finding]:
    try:
        entry_format.parse(body)
    except ModelOrganismsError as error:
        return [Finding(place, f"it is not an entry: {error.message}")]
    return []


def _bundled(blobs: Blobs, prefix: str, size: int, found: list[Finding]) -> Iterator[bytes]:
    for tile in tiles.tiles(0, size):
        if tile.level != ENTRIES:
            return
        try:
            yield from tiles.decode_entries(blobs.get(prefix + tiles.path(tile)), width=tile.width)
        except ModelOrganismsError as error:
            found.append(Finding(tiles.path(tile), f"it cannot be read: {error.message}"))


def _levels(bodies: Sequence[bytes]) -> list[list[bytes]]:
    """Hashes by tile level: each is made of full runs of 256 of the level below."""
    levels = [[merkle.leaf_hash(body) for body in bodies]]
    while len(levels[-1]) >> HEIGHT:
        below = levels[-1]
        levels.append([merkle.root_of(below[at : at + 256]) for at in range(0, len(below) - 255, 256)])
    return levels


def _expected(tile: Tile, bodies: Sequence[bytes], levels: Sequence[Sequence[bytes]]) -> bytes:
    run = slice(tile.first, tile.first + tile.width)
    return tiles.encode_entries(bodies[run]) if tile.level == ENTRIES else tiles.encode_hashes(levels[tile.level][run])


def _held_against(blobs: Blobs, prefix: str, tile: Tile, expected: bytes) -> list[Finding]:
    try:
        data = blobs.get(prefix + tiles.path(tile))
    except NotFound:
        return [Finding(tiles.path(tile), "it is missing")]
    if data != expected:
        at = next((i for i, (a, b) in enumerate(zip(data, expected, strict=False)) if a != b), min(len(data), len(expected)))
        return [Finding(tiles.path(tile), f"it differs from the entries at byte {at}")]
    return []
