"""Paths and contents of the ledger's files: vectors, round trips, and every wrong way to write them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from model_organisms.errors import InvalidArgument, VerificationFailed
from model_organisms.formats import merkle, tiles
from model_organisms.formats.tiles import ENTRIES, WIDTH, Tile

VECTORS = json.loads((Path(__file__).parents[1] / "vectors/ledger/notes.json").read_text())


@pytest.mark.parametrize("row", VECTORS["paths"], ids=lambda row: row["path"])
def test_paths_are_those_of_other_programs(row):
    tile = Tile(row["level"], row["number"], row["width"])
    assert tiles.path(tile) == row["path"]
    assert tiles.parse_path(row["path"]) == tile


@given(st.builds(Tile, st.integers(ENTRIES, tiles.MAX_LEVEL), st.integers(0, 10**15), st.integers(1, WIDTH)))
def test_a_path_reads_back(tile):
    assert tiles.parse_path(tiles.path(tile)) == tile
    assert tiles.path(tile).startswith((tiles.path(tile.full), tiles.partial_prefix(tile)))


@pytest.mark.parametrize(
    "path",
    [
        "",
        "tile",
        "checkpoint",
        "tile/0/0",
        "tile/0/0000",
        "tile/00/000",
        "tile/64/000",
        "tile/-1/000",
        "tile/data/000",
        "tile/0/x000/001",
        "tile/0/001/002",
        "tile/0/x001/x002",
        "tile/0/000.p/0",
        "tile/0/000.p/01",
        "tile/0/000.p/256",
        "tile/0/000.p/999",
        "tile/0/000.p/",
        "tile/0/000/../001",
        "/tile/0/000",
        "tile/0/000\n",
        "tile/0/\u0660\u0660\u0661",
    ],
)
def test_a_path_has_one_spelling(path):
    with pytest.raises(InvalidArgument):
        tiles.parse_path(path)


def test_the_files_of_a_ledger_are_those_of_another_program():
    entries = [f"entry {at}".encode() for at in range(300)]
    leaves = [merkle.leaf_hash(entry) for entry in entries]
    written = {}
    for tile in tiles.tiles(0, 300):
        part = slice(tile.first, tile.first + tile.width)
        if tile.level == ENTRIES:
            data = tiles.encode_entries(entries[part])
        elif tile.level == 0:
            data = tiles.encode_hashes(leaves[part])
        else:
            data = tiles.encode_hashes([merkle.root_of(leaves[:WIDTH])])
        written[tiles.path(tile)] = hashlib.sha256(data).hexdigest()
    assert written == VECTORS["files"]


@given(st.integers(0, 200_000), st.integers(0, 70_000))
def test_what_is_written_in_steps_is_what_is_written_at_once(old, more):
    """Later steps only add tiles or widen the last of a level; together they are all there is."""
    new = old + more
    at_once = {(tile.level, tile.number): tile.width for tile in tiles.tiles(0, new)}
    steps = {(tile.level, tile.number): tile.width for tile in tiles.tiles(0, old)}
    for tile in tiles.tiles(old, new):
        assert steps.get((tile.level, tile.number), 0) < tile.width
        steps[tile.level, tile.number] = tile.width
    assert steps == at_once
    for level in {level for level, _ in at_once}:
        hashes = new >> 8 * max(level, 0)
        assert sum(width for (of, _), width in at_once.items() if of == level) == hashes


@given(st.lists(st.binary(max_size=300), max_size=WIDTH))
def test_a_bundle_reads_back(entries):
    data = tiles.encode_entries(entries)
    assert tiles.decode_entries(data, width=len(entries)) == entries
    for damaged in (data[:-1], data + b"\x00", data + b"\x00\x00", data + b"\xff\xffshort"):
        if damaged != data:
            with pytest.raises(VerificationFailed):
                tiles.decode_entries(damaged, width=len(entries))
    for width in {len(entries) - 1, len(entries) + 1}:
        with pytest.raises(VerificationFailed):
            tiles.decode_entries(data, width=width)


@given(st.binary(max_size=2000), st.integers(1, WIDTH))
def test_whatever_bytes_come_a_bundle_is_whole_or_refused(data, width):
    try:
        entries = tiles.decode_entries(data, width=width)
    except VerificationFailed:
        return
    assert tiles.encode_entries(entries) == data


def test_an_entry_fits_sixteen_bits():
    longest = b"x" * tiles.MAX_ENTRY_SIZE
    assert tiles.decode_entries(tiles.encode_entries([longest]), width=1) == [longest]
    with pytest.raises(InvalidArgument):
        tiles.encode_entries([longest + b"x"])


@given(st.lists(st.binary(min_size=32, max_size=32), min_size=1, max_size=WIDTH))
def test_a_tile_reads_back(hashes):
    data = tiles.encode_hashes(hashes)
    assert tiles.decode_hashes(data, width=len(hashes)) == hashes
    for damaged, width in ((data + b"\x00", len(hashes)), (data[1:], len(hashes)), (data, len(hashes) + 1)):
        with pytest.raises(VerificationFailed):
            tiles.decode_hashes(damaged, width=width)
