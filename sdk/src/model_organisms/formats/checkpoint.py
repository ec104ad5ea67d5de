"""C2SP checkpoints: the signed head of the ledger, and the cosignatures of its witnesses; the tree itself is `merkle.py`.

    origin          name of the ledger
    size            decimal, no leading zeros
    root            base64 of the tree head
    [extension lines, not empty; never written here]

A witness's cosignature (type 0x04) signs "cosignature/v1", "time <t>" and the text above, and carries its time:
key id[4] || u64be(time) || Ed25519.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from model_organisms.errors import LedgerForked, SignatureInvalid
from model_organisms.formats import merkle
from model_organisms.formats.note import (
    COSIGNATURE,
    Note,
    SignatureLine,
    SigningKey,
    VerifierKey,
    decode64,
    encode64,
    parse,
    sign,
    verify,
)
from model_organisms.records import Checkpoint

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_DECIMAL = re.compile(r"0|[1-9][0-9]{0,18}", re.ASCII)
_TIME_SIZE = 8
_LINES = 3


def text(origin: str, size: int, root: bytes) -> str:
    """Print what a checkpoint says, as it is signed."""
    return f"{origin}\n{size}\n{encode64(root)}\n"


def signed(origin: str, size: int, root: bytes, key: SigningKey) -> Checkpoint:
    """Sign a tree head. Only the ledger's signer may call this: it must have checked consistency first."""
    return Checkpoint(origin, size, root, bytes(sign(text(origin, size, root), key)))


def parse_unverified(note: bytes) -> Checkpoint:
    """Read a checkpoint without believing it; signatures are for `verified`.

    Raises:
        SignatureInvalid: It is no checkpoint, to the letter of the specification.
    """
    return _read(parse(note), note)


def verified(note: bytes, key: VerifierKey, *, origin: str) -> Checkpoint:
    """Open a checkpoint of one ledger, signed by its key.

    1. The note verifies under `key`. 2. Its text is a checkpoint. 3. It is of the ledger `origin`.
    That it continues the checkpoints seen before is `consistent`; that it is fresh is for the caller.

    Raises:
        SignatureInvalid: One of the three does not hold.
    """
    checkpoint = _read(verify(note, key), note)
    if checkpoint.origin != origin:
        raise SignatureInvalid(f"This is a checkpoint of {checkpoint.origin[:80]!r}, not of {origin!r}; check the address.")
    return checkpoint


def consistent(old: Checkpoint, new: Checkpoint, proof: Sequence[bytes]) -> None:
    """Check that a newer checkpoint continues an older one; both were opened by `verified`.

    Raises:
        LedgerForked: They are of two ledgers, or of two histories, or the proof does not show that they are of one.
    """
    if old.origin != new.origin:
        raise LedgerForked(f"The checkpoints are of two ledgers, {old.origin[:80]!r} and {new.origin[:80]!r}.")
    merkle.verify_consistency(proof, old_size=old.size, old_root=old.root, new_size=new.size, new_root=new.root)


def cosigned(note: bytes, witness: SigningKey, *, time: int) -> bytes:
    """Add a witness's cosignature. The witness must have verified the note and its consistency first.

    Args:
        note: A signed checkpoint.
        witness: Key of type 0x04.
        time: Seconds since 1970.

    Returns:
        The note with one more signature line.
    """
    parsed = parse(note)
    return bytes(Note(parsed.text, (*parsed.lines, cosignature(note, witness, time=time))))


def cosignature(note: bytes, witness: SigningKey, *, time: int) -> SignatureLine:
    """Make a witness's cosignature by itself; the same rules and arguments as for `cosigned`."""
    parsed = parse(note)
    _read(parsed, note)
    signature = time.to_bytes(_TIME_SIZE, "big") + witness.sign(_cosigned_text(time, parsed.text))
    return SignatureLine(witness.name, witness.verifier.key_id, signature)


def cosigned_at(line: SignatureLine) -> int:
    """Read the time in a cosignature that `cosignatures` verified."""
    return int.from_bytes(line.signature[:_TIME_SIZE], "big")


def cosignatures(note: bytes, witnesses: Iterable[VerifierKey]) -> dict[str, int]:
    """Verify the cosignatures of known witnesses; how many of them are enough is for the caller's policy.

    Returns:
        Witness name to the time it cosigned, newest if it did twice; witnesses that did not are absent.

    Raises:
        SignatureInvalid: A known witness's cosignature fails, so the whole note is refused.
    """
    parsed = parse(note)
    _read(parsed, note)
    times: dict[str, int] = {}
    for key in witnesses:
        for line in parsed.by(key):
            time = cosigned_at(line)
            message = _cosigned_text(time, parsed.text)
            if key.kind != COSIGNATURE or time >= 1 << 63 or not key.verifies(message, line.signature[_TIME_SIZE:]):
                raise SignatureInvalid(f"The cosignature of {key.name} does not verify; do not rely on this checkpoint.")
            times[key.name] = max(time, times.get(key.name, 0))
    return times


def _cosigned_text(time: int, body: str) -> bytes:
    return f"cosignature/v1\ntime {time}\n{body}".encode()


def _read(note: Note, data: bytes) -> Checkpoint:
    lines = note.text.split("\n")[:-1]
    if len(lines) < _LINES or "" in lines:
        raise SignatureInvalid("This note is no checkpoint: it needs an origin, a size and a root, and no empty line.")
    origin, size, root64 = lines[:_LINES]
    try:
        root = decode64(root64)
    except ValueError:
        root = b""
    if not _DECIMAL.fullmatch(size) or int(size) > merkle.MAX_SIZE or len(root) != merkle.HASH_SIZE:
        raise SignatureInvalid(f"This note is no checkpoint: size {size[:24]!r}, root {root64[:48]!r}.")
    if int(size) == 0 and root != merkle.EMPTY_ROOT:
        raise SignatureInvalid("This checkpoint of no entries names another root than the empty tree's.")
    return Checkpoint(origin, int(size), root, data)
