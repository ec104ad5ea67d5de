"""Who may import whom, and what an import costs: the contracts hold, each of them can fail, and no door opens by itself."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.tree import ROOT, parsed, tracked

LINTER = Path(sys.executable).with_name("lint-imports")
REGISTRY, SDK = "registry/src/model_organisms_registry", "sdk/src/model_organisms"
PLANTED = {  # one forbidden import a contract: where it is planted, and what
    "SDK: imports go down": (f"{SDK}/records.py", "from model_organisms import wire"),
    "registry: imports go down": (
        f"{REGISTRY}/domain/permits.py",
        "from model_organisms_registry import workflows",
    ),
    "registry and SDK meet on the ground floor": (
        f"{REGISTRY}/rpc/__init__.py",
        "from model_organisms import loading",
    ),
    "the SDK does not know the registry": (f"{SDK}/errors.py", "import model_organisms_registry"),
    "torch, transformers and peft: only where models are": (
        f"{REGISTRY}/workflows/__init__.py",
        "def late():\n    import torch",
    ),
    "grpc: only at the two ends of the wire": (f"{REGISTRY}/workflows/__init__.py", "import grpc"),
    "protobuf: only where bytes meet nouns": (
        f"{REGISTRY}/gate/__init__.py",
        "from google.protobuf import message",
    ),
    "SQL: only in storage and ledger": (f"{REGISTRY}/rpc/__init__.py", "import sqlalchemy"),
    "Cedar: only in gate.cedar": (f"{REGISTRY}/rpc/__init__.py", "import cedarpy"),
    "HTTP and tokens: only where identity providers and model hubs are asked": (
        f"{REGISTRY}/workflows/__init__.py",
        "import httpx2",
    ),
    "Ray: only where cells of a cluster are held": (f"{REGISTRY}/isolation/pool.py", "import ray"),
    "YAML: only in formats.strict_yaml": (f"{SDK}/formats/note.py", "import yaml"),
    "rules and formats touch no I/O": (f"{REGISTRY}/domain/permits.py", "import pathlib"),
}


def lint(root):
    sources = os.pathsep.join(str(root / part / "src") for part in ("sdk", "registry"))
    environment = {**os.environ, "PYTHONPATH": sources, "COLUMNS": "200"}
    command = [LINTER, "--no-cache", "--config", root / "pyproject.toml"]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    verdicts = dict(re.findall(r"^(.+?) (KEPT|BROKEN)\b", done.stdout, re.MULTILINE))
    return done.returncode, verdicts, done.stdout + done.stderr


@pytest.fixture
def copy(tmp_path):
    for path in tracked():
        if path.startswith(("sdk/src/", "registry/src/")) or path == "pyproject.toml":
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / path, tmp_path / path)
    shutil.copytree(ROOT / SDK / "v1", tmp_path / SDK / "v1")
    return tmp_path


def test_contracts_hold_here_and_each_of_them_can_break(copy):
    code, verdicts, output = lint(copy)
    assert code == 0, output
    assert set(verdicts) == set(PLANTED), "a contract without a plant, or a plant without a contract"
    for path, line in PLANTED.values():
        with (copy / path).open("a") as file:
            file.write(f"\n{line}\n")
    code, verdicts, output = lint(copy)
    assert code == 1
    assert set(verdicts.values()) == {"BROKEN"}, output


HEAVY = {
    "torch",
    "transformers",
    "peft",
    "accelerate",
    "datasets",
    "gguf",
    "numpy",
    "sqlalchemy",
    "alembic",
    "cedarpy",
    "obstore",
    "pytest",
    "scipy",
    "sklearn",
    "matplotlib",
}


@pytest.mark.parametrize(
    "module", ["model_organisms", "model_organisms.client.client", "model_organisms.evaluate.entry", "model_organisms_registry"]
)
def test_an_import_brings_no_machine_with_it(module):
    program = f"import {module}, sys; print(*sorted(name.split('.')[0] for name in sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    assert not HEAVY & set(loaded.split())


def test_a_registry_starts_without_what_only_weights_need():
    code = "import sys, model_organisms_registry.server; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True).stdout.split()
    assert "sqlalchemy" in loaded
    assert not {"numpy", "torch", "transformers", "peft", "accelerate", "safetensors", "alembic"} & set(loaded)


@pytest.mark.parametrize("room", ["names", "errors", "records"])
def test_the_ground_floor_needs_only_python(room):
    named = set()
    for node in ast.walk(parsed(f"{SDK}/{room}.py")):
        named |= {alias.name for alias in node.names} if isinstance(node, ast.Import) else set()
        named |= {node.module} if isinstance(node, ast.ImportFrom) else set()
    assert {name.split(".")[0] for name in named} <= {*sys.stdlib_module_names, "model_organisms"}
