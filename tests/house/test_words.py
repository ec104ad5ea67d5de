"""Words and habits that no formatter checks: names of modules, reasons beside exceptions to a rule, and what tests may not do."""

from __future__ import annotations

import ast
import re
from itertools import pairwise
from pathlib import PurePath

from model_organisms import errors

from tests.support.tree import modules, parsed, texts

VAGUE = {"utils", "util", "helpers", "helper", "common", "manager", "base", "misc", "core"}
SKIPS = {"skip", "skipif", "xfail", "importorskip"}
SILENCER = re.compile(r"#\s*(?:noqa|type:\s*ignore)(?P<rest>[^\n]*)")
REASONED = re.compile(r"^(?::\s*[A-Z0-9, ]+|\[[a-z0-9, -]+\])\s*(?:-|--|#|\()\s*\S.{3,}")
PLACES = re.compile(
    r"(?<![\w.])/(?:work|home|Users)/[a-z]"  # somebody's folders
    r"|\b[a-z0-9-]+\.(?:internal|intranet|lan|corp)\b"  # somebody's hosts
    r"|\.\./shared|\bissue #?\d{1,3}\b"  # somebody's notes
)
HERE = "tests/house/test_words.py"
TYPED_WRONG = {"UsageError", "BadParameter", "ClickException"}  # what a command says of its own arguments
FACE = "sdk/src/model_organisms/__init__.py"
PYTHONS_OWN = {"AssertionError", "NotImplementedError", "StopIteration", "SystemExit", "KeyboardInterrupt"}


def test_modules_are_named_for_what_they_are():
    vague = [path for path in modules() if VAGUE & {*re.split(r"[_.]", PurePath(path).name), *PurePath(path).parts}]
    assert not vague


def test_a_silenced_check_says_why_beside_it_or_on_the_line_above():
    silent = []
    for path, text in texts():
        if path.endswith(".py") and path != HERE:
            for number, (above, line) in enumerate(pairwise(["", *text.splitlines()]), 1):
                found = SILENCER.search(line)
                if found and not REASONED.match(found["rest"]) and not above.lstrip().startswith("# "):
                    silent.append(f"{path}:{number}: {line.strip()}")
    assert not silent, silent


def test_nothing_tracked_names_a_machine_or_a_private_place():
    named = [f"{path}: {match[0]}" for path, text in texts() if path != HERE for match in PLACES.finditer(text)]
    assert not named, named


def imported(path):
    """Full names of what a module imports."""
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_doubles_are_real():
    mocked = []
    for path in modules():
        for node in ast.walk(parsed(path)):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += (
                [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
                if isinstance(node, ast.ImportFrom)
                else []
            )
            mocked += [
                path for name in names if name.split(".")[0] in {"mock", "pytest_mock"} or name.startswith("unittest.mock")
            ]
    assert not mocked


def test_a_test_that_does_not_run_says_why():
    silent = []
    for path in modules("tests/"):
        calls = {id(node.func): node for node in ast.walk(parsed(path)) if isinstance(node, ast.Call)}
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.Attribute) and ast.unparse(node).startswith("pytest.") and node.attr in SKIPS:
                call = calls.get(id(node))
                words = {word.arg for word in call.keywords} if call else set()
                if not ("reason" in words or (call and ast.unparse(node) == "pytest.skip" and call.args)):
                    silent.append(f"{path}:{node.lineno}")
    assert not silent


def raised(path):
    """Names of the exception classes a module raises, and where."""
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Raise) and node.exc is not None:
            target = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
            name = target.attr if isinstance(target, ast.Attribute) else getattr(target, "id", "")
            if name[:1].isupper():
                yield name, node.lineno


def kept(path):
    """Names a module may raise besides: classes private to it, and what it catches itself."""
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.ClassDef) and node.name.startswith("_"):
            yield node.name
        elif isinstance(node, ast.ExceptHandler) and node.type is not None:
            yield from (name.id for name in ast.walk(node.type) if isinstance(name, ast.Name))


def test_public_code_raises_only_from_the_tree():
    tree = {cls.__name__ for cls in errors.BY_REASON.values()}
    strangers = []
    for path in modules("sdk/src/", "registry/src/"):
        lazy = {"AttributeError"} if path == FACE else set()  # what Python asks of a module that imports its names late
        known = tree | PYTHONS_OWN | lazy | set(kept(path)) | (TYPED_WRONG if re.search(r"/cli/|/__main__\.py$", path) else set())
        strangers += [f"{path}:{line}: {name}" for name, line in raised(path) if name not in known]
    assert not strangers, strangers
