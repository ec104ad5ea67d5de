"""A monitor beside a real registry, by its own door and by its public files over HTTP; what is public, and what is not."""

from __future__ import annotations

import http.client
import itertools
import json
import sys
from datetime import UTC, datetime, timedelta

import pytest
from model_organisms.client.monitor import WATCHED, Monitor
from model_organisms.client.published import Published
from model_organisms.errors import ConfigurationInvalid
from model_organisms.formats import entry as entries
from model_organisms.formats import note
from model_organisms.formats.note import COSIGNATURE, SigningKey
from model_organisms.records import Entry
from model_organisms_registry.config import Public
from model_organisms_registry.ledger.public import PublicFiles
from model_organisms_registry.testing import running, settings

from tests.support.registries import PEOPLE
from tests.support.stories import published
from tests.support.terminal import typed

NUMBERS = itertools.count()
NOW = datetime(2026, 11, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    config = settings(tmp_path_factory.mktemp("monitored") / "data", public=Public("127.0.0.1:0", entries=True))
    with running(config, people=PEOPLE) as running_world:
        yield running_world


@pytest.fixture(scope="module")
def url(world):
    return f"http://{world.registry.public.address}"


@pytest.fixture(scope="module")
def key(world):
    return world.registry.storage.log.vkey


@pytest.fixture(params=["registry", "files"])
def monitor(request, world, url, key):
    """A monitor that has looked once, by either way."""
    with Published(url, key) as files:
        source = world.person("aud").audit if request.param == "registry" else files
        made = Monitor(source, note.parse_vkey(key), "registry.test")
        made.look(NOW)
        assert made.look(NOW) == []
        yield made


def fresh():
    return f"new-{next(NUMBERS)}"


def seen(monitor):
    return [(alarm.kind, alarm.entry.type, alarm.message.rpartition(": ")[2]) for alarm in monitor.look(NOW)]


def test_a_new_reviewer_is_seen_and_a_researcher_is_not(world, monitor):
    name = fresh()
    world.admin.users.invite(f"{name}-a", organisation="example-lab", roles=["researcher"])
    world.admin.users.invite(f"{name}-b", organisation="example-lab", roles=["researcher", "reviewer"])
    world.admin.users.invite(f"{name}-c", organisation="example-lab", roles=["admin"])
    assert seen(monitor) == [("watched", "identity.invite", WATCHED["reviewers"] + ".")] * 2
    assert seen(monitor) == []


def test_a_raised_level_is_seen(world, monitor):
    version, _ = published(world, level="CL1")
    assert seen(monitor) == []
    world.person("ravi").organisms.raise_level(version.name.partition("/versions/")[0], "CL2", reason="It is worse.")
    assert seen(monitor) == [("watched", "organisms.level", WATCHED["levels"] + ".")]


def test_other_policies_are_seen(world, monitor):
    published(world)
    assert seen(monitor) == []
    gate = world.registry.gate
    before = gate._policies.digest
    object.__setattr__(gate._policies, "digest", "0" * 64)
    try:
        published(world)
    finally:
        object.__setattr__(gate._policies, "digest", before)
        published(world)
    assert [why for _, _, why in seen(monitor)] == [WATCHED["policies"] + "."] * 2


def test_types_are_watched_by_pattern(world, monitor):
    monitor.watch = ("organisms.*",)
    world.admin.users.invite(fresh(), organisation="x", roles=["admin"])
    published(world)
    assert {kind for _, kind, _ in seen(monitor)} == {"organisms.create", "organisms.publish"}


def test_without_an_account_the_whole_is_verified_over_http(url, key, world, tmp_path):
    published(world)
    pin = tmp_path / "pin"
    for _ in range(2):
        status, out, err = typed("audit", "verify", "--files", url, "--key", key, "--pin", pin, "--json")
        found = json.loads(out)
        assert (status, err, found["origin"]) == (0, "", "registry.test")
        assert found["entries"] == found["size"] > 10
        published(world)


def test_what_a_monitor_cannot_read_it_says(world):
    identity = world.folder / "rosa.json"
    world.person("rosa")
    words = ("--identity", identity, "audit", "monitor", "--once", "--watch", "none.*", "--watch", "never.*")
    status, out, _ = typed(*words, "--json")
    line = json.loads(out)
    assert (status, line["alarm"]) == (0, None)
    assert 0 < line["unread"] < line["size"]
    said = f"{line['unread']} entries cannot be read here, so none.*, never.* were not watched in them"
    assert said in line["message"]
    assert said in typed(*words)[1]
    admin = ("--identity", world.folder / "aud.json", *words[2:])
    world.person("aud")
    read = json.loads(typed(*admin, "--json")[1])
    assert (read["unread"], "cannot be read" in read["message"]) == (0, False)


def test_an_alarm_reaches_the_operators_program_and_the_exit_status(url, key, world, tmp_path):
    words = ("audit", "monitor", "--files", url, "--key", key, "--pin", tmp_path / "pin", "--once")
    assert typed(*words)[0] == 1  # the people of the first day
    assert typed(*words)[0] == 0
    world.admin.users.invite(fresh(), organisation="x", roles=["reviewer"])
    program = tmp_path / "program.py"
    program.write_text(f"import sys; open({str(tmp_path / 'told')!r}, 'w').write(sys.stdin.read())")
    status, out, _ = typed(*words, "--json", "--command", f"{sys.executable} {program}")
    line = json.loads(out)
    assert (status, line["alarm"], line["entry"]["facts"]["roles"]) == (1, "watched", "reviewer")
    assert json.loads((tmp_path / "told").read_text()) == line
    status, out, err = typed(*words, "--command", "/nowhere/at/all")
    assert (status, "all is well" in out, err) == (0, True, "")


def test_a_ledger_that_cannot_be_reached_or_stands_still_is_an_alarm(key, url):
    status, out, _ = typed("audit", "monitor", "--files", "http://127.0.0.1:9/", "--key", key, "--once", "--json")
    assert (status, json.loads(out)["alarm"]) == (3, "unreachable")
    with Published(url, key) as files:
        still = Monitor(files, note.parse_vkey(key), "registry.test", stale_s=60.0, watch=())
        assert still.look(NOW) == []
        assert [alarm.kind for alarm in still.look(NOW + timedelta(seconds=61))] == ["stale"]


def test_a_monitor_that_expects_witnesses_says_that_there_are_none(key, url):
    witness = str(SigningKey.generate("w.test", kind=COSIGNATURE).verifier)
    words = ("audit", "monitor", "--files", url, "--key", key, "--once", "--json", "--witness", witness, "--watch", "none.*")
    status, out, _ = typed(*words)
    assert (status, json.loads(out)["alarm"]) == (4, "unwitnessed")


def get(url, path, method="GET"):
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=20)
    connection.request(method, path)
    response = connection.getresponse()
    body = response.read()
    connection.close()
    return response.status, body, response.headers


def test_the_ledgers_files_are_public_and_nothing_else_is(url, world):
    published(world)
    status, body, headers = get(url, "/checkpoint")
    assert (status, headers["Cache-Control"]) == (200, "no-cache")
    assert body.startswith(b"registry.test\n")
    assert get(url, "/checkpoint", "HEAD")[:2] == (200, b"")
    assert get(url, "/checkpoint", "POST")[0] in {405, 411, 413}
    stored = world.registry.storage.blobs.list()
    assert any(path.startswith("contents/") or "versions" in path for path in stored)
    for path in [path for path in stored if not path.startswith("ledger/")][:20]:
        for form in (
            f"/{path}",
            f"/../{path}",
            f"/tile/../../{path}",
            f"/%2e%2e/{path}",
            f"//{path}",
            f"/checkpoint/../../{path}",
        ):
            assert get(url, form)[0] == 404
    for path in (
        "/",
        "/tile",
        "/tile/0",
        "/tile/0/000.p/0",
        "/tile/00/000",
        "/ledger/checkpoint",
        "/checkpoint?x",
        "/../keys/kek",
    ):
        assert get(url, path)[0] == 404


def test_entries_are_public_only_where_the_operator_says_so(world, url):
    size = world.registry.storage.log.size()
    path = f"/tile/entries/000.p/{size}" if size < 256 else "/tile/entries/000"
    assert get(url, path)[0] == 200
    closed = PublicFiles(world.registry.storage.blobs, entries=False)
    assert closed.answer("GET", path, b"").status == 404
    assert closed.answer("GET", path.replace("entries", "0"), b"").status == 200


@pytest.mark.parametrize("source", ["ftp://host/x", "file:///etc", "http://", "https://host/x?y", "/nowhere/at/all"])
def test_what_is_no_source_is_refused(source, key):
    with pytest.raises(ConfigurationInvalid):
        Published(source, key)


def test_the_words_of_the_command_are_checked():
    assert typed("audit", "verify", "--files", ".")[0] == 2
    assert typed("audit", "verify", "--key", "x")[0] == 2


@pytest.mark.parametrize(
    ("kind", "facts", "why"),
    [
        ("identity.invite", {"roles": "researcher"}, ""),
        ("identity.invite", {"roles": "researcher,reviewer"}, "reviewers"),
        ("identity.recover", {}, "reviewers"),
        ("identity.reinstate", {}, "reviewers"),
        ("identity.enrol", {}, ""),
        ("policies.adopt", {}, "policies"),
        ("organisms.level", {}, "levels"),
        ("motions.carry", {"kind": "appoint"}, "motions"),
        ("organisms.create", {}, ""),
    ],
)
def test_what_is_watched_by_name(kind, facts, why, url, key):
    entry = Entry(seq=1, time=NOW, type=kind, actor="users/ada", subject="things/1", facts=facts)
    with Published(url, key) as source:
        made = Monitor(source, note.parse_vkey(key), "registry.test")
        found = list(made._notable(5, entries.encode(entry), new=True))
        assert [(alarm.index, alarm.entry) for alarm in found] == ([(5, entry)] if why else [])
        assert all(WATCHED[why] in alarm.message for alarm in found)
        assert list(made._notable(5, entries.encode(entry), new=False)) == []
