"""Merkle trees against the definitions of RFC 6962 written out, against Go's vectors, and against forgery."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from model_organisms.errors import InvalidArgument, LedgerForked, ReceiptInvalid
from model_organisms.formats import merkle

VECTORS = json.loads((Path(__file__).parents[1] / "vectors/ledger/merkle.json").read_text())
LEAVES = [merkle.leaf_hash(str(at).encode()) for at in range(700)]


def defined_root(leaves):
    """MTH of RFC 6962, 2.1, word for word."""
    if not leaves:
        return merkle.EMPTY_ROOT
    if len(leaves) == 1:
        return leaves[0]
    half = 1 << (len(leaves) - 1).bit_length() - 1
    return merkle.node_hash(defined_root(leaves[:half]), defined_root(leaves[half:]))


def reader(leaves):
    """Answer for complete subtrees of these leaves, and for nothing else."""

    def hash_at(level, index):
        span = leaves[index << level : (index + 1) << level]
        assert len(span) == 1 << level, "asked for a subtree that is not complete"
        return merkle.root_of(span)

    return hash_at


def decoded(proof):
    return tuple(base64.b64decode(node) for node in proof)


def flipped(node, bit=0):
    return bytes([node[0] ^ 1 << bit % 8]) + node[1:]


def test_constants_of_the_rfc():
    assert merkle.EMPTY_ROOT.hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert merkle.leaf_hash(b"").hex() == "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"
    two = merkle.root_of([merkle.leaf_hash(b""), merkle.leaf_hash(b"\x00")])
    assert two.hex() == "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"


def test_heads_and_proofs_are_those_of_go():
    for row in VECTORS["heads"]:
        root = base64.b64decode(row["root"])
        assert root == merkle.root_of(LEAVES[: row["size"]]) == merkle.root(row["size"], reader(LEAVES))
    for row in VECTORS["inclusion"]:
        assert merkle.inclusion(row["index"], row["size"], reader(LEAVES)) == decoded(row["proof"])
    for row in VECTORS["consistency"]:
        assert merkle.consistency(row["old"], row["size"], reader(LEAVES)) == decoded(row["proof"])
    assert min(map(len, (VECTORS["heads"], VECTORS["inclusion"], VECTORS["consistency"]))) >= 13


@given(st.integers(0, 700))
def test_both_ways_to_a_root_are_the_definition(size):
    assert merkle.root_of(iter(LEAVES[:size])) == merkle.root(size, reader(LEAVES)) == defined_root(LEAVES[:size])


@given(st.integers(1, 700), st.data())
def test_an_inclusion_proof_verifies_and_no_other_claim_does(size, data):
    index = data.draw(st.integers(0, size - 1))
    proof = merkle.inclusion(index, size, reader(LEAVES))
    root = merkle.root(size, reader(LEAVES))
    merkle.verify_inclusion(LEAVES[index], proof, index=index, size=size, root=root)
    assert merkle.root_before(proof, index=index, size=size) == merkle.root(index, reader(LEAVES))

    at = data.draw(st.integers(0, len(proof)))
    lies = [
        {"leaf": flipped(LEAVES[index])},
        {"root": flipped(root)},
        {"proof": (*proof, root)},
        {"proof": (*proof[:at], LEAVES[0], *proof[at:])},
        {"index": size},
        {"index": -1},
        {"size": 0},
        {"proof": (*proof, b"short")},
    ]
    if proof:
        at = data.draw(st.integers(0, len(proof) - 1))
        lies += [{"proof": proof[:at] + proof[at + 1 :]}, {"proof": (*proof[:at], flipped(proof[at]), *proof[at + 1 :])}]
        lies += [{"index": index ^ 1 << data.draw(st.integers(0, len(proof) - 1))}]
    for lie in lies:
        claim = {"leaf": LEAVES[index], "proof": proof, "index": index, "size": size, "root": root} | lie
        with pytest.raises(ReceiptInvalid):
            merkle.verify_inclusion(claim.pop("leaf"), claim.pop("proof"), **claim)


@given(st.integers(0, 700), st.data())
def test_a_consistency_proof_verifies_and_no_other_history_does(new, data):
    old = data.draw(st.integers(0, new))
    proof = merkle.consistency(old, new, reader(LEAVES))
    heads = {
        "old_size": old,
        "new_size": new,
        "old_root": defined_root(LEAVES[:old]),
        "new_root": defined_root(LEAVES[:new]),
    }
    merkle.verify_consistency(proof, **heads)

    lies = [{"new_size": old - 1}, {"old_size": -1}]
    lies += [{"old_root": flipped(heads["old_root"])}]
    lies += [{"new_root": flipped(heads["new_root"])}] if old else []
    for lie in lies:
        with pytest.raises(LedgerForked):
            merkle.verify_consistency(proof, **heads | lie)
    changed = [(*proof, LEAVES[0]), (*proof, b"")]
    for at in range(len(proof)):
        changed += [proof[:at] + proof[at + 1 :], (*proof[:at], flipped(proof[at], at), *proof[at + 1 :])]
    for other in changed:
        with pytest.raises(LedgerForked):
            merkle.verify_consistency(other, **heads)


@given(st.integers(2, 300), st.data())
def test_a_rewritten_entry_leaves_no_proof(new, data):
    old = data.draw(st.integers(1, new - 1))
    rewritten = LEAVES[:new]
    at = data.draw(st.integers(0, old - 1))
    rewritten[at] = flipped(rewritten[at])
    with pytest.raises(LedgerForked):
        merkle.verify_consistency(
            merkle.consistency(old, new, reader(rewritten)),
            old_size=old,
            old_root=defined_root(LEAVES[:old]),
            new_size=new,
            new_root=defined_root(rewritten),
        )


@pytest.mark.parametrize("claim", [(0, 0), (5, 5), (-1, 5)])
def test_no_proof_is_made_of_what_is_not_there(claim):
    with pytest.raises(InvalidArgument):
        merkle.inclusion(*claim, reader(LEAVES))


@pytest.mark.parametrize("sizes", [(6, 5), (-1, 5)])
def test_no_proof_is_made_backwards(sizes):
    with pytest.raises(InvalidArgument):
        merkle.consistency(*sizes, reader(LEAVES))


@given(st.integers(1, 2**40), st.data())
def test_proofs_cost_the_height_of_the_tree(size, data):
    """Reads are O(log n): counted, with a tree that only answers."""
    index = data.draw(st.integers(0, size - 1))
    asked = []

    def hash_at(level, at):
        assert (at + 1) << level <= size
        asked.append((level, at))
        return merkle.EMPTY_ROOT

    merkle.inclusion(index, size, hash_at)
    merkle.consistency(index, size, hash_at)
    assert len(asked) <= 4 * size.bit_length()
