"""The short form of the fault matrix, and the table of the long one."""

import re
import subprocess
import sys
from datetime import date

from tests.faults.__main__ import COLUMNS, DOCUMENT, HEADING
from tests.faults.matrix import STORIES
from tests.faults.served import STORY
from tests.support.tree import ROOT

ROW = re.compile(r"\| (?P<story>[\w ]+) \| `(?P<call>\w+)` \| (?P<numbers>[\d. |]+) \|")


def rows(text):
    return [(found["story"], found["call"], found["numbers"].split(" | ")) for found in ROW.finditer(text)]


def test_one_fault_of_every_other_call_loses_nothing_and_lets_nothing_out_unlogged():
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults", "--short"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = rows(done.stdout)
    assert {story for story, _, _ in found} == {*STORIES, STORY}
    assert {"openat", "write", "pwrite64", "fsync", "fdatasync", "linkat", "rename"} <= {call for _, call, _ in found}
    assert not [row for row in found if row[2][-1] != "0"]


def test_the_table_of_the_whole_matrix_is_there():
    _, _, results = DOCUMENT.read_text().partition(HEADING)
    said = re.search(r"Run on (\d{4}-\d\d-\d\d) \(.+\): (\d+) faults, of which (\d+) lost", results)
    assert said
    assert date.fromisoformat(said[1])
    found = rows(results)
    assert {story for story, _, _ in found} == {*STORIES, STORY}
    assert all(len(numbers) == len(COLUMNS) - 2 for _, _, numbers in found)
    assert sum(int(numbers[0]) for _, _, numbers in found) == int(said[2]) > 1000
