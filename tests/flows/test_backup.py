"""Copies of a registry: made while it works, put back whole, and never a way to open what was destroyed."""

from __future__ import annotations

import threading
from contextlib import closing
from datetime import UTC, datetime

import pytest
from click.testing import CliRunner
from model_organisms import errors
from model_organisms.client.client import connect
from model_organisms.formats import manifest
from model_organisms_registry.__main__ import cli
from model_organisms_registry.config import load
from model_organisms_registry.domain.audit import Event, entry
from model_organisms_registry.founding import Storage, free_ports
from model_organisms_registry.inspection import copy, inspect
from model_organisms_registry.server import Registry
from model_organisms_registry.storage.bundles import Stored
from model_organisms_registry.storage.contents import Contents
from model_organisms_registry.storage.sealed import SealedStore
from model_organisms_registry.workflows.changes import seq

from tests.support.stories import granted, published


def run(*words):
    done = CliRunner().invoke(cli, [str(word) for word in words], catch_exceptions=False)
    return done.exit_code, done.output


def stored(version):
    return Stored(version.name.split("/versions")[0], version.digest, manifest.of_files(version.files).packed_size)


def opened(folder, version):
    """Open a version's bundle from a data folder, as a registry would."""
    with closing(Storage.open(load(folder))) as storage:
        blob = SealedStore(storage.blobs, storage.keys).open_sealed(stored(version).path, aad=bytes.fromhex(version.digest))
        return bytes(memoryview(blob.into_memory())[: stored(version).size])


def packed(files):
    listed = manifest.build(files)
    return b"".join(manifest.pack(listed.data, files))


def test_a_copy_of_a_registry_at_work_is_whole(world, tmp_path):
    published(world)
    stop = threading.Event()
    facts = {"version": "0", "policies": "none"}

    def work():
        while not stop.is_set():
            now = datetime.now(UTC)
            entered = entry(Event.REGISTRY_START, None, time=now, seq=seq(), subject="registry", facts=facts)
            world.registry.changes.enter(entered)

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    sizes = [0]
    try:
        while len(sizes) < 6 or sizes[-1] < 520:  # so that tiles fill up, and narrower ones go, while they are copied
            to = tmp_path / str(len(sizes))
            assert copy(world.registry.config, to) == ()
            report = inspect(load(to))
            assert report.findings == ()
            sizes.append(report.entries)
    finally:
        stop.set()
        for worker in workers:
            worker.join()
    assert sizes == sorted(sizes)  # two may be alike: a busy machine gives the writers no turn in between


def test_what_was_destroyed_does_not_come_back_with_an_older_copy(world, tmp_path):
    (kept, files), (doomed, others) = published(world), published(world)
    keys = world.folder / "keys" / "kek"
    status, told = run("backup", "--folder", world.folder, tmp_path / "copy")
    assert (status, "without the keys of versions" in told) == (0, True)
    secrets = [path.read_bytes() for path in (keys / "live").iterdir()]
    copied = b"".join(path.read_bytes() for path in (tmp_path / "copy").rglob("*") if path.is_file())
    assert secrets
    assert not [secret for secret in secrets if secret in copied]
    assert opened(world.folder, doomed) == packed(others)

    world.registry.storage.keys.destroy(stored(doomed).key_id)
    status, told = run("restore", tmp_path / "copy", "--folder", tmp_path / "new", "--version-keys", keys)
    assert (status, f"destroyed: {doomed.name}" in told, kept.name in told) == (0, True, False)
    assert opened(tmp_path / "new", kept) == packed(files)
    with pytest.raises(errors.NotFound, match="destroyed"):
        opened(tmp_path / "new", doomed)

    status, told = run("restore", tmp_path / "copy", "--folder", tmp_path / "bare")
    assert (status, "keys: not asked: " in told, "destroyed: " in told) == (0, True, False)
    with pytest.raises(errors.NotFound):
        opened(tmp_path / "bare", kept)


def test_a_restored_registry_goes_on(world, tmp_path):
    version, files = published(world)
    grant = granted(world, version)
    assert run("backup", "--folder", world.folder, tmp_path / "copy")[0] == 0
    restored = ("--folder", tmp_path / "new", "--version-keys", world.folder / "keys/kek")
    assert run("restore", tmp_path / "copy", *restored)[0] == 0
    registry = Registry(free_ports(load(tmp_path / "new")))
    registry.start()
    try:
        identity = (world.folder / "rosa.json").read_text()
        (tmp_path / "rosa.json").write_text(identity.replace(*(f"localhost:{port(each)}" for each in (world.registry, registry))))
        (tmp_path / "rosa.json").chmod(0o600)
        with connect(tmp_path / "rosa.json") as rosa, rosa.organisms.pull(version.name) as pulled:
            assert {path: bytes(data) for path, data in pulled.files.items()} == files
            assert pulled.header.grant == grant
    finally:
        registry.stop(grace_s=1)


def port(registry):
    return registry.config.listen.rsplit(":", 1)[-1]


def test_a_folder_with_something_in_it_is_not_written_over(world, tmp_path):
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "mine").write_text("Mine.")
    with pytest.raises(errors.AlreadyExists, match="new folder"):
        copy(world.registry.config, tmp_path / "taken")
    with pytest.raises(errors.AlreadyExists, match="new folder"):
        run("restore", tmp_path, "--folder", tmp_path / "taken")
    assert [path.name for path in (tmp_path / "taken").iterdir()] == ["mine"]


def test_a_text_that_no_transaction_knows_of_is_told_and_is_not_wrong(world):
    before = inspect(load(world.folder))
    with closing(Storage.open(load(world.folder))) as storage:
        Contents(SealedStore(storage.blobs, storage.keys)).keep("sessions/" + "0" * 26, b"Said, and cut off.")
    after = inspect(load(world.folder))
    assert (after.unindexed, after.findings) == (before.unindexed + 1, before.findings)
    assert f"unindexed: {after.unindexed} blobs" in after.as_text()
