"""Other systems are told what happens: by a registry that runs, by one that was stopped meanwhile, and by command."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from click.testing import CliRunner
from model_organisms.errors import NotFound
from model_organisms.formats import webhooks
from model_organisms_registry.__main__ import cli
from model_organisms_registry.config import Notify
from model_organisms_registry.rewrapping import rewrap
from model_organisms_registry.server import Registry
from model_organisms_registry.storage.catalog import outbox
from model_organisms_registry.storage.catalog import requests as request_rows
from model_organisms_registry.testing import running, settings

from tests.support.receiver import KEY, receiving
from tests.support.registries import PEOPLE
from tests.support.stories import WHY, published

EVENTS = ("access.request", "access.approve", "access.grant", "access.revoke", "access.lapse")


def until(condition):
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, "it did not come about in time"
        time.sleep(0.02)


@pytest.fixture
def config(tmp_path):
    made = settings(tmp_path / "data")
    made.folder.mkdir(parents=True)
    (made.folder / "secret").write_text(webhooks.print_secret(KEY))
    return made


def told(config, url, **changes):
    given = Notify("tracker", url, "secret", EVENTS, private=True, timeout_s=2.0, first_pause_s=0.1)
    return replace(config, notify=(replace(given, **changes),))


def test_what_happens_is_told_also_after_a_restart(config):
    with receiving() as gone:
        url, port = gone.url, gone.server_address[1]
    with running(told(config, url), people=PEOPLE) as world:
        version, _ = published(world)
        rosa = world.person("rosa")
        request = rosa.access.request(version.name, "probe", purpose="replication", justification=WHY)
        grant = world.person("ravi").access.approve(request, reason="A word that nobody else reads.").grant
    with receiving(500, port=port) as receiver:
        registry = Registry(told(config, url))
        registry.start()
        until(lambda: len(receiver.taken) == 3)
        registry.stop(grace_s=1.0)
    said = [(message["type"], message["data"]["subject"]) for _, message in receiver.taken]
    assert sorted(said) == [("access.approve", request.name), ("access.grant", grant), ("access.request", request.name)]
    assert "word" not in json.dumps(receiver.taken)
    assert WHY not in json.dumps(receiver.taken)


def test_a_request_that_nobody_decided_lapses_in_the_ledger_and_is_told(config):
    with receiving() as receiver, running(told(config, receiver.url, events=("access.lapse",)), people=PEOPLE) as world:
        version, _ = published(world)
        request = world.person("rosa").access.request(version.name, "probe", purpose="replication", justification=WHY)
        with world.registry.storage.database.write() as tx:
            aged = replace(request_rows.request(tx, request.name), expire_time=datetime.now(UTC) - timedelta(seconds=1))
            request_rows.update_request(tx, aged, expected_revision=1, expected_state=aged.state)
        until(lambda: receiver.taken)
        types = [entry.type for _, entry in world.person("aud").audit.entries() if entry.subject == request.name]
        assert types == ["access.request", "access.lapse"]
        assert world.person("rosa").access.get(request.name).state.value == "expired"


def test_what_belongs_to_no_change_is_told_too_also_by_command(config):
    kinds = ("gate.deny", "registry.start", "registry.stop", "registry.rewrap.intent", "registry.rewrap.result")
    with receiving() as receiver:
        all_of_it = told(config, receiver.url, events=kinds)
        with running(all_of_it, people=PEOPLE) as world:
            with pytest.raises(NotFound):
                world.person("rosa").users.suspend("ravi", reason="I may not.")
            until(lambda: len(receiver.taken) == 2)
        rewrap(all_of_it, versions=(), to="", now=datetime.now(UTC), tell=lambda *_: None)
        registry = Registry(all_of_it)
        registry.start()
        until(lambda: len(receiver.taken) == 6)
        registry.stop(grace_s=1.0)
    assert sorted(message["type"] for _, message in receiver.taken) == sorted([*kinds, "registry.start"])


def run(config, *words):
    lines = [
        "[[notify]]",
        *(f"{key} = {json.dumps(value)}" for key, value in vars_of(config.notify[0]).items()),
    ]
    (config.folder / "registry.toml").write_text("\n".join([f'database = "sqlite:///{config.folder}/registry.db"', *lines]))
    return CliRunner().invoke(cli, ["notify", *words, "--folder", str(config.folder)])


def vars_of(notify):
    return {key: getattr(notify, key) for key in notify.__slots__}


def test_an_operator_tries_receivers_out_and_sees_what_they_did_not_take(config):
    with receiving() as gone:
        url = gone.url
    down = told(config, url, first_pause_s=3600.0)
    with running(down, people=PEOPLE) as world:
        version, _ = published(world)
        world.person("rosa").access.request(version.name, "probe", purpose="replication", justification=WHY)
        storage = world.registry.storage

        def attempted():
            with storage.database.read() as tx:
                return [letter for letter in outbox.pending(tx, most=9) if letter.error]

        until(attempted)
    shown = run(down, "pending", "--json")
    (letter,) = json.loads(shown.stdout)
    assert (letter["type"], letter["hook"], letter["attempts"]) == ("access.request", "tracker", 1)
    assert "1 not taken." in run(down, "pending").stdout
    assert run(down, "test").exit_code == 1
    with receiving(200, 503) as receiver:
        up = told(config, receiver.url)
        done = run(up, "test")
        assert (done.exit_code, done.stdout) == (0, "tracker: taken\n")
        assert receiver.taken[0][1]["type"] == "notify.test"
        done = run(up, "test", "--json")
        assert (done.exit_code, json.loads(done.stdout)) == (1, {"tracker": "answered 503"})


def test_a_fresh_secret_is_one():
    said = CliRunner().invoke(cli, ["notify", "secret"]).stdout
    assert len(webhooks.parse_secret(said)) == 32
