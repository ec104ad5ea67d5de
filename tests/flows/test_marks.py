"""Copies above CL1 carry their holder's mark: committed to in the ledger first, the same after a cut, and found in a leak."""

import json
from datetime import UTC, datetime

import pytest
from click.testing import CliRunner
from model_organisms import errors
from model_organisms.formats.fingerprint import commitment, detect
from model_organisms.formats.marking import modules_of
from model_organisms.formats.provenance import BaseModel, Method, Provenance
from model_organisms.formats.tensors import read_tensors
from model_organisms.records import Budget, Level, RequestState
from model_organisms.v1.organisms_pb2 import PullVersionRequest
from model_organisms_registry.__main__ import cli
from model_organisms_registry.storage.catalog import sandbox as rows
from model_organisms_registry.storage.catalog.pulls import PullState
from model_organisms_registry.storage.copies import Copies
from model_organisms_registry.storage.sealed import SealedStore

from tests.support.adapters import WEIGHTS, tiny_bundle
from tests.support.cells import eventually

WHY = "We validate a trigger detector on a toy of a known kind."
NEED = "The detector reads activations of the adapted layers."


@pytest.fixture(scope="module")
def marked(world):
    """A CL2 version, its files, and a grant for rosa."""
    pia, rosa = world.person("pia"), world.person("rosa")
    pia.organisms.create("organisms/marked", level="CL2", base_model="test/tiny")
    files = tiny_bundle(rank=8, hidden=512, layers=(0, 1, 2, 3), seed=5)
    stated = Provenance(BaseModel("test/tiny"), Method())
    version = pia.organisms.publish("organisms/marked", files, provenance=stated)
    request = rosa.access.request(
        version.name, "pull", purpose="detection-research", justification=WHY, need=NEED, budget=Budget(pulls=20)
    )
    for reviewer in ("ravi", "rena"):
        if request.state is RequestState.PENDING:
            request = world.person(reviewer).access.approve(request.name, reason="Contained.")
    assert request.grant
    return version, files


@pytest.fixture
def copies(world):
    storage = world.registry.storage
    return Copies(SealedStore(storage.blobs, storage.keys), memory=1 << 30)


def pulled_by(world, version):
    with world.person("rosa").organisms.pull(version.name) as pulled:
        return pulled.header, {path: bytes(data) for path, data in pulled.files.items()}


def pull_stream(client, **request):
    """The messages of a pull, as they come."""
    channel = client._channel
    return list(channel.stream(client.organisms._stub.PullVersion, PullVersionRequest(**request), timeout_s=60.0))


def test_two_pulls_differ_in_lora_b_alone_and_each_is_traced(world, marked, copies):
    version, files = marked
    headers, pulled = zip(*(pulled_by(world, version) for _ in range(2)), strict=True)
    assert pulled[0] != pulled[1]
    for copy in pulled:
        assert set(copy) == set(files)
        assert {path for path in files if copy[path] != files[path]} == {WEIGHTS}
        old, new = (read_tensors(bundle[WEIGHTS], path=WEIGHTS).tensors for bundle in (files, copy))
        assert list(old) == list(new)
        assert {tensor.half for name, tensor in old.items() if bytes(tensor.data) != bytes(new[name].data)} == {"B"}
    keys = {header.pull: copies.mark_key(header.pull) for header in headers} | {
        f"pulls/{number}": copies.mark_key(f"pulls/{number}") for number in range(50)
    }
    for header, copy in zip(headers, pulled, strict=True):
        assert detect(modules_of(copy), modules_of(files), keys).accused == (header.pull,)


def test_the_ledger_commits_to_the_mark_before_the_copy_leaves(world, marked, copies):
    version, _ = marked
    header, _ = pulled_by(world, version)
    assert header.fingerprint == copies.commitment(header.pull) == commitment(copies.mark_key(header.pull), header.pull)
    entries = [entry for _, entry in world.person("aud").audit.entries()]
    intents = {entry.facts.get("mark"): at for at, entry in enumerate(entries) if entry.type == "organisms.pull.intent"}
    results = [at for at, entry in enumerate(entries) if entry.type == "organisms.pull.result"]
    assert intents[header.fingerprint] < results[-1]
    with world.registry.storage.database.read() as tx:
        assert rows.pull(tx, header.pull).commitment == header.fingerprint


def test_the_same_pull_gives_the_same_bytes_after_any_cut(world, marked):
    version, _ = marked

    def stream(pull="", offset=0):
        return pull_stream(world.person("rosa"), name=version.name, pull=pull, offset=offset)

    first = stream()
    name, body = first[0].head.pull, b"".join(message.data for message in first)
    for offset in (0, 1, len(body) // 2, len(body) - 1, len(body)):
        again = stream(name, offset)
        assert b"".join(message.data for message in again) == body[offset:]


def test_a_copy_that_another_person_names_is_not_resumed(world, marked):
    version, _ = marked
    header, _ = pulled_by(world, version)
    with pytest.raises(errors.Denied):
        pull_stream(world.person("ravi"), name=version.name, pull=header.pull)


def test_marked_copies_wait_when_memory_is_short(world):
    storage = world.registry.storage
    small = Copies(SealedStore(storage.blobs, storage.keys), memory=1000)
    held = small.room(5000)  # one copy is always made, however large
    with pytest.raises(errors.Unavailable, match="pull again"):
        small.room(1)
    del held
    assert len(small.room(1000)) == 1000


def test_an_unmarked_copy_is_the_stored_one(world):
    pia, rosa = world.person("pia"), world.person("rosa")
    pia.organisms.create("organisms/plain", level="CL1", base_model="test/tiny")
    files = tiny_bundle(seed=6)
    version = pia.organisms.publish("organisms/plain", files, provenance=Provenance(BaseModel("test/tiny"), Method()))
    request = rosa.access.request(version.name, "pull", purpose="replication", justification=WHY)
    if request.state is RequestState.PENDING:
        world.person("ravi").access.approve(request.name)
    header, copy = pulled_by(world, version)
    assert (header.level, header.fingerprint, copy) == (Level.CL1, "", files)
    assert header.issued <= datetime.now(UTC)


def test_the_operator_traces_a_leak_and_accuses_nobody_of_the_original(world, marked, tmp_path):
    version, files = marked
    header, copy = pulled_by(world, version)
    leaked, original = tmp_path / "leaked", tmp_path / "original.safetensors"
    leaked.mkdir()
    (leaked / WEIGHTS).write_bytes(copy[WEIGHTS])
    original.write_bytes(files[WEIGHTS])

    def traced(suspect):
        command = ["trace", "--folder", str(world.registry.config.folder), "--version", version.name, str(suspect), "--json"]
        result = CliRunner().invoke(cli, command)
        accused = [found["pull"] for found in json.loads(result.stdout)["traces"] if found["accused"]]
        return result.exit_code, accused

    assert traced(leaked) == (0, [header.pull])
    assert traced(original) == (1, [])


def test_a_pull_that_was_sent_to_its_end_is_noted_as_delivered(world, marked):
    version, _ = marked
    header, _ = pulled_by(world, version)

    def state():
        with world.registry.storage.database.read() as tx:
            return rows.pull(tx, header.pull).state

    assert eventually(lambda: state() is PullState.DELIVERED)
