"""Capsules whose encapsulated key was rotted, spliced or replayed: one refusal, and no word on what was wrong.

What can be done to header and body is in `test_capsules.py`.
"""

from datetime import timedelta

import pytest
from model_organisms.errors import CapsuleInvalid
from model_organisms.formats import capsule
from model_organisms.formats.sealing_keys import seal_key
from model_organisms.formats.streaming import REFUSAL

from tests.support.capsules import NOW, OPAQUE, PUBLIC, make_capsule, open_capsule

SMALL = make_capsule(b"small")
HEAD = SMALL.head
# After header and signature stand the ML-KEM-768 ciphertext, the sender's X25519 share, and the wrapped key.
MLKEM = 12 + int.from_bytes(HEAD[8:12], "big") + 64
SHARE = MLKEM + 1088
WRAPPED = SHARE + 32
AGAIN = HEAD[:MLKEM] + seal_key(b"\x03" * 32, PUBLIC, info=capsule._info(HEAD[:MLKEM]))  # same key, recipient and header
THEIRS = f"grants/{OPAQUE[:-1]}g"


def refused(data, **changes):
    with pytest.raises(CapsuleInvalid) as caught:
        open_capsule(data, **changes)
    assert (caught.value.message, caught.value.details) == (REFUSAL, {})


def flipped(data, at, bit=0):
    return data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :]


SPLICED = {
    "mlkem-zeros": HEAD[:MLKEM] + bytes(1088) + HEAD[SHARE:],
    "mlkem-ones": HEAD[:MLKEM] + b"\xff" * 1088 + HEAD[SHARE:],
    "mlkem-text": HEAD[:MLKEM] + b"garbage!" * 136 + HEAD[SHARE:],
    "mlkem-first-bit-flipped": flipped(HEAD, MLKEM),
    "mlkem-last-bit-flipped": flipped(HEAD, SHARE - 1, 7),
    "mlkem-halves-exchanged": HEAD[:MLKEM] + HEAD[MLKEM + 544 : SHARE] + HEAD[MLKEM : MLKEM + 544] + HEAD[SHARE:],
    "mlkem-of-another-sealing": HEAD[:MLKEM] + AGAIN[MLKEM:SHARE] + HEAD[SHARE:],
    "mlkem-a-byte-short": HEAD[: SHARE - 1] + HEAD[SHARE:],
    "mlkem-a-byte-long": HEAD[:SHARE] + b"\0" + HEAD[SHARE:],
    "mlkem-left-out": HEAD[:MLKEM] + HEAD[SHARE:],
    "mlkem-twice": HEAD[:SHARE] + HEAD[MLKEM:],
    "share-of-another-sealing": HEAD[:SHARE] + AGAIN[SHARE:WRAPPED] + HEAD[WRAPPED:],
    "share-with-its-unused-bit-set": flipped(HEAD, WRAPPED - 1, 7),
    "share-left-out": HEAD[:SHARE] + HEAD[WRAPPED:],
    "share-in-front-of-mlkem": HEAD[:MLKEM] + HEAD[SHARE:WRAPPED] + HEAD[MLKEM:SHARE] + HEAD[WRAPPED:],
    "key-of-another-sealing": HEAD[:WRAPPED] + AGAIN[WRAPPED:],
    "key-zeros": HEAD[:WRAPPED] + bytes(len(HEAD) - WRAPPED),
    "key-a-byte-short": HEAD[:-1],
    "key-left-out": HEAD[:WRAPPED],
}


@pytest.mark.parametrize("head", SPLICED.values(), ids=SPLICED)
def test_a_capsule_is_refused_with(head):
    assert head != HEAD
    refused(head + SMALL.body)


def test_each_of_the_spliced_capsules_opens_whole():
    assert AGAIN != HEAD
    for head in (HEAD, AGAIN):
        assert open_capsule(head + SMALL.body)[1] == b"small"


@pytest.mark.parametrize("asked", [THEIRS, "grants/", ""])
def test_a_capsule_replayed_for_another_grant_is_refused(asked):
    theirs = make_capsule(b"small", grant=THEIRS)
    refused(theirs.head + theirs.body)
    refused(HEAD + SMALL.body, grant=asked)


def test_last_months_capsule_replayed_is_refused_though_nothing_in_it_is_forged():
    then = NOW - timedelta(days=30)
    old = make_capsule(b"small", issued=then, not_after=then + timedelta(hours=1))
    refused(old.head + old.body)
    assert open_capsule(old.head + old.body, now=then)[1] == b"small"
