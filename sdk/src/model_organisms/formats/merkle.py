"""RFC 6962 and RFC 9162 Merkle trees over SHA-256: heads and proofs, made and checked; no files, no signatures here.

A tree is read through one function, `hash_at(level, index)`: the hash of the complete subtree over the entries
`[index << level, (index + 1) << level)`. Who can answer that (tiles, a list, a test) can make every proof in O(log n) reads.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from model_organisms.errors import InvalidArgument, LedgerForked, ReceiptInvalid

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    HashAt = Callable[[int, int], bytes]

HASH_SIZE = 32
MAX_SIZE = 2**63 - 1
"""Largest tree that the readers of other people agree on (a signed 64-bit size)."""

EMPTY_ROOT = hashlib.sha256(b"").digest()


def leaf_hash(entry: bytes) -> bytes:
    """Hash an entry as a leaf (RFC 6962, 2.1)."""
    return hashlib.sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Hash two subtrees into their parent (RFC 6962, 2.1)."""
    return hashlib.sha256(b"\x01" + left + right).digest()


class Frontier:
    """The tree head of leaf hashes that come one by one, in a few hashes of memory however many they are."""

    def __init__(self) -> None:
        """Begin with the empty tree."""
        self.size = 0
        self._peaks: list[tuple[int, bytes]] = []

    def append(self, leaf: bytes) -> None:
        """Add a leaf hash (of `leaf_hash`)."""
        level, node = 0, leaf
        while self._peaks and self._peaks[-1][0] == level:
            node = node_hash(self._peaks.pop()[1], node)
            level += 1
        self._peaks.append((level, node))
        self.size += 1

    def root(self) -> bytes:
        """Compute the head of all that came so far."""
        if not self._peaks:
            return EMPTY_ROOT
        node = self._peaks[-1][1]
        for _, peak in reversed(self._peaks[:-1]):
            node = node_hash(peak, node)
        return node


def root_of(leaves: Iterable[bytes]) -> bytes:
    """Compute the tree head over leaf hashes, read once from left to right.

    Args:
        leaves: Leaf hashes (of `leaf_hash`), not entries.

    Returns:
        The root; that of the empty tree if there are none.
    """
    frontier = Frontier()
    for leaf in leaves:
        frontier.append(leaf)
    return frontier.root()


def root(size: int, hash_at: HashAt) -> bytes:
    """Compute the tree head of the first `size` entries from complete subtrees."""
    return _span(0, size, hash_at) if size else EMPTY_ROOT


def inclusion(index: int, size: int, hash_at: HashAt) -> tuple[bytes, ...]:
    """Prove that entry `index` is in the tree of `size` entries (RFC 6962, 2.1.1).

    Args:
        index: Zero-based position of the entry.
        size: Entries of the tree that the proof leads to.
        hash_at: Reader of complete subtrees.

    Returns:
        Sibling hashes from the leaf up to the root.

    Raises:
        InvalidArgument: There is no such entry in that tree.
    """
    if not 0 <= index < size:
        raise InvalidArgument(f"A tree of {size} entries has none at {index}; ask for one below its size.")
    path = []
    level, here, last = 0, index, size - 1
    while last:
        sibling = here ^ 1
        if sibling < last:
            path.append(hash_at(level, sibling))
        elif sibling == last:
            path.append(_span(sibling << level, size, hash_at))
        level, here, last = level + 1, here >> 1, last >> 1
    return tuple(path)


def consistency(old: int, new: int, hash_at: HashAt) -> tuple[bytes, ...]:
    """Prove that the tree of `old` entries is a prefix of that of `new` (RFC 6962, 2.1.2).

    Returns:
        The proof; empty where nothing needs proving (`old` is 0 or equals `new`).

    Raises:
        InvalidArgument: The sizes are not in order.
    """
    if not 0 <= old <= new:
        raise InvalidArgument(f"There is no proof from {old} to {new} entries; give the smaller size first.")
    if old in {0, new}:
        return ()
    path = []
    low, high, whole = 0, new, True
    while old != high - low:
        left = 1 << (high - low - 1).bit_length() - 1
        if old <= left:
            path.append(_span(low + left, high, hash_at))
            high = low + left
        else:
            path.append(_span(low, low + left, hash_at))
            low, old, whole = low + left, old - left, False
    if not whole:
        path.append(_span(low, high, hash_at))
    return tuple(reversed(path))


def verify_inclusion(leaf: bytes, proof: Sequence[bytes], *, index: int, size: int, root: bytes) -> None:
    """Check an inclusion proof (RFC 9162, 2.1.3.2). That `root` is the ledger's is for the caller to check.

    Args:
        leaf: Leaf hash of the entry, computed by the caller from the entry's own bytes.
        proof: Sibling hashes from the leaf up.
        index: Claimed position.
        size: Size of the tree with this root.
        root: Tree head.

    Raises:
        ReceiptInvalid: The proof does not lead from this leaf to this root, or is longer or shorter than it must be.
    """
    if not 0 <= index < size <= MAX_SIZE:
        raise ReceiptInvalid(f"The proof speaks of entry {index} in a tree of {size}; fetch the receipt again.")
    if any(len(node) != HASH_SIZE for node in (leaf, root, *proof)):
        raise ReceiptInvalid("A hash of the proof is not 32 bytes; fetch the receipt again.")
    here, last, node = index, size - 1, leaf
    for sibling in proof:
        if last == 0:
            raise ReceiptInvalid("The proof is longer than its tree is high; fetch the receipt again.")
        if here & 1 or here == last:
            node = node_hash(sibling, node)
            while here and not here & 1:
                here, last = here >> 1, last >> 1
        else:
            node = node_hash(node, sibling)
        here, last = here >> 1, last >> 1
    if last or node != root:
        raise ReceiptInvalid("The proof does not lead from the entry to the checkpoint; do not rely on it, and tell an auditor.")


def root_before(proof: Sequence[bytes], *, index: int, size: int) -> bytes:
    """Read the tree head of the entries before `index` off the inclusion proof of the entry at `index`.

    The proof's left siblings are the complete subtrees of those entries, smallest first. It must have passed `verify_inclusion`.
    """
    here, last, node = index, size - 1, b""
    for sibling in proof:
        if here & 1 or here == last:
            node = node_hash(sibling, node) if node else sibling
            while here and not here & 1:
                here, last = here >> 1, last >> 1
        here, last = here >> 1, last >> 1
    return node or EMPTY_ROOT


def verify_consistency(proof: Sequence[bytes], *, old_size: int, old_root: bytes, new_size: int, new_root: bytes) -> None:
    """Check that one tree is a prefix of another (RFC 9162, 2.1.4.2). That both heads were signed is for the caller to check.

    Args:
        proof: Hashes of `consistency`.
        old_size: Entries of the older tree.
        old_root: Its head.
        new_size: Entries of the newer tree.
        new_root: Its head.

    Raises:
        LedgerForked: The newer tree does not continue the older one, or the proof does not show it.
    """
    if not 0 <= old_size <= new_size <= MAX_SIZE:
        msg = f"The ledger went back from {old_size} to {new_size} entries; keep both checkpoints as evidence."
        raise LedgerForked(msg, kind="rollback")
    if any(len(node) != HASH_SIZE for node in (old_root, new_root, *proof)):
        raise LedgerForked("A hash of the consistency proof is not 32 bytes; ask for it again.")
    if (old_size == 0 and old_root != EMPTY_ROOT) or (new_size == 0 and new_root != EMPTY_ROOT):
        raise LedgerForked("A checkpoint of no entries names another root than the empty tree's; keep it as evidence.")
    if old_size in {0, new_size}:
        if proof or (old_size == new_size and old_root != new_root):
            raise LedgerForked(f"Two histories of {new_size} entries are shown; keep both checkpoints as evidence.")
        return
    if _replayed(proof, old_size, old_root, new_size) != (old_root, new_root):
        raise LedgerForked(
            f"The ledger of {new_size} entries does not continue the one of {old_size}; keep both checkpoints as evidence."
        )


def _replayed(proof: Sequence[bytes], old_size: int, old_root: bytes, new_size: int) -> tuple[bytes, bytes] | None:
    """Compute both heads from the proof, or nothing if its length is wrong."""
    path = list(proof)
    if old_size & (old_size - 1) == 0:
        path.insert(0, old_root)
    if not path:
        return None
    here, last = old_size - 1, new_size - 1
    while here & 1:
        here, last = here >> 1, last >> 1
    old = new = path[0]
    for node in path[1:]:
        if last == 0:
            return None
        if here & 1 or here == last:
            old, new = node_hash(node, old), node_hash(node, new)
            while here and not here & 1:
                here, last = here >> 1, last >> 1
        else:
            new = node_hash(new, node)
        here, last = here >> 1, last >> 1
    return None if last else (old, new)


def _span(low: int, high: int, hash_at: HashAt) -> bytes:
    """Hash the entries `[low, high)` as one subtree; `low` is a multiple of the largest power of two that fits."""
    peaks = []
    while low < high:
        level = (high - low).bit_length() - 1
        peaks.append(hash_at(level, low >> level))
        low += 1 << level
    node = peaks.pop()
    while peaks:
        node = node_hash(peaks.pop(), node)
    return node
