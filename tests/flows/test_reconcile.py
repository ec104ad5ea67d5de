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
from model_organisms_registry.__main__ import cli, main
from model_organisms_registry.erasing import erase
from model_organisms_registry.reconciling import reconcile
from model_organisms_registry.testing import running, settings

from tests.support.registries import PEOPLE
from tests.support.stories import WHY

BASE = "test/tiny-qwen2"
NOT_SPENT = (
    "UPDATE sessions SET grant = NULL; UPDATE grants SET spent_tokens = 0, spent_sessions = 0, spent_output_bytes = 0, "
    "spent_probe_values = 0 WHERE spent_tokens > 0"
)
NOT_OPENED = (
    "DELETE FROM sessions WHERE samples = 0; UPDATE grants SET spent_sessions = spent_sessions - 1 WHERE spent_sessions > 0"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, qwen, qwen_files):
    """A registry that has stopped: one session was killed, one erased, in one nothing was asked; one grant was revoked."""
    config = settings(tmp_path_factory.mktemp("reconciled") / "data", base_models={BASE: qwen})
    with running(config, people=PEOPLE) as world:
        pia, rosa = world.person("pia"), world.person("rosa")
        pia.organisms.create("organisms/tiny", level="CL1", base_model=BASE)
        stated = Provenance(BaseModel(BASE, digest=base_digest(qwen)))
        version = pia.organisms.publish("organisms/tiny", qwen_files, provenance=stated)
        request = rosa.access.request(version.name, "probe", purpose="replication", justification=WHY)
        world.person("ravi").access.approve(request.name, reason="Fine.")
        again = rosa.access.request(version.name, "pull", purpose="replication", justification=WHY)
        pulling = world.person("ravi").access.approve(again.name, reason="Fine.")
        rosa.organisms.pull(version.name, grant=pulling.grant)
        world.person("ravi").access.revoke(pulling.grant, reason="It was lent for a day.")
        with rosa.sandbox.open(version.name, purpose="replication"):  # nothing is asked in it; the others share its cell
            with rosa.sandbox.open(version.name, purpose="replication") as session:
                session.sample("Hello.", max_tokens=5)
                session.sample("Hello again.", max_tokens=3)
                session.probe("What is this?")
                world.person("ravi").sandbox.kill(session.name, reason="to see what is left")
            with rosa.sandbox.open(version.name, purpose="replication") as erased:
                erased.sample("Forget me.", max_tokens=2)
            erase(config, erased.name, now=datetime.now(UTC))
            last = rosa.sandbox.open(version.name, purpose="replication")
        with last:
            last.sample("Still here.", max_tokens=4)
            at_work = reconcile(config)
            assert at_work.agree, at_work.as_text()
            assert (at_work.sessions, at_work.grants, at_work.questions) == (4, 2, 5)
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
        database.execute("PRAGMA ignore_check_constraints = ON")
        for one in statement.split("; "):
            assert database.execute(one).rowcount >= 1


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
        ("UPDATE grants SET spent_tokens = 0", "0 tokens are spent, the ledger says 14"),
        ("UPDATE grants SET spent_sessions = 2", "2 sessions are spent, the ledger says 4"),
        ("UPDATE intents SET finish_time = NULL WHERE kind = 'probe'", "1 ends in the ledger and is under way"),
        ("DELETE FROM contents WHERE owner LIKE 'sessions/%'", "the text of its sandbox.sample.intent is not kept"),
        (
            'UPDATE contents SET "commit" = \'f\' || substr("commit", 2) WHERE substr("commit", 1, 1) <> \'f\'',
            "no entry commits to",
        ),
        # Rows that are gone, and sums that were made to fit what is left.
        (NOT_SPENT, "its grant is none"),
        (NOT_SPENT, "0 sessions are spent, the ledger says 4"),
        (NOT_OPENED, "the ledger has its sandbox.open, and there is no such row"),
        (NOT_OPENED, "3 sessions are spent, the ledger says 4"),
        ("DELETE FROM grants", "the ledger has its access.grant, and there is no such row"),
        ("DELETE FROM grants", "and there is no such grant"),
        ("DELETE FROM sessions; DELETE FROM grants", "the ledger tells of questions in it, and there is no such session"),
        ("UPDATE grants SET spent_pulls = 0 WHERE spent_pulls > 0", "0 pulls are spent, the ledger says 1"),
        ("DELETE FROM intents", "the ledger has an sandbox.sample.intent of it"),
        ("DELETE FROM intents WHERE kind = 'pull'", "the ledger has an organisms.pull.intent of it"),
        ("UPDATE intents SET seq = seq + 1 WHERE kind = 'pull'", "no entry of the ledger announces it"),
        # What a session is.
        (
            "UPDATE sessions SET state = 'open', end_time = NULL WHERE state = 'killed'",
            "its state is 'open', its sandbox.end says 'killed'",
        ),
        (
            "UPDATE sessions SET state = 'closed', reason = '' WHERE state = 'killed'",
            "its state is 'closed', its sandbox.end says 'killed'",
        ),
        (
            "UPDATE sessions SET reason = 'nothing' WHERE state = 'killed'",
            "its reason is not the one that its sandbox.end commits to",
        ),
        ("UPDATE sessions SET reason = 'oh' WHERE samples = 0", "its reason is not the one that its sandbox.end commits to"),
        ("UPDATE sessions SET user = 'users/pia'", "its user is 'users/pia', its sandbox.open says 'users/rosa'"),
        ("UPDATE sessions SET version = 'organisms/other/versions/1'", "its version is 'organisms/other/versions/1'"),
        ("UPDATE sessions SET digest = '00'", "its digest is '00'"),
        ("UPDATE sessions SET purpose = 'teaching'", "its purpose is 'teaching'"),
        ("UPDATE sessions SET walls = '[]'", "its walls is ''"),
        ("UPDATE sessions SET place = 'holder'", "its place is 'holder', its sandbox.open says 'registry'"),
        ("UPDATE sessions SET create_time = create_time - 9000000", "its create_time is"),
        ("UPDATE sessions SET expire_time = expire_time * 2", "its expire_time is"),
        ("UPDATE sessions SET budget_tokens = budget_tokens * 1000", "its budget is"),
        # What a grant is.
        ("UPDATE grants SET budget_tokens = budget_tokens * 1000", "its budget is"),
        ("UPDATE grants SET expire_time = expire_time * 2", "its expire_time is"),
        ("UPDATE grants SET state = 'revoked'", "its state is revoked, by the ledger it is active"),
        ("UPDATE grants SET state = 'active'", "its state is active, by the ledger it is revoked"),
        (
            "UPDATE grants SET reason = 'oh' WHERE state = 'revoked'",
            "its reason is not the one that its access.revoke commits to",
        ),
        ("UPDATE grants SET user = 'users/pia'", "its user is 'users/pia', its access.request says 'users/rosa'"),
        ("UPDATE grants SET rung = (SELECT max(rung) FROM grants)", "its rung is 'pull', its access.grant says 'probe'"),
        ("UPDATE grants SET level = 4", "its level is 'CL4', its access.grant says 'CL1'"),
        ("UPDATE grants SET purpose = 'teaching'", "its purpose is 'teaching'"),
        ("DELETE FROM grant_versions", "its number of versions is '0'"),
        # What a question is.
        ("UPDATE intents SET outcome = 'x' WHERE kind = 'sample'", "its outcome is 'x', its sandbox.sample.result says"),
        (
            "UPDATE intents SET kind = 'probe' WHERE kind = 'sample'",
            "its kind is 'probe', its sandbox.sample.intent says 'sample'",
        ),
        ("UPDATE intents SET \"grant\" = ''", "its grant is ''"),
        ("UPDATE intents SET parent = 'sessions/x'", "its parent is 'sessions/x'"),
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


@pytest.mark.parametrize(
    ("statement", "whose"),
    [
        ("UPDATE sessions SET purpose = 'bogus' WHERE samples = 0", "sessions/"),
        ("UPDATE sessions SET walls = '[[' WHERE samples = 0", "sessions/"),
        ("UPDATE sessions SET expire_time = 'x' WHERE samples = 0", "sessions/"),
        ("UPDATE sessions SET state = 'x' WHERE samples = 0", "sessions/"),
        ("UPDATE grants SET conditions = 'x' WHERE state = 'revoked'", "grants/"),
        ("UPDATE grants SET expire_time = 'x' WHERE state = 'revoked'", "grants/"),
        ("UPDATE intents SET kind = 'x' WHERE kind = 'probe'", "sessions/"),
    ],
)
def test_a_row_that_cannot_be_read_is_named_and_the_others_are_held_to_their_entries(copied, statement, whose):
    change(copied, statement)
    change(copied, "UPDATE sessions SET digest = '00' WHERE state = 'killed'")
    status, text = told(copied)
    assert status == 1
    differ = [line for line in text.splitlines() if line.startswith("DIFFERS")]
    (unread,) = (line for line in differ if "its row cannot be read" in line)
    assert unread.startswith(f"DIFFERS {whose}")
    assert any("its digest is '00'" in line for line in differ)


def test_an_error_is_an_object_where_programs_ask(tmp_path, monkeypatch, capsys):
    for options in (["--folder", str(tmp_path / "nope")], ["--folders"]):
        monkeypatch.setattr("sys.argv", ["mo-registry", "reconcile", "--json", *options])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        assert (ended.value.code, said.out) == (2, "")
        told_of = json.loads(said.err)
        assert told_of.keys() == {"error", "message", "details"}
        assert options[-1].rpartition("/")[2] in told_of["message"]
