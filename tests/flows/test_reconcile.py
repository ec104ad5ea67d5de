"""`mo-registry reconcile`: ledger, budgets and transcripts agree while a registry works, and what was changed is found."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing
from datetime import UTC, datetime

import pytest
from click.testing import CliRunner
from model_organisms.bases import base_digest
from model_organisms.formats.provenance import BaseModel, Provenance
from model_organisms_registry.__main__ import cli
from model_organisms_registry.erasing import erase
from model_organisms_registry.reconciling import reconcile
from model_organisms_registry.testing import running, settings

from tests.support.registries import PEOPLE
from tests.support.stories import WHY

BASE = "test/tiny-qwen2"


@pytest.fixture(scope="module")
def folder(tmp_path_factory, qwen, qwen_files):
    """A registry that has answered questions in three sessions, of which one was killed and one erased; and that has stopped."""
    config = settings(tmp_path_factory.mktemp("reconciled") / "data", base_models={BASE: qwen})
    with running(config, people=PEOPLE) as world:
        pia, rosa = world.person("pia"), world.person("rosa")
        pia.organisms.create("organisms/tiny", level="CL1", base_model=BASE)
        stated = Provenance(BaseModel(BASE, digest=base_digest(qwen)))
        version = pia.organisms.publish("organisms/tiny", qwen_files, provenance=stated)
        request = rosa.access.request(version.name, "probe", purpose="replication", justification=WHY)
        world.person("ravi").access.approve(request.name, reason="Fine.")
        with rosa.sandbox.open(version.name, purpose="replication") as session:
            session.sample("Hello.", max_tokens=5)
            session.sample("Hello again.", max_tokens=3)
            session.probe("What is this?")
            world.person("ravi").sandbox.kill(session.name, reason="to see what is left")
        with rosa.sandbox.open(version.name, purpose="replication") as erased:
            erased.sample("Forget me.", max_tokens=2)
        erase(config, erased.name, now=datetime.now(UTC))
        with rosa.sandbox.open(version.name, purpose="replication") as session:
            session.sample("Still here.", max_tokens=4)
            at_work = reconcile(config)
            assert at_work.agree, at_work.as_text()
            assert (at_work.sessions, at_work.questions) == (3, 5)
            assert at_work.erased >= 3
            assert at_work.texts >= 10
    return config.folder


@pytest.fixture
def copied(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "data")
    return tmp_path / "data"


def told(folder, *options):
    done = CliRunner().invoke(cli, ["reconcile", "--folder", str(folder), *options])
    return done.exit_code, done.stdout


def change(folder, statement):
    with closing(sqlite3.connect(folder / "registry.db", isolation_level=None)) as database:
        assert database.execute(statement).rowcount >= 1


def test_what_nobody_touched_agrees(copied):
    status, text = told(copied)
    assert (status, text.splitlines()[-1]) == (0, "ledger, budgets and transcripts agree")
    status, text = told(copied, "--json")
    assert status == 0
    assert json.loads(text)["agree"] is True


@pytest.mark.parametrize(
    ("statement", "found"),
    [
        ("UPDATE sessions SET spent_tokens = spent_tokens - 1", "tokens are spent, the ledger says"),
        ("UPDATE sessions SET spent_output_bytes = spent_output_bytes + 1", "output_bytes are spent, the ledger says"),
        (
            "UPDATE sessions SET spent_probe_values = 0 WHERE spent_probe_values > 0",
            "0 probe_values are spent",
        ),
        ("UPDATE grants SET spent_tokens = 0", "0 tokens are spent, its sessions say"),
        ("UPDATE grants SET spent_sessions = 2", "2 sessions are spent, its sessions say 3"),
        ("UPDATE intents SET finish_time = NULL WHERE kind = 'probe'", "1 ends in the ledger and is under way"),
        ("DELETE FROM contents WHERE owner LIKE 'sessions/%'", "the text of its sandbox.sample.intent is not kept"),
        (
            'UPDATE contents SET "commit" = \'f\' || substr("commit", 2) WHERE substr("commit", 1, 1) <> \'f\'',
            "no entry commits to",
        ),
    ],
)
def test_a_row_that_was_changed_is_found(copied, statement, found):
    change(copied, statement)
    status, text = told(copied)
    assert status == 1
    assert found in text


def test_a_text_that_was_changed_or_is_gone_is_found(copied):
    texts = sorted(path for path in (copied / "blobs/contents/sessions").rglob("*") if path.is_file() and path.suffix != ".key")
    (path,) = texts[:1]
    stored = bytearray(path.read_bytes())
    stored[-1] ^= 1
    path.write_bytes(stored)
    status, text = told(copied)
    assert status == 1
    assert "does not open" in text


def test_an_entry_that_was_changed_is_found(copied):
    change(copied, "DELETE FROM ledger_entries WHERE instr(body, CAST('sandbox.probe.result' AS BLOB)) > 0")
    status, text = told(copied)
    assert status == 1
    assert "0 ends in the ledger" in text
