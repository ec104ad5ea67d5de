"""Files of about 300 lines, functions under 60, docstrings aside; longer ones are listed, with a reason, in ADR 0007."""

from __future__ import annotations

import ast
import re

from tests.support.tree import ROOT, docstring_lines, modules, parsed, tracked

FILE, FUNCTION = 300, 60
ROW = re.compile(r"^\| `(?P<path>[^`]+)` \| (?P<why>.+) \|$", re.MULTILINE)


def listed():
    text = (ROOT / "docs/adr/0007-declarations-may-be-long.md").read_text()
    return {match["path"]: match["why"] for match in ROW.finditer(text)}


def length(path):
    return len((ROOT / path).read_text().splitlines()) - docstring_lines(parsed(path))


def test_files_are_short_enough_to_read_at_one_sitting():
    long = {path: length(path) for path in modules() if length(path) > FILE and path not in listed()}
    assert not long, f"split these, or list them with a reason in ADR 0007: {long}"


def test_functions_are_short_enough_to_hold_in_mind():
    long = []
    for path in modules():
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1 - docstring_lines(node)
                if lines > FUNCTION and f"{path}:{node.name}" not in listed():
                    long.append(f"{path}:{node.name} has {lines} lines")
    assert not long, long


def test_every_listed_exception_is_still_one_and_says_why():
    for path, why in listed().items():
        file, _, function = path.partition(":")
        assert file in tracked(), f"{path} is gone; remove its row"
        assert function or length(file) > FILE, f"{path} is short now; remove its row"
        assert len(why) > 20, f"{path} needs a reason"
