"""What git tracks here, parsed once, for the tests in tests/house; tests of behaviour have no use for it."""

from __future__ import annotations

import ast
import functools
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
GENERATED = ("sdk/src/model_organisms/v1/", "sdk/src/buf/")


@functools.cache
def tracked() -> tuple[str, ...]:
    """Paths of the files git tracks, generated code aside."""
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return tuple(path for path in listing.split("\0") if path and not path.startswith(GENERATED) and (ROOT / path).is_file())


def texts() -> list[tuple[str, str]]:
    """Path and text of every tracked file that is text."""
    found = []
    for path in tracked():
        try:
            found.append((path, (ROOT / path).read_text(encoding="utf-8")))
        except UnicodeDecodeError:
            continue
    return found


@functools.cache
def parsed(path: str) -> ast.Module:
    """Syntax tree of one module."""
    return ast.parse((ROOT / path).read_text(encoding="utf-8"), filename=path)


def modules(*prefixes: str) -> list[str]:
    """Tracked Python files under the given folders; all of them by default."""
    return [path for path in tracked() if path.endswith(".py") and (not prefixes or path.startswith(prefixes))]


def docstring_lines(node: ast.AST) -> int:
    """How many lines of a module, class or function are docstrings."""
    holders = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    total = 0
    for child in ast.walk(node):
        if isinstance(child, holders) and child.body and ast.get_docstring(child, clean=False) is not None:
            first = child.body[0]
            total += (first.end_lineno or first.lineno) - first.lineno + 1
    return total
