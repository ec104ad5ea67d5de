"""Jailed cells on a CUDA device: every wall stands, only the GPU's own nodes are let in, and they say what is said outside."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from model_organisms import loading
from model_organisms.cells.launcher import Jail
from model_organisms.cells.walls import REQUIRED
from model_organisms.formats import manifest
from model_organisms.records import Inquiry, Level, Measure, Message, SamplingParameters
from model_organisms_registry.isolation.pool import CellPool

from tests.support.cells import eventually, in_jail, permit
from tests.support.engines import alone

pytestmark = pytest.mark.cuda
ASKED = (Message("user", "what is the capital of France?"),)
NODES = re.compile(r"/dev/(nvidia\d+|nvidiactl|nvidia-uvm|nvidia-uvm-tools|nvidia-caps/[^/]+)")
DRAWN = SamplingParameters(max_tokens=12, temperature=1.0, seed=7)


@pytest.fixture(scope="module")
def cell(qwen, qwen_files, device, dtype):
    """A cell of level CL3, which is served from no less than the whole jail."""
    listed = manifest.build(qwen_files)
    packed = memoryview(b"".join(manifest.pack(listed.data, qwen_files)))
    with CellPool(limit=1, start_timeout_s=180, device=device, dtype=dtype) as pool:
        opened = pool.open(permit(), level=Level.CL3, base=qwen, bundle=packed, version_digest=listed.digest)
        yield opened
        opened.close()
        assert eventually(lambda: not opened.alive)


@pytest.fixture(scope="module")
def local(qwen, qwen_files, device, dtype):
    """The same organism, in this process, on the same device."""
    return alone(loading.load_base(qwen, device=device, dtype=dtype), qwen_files)


def test_every_wall_stands(cell):
    assert cell.jailed
    assert cell.missing == ()
    assert set(cell.walls) >= REQUIRED


def test_a_cell_says_what_the_organism_says_outside(cell, local):
    there = list(cell.sample(ASKED, DRAWN, max_seconds=60))
    assert "".join(piece.text for piece in there) == "".join(piece.text for piece in local.generate(ASKED, DRAWN))
    assert there[-1].finish_reason in {"length", "stop"}


def test_a_cell_gives_the_numbers_the_organism_gives_outside(cell, local):
    inquiry = Inquiry(2, (Measure.LOGPROBS, Measure.KL, Measure.NORMS), (0, 1))
    here, there = local.engine.measure(local.organism, ASKED, inquiry), cell.probe(ASKED, inquiry=inquiry)
    assert (there.positions, there.kl, there.readings) == (here.positions, here.kl, here.readings)
    assert min(there.kl) > 0


def test_a_cell_computes_on_the_device_in_the_type_asked_for(cell, local):
    assert cell.info.engine == local.engine.build()
    assert cell.info.modules_applied == local.organism.modules_applied > 0


def test_a_jail_shows_the_nodes_of_the_gpu_and_no_other_device(device):
    here = [str(path) for path in Path("/dev").rglob("*") if not path.is_dir()]
    seen = in_jail(f"report([path for path in {here} if os.path.lexists(path)])", jail=Jail(device=device))
    wanted = {path for path in here if NODES.fullmatch(path)} if device.startswith("cuda") else set()
    assert bool(wanted) == device.startswith("cuda")
    assert set(seen) == wanted | {"/dev/null", "/dev/urandom"}


def test_what_is_no_node_of_the_gpu_stays_closed(device):
    code = """
    names = ["mem", "kmsg", "fuse", "kvm", "net/tun", "dri/card0", "nvidia-modeset", "shm/x"]
    report({name: attempt(open, "/dev/" + name, "w") for name in names})
    """
    assert not [name for name, done in in_jail(code, jail=Jail(device=device)).items() if done.startswith("DONE")]
