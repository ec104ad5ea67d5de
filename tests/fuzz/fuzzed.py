"""The process in which one target is fuzzed: `python -m tests.fuzz.fuzzed TARGET [libFuzzer options] CORPUS...`."""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["model_organisms", "model_organisms_registry"]):
    from tests.fuzz.targets import run

if __name__ == "__main__":
    target = sys.argv.pop(1)
    atheris.Setup(sys.argv, lambda data: run(target, data))
    atheris.Fuzz()
