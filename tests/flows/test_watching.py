"""A reviewer reads what is said in a session while it is said: nothing before it is entered, nothing that acts on a terminal."""

from __future__ import annotations

import json
import threading
import time
from datetime import UTC, datetime

import pytest
from model_organisms import errors
from model_organisms.bases import base_digest
from model_organisms.client import watching as client_watching
from model_organisms.formats.provenance import BaseModel, Provenance
from model_organisms.records import Budget, Message, SessionState, UtteranceKind
from model_organisms_registry.erasing import erase
from model_organisms_registry.testing import running, settings
from model_organisms_registry.workflows import watching

from tests.support.cells import eventually
from tests.support.registries import PEOPLE
from tests.support.terminal import typed
from tests.support.tiny import tiny_base, tiny_organism

BASE = "test/talkative"
HOSTILE = "Hello \x1b]52;c;ZXZpbA==\x07\x1b[2J \u202egnp.exe <script>alert(1)</script>"


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("watching")
    base = tiny_base(folder / "base", talkative=True)
    with running(settings(folder / "data", base_models={BASE: base}), people=PEOPLE) as running_world:
        pia = running_world.person("pia")
        pia.organisms.create("organisms/talker", level="CL1", base_model=BASE)
        stated = Provenance(BaseModel(BASE, digest=base_digest(base)))
        pia.organisms.publish("organisms/talker", tiny_organism(base), provenance=stated)
        yield running_world


@pytest.fixture(scope="module")
def grant(world):
    asked = Budget(tokens=9000, output_bytes=150_000, sessions=9, probe_values=99)
    request = world.person("rosa").access.request(
        "organisms/talker/versions/1", "probe", purpose="replication", justification="A toy.", budget=asked
    )
    return request.grant or world.person("ravi").access.approve(request.name, reason="Fine.").grant


@pytest.fixture
def session(world, grant):
    opened = world.person("rosa").sandbox.open("organisms/talker/versions/1", purpose="replication", grant=grant)
    yield opened
    if world.person("rosa").sandbox.get(opened.name).state is SessionState.OPEN:
        opened.close()


def looks(world, session):
    return [one for _, one in world.person("aud").audit.entries() if one.type == "sandbox.watch" and one.subject == session.name]


def test_a_watcher_reads_along_and_the_look_is_in_the_ledger(world, session):
    read, ravi = [], world.person("ravi")
    watching_ = threading.Thread(target=lambda: read.extend(ravi.sandbox.watch(session.name)))
    watching_.start()
    assert eventually(lambda: looks(world, session))
    answer = session.sample([Message("system", "Be brief."), Message("user", HOSTILE)], max_tokens=12)
    assert eventually(lambda: any(one.kind is UtteranceKind.RESULT for one in read))
    probe = session.probe("And?")
    session.close()
    watching_.join(timeout=20)
    assert not watching_.is_alive()
    assert read[0].messages == (Message("system", "Be brief."), Message("user", HOSTILE))
    assert "".join(one.text for one in read if one.kind is UtteranceKind.TEXT) == answer.text
    assert [one.text for one in read if one.kind is UtteranceKind.RESULT] == [answer.finish_reason]
    assert sum(one.kind is UtteranceKind.NUMBERS for one in read) == 1
    assert (read[-1].kind, read[-1].text) == (UtteranceKind.END, "closed")
    assert [one.ledger_index for one in read] == sorted(one.ledger_index for one in read)
    assert {one.subject for one in read} == {answer.receipt.sample, probe.receipt.sample, session.name}
    (look,) = looks(world, session)
    assert (look.actor, look.facts) == ("users/ravi", {"follow": "yes"})
    assert list(ravi.sandbox.transcript(session.name)) == read


def test_a_watch_outlasts_its_looks_and_tells_each_thing_once(world, session, monkeypatch):
    monkeypatch.setattr(client_watching, "LOOK_S", 1.5)
    read, ravi = [], world.person("ravi")
    following = threading.Thread(target=lambda: read.extend(ravi.sandbox.watch(session.name)))
    following.start()
    said = []
    for _ in range(4):
        said.append(session.sample("Go on.", max_tokens=4).text)
        time.sleep(1)
    session.close()
    following.join(timeout=30)
    assert not following.is_alive()
    assert len(looks(world, session)) > 1
    assert "".join(one.text for one in read if one.kind is UtteranceKind.TEXT) == "".join(said)
    assert len({(one.ledger_index, one.kind) for one in read}) == len(read)
    assert read[-1].kind is UtteranceKind.END
    assert list(ravi.sandbox.watch(session.name, timeout_s=0)) == []


@pytest.mark.parametrize("who", ["rosa", "pia", "aud"])
def test_only_reviewers_and_admins_read_and_a_refused_look_reads_nothing(world, session, who):
    with pytest.raises((errors.Denied, errors.NotFound)):
        next(iter(world.person(who).sandbox.transcript(session.name)))
    assert not looks(world, session)


def test_what_was_said_does_not_act_on_a_terminal(world, session):
    session.sample(HOSTILE, max_tokens=4)
    session.close()
    identity = world.folder / "ravi.json"
    for command in ("transcript", "watch"):
        status, out, err = typed("--identity", identity, "sandbox", command, session.name)
        assert (status, err) == (0, "")
        assert "\\x1b]52;c;" in out
        assert not {"\x1b", "\x07", "\u202e"} & set(out)
        status, out, _ = typed("--identity", identity, "sandbox", command, session.name, "--json")
        assert status == 0
        assert not {"\x1b", "\x07", "\u202e"} & set(out)
        lines = [json.loads(line) for line in out.splitlines()]
        assert lines[0]["messages"][0]["content"] == HOSTILE


def test_a_watcher_that_takes_nothing_is_sent_away_and_the_session_goes_on(world, session, monkeypatch):
    monkeypatch.setattr(watching, "SLOW_S", -1.0)
    session.sample("Go on.", max_tokens=4)
    with pytest.raises(errors.Unavailable, match="do not keep up"):
        list(world.person("ravi").sandbox.watch(session.name))
    assert session.sample("Go on.", max_tokens=4).receipt.tokens == 4


def test_a_watcher_whose_account_is_suspended_reads_no_further(world, session):
    rex = world.person("rex", "reviewer")
    told = []

    def read():
        try:
            told.extend(rex.sandbox.watch(session.name))
        except errors.ModelOrganismsError as error:
            told.append(error)

    reading = threading.Thread(target=read)
    reading.start()
    assert eventually(lambda: looks(world, session))
    world.admin.users.suspend("rex", reason="The laptop was stolen.")
    reading.join(timeout=20)
    assert isinstance(told[-1], errors.Suspended)


def test_of_an_erased_session_it_is_told_that_there_were_words(world, session):
    session.sample("Go on.", max_tokens=4)
    session.close()
    erase(world.registry.config, session.name, now=datetime.now(UTC))
    read = list(world.person("ravi").sandbox.transcript(session.name))
    assert {one.kind for one in read} == {UtteranceKind.ERASED, UtteranceKind.RESULT, UtteranceKind.END}
    assert not any(one.messages for one in read)
