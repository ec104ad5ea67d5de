"""Reads our ledger with aics-tlog, in an environment of its own (made by setup.py); it imports nothing of ours.

python read_with_aics.py folder DIR VKEY ORIGIN [WITNESS_VKEY]
python read_with_aics.py receipt FILE VKEY ORIGIN
python read_with_aics.py consistent DIR VKEY ORIGIN OLDSIZE OLDROOT HASH...
"""

from __future__ import annotations

import base64
import sys
from pathlib import Path

from aics_tlog import (
    FileSystemTileReader,
    audit_tiles,
    parse_note,
    parse_vkey,
    read_entry,
    verify_checkpoint,
    verify_consistency,
    verify_leaf_inclusion,
)


def head(data, vkey, origin, witnesses=()):
    keys = [parse_vkey(witness) for witness in witnesses]
    result = verify_checkpoint(parse_note(data), parse_vkey(vkey), keys, len(keys), expected_origin=origin)
    if not result.ok:
        raise ValueError(result.error)
    return result.size, result.root


def folder(path, vkey, origin, *witnesses):
    size, root = head((Path(path) / "checkpoint").read_bytes(), vkey, origin, witnesses)
    reader = FileSystemTileReader(path)
    report = audit_tiles(reader, size, root)
    last = read_entry(reader, size - 1, size) if size else b""
    return f"{report.size} {report.tiles} {report.bundles} {len(last)}"


def receipt(path, vkey, origin):
    top, _, note = Path(path).read_bytes().partition(b"\n\n")
    header, extra, index, *proof = top.decode("ascii").split("\n")
    if header != "c2sp.org/tlog-proof@v1":
        raise ValueError(header)
    size, root = head(note, vkey, origin)
    entry = base64.b64decode(extra.removeprefix("extra "), validate=True)
    hashes = [base64.b64decode(line, validate=True) for line in proof]
    if not verify_leaf_inclusion(entry, int(index.removeprefix("index ")), size, hashes, root):
        raise ValueError("the proof does not lead to the checkpoint")
    return index


def consistent(path, vkey, origin, old_size, old_root, *proof):
    size, root = head((Path(path) / "checkpoint").read_bytes(), vkey, origin)
    hashes = [base64.b64decode(line, validate=True) for line in proof]
    if not verify_consistency(int(old_size), size, base64.b64decode(old_root), root, hashes):
        raise ValueError("the heads are of two histories")
    return size


if __name__ == "__main__":
    command, *rest = sys.argv[1:]
    try:
        done = {"folder": folder, "receipt": receipt, "consistent": consistent}[command](*rest)
    except (ValueError, OSError) as error:
        sys.exit(f"refused: {error}")
    print("ok", done)
