"""The threat model is held to its tests: each row names some that speak of its attack, and no attack is left out."""

import re

import pytest

from tests.support.tree import ROOT

ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in (ROOT / "docs" / "threat-model.md").read_text().splitlines()
    if line.startswith("| ") and not line.startswith("| who | how")
]
TEST = re.compile(r"`(tests/[\w/]+\.py)`")
IDLE = {"their", "there", "where", "which", "would", "could", "about", "another", "other", "before", "after", "somebody", "under"}


def stems(words):
    """Beginnings of the words that say something."""
    return {word[:5] for word in re.findall(r"[a-z]{5,}", words.lower()) if word not in IDLE}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_a_row_names_tests_that_speak_of_its_attack(row):
    _, how, _, tests = row
    named = TEST.findall(tests)
    assert named
    told = "".join((ROOT / path).read_text() for path in named).lower()
    wanted = stems(how)
    assert wanted
    missing = {stem for stem in wanted if stem not in told}
    assert len(missing) <= len(wanted) // 2, missing


def test_every_attack_has_its_row():
    named = {path for row in ROWS for path in TEST.findall(row[3])}
    assert {path.relative_to(ROOT).as_posix() for path in (ROOT / "tests" / "attacks").glob("test_*.py")} <= named
    assert len(ROWS) > 20
