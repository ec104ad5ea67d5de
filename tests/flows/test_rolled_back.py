"""A data folder that was set back whole is noticed by whoever saw more, before anything is written to it."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime

import pytest
from model_organisms import errors
from model_organisms.client.client import connect, login
from model_organisms.client.monitor import Monitor
from model_organisms.formats import note
from model_organisms_registry.founding import found
from model_organisms_registry.server import Registry
from model_organisms_registry.testing import World, settings

from tests.support.stories import BASE


def started(config):
    registry = Registry(config)
    registry.start()
    return registry


def entries(client):
    return [entry.subject for _, entry in client.audit.entries()]


@pytest.mark.parametrize("lost", [1, 5], ids=["the ledger is as long again", "the ledger is shorter"])
def test_a_folder_set_back_is_noticed_before_the_first_change(tmp_path, lost):
    config = settings(tmp_path / "data")
    ticket = found(config, now=datetime.now(UTC))
    registry, old = started(config), tmp_path / "old"
    world = World(registry, tmp_path, login(str(ticket), tmp_path / "admin.json"))
    world.person("aud", "auditor")
    world.person("pia", "publisher").organisms.create("organisms/kept", level="CL1", base_model=BASE)
    world.close()
    shutil.copytree(config.folder, old)

    registry = started(config)
    with connect(tmp_path / "pia.json") as seen:
        for number in range(lost):
            seen.organisms.create(f"organisms/lost-{number}", level="CL1", base_model=BASE)
    registry.stop(grace_s=1.0)
    shutil.rmtree(config.folder)
    shutil.copytree(old, config.folder)

    registry = started(config)
    try:
        with connect(tmp_path / "aud.json") as behind, connect(tmp_path / "pia.json") as seen:
            before = entries(behind)
            for _ in range(2):
                with pytest.raises(errors.LedgerForked):
                    seen.organisms.create("organisms/new", level="CL1", base_model=BASE)
            assert entries(behind) == before
            monitor = Monitor(seen.audit, note.parse_vkey(seen.identity.ledger_key), seen.identity.origin)
            (alarm,) = monitor.look(datetime.now(UTC))
            shorter = registry.storage.log.size() < seen.audit._newest.size
            assert alarm.kind == ("rollback" if shorter else "fork")
            assert monitor.seen == registry.storage.log.size()
            assert "organisms/kept" in before
            assert not {"organisms/lost-0", "organisms/new"} & set(before)
    finally:
        registry.stop(grace_s=1.0)


def test_a_connection_asks_once(world):
    pia = world.person("pia")
    pia.organisms.create("organisms/first", level="CL1", base_model=BASE)
    with connect(world.folder / "pia.json") as again:
        asked = []
        fetch = again.audit.checkpoint
        again.audit.checkpoint = lambda: asked.append(fetch())
        again.organisms.create("organisms/second", level="CL1", base_model=BASE)
        again.organisms.create("organisms/third", level="CL1", base_model=BASE)
        assert len(asked) == 1
    assert entries(world.person("aud"))[-1] == "organisms/third"
