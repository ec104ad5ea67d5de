"""What a log sends a witness, and what comes back: one spelling each, and cosignatures only of the witness that was asked."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from model_organisms.errors import InvalidArgument, SignatureInvalid
from model_organisms.formats import checkpoint, merkle, witness
from model_organisms.formats.note import COSIGNATURE, MAX_NOTE_SIZE, SigningKey
from model_organisms.formats.witness import Submission

LOG = SigningKey("ledger.test", bytes(range(32)))
ASKED = SigningKey("witness.test/one", bytes(range(1, 33)), COSIGNATURE)
OTHER = SigningKey("witness.test/two", bytes(range(2, 34)), COSIGNATURE)
NOTE = checkpoint.signed(LOG.name, 1, b"\1" * 32, LOG).note
HASHES = st.lists(st.binary(min_size=32, max_size=32), max_size=witness.MOST_PROOF).map(tuple)


@given(st.integers(0, merkle.MAX_SIZE), HASHES, st.binary(max_size=300))
def test_a_submission_reads_back(size, proof, note):
    made = Submission(size, proof, note)
    assert witness.parse_submission(witness.print_submission(made)) == made


def test_the_bytes_are_those_of_the_specification():
    made = witness.print_submission(Submission(20852014, (bytes(32), b"\xff" * 32), b"example.com\n"))
    assert made == f"old 20852014\n{'A' * 43}=\n{'/' * 42}8=\n\nexample.com\n".encode()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"old 0\n",
        b"old 0",
        b"0\n\n",
        b"old 00\n\n",
        b"old 01\n\n",
        b"old +1\n\n",
        b"old -1\n\n",
        b"old  1\n\n",
        b"old 1 \n\n",
        b"OLD 1\n\n",
        b" old 1\n\n",
        b"old 1\r\n\r\n",
        b"old 99999999999999999999\n\n",
        "old \u0661\n\n".encode(),
        b"old 1\n" + b"A" * 43 + b"\n\n",
        b"old 1\n" + b"A" * 42 + b"B=\n\n",
        b"old 1\n" + b"A" * 43 + b"= \n\n",
        b"old 1\n" + (b"A" * 43 + b"=\n") * 64 + b"\n",
        b"old 1\n\n" + b"x" * (witness.MAX_SUBMISSION + 1),
    ],
)
def test_every_other_spelling_is_refused(body):
    with pytest.raises(InvalidArgument):
        witness.parse_submission(body)


def test_the_largest_allowed_is_read():
    body = b"old 1\n" + (b"A" * 43 + b"=\n") * witness.MOST_PROOF + b"\n" + b"x" * MAX_NOTE_SIZE
    assert len(witness.parse_submission(body).note) == MAX_NOTE_SIZE


@pytest.mark.parametrize("body", [b"", b"7", b"07\n", b"7\n\n", b"+7\n", b"7\n8\n", b"-1\n", b"9" * 20 + b"\n"])
def test_a_size_has_one_spelling(body):
    assert witness.parse_size(witness.print_size(7)) == 7
    with pytest.raises(InvalidArgument):
        witness.parse_size(body)


def line(key, time=1_700_000_000, note=NOTE):
    return f"{checkpoint.cosignature(note, key, time=time)}\n".encode()


def test_an_answer_adds_the_line_of_the_witness_that_was_asked_and_no_other():
    cosigned, time = witness.accept(NOTE, line(OTHER) + line(ASKED), ASKED.verifier)
    assert cosigned == checkpoint.cosigned(NOTE, ASKED, time=time)
    assert checkpoint.cosignatures(cosigned, [ASKED.verifier, OTHER.verifier]) == {ASKED.name: 1_700_000_000}


def test_of_two_lines_the_newer_counts():
    cosigned, time = witness.accept(NOTE, line(ASKED, 5) + line(ASKED, 9) + line(ASKED, 7), ASKED.verifier)
    assert (time, cosigned.count(b"\n\xe2\x80\x94 ")) == (9, 2)


ANOTHER = checkpoint.signed(LOG.name, 1, b"\2" * 32, LOG).note
FALSE = SigningKey(ASKED.name, bytes(32), COSIGNATURE)


@pytest.mark.parametrize(
    "answer",
    {
        "nothing": b"",
        "another witness's": line(OTHER),
        "of another head": line(ASKED, note=ANOTHER),
        "a true and a false one": line(ASKED) + line(ASKED, note=ANOTHER),
        "by a key of the same name": line(FALSE),
        "no newline": line(ASKED)[:-1],
        "an empty line": b"\n" + line(ASKED),
        "text before": b"Here you are.\n" + line(ASKED),
        "too many": line(OTHER) * 80 + line(ASKED),
        "half": line(ASKED)[:-20] + b"\n",
    }.values(),
)
def test_any_other_answer_is_refused(answer):
    with pytest.raises(SignatureInvalid):
        witness.accept(NOTE, answer, ASKED.verifier)


def test_a_checkpoint_by_a_ledgers_key_is_no_cosignature():
    ledger = SigningKey(ASKED.name, ASKED.seed)
    signed = checkpoint.signed(LOG.name, 1, b"\1" * 32, ledger).note
    with pytest.raises(SignatureInvalid):
        witness.accept(NOTE, signed.partition(b"\n\n")[2], ASKED.verifier)
