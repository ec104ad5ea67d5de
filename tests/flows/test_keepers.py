"""A registry whose keys a folder, a token or a vault keeps: everything works with each, and nothing destroyed comes back."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime

import pytest
from model_organisms import errors
from model_organisms.client.client import connect
from model_organisms.formats import entry as entries
from model_organisms_registry import founding
from model_organisms_registry.config import Keys, load
from model_organisms_registry.founding import found, free_ports
from model_organisms_registry.server import Registry
from model_organisms_registry.testing import running, settings

from tests.flows.test_backup import opened, packed, run, stored
from tests.means.test_key_token import secrets_of
from tests.support.keepers import PROVIDERS, kept_by
from tests.support.stories import granted, published

PEOPLE = (("pia", "publisher", "nursery-lab"), ("rosa", "researcher", "detection-lab"), ("ravi", "reviewer", "safety-institute"))


@pytest.fixture(scope="module", params=PROVIDERS)
def kept(request, tmp_path_factory, softhsm):
    folder = tmp_path_factory.mktemp(request.param)
    with (
        kept_by(request.param, folder, softhsm) as (keys, server),
        running(settings(folder / "data", keys=keys), people=PEOPLE) as at_work,
    ):
        yield at_work, keys, server


@pytest.fixture
def world(kept):
    return kept[0]


@pytest.fixture
def provider(kept):
    return kept[1]


def test_everything_works_with_each_keeper_and_nothing_destroyed_comes_back(world, provider, tmp_path):
    version, files = published(world, level="CL2")
    (doomed, _) = published(world)
    grant = granted(world, version)
    with world.person("rosa").organisms.pull(version.name) as pulled:
        copied = {path: bytes(data) for path, data in pulled.files.items()}
        assert pulled.header.grant == grant
    assert copied.keys() == files.keys()
    assert load(world.folder).keys == provider

    (tmp_path / "leaked").mkdir()
    for path, data in copied.items():
        (tmp_path / "leaked" / path).write_bytes(data)
    status, told = run("trace", "--folder", world.folder, "--version", version.name, tmp_path / "leaked")
    assert (status, "came from: users/rosa" in told) == (0, True)

    assert run("backup", "--folder", world.folder, tmp_path / "copy")[0] == 0
    world.registry.storage.keys.destroy(stored(doomed).key_id)
    mirrored = ("--version-keys", world.folder / "keys/kek") if provider.provider == "file" else ()
    status, told = run("restore", tmp_path / "copy", "--folder", tmp_path / "new", *mirrored)
    assert (status, f"destroyed: {doomed.name}" in told, version.name in told) == (0, True, False)
    assert opened(tmp_path / "new", version) == packed(files)
    with pytest.raises(errors.NotFound, match="destroyed"):
        opened(tmp_path / "new", doomed)

    again = Registry(free_ports(load(tmp_path / "new")))
    again.start()
    again.stop(grace_s=1)


def lose(keys, server, folder, key_id):
    """Take a key away as a fault would: by hand, behind the registry's back."""
    if keys.provider == "file":
        (folder / "keys/kek/live" / key_id).unlink()
    elif keys.provider == "pkcs11":
        secrets_of(keys.pkcs11, key_id)[0].destroy()
    else:
        del server.keys[key_id]


def test_fsck_tells_a_lost_key_from_a_destroyed_one_and_from_one_that_it_could_not_ask_for(kept):
    world, keys, server = kept
    (lost, _), (doomed, _) = published(world), published(world)
    world.registry.storage.keys.destroy(stored(doomed).key_id)
    lose(keys, server, world.folder, stored(lost).key_id)
    status, told = run("fsck", "--folder", world.folder)
    assert (status, f"destroyed: {doomed.name}:" in told, f"WRONG {lost.name}: its key is lost" in told) == (1, True, True)
    world.registry.storage.keys.destroy(stored(lost).key_id)  # so that it troubles no other test

    away = {"library": '"/nowhere.so"', "address": '"http://127.0.0.1:9"'}
    told = (world.folder / "registry.toml").read_text()
    changed = [f"{key} = {away[key]}" if (key := line.partition(" = ")[0]) in away else line for line in told.splitlines()]
    (world.folder / "registry.toml").write_text("\n".join(changed))
    (world.folder / "keys/kek").rename(world.folder / "elsewhere")
    try:
        status, told_now = run("fsck", "--folder", world.folder)
        assert (status, "keys: not asked: " in told_now, "WRONG" in told_now) == (0, True, False)
    finally:
        (world.folder / "elsewhere").rename(world.folder / "keys/kek")
        (world.folder / "registry.toml").write_text(told)


def test_a_registry_is_made_with_the_keeper_that_an_operator_names(kept, tmp_path):
    _, keys, _ = kept
    told = "\n".join(founding._keys_settings(keys)) or '[keys]\nprovider = "file"\n'
    (tmp_path / "keys.toml").write_text(told)
    status, said = run("init", "--folder", tmp_path / "data", "--keys", tmp_path / "keys.toml")
    assert (status, load(tmp_path / "data").keys) == (0, keys)
    assert ("keys/kek" if keys.provider == "file" else f"kept by {keys.provider}") in said
    (tmp_path / "more.toml").write_text(told + "\n[limits]\nthreads = 1\n")
    with pytest.raises(errors.ConfigurationInvalid, match="nothing else"):
        run("init", "--folder", tmp_path / "other", "--keys", tmp_path / "more.toml")


def test_settings_that_name_no_keeper_are_refused_in_words(tmp_path):
    config = settings(tmp_path / "data", keys=Keys("hsm"))
    with pytest.raises(errors.ConfigurationInvalid, match="file, pkcs11 or vault"):
        found(config, now=datetime.now(UTC))


def test_an_operator_turns_the_keys_of_a_stopped_registry_and_it_goes_on(tmp_path):
    config = settings(tmp_path / "data")
    with running(config, people=PEOPLE) as world:
        (version, files), (other, _) = published(world), published(world)
        grant = granted(world, version)
        with pytest.raises(errors.LedgerUnavailable, match="Another registry"):
            run("rewrap", "--folder", world.folder, "--all")
        assert run("backup", "--folder", world.folder, tmp_path / "copy")[0] == 0
    assert run("rewrap", "--folder", world.folder)[0] == 2
    assert run("rewrap", "--folder", world.folder, "--all", "--version", version.name)[0] == 2
    status, told = run("rewrap", "--folder", world.folder, "--version", version.name)
    assert (status, "1 data keys are under 1 fresh keys" in told) == (0, True)
    status, told = run("rewrap", "--folder", world.folder, "--all", "--json")
    assert (status, json.loads(told)["failed"]) == (0, [])
    assert run("rewrap", "--folder", world.folder, "--all", "--to", "file")[0] == 0
    status, told = run("fsck", "--folder", world.folder)
    assert (status, "destroyed: " in told) == (0, False)

    registry = Registry(config)
    registry.start()
    try:
        said = [entries.parse(body) for body in registry.storage.log.entries(0, 1000)]
        rewraps = [item.facts for item in said if item.type == "registry.rewrap.intent"]
        assert [facts["keeper"] for facts in rewraps] == ["file"] * 3
        assert (rewraps[0]["of"], rewraps[1]["of"]) == (stored(version).key_id, "all")
        assert sum(item.type == "registry.rewrap.result" for item in said) == 3
        with connect(tmp_path / "data" / "rosa.json") as rosa, rosa.organisms.pull(version.name) as pulled:
            assert ({path: bytes(data) for path, data in pulled.files.items()}, pulled.header.grant) == (files, grant)
    finally:
        registry.stop(grace_s=1)

    # What was copied before has key records of keys that are gone: told from what was destroyed, and mended by the newer ones.
    kek = world.folder / "keys/kek"
    status, told = run("restore", tmp_path / "copy", "--folder", tmp_path / "new", "--version-keys", kek)
    assert (status, f"outdated: {version.name}" in told, f"outdated: {other.name}" in told) == (0, True, True)
    with pytest.raises(errors.NotFound):
        opened(tmp_path / "new", version)
    for name in ("marking", "versions"):
        for record in (world.folder / "blobs" / name).rglob("*.key"):
            shutil.copy2(record, tmp_path / "new" / record.relative_to(world.folder))
    assert "outdated" not in run("fsck", "--folder", tmp_path / "new")[1]
    assert opened(tmp_path / "new", version) == packed(files)
