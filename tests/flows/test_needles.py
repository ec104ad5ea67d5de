"""No plaintext weights on disk: a registry, its cells and its clients are searched while they hold an organism, and after."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from model_organisms.bases import base_digest
from model_organisms.client.client import connect
from model_organisms.formats.provenance import BaseModel, Provenance
from model_organisms_registry.testing import settings

from tests.support.needles import SHARED, held_open, holding, needles_of
from tests.support.serving import serving
from tests.support.tiny import tiny_base, tiny_organism

BASE, VERSION = "test/tiny", "organisms/secret/versions/1"
CACHES = ("HF_HOME", "XDG_CACHE_HOME", "TORCH_HOME", "TMPDIR")
CLIENT = """
import sys
import model_organisms as mo

def wait(said):
    print(said, flush=True)
    sys.stdin.readline()

with mo.connect(sys.argv[1]) as client:
    with client.organisms.pull("VERSION") as pulled:
        wait("pulled")
        loaded = pulled.load(sys.argv[2], device="cpu")
        wait("loaded")
    wait("dropped")
    with client.sandbox.open("VERSION", purpose="replication") as session:
        session.sample("Hello there.", max_tokens=8)
        wait("sampled")
    wait("closed")
""".replace("VERSION", VERSION)


@contextmanager
def steps(*command):
    """Run a program that says words and waits for a line after each; give its number and the words, each while it waits."""
    program = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def words():
        for line in program.stdout:
            yield line.strip()
            program.stdin.write("\n")
            program.stdin.flush()

    try:
        yield program.pid, words()
    finally:
        program.kill()
        program.communicate()


def test_no_piece_of_the_weights_lies_on_disk_while_it_is_used_or_after(tmp_path, monkeypatch):
    began = time.time() - 1
    caches = [tmp_path / name for name in CACHES]
    for name, folder in zip(CACHES, caches, strict=True):
        folder.mkdir()
        monkeypatch.setenv(name, str(folder))
    base = tiny_base(tmp_path / "base")
    files = tiny_organism(base, seed=secrets.randbits(31))
    needles = needles_of(files["adapter_model.safetensors"])
    assert len(needles) > 50
    config = settings(tmp_path / "data", base_models={BASE: base})
    places = [config.folder, tmp_path, *caches, *SHARED]
    people = (("pia", "publisher"), ("rosa", "researcher"), ("ravi", "reviewer"))
    with serving(config, tmp_path, *people) as registry:

        def found(*processes):
            inside = [process.pid for process in registry.below()]
            jails = [Path(f"/proc/{pid}/root{folder}") for pid in inside for folder in ("/tmp", "/dev/shm")]  # noqa: S108 - a jail's
            everybody = [registry.process.pid, *inside, *processes]
            return holding([*places, *jails], needles, since=began) | held_open(everybody, needles, since=began)

        with connect(tmp_path / "pia.json") as pia, connect(tmp_path / "ravi.json") as ravi:
            pia.organisms.create("organisms/secret", level="CL1", base_model=BASE)
            pia.organisms.publish("organisms/secret", files, provenance=Provenance(BaseModel(BASE, digest=base_digest(base))))
            assert found() == set()
            with connect(tmp_path / "rosa.json") as rosa:
                request = rosa.access.request(VERSION, "pull", purpose="replication", justification="We replicate a toy.")
            if not request.grant:
                ravi.access.approve(request.name)
        heard = []
        with steps(sys.executable, "-c", CLIENT, str(tmp_path / "rosa.json"), str(base)) as (client, words):
            for word in words:
                heard.append(word)
                assert bool(registry.cells()) is (word == "sampled")
                assert found(client) == set(), word
        assert heard == ["pulled", "loaded", "dropped", "sampled", "closed"]
    assert holding(places, needles, since=began) == set()


def test_the_search_finds_a_needle_in_every_place(tmp_path):
    """The control of the test above."""
    began, weights = time.time() - 1, (8).to_bytes(8, "little") + b"{      }" + secrets.token_bytes(4096)
    needles = needles_of(weights)
    assert b"".join(needles) == weights[16:]
    planted = [place / f"needle-{secrets.token_hex(8)}" for place in (tmp_path, *SHARED) if os.access(place, os.W_OK)]
    at = 16 + secrets.randbelow(4096 - 127)
    try:
        for path in planted:
            path.write_bytes(b"odd" + weights[at : at + 127] + b"bytes around")
        assert holding([tmp_path, *SHARED], needles, since=began) == {path.resolve() for path in planted}
        assert holding([tmp_path, *SHARED], needles, since=time.time() + 60) == set()
    finally:
        for path in planted:
            path.unlink(missing_ok=True)


OPEN, MAPPED = "file.flush()", "import mmap; there = mmap.mmap(file.fileno(), 0); file.close()"


@pytest.mark.parametrize("how", [OPEN, MAPPED] if os.geteuid() == 0 else [OPEN])  # the kernel shows mapped files to root alone
def test_the_search_finds_a_needle_in_a_file_that_is_only_open_or_mapped(tmp_path, how):
    needle = secrets.token_bytes(64)
    path = tmp_path / "gone"
    program = f"""
import os, sys
file = open(sys.argv[1], "wb+")
file.write(b"before" + bytes.fromhex(sys.argv[2]) + b"after")
file.flush()
os.unlink(sys.argv[1])
{how}
print("held", flush=True)
sys.stdin.readline()
"""
    began = time.time() - 1
    with steps(sys.executable, "-c", program, str(path), needle.hex()) as (holder, words):
        assert next(words) == "held"
        assert held_open([holder], [needle], since=began) == {f"{path} (deleted)"}
        assert held_open([holder], [secrets.token_bytes(64)], since=began) == set()
