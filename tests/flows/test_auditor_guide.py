"""The auditors' guide runs as it stands: each line of its blocks, with the exit status that the line says."""

from __future__ import annotations

import os
import re
import subprocess
import sys

from tests.support.outside import setup
from tests.support.tree import ROOT

BLOCK = re.compile(r"^```sh\n(.*?)^```", re.MULTILINE | re.DOTALL)
EXPECTED = re.compile(r"^(?P<command>.+?)(?:    # exit status (?P<status>\d+).*)?$")


def test_the_lines_of_the_auditors_guide_run(tmp_path):
    setup.readers()
    for name in ("deploy", "tests", ".tools"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / ".venv").symlink_to(sys.prefix)
    lines = [line for block in BLOCK.findall((ROOT / "docs/guides/auditor.md").read_text()) for line in block.splitlines()]
    assert len(lines) > 15
    script = []
    for line in lines:
        found = EXPECTED.match(line)
        status = found["status"] or "0"
        script.append(f'{found["command"]}\n[ $? = {status} ] || {{ echo "LINE: {found["command"]!r}" >&2; exit 99; }}')
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        ["bash", "-c", "\n".join(script)], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, done.stdout[-1500:] + done.stderr[-1500:]
    assert "303 entries of 30 days" in done.stdout
    assert "Entry 113 is not the one the ledger signed" in done.stderr
    assert "entries: watched: Entry" in done.stdout
