"""Checkpoints and cosignatures: another program's vector, and heads that must not be believed."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from model_organisms.errors import LedgerForked, SignatureInvalid
from model_organisms.formats import checkpoint, merkle, note
from model_organisms.formats.note import COSIGNATURE, Note, SigningKey, parse_vkey

VECTOR = json.loads((Path(__file__).parents[1] / "vectors/ledger/notes.json").read_text())
ORIGIN = VECTOR["origin"]
KEY = SigningKey(ORIGIN, bytes.fromhex(VECTOR["seed"]))
WITNESS = SigningKey(VECTOR["witness"], bytes.fromhex(VECTOR["witness_seed"]), COSIGNATURE)
ROOT = base64.b64decode(VECTOR["root"])
NOTE = VECTOR["note"].encode()


def test_our_bytes_are_those_of_another_program():
    made = checkpoint.signed(ORIGIN, 300, ROOT, KEY)
    assert checkpoint.cosigned(made.note, WITNESS, time=VECTOR["time"]) == NOTE
    assert str(KEY.verifier) == VECTOR["vkey"]
    assert str(WITNESS.verifier) == VECTOR["witness_vkey"]


def test_another_programs_bytes_are_read():
    opened = checkpoint.verified(NOTE, parse_vkey(VECTOR["vkey"]), origin=ORIGIN)
    assert (opened.origin, opened.size, opened.root, opened.note) == (ORIGIN, 300, ROOT, NOTE)
    assert checkpoint.cosignatures(NOTE, [parse_vkey(VECTOR["witness_vkey"])]) == {WITNESS.name: VECTOR["time"]}


@pytest.mark.parametrize("at", range(len(NOTE)))
def test_every_changed_byte_is_refused(at):
    changed = bytearray(NOTE)
    changed[at] ^= 1
    with pytest.raises(SignatureInvalid):  # noqa: PT012 - either may find it
        opened = checkpoint.verified(bytes(changed), KEY.verifier, origin=ORIGIN)
        if checkpoint.cosignatures(opened.note, [WITNESS.verifier]) == {}:
            raise SignatureInvalid("the witness's line is a stranger's now")


@given(st.integers(1, merkle.MAX_SIZE), st.binary(min_size=32, max_size=32))
def test_a_head_reads_back(size, root):
    made = checkpoint.signed(ORIGIN, size, root, KEY)
    assert checkpoint.verified(made.note, KEY.verifier, origin=ORIGIN) == made
    assert checkpoint.parse_unverified(made.note) == made


@given(st.binary(max_size=200))
def test_a_signed_text_is_a_checkpoint_in_its_one_spelling_or_refused(body):
    text = body.decode("utf-8", "replace").translate(dict.fromkeys([*range(10), *range(11, 32)], "0")) + "\n"
    data = bytes(note.sign(text, KEY))
    try:
        opened = checkpoint.parse_unverified(data)
    except SignatureInvalid:
        return
    assert text.startswith(checkpoint.text(opened.origin, opened.size, opened.root))


GOOD = VECTOR["root"]


@pytest.mark.parametrize(
    "text",
    [
        f"{ORIGIN}\n300\n",
        f"\n300\n{GOOD}\n",
        f"{ORIGIN}\n0300\n{GOOD}\n",
        f"{ORIGIN}\n+300\n{GOOD}\n",
        f"{ORIGIN}\n-300\n{GOOD}\n",
        f"{ORIGIN}\n 300\n{GOOD}\n",
        f"{ORIGIN}\n300.0\n{GOOD}\n",
        f"{ORIGIN}\n3_00\n{GOOD}\n",
        f"{ORIGIN}\n\u0663\u0660\u0660\n{GOOD}\n",
        f"{ORIGIN}\n\n{GOOD}\n",
        f"{ORIGIN}\n9223372036854775808\n{GOOD}\n",
        f"{ORIGIN}\n{'9' * 5000}\n{GOOD}\n",
        f"{ORIGIN}\n300\n{GOOD[:-1]}\n",
        f"{ORIGIN}\n300\n{GOOD[:-2]}9=\n",
        f"{ORIGIN}\n300\n{GOOD.replace('/', '_')}\n".replace("yjk9", "_jk9"),
        f"{ORIGIN}\n300\n{GOOD}AAAA\n",
        f"{ORIGIN}\n300\n{base64.b64encode(bytes(31)).decode()}\n",
        f"{ORIGIN}\n300\n{GOOD}\n\nmore\n",
        f"{ORIGIN}\n0\n{GOOD}\n",
    ],
)
def test_what_the_specification_forbids_is_refused_though_signed(text):
    with pytest.raises(SignatureInvalid):
        checkpoint.verified(bytes(note.sign(text, KEY)), KEY.verifier, origin=ORIGIN)


def test_extension_lines_are_read_over():
    text = checkpoint.text(ORIGIN, 300, ROOT) + "extension\nanother one\n"
    assert checkpoint.verified(bytes(note.sign(text, KEY)), KEY.verifier, origin=ORIGIN).size == 300


def test_another_ledgers_head_is_refused():
    with pytest.raises(SignatureInvalid, match="not of"):
        checkpoint.verified(NOTE, KEY.verifier, origin="ledger.example.org/other")


def test_a_known_witness_must_verify_and_a_stranger_may_stand_there():
    stranger = SigningKey("witness.example.org/w2", bytes(32), COSIGNATURE)
    twice = checkpoint.cosigned(NOTE, stranger, time=5)
    assert checkpoint.cosignatures(twice, [WITNESS.verifier]) == {WITNESS.name: VECTOR["time"]}
    assert checkpoint.cosignatures(twice, [WITNESS.verifier, stranger.verifier])[stranger.name] == 5
    assert checkpoint.cosignatures(NOTE, [stranger.verifier]) == {}

    parsed = note.parse(NOTE)
    line = parsed.lines[1]
    earlier = (1).to_bytes(8, "big") + line.signature[8:]
    forged = Note(parsed.text, (parsed.lines[0], note.SignatureLine(line.name, line.key_id, earlier)))
    with pytest.raises(SignatureInvalid, match="cosignature"):
        checkpoint.cosignatures(bytes(forged), [WITNESS.verifier])


def test_a_head_that_does_not_continue_another_is_a_fork():
    leaves = [merkle.leaf_hash(bytes([at])) for at in range(9)]

    def hash_at(level, index):
        return merkle.root_of(leaves[index << level : (index + 1) << level])

    heads = {size: checkpoint.signed(ORIGIN, size, merkle.root_of(leaves[:size]), KEY) for size in range(10)}
    for old in range(10):
        for new in range(old, 10):
            checkpoint.consistent(heads[old], heads[new], merkle.consistency(old, new, hash_at))
    with pytest.raises(LedgerForked):
        checkpoint.consistent(heads[5], heads[3], ())
    fork = checkpoint.signed(ORIGIN, 9, merkle.root_of(leaves[1:]), KEY)
    with pytest.raises(LedgerForked):
        checkpoint.consistent(heads[5], fork, merkle.consistency(5, 9, hash_at))
    with pytest.raises(LedgerForked):
        checkpoint.consistent(heads[9], fork, ())
    with pytest.raises(LedgerForked, match="two ledgers"):
        checkpoint.consistent(heads[3], checkpoint.signed("else", 3, heads[3].root, KEY), ())
