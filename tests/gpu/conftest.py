"""What the checks of a CUDA device run on: `cuda`, unless MO_TEST_DEVICE names another, which is for trying them out."""

from __future__ import annotations

import os

import pytest

DTYPES = ("float32", "bfloat16", "float16")


@pytest.fixture(scope="session")
def device():
    """The device's name, as users write it."""
    return os.environ.get("MO_TEST_DEVICE", "cuda")


@pytest.fixture(scope="session", params=DTYPES)
def dtype(request):
    """What models compute in, each in turn."""
    return request.param
