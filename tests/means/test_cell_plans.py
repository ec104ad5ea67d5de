"""What a cell is started with, as a plan says it before anything starts."""

from __future__ import annotations

import fnmatch
from itertools import pairwise

import pytest
from model_organisms.cells import launcher
from model_organisms.cells.launcher import Jail, plan
from model_organisms_registry.config import Cells
from model_organisms_registry.isolation.local import local


@pytest.mark.parametrize(
    ("device", "shown", "called"),
    [
        ("cuda", ["/dev/nvidia3", "/dev/nvidia4", "/dev/nvidia10"], "cuda"),
        ("cuda:0", ["/dev/nvidia3"], "cuda:0"),
        ("cuda:2", ["/dev/nvidia10"], "cuda:0"),  # the only one that the cell sees
        ("cuda:3", [], "cuda:0"),
    ],
)
def test_a_jail_for_one_gpu_has_the_node_of_that_one_and_of_no_other(monkeypatch, device, shown, called):
    control = ["/dev/nvidiactl", "/dev/nvidia-uvm"]
    here, real = ["/dev/nvidia10", "/dev/nvidia4", *control, "/dev/nvidia3"], launcher.glob.glob
    monkeypatch.setattr(launcher.glob, "glob", lambda path: fnmatch.filter(here, path) if "nvidia" in path else real(path))
    planned = plan(Jail(device=device), None)
    bound = [node for option, node in pairwise(planned.wrapper) if option == "--dev-bind"]
    assert bound == ["/dev/null", "/dev/urandom", *shown, *control]
    assert planned.spec.usable == ("/dev/null", *shown, *control)
    assert planned.spec.device == called


def test_a_cell_has_the_memory_that_the_settings_say():
    with local(Cells(memory=7 << 30)) as pool:
        assert plan(pool._jail, None).spec.memory == 7 << 30
