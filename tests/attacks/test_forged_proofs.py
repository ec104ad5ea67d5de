"""Merkle proofs bent at the sizes where trees change shape: nothing, one entry, powers of two, and one off each of them."""

import pytest
from model_organisms.errors import LedgerForked, ReceiptInvalid
from model_organisms.formats import merkle

SIZES = (1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 255, 256, 257)
ENTRIES = [f"entry {at}".encode() for at in range(max(SIZES) + 1)]
LEAVES = [merkle.leaf_hash(entry) for entry in ENTRIES]
FORGED = [*LEAVES[:1], merkle.leaf_hash(b"another history"), *LEAVES[2:]]
STRANGE = merkle.leaf_hash(b"never written")


def reader(leaves):
    return lambda level, at: merkle.root_of(leaves[at << level : (at + 1) << level])


def root(size, leaves=LEAVES):
    return merkle.root_of(leaves[:size])


def places(size):
    """First, last, and those beside the greatest power of two below: every turn a path can take."""
    edge = 1 << (size - 1).bit_length() - 1 if size > 1 else 0
    return sorted({0, size - 1, size // 2, edge, max(0, edge - 1)})


def beside(at, size):
    """The true sibling of a leaf, if it has one."""
    return LEAVES[at ^ 1] if at ^ 1 < size else STRANGE


def bent_inclusions(at, size):
    """Each attack, and what it claims in place of the truth."""
    leaf, proof = LEAVES[at], merkle.inclusion(at, size, reader(LEAVES))
    taller = max(2, size)  # a tree of one needs no nodes: there, no attack is in leaving them out
    return {
        "a-node-too-many-at-the-root": {"proof": (*proof, STRANGE)},
        "a-node-too-many-at-the-leaf": {"proof": (beside(at, size), *proof)},
        "the-root-as-its-own-proof": {"leaf": root(size), "proof": (), "size": taller},
        "no-nodes": {"proof": (), "size": taller},
        "a-node-missing-at-the-root": {"proof": proof[:-1], "size": taller},
        "a-node-missing-at-the-leaf": {"proof": proof[1:], "size": taller},
        "one-index-too-high": {"index": at + 1},
        "one-index-too-low": {"index": at - 1},
        "the-siblings-index": {"index": at ^ 1},
        "the-index-of-the-size": {"index": size},
        "an-index-that-wraps": {"index": at - 2**64},
        "no-tree-at-all": {"size": 0},
        "a-tree-beyond-63-bits": {"size": 2**63},
        "another-entry": {"leaf": STRANGE},
        "two-nodes-as-an-entry": {
            "leaf": merkle.leaf_hash(leaf + beside(at, size)),
            "proof": proof[1:],
            "index": at >> 1,
            "size": (size + 1) >> 1,
        },
        "a-node-hash-as-the-leaf-hash": {"leaf": merkle.node_hash(b"", ENTRIES[at])},
        "a-node-of-31-bytes": {"proof": (*proof[:-1], STRANGE[:31])},
        "two-nodes-in-one": {"proof": (*proof[:-1], STRANGE * 2)},
    }


@pytest.mark.parametrize("attack", bent_inclusions(0, 1))
@pytest.mark.parametrize("size", SIZES)
def test_an_inclusion_proof_is_refused_with(attack, size):
    for at in places(size):
        truth = {"leaf": LEAVES[at], "proof": merkle.inclusion(at, size, reader(LEAVES)), "index": at, "size": size}
        merkle.verify_inclusion(**truth, root=root(size))
        with pytest.raises(ReceiptInvalid):
            merkle.verify_inclusion(**truth | bent_inclusions(at, size)[attack], root=root(size))


@pytest.mark.parametrize("size", SIZES[2:])
def test_a_proof_in_the_wrong_direction_is_refused(size):
    for at in places(size):
        proof = merkle.inclusion(at, size, reader(LEAVES))
        backwards = [(proof[::-1], at)] if len(proof) > 1 else []
        mirrored = [(proof, size - 1 - at)] if size - 1 - at != at else []
        for nodes, index in backwards + mirrored:
            with pytest.raises(ReceiptInvalid):
                merkle.verify_inclusion(LEAVES[at], nodes, index=index, size=size, root=root(size))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("off", [-1, 1])
def test_a_proof_under_the_head_one_entry_off_is_refused(size, off):
    for at in places(size):
        proof = merkle.inclusion(at, size, reader(LEAVES))
        with pytest.raises(ReceiptInvalid):
            merkle.verify_inclusion(LEAVES[at], proof, index=at, size=size + off, root=root(size + off))


def test_nothing_is_proved_in_the_empty_tree():
    for index, size in ((0, 0), (-1, 0), (0, -1), (0, 1)):
        with pytest.raises(ReceiptInvalid):
            merkle.verify_inclusion(LEAVES[0], (), index=index, size=size, root=merkle.EMPTY_ROOT)


def bent_consistencies(old, new):
    """Each attack, and what it claims in place of the truth."""
    proof = merkle.consistency(old, new, reader(LEAVES))
    return {
        "a-node-too-many": {"proof": (*proof, STRANGE)},
        "a-node-too-many-in-front": {"proof": (root(old), *proof)},
        "a-node-of-33-bytes": {"proof": (*proof[:-1], STRANGE + b"!")},
        "the-heads-exchanged": {"old_size": new, "old_root": root(new), "new_size": old, "new_root": root(old)},
        "the-older-head-forged": {"old_root": STRANGE},
        "the-newer-head-forged": {"new_root": STRANGE},
        "the-newer-head-of-the-older-tree": {"new_root": root(old)},
        "the-older-head-of-the-newer-tree": {"old_root": root(new)},
        "the-older-size-one-too-low": {"old_size": old - 1},
        "the-newer-tree-emptied": {"new_size": 0, "new_root": merkle.EMPTY_ROOT},
        "the-older-tree-said-to-be-empty": {"old_size": 0},
        "a-newer-tree-beyond-63-bits": {"new_size": 2**63},
        "an-inclusion-proof": {"proof": (*merkle.inclusion(old - 1, new, reader(LEAVES)), STRANGE)},
        "no-nodes": {"proof": ()},
        "the-last-node-missing": {"proof": proof[:-1]},
        "the-first-node-missing": {"proof": proof[1:]},
        "the-nodes-backwards": {"proof": proof[::-1] if len(proof) > 1 else (STRANGE,)},
    }


@pytest.mark.parametrize("attack", bent_consistencies(1, 2))
@pytest.mark.parametrize("new", SIZES[1:])
def test_a_consistency_proof_is_refused_with(attack, new):
    for old in sorted({1, new // 2, new - 1, *(place for place in places(new) if place)}):
        truth = {"old_size": old, "old_root": root(old), "new_size": new, "new_root": root(new)}
        truth["proof"] = merkle.consistency(old, new, reader(LEAVES))
        merkle.verify_consistency(**truth)
        with pytest.raises(LedgerForked):
            merkle.verify_consistency(**truth | bent_consistencies(old, new)[attack])


@pytest.mark.parametrize("new", SIZES[2:])
def test_a_history_rewritten_and_proved_honestly_is_a_fork(new):
    for old in sorted({2, new // 2, new - 1} - {0, 1}):
        proof = merkle.consistency(old, new, reader(FORGED))
        heads = {"old_size": old, "new_size": new, "new_root": root(new, FORGED)}
        merkle.verify_consistency(proof, old_root=root(old, FORGED), **heads)
        with pytest.raises(LedgerForked):
            merkle.verify_consistency(proof, old_root=root(old), **heads)


@pytest.mark.parametrize("size", [0, *SIZES])
def test_two_heads_of_one_size_are_a_fork(size):
    with pytest.raises(LedgerForked):
        merkle.verify_consistency((), old_size=size, old_root=root(size), new_size=size, new_root=STRANGE)
    with pytest.raises(LedgerForked):
        merkle.verify_consistency((STRANGE,), old_size=size, old_root=root(size), new_size=size, new_root=root(size))
