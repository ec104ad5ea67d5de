"""`import model_organisms as mo`: everything it promises is there, and what is slow to import waits until it is asked for."""

from __future__ import annotations

import subprocess
import sys

import model_organisms as mo
import pytest

SLOW = {"torch", "transformers", "peft", "grpc", "numpy", "google", "cryptography", "rich"}


def test_the_import_brings_nothing_slow():
    code = "import sys, model_organisms; print(*sys.modules)"
    imported = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "model_organisms.records" in imported
    assert not SLOW & set(imported)


def test_every_name_of_the_face_is_there_and_listed():
    assert {name for name in mo.__all__ if not hasattr(mo, name)} == set()
    assert set(mo.__all__) <= set(dir(mo))
    assert mo.record.__module__ == "model_organisms.recording"
    assert mo.nursery.grow.__module__ == "model_organisms.nursery.grow"


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="conect"):
        mo.conect  # noqa: B018 - asking is the test
