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
LONG = (
    "sdk/test_nursery.py",
    "evaluate/test_offline_judge.py",
    "evaluate/test_questions.py",
    "means/test_placement.py",
    "flows/test_reruns.py",
    "flows/test_reconcile.py",
    "flows/test_replicas.py",
    "flows/test_sandbox.py",
    "means/test_cell_sharing.py",
    "means/test_cell_pool.py",
    "chaos/test_chaos.py",
    "flows/test_needles.py",
    "soak/test_soak.py",
    "faults/test_faults.py",
    "flows/test_publisher_guide.py",
    "means/test_cells.py",
)
"""Files that take longest. They run first, so that no process waits alone for one of them in the end."""


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config, items):
    """Deselect what needs a CUDA device where there is none: a test that did not run must not read as passed or as skipped.

    And put the longest first.
    """
    absent = [item for item in items if item.get_closest_marker("cuda")] if not CUDA else []
    if absent:
        config.hook.pytest_deselected(items=absent)
        items[:] = [item for item in items if item not in absent]
    ranks = {Path(__file__).parent / name: rank for rank, name in enumerate(LONG)}
    items.sort(key=lambda item: ranks.get(item.path, len(ranks)))  # the rest stays in its random order


def pytest_terminal_summary(terminalreporter, config):
    """Say so, if they would have been among those asked for; the processes of pytest-xdist do not count for one another."""
    asked = [Path(config.invocation_params.dir, argument.partition("::")[0]).resolve() for argument in config.args]
    if not CUDA and any(GPU.is_relative_to(path) or path.is_relative_to(GPU) for path in asked):
        terminalreporter.write_line(
            "tests/gpu: DESELECTED, not run: no CUDA device here. MO_TEST_DEVICE=cpu tries them on the CPU.", yellow=True
        )
