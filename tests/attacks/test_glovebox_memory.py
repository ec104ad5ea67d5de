"""Who may pull looks for the weights of a glove box where they work: in their own program, on its disk, in shared memory."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import time
from pathlib import Path

import pytest
from model_organisms.bases import base_digest
from model_organisms.formats.provenance import BaseModel, Provenance
from model_organisms_registry.testing import running, settings

from tests.support.needles import SHARED, held_open, holding, needles_of
from tests.support.tiny import tiny_base, tiny_organism

PEOPLE = (("pia", "publisher", "lab-p"), ("rosa", "researcher", "lab-r"), ("ravi", "reviewer", "lab-v"))
BASE, VERSION = "test/tiny", "organisms/secret/versions/1"
OPEN = """
import sys
import model_organisms as mo

how = {"purpose": "replication", "base": sys.argv[2], "device": "cpu"}
with mo.connect(sys.argv[1]) as client, client.sandbox.local("VERSION", **how) as box:
    assert box.sample("Hello there.", max_tokens=4).receipt.tokens
    print("holds", flush=True)
    sys.stdin.readline()
    box.probe("Hello there.")
""".replace("VERSION", VERSION)
PULL = """
import sys
import model_organisms as mo

with mo.connect(sys.argv[1]) as client, client.organisms.pull("VERSION") as pulled:
    print("holds", flush=True)
    sys.stdin.readline()
""".replace("VERSION", VERSION)


@pytest.fixture(scope="module")
def secret(tmp_path_factory):
    """A registry with a fresh organism that rosa may pull."""
    folder = tmp_path_factory.mktemp("secret")
    base = tiny_base(folder / "base")
    files = tiny_organism(base, seed=secrets.randbits(31))
    with running(settings(folder / "data"), people=PEOPLE) as world:
        world.person("pia").organisms.create("organisms/secret", level="CL1", base_model=BASE)
        stated = Provenance(BaseModel(BASE, digest=base_digest(base)))
        world.person("pia").organisms.publish("organisms/secret", files, provenance=stated)
        request = world.person("rosa").access.request(VERSION, "pull", purpose="replication", justification="A toy, again.")
        if not request.grant:
            world.person("ravi").access.approve(request.name, reason="Fine.")
        yield world.folder / "rosa.json", base, needles_of(files["adapter_model.safetensors"])


def holder(code, identity, base):
    """Start somebody's program, and wait until it holds the organism."""
    command = [sys.executable, "-c", code, str(identity), str(base)]
    program = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert program.stdout.readline().strip() == "holds"
    return program


def in_memory(pid, needles):
    """Count the needles in what a process has in memory, files it mapped included."""
    found = set()
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            place, rights, *_ = line.split()
            begin, end = (int(part, 16) for part in place.split("-"))
            if "r" not in rights or line.endswith(("[vvar]", "[vsyscall]", "[vvar_vclock]")):
                continue
            try:
                data = os.pread(memory.fileno(), end - begin, begin)
            except OSError:
                continue  # a guard page
            found |= {needle for needle in needles if needle in data}
    return len(found)


@pytest.mark.parametrize(("code", "there"), [(OPEN, False), (PULL, True)], ids=["glove box", "a pull, for control"])
def test_no_piece_of_the_weights_is_in_the_memory_of_its_holders_program(secret, code, there):
    identity, base, needles = secret
    sought = needles[:: max(1, len(needles) // 12)]
    assert len(sought) > 8
    began = time.time() - 1
    program = holder(code, identity, base)
    try:
        assert bool(in_memory(program.pid, sought)) is there
        assert holding([identity.parent, *SHARED], needles, since=began) == set()
        assert held_open([program.pid], needles, since=began) == set()
        assert not any(in_file(link, sought) for link in Path(f"/proc/{program.pid}/fd").iterdir())
    finally:
        program.communicate("go on\n", timeout=60)
    assert program.returncode == 0


def in_file(link, needles):
    """Look into what a process has open, anonymous files too."""
    name = str(link.readlink())
    if not name.startswith(("/memfd:", "/")) or name.startswith("/dev/"):
        return False
    data = Path(link).read_bytes() if name.startswith("/memfd:") else b""
    return any(needle in data for needle in needles)
