"""What was said in a session is erased by destroying its key: unreadable, also from a backup, while every proof stays valid."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from model_organisms import errors
from model_organisms.bases import base_digest
from model_organisms.formats import webhooks
from model_organisms.formats.provenance import BaseModel, Provenance
from model_organisms_registry.config import Notify
from model_organisms_registry.erasing import erase
from model_organisms_registry.inspection import copy, inspect, put_back
from model_organisms_registry.storage.blobs import Blobs
from model_organisms_registry.storage.catalog import outbox
from model_organisms_registry.storage.catalog import sandbox as rows
from model_organisms_registry.storage.contents import Contents
from model_organisms_registry.storage.database import Database
from model_organisms_registry.storage.keyring import open_keyring
from model_organisms_registry.storage.sealed import SealedStore
from model_organisms_registry.testing import running, settings

from tests.support.cells import eventually
from tests.support.registries import PEOPLE
from tests.support.stories import WHY

BASE = "test/tiny-qwen2"
SECRET = "A prompt that its author wants forgotten."


def texts(config, session):
    """What can be opened of a session, by whoever has the folder."""
    database, keyring = Database(config.database_url), open_keyring(config.keys, config.kek_folder)
    contents = Contents(SealedStore(Blobs(config.blobs_url), keyring))
    try:
        with database.read() as tx:
            return [contents.read(content) for content in rows.contents(tx, session)]
    finally:
        database.close()
        keyring.close()


@pytest.fixture(scope="module")
def world(tmp_path_factory, qwen):
    config = settings(tmp_path_factory.mktemp("erased") / "data", base_models={BASE: qwen})
    with running(config, people=PEOPLE) as running_world:
        yield running_world


def test_a_session_is_erased_and_its_neighbour_is_not(world, qwen, qwen_files, tmp_path):
    pia, rosa, config = world.person("pia"), world.person("rosa"), world.registry.config
    pia.organisms.create("organisms/tiny", level="CL1", base_model=BASE)
    stated = Provenance(BaseModel(BASE, digest=base_digest(qwen)))
    version = pia.organisms.publish("organisms/tiny", qwen_files, provenance=stated)
    rosa.access.request(version.name, "sample", purpose="replication", justification=WHY)
    said = []
    for number in range(2):
        with rosa.sandbox.open(version.name, purpose="replication") as session:
            said.append((session.name, session.sample(f"{SECRET} {number}", max_tokens=4)))
    (gone, answer), (kept, other) = said
    assert any(SECRET.encode() in text for text in texts(config, gone))
    copy(config, tmp_path / "backup")

    with rosa.sandbox.open(version.name, purpose="replication") as session:
        with pytest.raises(errors.Conflict, match="still open"):
            erase(config, session.name, now=datetime.now(UTC))
        assert session.sample("Hello.", max_tokens=2).text is not None
    with pytest.raises(errors.NotFound):
        erase(config, "sessions/01j9zq3v8r5m2k7x4c6b0d1e2f", now=datetime.now(UTC))
    assert erase(config, gone, now=datetime.now(UTC)).texts >= 3

    with pytest.raises(errors.NotFound):
        texts(config, gone)
    assert any(SECRET.encode() in text for text in texts(config, kept))
    assert eventually(lambda: ("sandbox.erase", gone) in [(e.type, e.subject) for _, e in world.person("aud").audit.entries()])
    head = world.person("aud").audit.verify_ledger()
    for sample in (answer, other):  # what was erased is still proved
        proved = rosa.audit.receipt(sample.receipt.ledger_index)
        assert rosa.audit.verify(proved).facts["output"] == sample.receipt.output_sha256
    report = inspect(config)
    assert report.clean, report.as_text()
    assert report.entries >= head.size

    put_back(tmp_path / "backup", tmp_path / "restored", config.kek_folder)
    restored = settings(tmp_path / "restored")
    assert any(SECRET.encode() in text for text in texts(restored, kept))
    with pytest.raises(errors.NotFound):
        texts(restored, gone)
    (config.folder / "secret").write_text(webhooks.print_secret(bytes(32)))
    told = replace(config, notify=(Notify("tracker", "https://example.org/", "secret", ("sandbox.erase",)),))
    assert erase(told, gone, now=datetime.now(UTC)).texts >= 3
    with world.registry.storage.database.read() as tx:
        assert [json.loads(letter.body)["data"]["subject"] for letter in outbox.pending(tx, most=9)] == [gone]
