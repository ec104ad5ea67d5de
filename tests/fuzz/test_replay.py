"""The fuzzers' corpora once more, and the same bytes bent in a few thousand fixed ways: fast, and the same in every run."""

import random
from pathlib import Path

import pytest
from model_organisms.errors import ModelOrganismsError

from tests.fuzz.targets import TARGETS, run

CORPUS = Path(__file__).parent / "corpus"
BENT = 150
WORDS = (
    b"\n",
    b"\0",
    b"\x1b[",
    b"0",
    b"-1",
    b"+",
    b"=",
    b"\xff\xff",
    b"\xed\xa0\x80",
    b'"',
    b"{",
    b"[",
    b"1e999",
    "\u2014 ".encode(),
)


def inputs(target):
    return [path.read_bytes() for path in sorted((CORPUS / target).iterdir())]


def bent(data, chance):
    """Cut, doubled, flipped, or with a word that parsers stumble over."""
    at, to = sorted(chance.choices(range(len(data) + 1), k=2))
    ways = (
        data[:at] + data[to:],
        data[:to] + data[at:],
        data[:at] + chance.choice(WORDS) + data[to if to - at < 4 else at :],
        data[:at] + bytes([data[at] ^ 1 << chance.randrange(8)]) + data[at + 1 :] if at < len(data) else data[::-1],
    )
    return chance.choice(ways)


@pytest.mark.parametrize("target", TARGETS)
def test_the_corpus_raises_typed_errors_only(target):
    chance = random.Random(target)
    found = inputs(target)
    assert found
    for data in [b"", *found, *(bent(chance.choice(found), chance) for _ in range(BENT))]:
        run(target, data)


def test_the_corpora_are_of_the_targets_and_alive():
    """An input that is refused at its first byte tests nothing behind it: nearly every target has one that it takes."""
    assert {path.name for path in CORPUS.iterdir()} == TARGETS.keys()

    def takes(target, data):
        try:
            TARGETS[target](data)
        except (ModelOrganismsError, AssertionError):
            return False
        return True

    taking = [target for target in TARGETS if any(takes(target, data) for data in inputs(target))]
    assert len(taking) >= len(TARGETS) - 3, TARGETS.keys() - set(taking)
