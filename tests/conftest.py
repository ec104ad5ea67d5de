"""Fixtures that any test may ask for, each in the module of tests/support named after its thing; and what runs without CUDA."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

pytest_plugins = [
    "tests.support.databases",
    "tests.support.keepers",
    "tests.support.models",
    "tests.support.providers",
    "tests.support.registries",
    "tests.support.s3",
]

CUDA = Path("/dev/nvidiactl").exists() or bool(os.environ.get("MO_TEST_DEVICE"))
"""Whether tests marked `cuda` run. Torch takes seconds to ask; where it cannot use the device, they fail and say so."""
GPU = Path(__file__).parent / "gpu"


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config, items):
    """Deselect what needs a CUDA device where there is none: a test that did not run must not read as passed or as skipped."""
    absent = [item for item in items if item.get_closest_marker("cuda")] if not CUDA else []
    if absent:
        config.hook.pytest_deselected(items=absent)
        items[:] = [item for item in items if item not in absent]


def pytest_terminal_summary(terminalreporter, config):
    """Say so, if they would have been among those asked for; the processes of pytest-xdist do not count for one another."""
    asked = [Path(config.invocation_params.dir, argument.partition("::")[0]).resolve() for argument in config.args]
    if not CUDA and any(GPU.is_relative_to(path) or path.is_relative_to(GPU) for path in asked):
        terminalreporter.write_line(
            "tests/gpu: DESELECTED, not run: no CUDA device here. MO_TEST_DEVICE=cpu tries them on the CPU.", yellow=True
        )
