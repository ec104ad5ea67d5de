"""Receipts: they read back, they prove their entry, and nothing else passes."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st
from model_organisms.errors import ConfigurationInvalid, LedgerForked, ReceiptInvalid
from model_organisms.formats import checkpoint, merkle, receipt
from model_organisms.formats.note import SigningKey
from model_organisms.records import Receipt

ORIGIN = "ledger.example.org"
KEY = SigningKey(ORIGIN, bytes(range(32)))
VKEY = str(KEY.verifier)
ENTRIES = [f"entry {at}".encode() for at in range(21)]
LEAVES = [merkle.leaf_hash(entry) for entry in ENTRIES]


def made(index, size=21, key=KEY, origin=ORIGIN):
    head = checkpoint.signed(origin, size, merkle.root_of(LEAVES[:size]), key)
    proof = merkle.inclusion(index, size, lambda level, at: merkle.root_of(LEAVES[at << level : (at + 1) << level]))
    return Receipt(index, ENTRIES[index], proof, head.note)


@given(st.integers(0, 20), st.integers(1, 21))
def test_a_receipt_reads_back_and_verifies(index, size):
    index %= size
    text = receipt.text(made(index, size))
    read = receipt.parse(text)
    assert read == made(index, size)
    assert receipt.text(read) == text
    head = receipt.verify(read, VKEY, origin=ORIGIN)
    assert (head.size, head.root) == (size, merkle.root_of(LEAVES[:size]))


@given(st.integers(0, 20), st.integers(1, 21), st.integers(0, 21))
def test_a_receipt_of_the_next_entry_shows_that_its_ledger_goes_on_and_no_other_receipt_says(index, size, seen):
    index %= size
    proof = made(index, size)
    head = receipt.verify(proof, VKEY, origin=ORIGIN)
    old = checkpoint.signed(ORIGIN, seen, merkle.root_of(LEAVES[:seen]), KEY)
    assert receipt.continues(proof, head, old) is (index == seen)
    rewritten = checkpoint.signed(ORIGIN, index, merkle.leaf_hash(b"another history"), KEY)
    with pytest.raises(LedgerForked):
        receipt.continues(proof, head, rewritten)


def test_the_text_is_the_specifications():
    lines = receipt.text(made(1, 3)).decode().split("\n")
    assert lines[0] == "c2sp.org/tlog-proof@v1"
    assert lines[1] == "extra ZW50cnkgMQ=="
    assert lines[2] == "index 1"
    assert [len(line) for line in lines[3:6]] == [44, 44, 0]
    assert lines[6:8] == [ORIGIN, "3"]


def test_a_proof_without_its_entry_takes_it_from_the_caller():
    text = receipt.text(made(4)).replace(b"extra ZW50cnkgNA==\n", b"")
    assert receipt.parse(text, entry=ENTRIES[4]) == made(4)
    with pytest.raises(ReceiptInvalid, match="does not carry"):
        receipt.parse(text)
    with pytest.raises(ReceiptInvalid):
        receipt.verify(receipt.parse(text, entry=ENTRIES[5]), VKEY, origin=ORIGIN)
    with pytest.raises(ReceiptInvalid, match="another entry"):
        receipt.parse(receipt.text(made(4)), entry=ENTRIES[5])


@given(st.integers(0, len(receipt.text(made(13))) - 1), st.integers(0, 7))
def test_every_flipped_bit_is_refused(at, bit):
    changed = bytearray(receipt.text(made(13)))
    changed[at] ^= 1 << bit
    with pytest.raises(ReceiptInvalid):
        receipt.verify(receipt.parse(bytes(changed)), VKEY, origin=ORIGIN)


@given(st.binary(max_size=300))
def test_whatever_bytes_come_a_receipt_reads_back_or_is_refused(data):
    for text in (data, b"c2sp.org/tlog-proof@v1\n" + data, b"c2sp.org/tlog-proof@v1\nextra \nindex 0\n" + data):
        try:
            read = receipt.parse(text)
        except ReceiptInvalid:
            continue
        assert receipt.text(read) == text


HASH = "A" * 43 + "="
HEAD = "c2sp.org/tlog-proof@v1\n"


@pytest.mark.parametrize(
    "text",
    [
        "",
        HEAD,
        HEAD.replace("v1", "v2") + "extra AA==\nindex 0\n\nnote",
        HEAD + "extra AA==\nindex 00\n\nnote",
        HEAD + "extra AA==\nindex -1\n\nnote",
        HEAD + "extra AA==\nindex 99999999999999999999\n\nnote",
        HEAD + "extra AA==\nextra AA==\nindex 0\n\nnote",
        HEAD + "index 0\nextra AA==\n\nnote",
        HEAD + "extra AB==\nindex 0\n\nnote",
        HEAD + "extra AA\nindex 0\n\nnote",
        HEAD + f"extra AA==\nindex 0\n{HASH} \n\nnote",
        HEAD + f"extra AA==\nindex 0\n{HASH[:-2]}B=\n\nnote",
        HEAD + f"extra AA==\nindex 0\n{HASH[4:]}\n\nnote",
        HEAD + f"extra AA==\nindex 0\n{(HASH + chr(10)) * 64}\nnote",
        HEAD + f"extra AA==\nindex 0\n{HASH}",
        (HEAD + "extra AA==\nindex 0\n\nnote").replace("\n", "\r\n"),
    ],
)
def test_what_the_specification_forbids_is_refused(text):
    with pytest.raises(ReceiptInvalid):
        receipt.parse(text.encode())


@pytest.mark.parametrize(
    "lie",
    [
        {"index": 12},
        {"index": 21},
        {"entry": b"entry 12"},
        {"proof": made(12).proof},
        {"proof": ()},
        {"checkpoint": made(13, 20).checkpoint},
        {"checkpoint": made(13, key=SigningKey(ORIGIN, bytes(32))).checkpoint},
        {"checkpoint": made(13, origin="else").checkpoint},
        {"checkpoint": b""},
    ],
)
def test_no_other_claim_passes(lie):
    with pytest.raises(ReceiptInvalid):
        receipt.verify(dataclasses.replace(made(13), **lie), VKEY, origin=ORIGIN)


def test_a_wrong_key_is_a_fault_of_the_configuration():
    with pytest.raises(ConfigurationInvalid):
        receipt.verify(made(13), "no key", origin=ORIGIN)
