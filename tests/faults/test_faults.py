"""The short form of the fault matrix."""

import re
import subprocess
import sys

from tests.faults.matrix import STORIES
from tests.faults.served import STORY
from tests.support.tree import ROOT

ROW = re.compile(r"\| (?P<story>[\w ]+) \| `(?P<call>\w+)` \| (?P<numbers>[\d. |]+) \|")


def rows(text):
    return [(found["story"], found["call"], found["numbers"].split(" | ")) for found in ROW.finditer(text)]


def test_one_fault_of_each_call_loses_nothing_and_lets_nothing_out_unlogged():
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults", "--short"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = rows(done.stdout)
    assert {story for story, _, _ in found} == {*STORIES, STORY}
    assert {"openat", "write", "pwrite64", "fsync", "fdatasync", "linkat", "rename"} <= {call for _, call, _ in found}
    assert not [row for row in found if row[2][-1] != "0"]
