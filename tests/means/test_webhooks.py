"""Letters over a real HTTP server that fails, hangs and then takes them: each arrives, signed, and nobody waits for it."""

from __future__ import annotations

import re
import socket
import threading
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import model_organisms_registry
import pytest
from model_organisms.errors import ConfigurationInvalid, Unavailable
from model_organisms.formats import webhooks
from model_organisms.records import Entry
from model_organisms_registry import hooks
from model_organisms_registry.config import Notify
from model_organisms_registry.domain import outbox as rules
from model_organisms_registry.domain.audit import Event
from model_organisms_registry.domain.outbox import Letter
from model_organisms_registry.ledger.log import Log
from model_organisms_registry.ledger.signer import Signer
from model_organisms_registry.storage.blobs import Blobs
from model_organisms_registry.storage.catalog import outbox as rows
from model_organisms_registry.storage.database import Database
from model_organisms_registry.workflows.changes import Changes
from model_organisms_registry.workflows.notifying import Notifier, Outbox

from tests.support.receiver import KEY, receiving

NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)
PATIENCE_S = 30.0


def setting(url, **changes):
    given = Notify("tracker", url, "secret", ("access.grant", "access.revoke"), private=True, timeout_s=0.5, first_pause_s=0.02)
    return replace(given, **changes)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "secret").write_text(webhooks.print_secret(KEY) + "\n")
    return tmp_path


def entry(number, kind="access.grant"):
    return Entry(
        number, datetime.now(UTC), kind, "users/ravi", f"grants/{number}", grant="grants/x", facts={"purpose": "teaching"}
    )


def put(database, receivers, *entries):
    box = Outbox(receivers)
    with database.write() as tx:
        for one in entries:
            box.put(tx, one)


def left(database):
    with database.read() as tx:
        return rows.pending(tx, most=100)


def until(condition):
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, "it did not come about in time"
        time.sleep(0.01)


def sending(database, receivers):
    return Notifier(database, receivers, lambda: datetime.now(UTC), round_s=0.02)


def test_each_arrives_whatever_the_receiver_does_at_first(sqlite_database, folder):
    with receiving(500, "hang", "away", 204, "drip", 404, 200) as receiver:
        opened = hooks.opened([setting(receiver.url)], folder)
        put(sqlite_database, opened, *(entry(number) for number in range(3)), entry(9, "access.request"))
        notifier = sending(sqlite_database, opened)
        notifier.start()
        until(lambda: not left(sqlite_database))
        notifier.stop()
        said = [message for _, message in receiver.taken]
        assert sorted(message["data"]["subject"] for message in said) == ["grants/0", "grants/1", "grants/2"]
        assert said[0].keys() == {"type", "timestamp", "data"}
        assert said[0]["data"].keys() == {"subject", "actor", "grant"}
        assert set(receiver.asked) == {"POST /hook?from=registry"}
        assert len(receiver.asked) == 8


def test_one_that_takes_nothing_keeps_nobody_waiting(sqlite_database, folder):
    with receiving(*["hang"] * 50) as hung, receiving() as well:
        opened = hooks.opened([setting(hung.url, name="hung", timeout_s=5.0), setting(well.url)], folder)
        notifier = sending(sqlite_database, opened)
        notifier.start()
        before = time.monotonic()
        put(sqlite_database, opened, entry(1), entry(2))
        assert time.monotonic() - before < 3
        until(lambda: len(well.taken) == 2)
        assert hung.taken == []
        hung.released.set()
        notifier.stop()
    assert {letter.hook for letter in left(sqlite_database)} == {"hung"}


def test_what_was_under_way_when_the_registry_died_is_sent_again_under_its_id(database, folder):
    with receiving() as receiver:
        opened = hooks.opened([setting(receiver.url)], folder)
        put(database, opened, entry(1))
        (letter,) = left(database)
        with database.write() as tx:  # as a process does that dies in its attempt
            assert rows.take(tx, letter, datetime.now(UTC) + timedelta(seconds=0.2))
        with database.write() as tx:  # and as another does that comes to the same at once
            assert not rows.take(tx, letter, datetime.now(UTC))
        notifier = sending(database, opened)
        notifier.start()
        until(lambda: not left(database))
        notifier.stop()
    assert [identifier for identifier, _ in receiver.taken] == [letter.id]


def test_what_was_undone_is_not_told(sqlite_database, folder):
    opened = hooks.opened([setting("http://127.0.0.1:9/")], folder)

    def fail():
        with sqlite_database.write() as tx:
            Outbox(opened).put(tx, entry(1))
            assert len(rows.pending(tx, most=9)) == 1
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert left(sqlite_database) == []


@pytest.fixture
def log(sqlite_database, tmp_path):
    (tmp_path / "blobs").mkdir()
    Signer.create(tmp_path / "signer", origin="ledger.test")
    made = Log(sqlite_database, Blobs(f"file://{tmp_path / 'blobs'}"), Signer.open(tmp_path / "signer"))
    made.start()
    yield made
    made.close()


def test_every_event_that_a_setting_may_name_is_told_with_a_change_and_without_one(sqlite_database, folder, log):
    every = tuple(event.type for event in Event)
    opened = hooks.opened([setting("http://127.0.0.1:9/", events=every)], folder)
    changes = Changes(sqlite_database, log, wait_s=20, outbox=Outbox(opened))
    for number, kind in enumerate(every):
        assert changes.enter(entry(2 * number, kind)).index == 2 * number
        with changes.open() as change:
            change.enter(entry(2 * number + 1, kind))
    with sqlite_database.read() as tx:
        told = [letter.type for letter in rows.pending(tx, most=1000)]
    assert sorted(told) == sorted(every * 2)


def test_nothing_enters_the_ledger_past_those_who_tell():
    source = Path(model_organisms_registry.__file__).parent
    ways = re.compile(r"\blog\.(?:record|append)\(|\badd_pending\(")
    found = {str(path.relative_to(source)) for path in source.rglob("*.py") if ways.search(path.read_text())}
    assert found == {"ledger/log.py", "ledger/rows.py", "workflows/changes.py", "erasing.py"}


def test_a_refusal_that_nobody_is_told_of_takes_no_transaction(folder, log, tmp_path):
    opened = hooks.opened([setting("http://127.0.0.1:9/")], folder)
    busy = Database(f"sqlite:///{tmp_path / 'busy.db'}", patience_s=0.1)
    changes = Changes(busy, log, wait_s=20, outbox=Outbox(opened))
    with busy.write():
        changes.record_denial(entry(1, Event.DENY.type))
        with pytest.raises(Unavailable, match="busy"):
            changes.record_denial(entry(2))
    assert log.size() == 1
    busy.close()


def test_what_waits_for_a_receiver_that_was_taken_out_is_given_up_and_in_time_forgotten(database, folder):
    opened = hooks.opened([setting("http://127.0.0.1:9/", name=name) for name in ("gone", "stays")], folder)
    put(database, opened, entry(1))
    with database.write() as tx:
        rows.add(tx, [Letter("old", "gone", "access.grant", b"{}", datetime.now(UTC) - rules.KEPT - SECOND)])
    notifier = Notifier(database, opened[1:], lambda: datetime.now(UTC), round_s=60)
    notifier.start()
    notifier.stop()
    assert {letter.hook: (bool(letter.next_time), letter.error) for letter in left(database)} == {
        "gone": (False, "not in the settings"),
        "stays": (True, ""),
    }
    assert len(left(database)) == 2


def test_pauses_grow_and_an_old_notice_is_given_up():
    letter = Letter("id", "tracker", "access.grant", b"{}", NOW)
    pauses = [rules.next_time(replace(letter, attempts=made), first=5 * SECOND, now=NOW) - NOW for made in range(1, 40)]
    assert pauses[:4] == [5 * SECOND, 10 * SECOND, 20 * SECOND, 40 * SECOND]
    assert pauses == sorted(pauses)
    assert pauses[-1] == rules.LONGEST_PAUSE
    end = NOW + rules.LIFETIME
    assert rules.next_time(replace(letter, attempts=1), first=5 * SECOND, now=end - 5 * SECOND) is None
    assert rules.next_time(replace(letter, attempts=1), first=5 * SECOND, now=end - 6 * SECOND) == end - SECOND


def test_the_outbox_is_bounded_and_forgets_what_was_given_up_long_ago(database):
    made = [Letter(f"id-{number:02}", "tracker", "access.grant", b"{}", NOW, next_time=NOW) for number in range(9)]
    with database.write() as tx:
        rows.add(tx, [*made, replace(made[0], id="old", create_time=NOW - 31 * 86_400 * SECOND, next_time=None)])
        assert rows.shed(tx, "tracker", most=4, before=NOW - rules.KEPT) == 5
        assert rows.shed(tx, "tracker", most=4, before=NOW - rules.KEPT) == 0
        kept = rows.pending(tx, most=100)
        assert [letter.id for letter in kept if letter.next_time] == [f"id-{number:02}" for number in range(5, 9)]
        assert len(kept) == 9
        assert [letter.id for letter in rows.due(tx, "tracker", NOW, most=2)] == ["id-05", "id-06"]
        assert rows.due(tx, "tracker", NOW - SECOND, most=9) == rows.due(tx, "other", NOW, most=9) == []


@pytest.mark.parametrize(
    ("address", "public", "private"),
    [
        ("8.8.8.8", True, True),
        ("2606:4700::1111", True, True),
        ("127.0.0.1", False, True),
        ("::1", False, True),
        ("10.1.2.3", False, True),
        ("fd00::1", False, True),
        ("::ffff:127.0.0.1", False, True),
        ("169.254.169.254", False, False),
        ("fe80::1%eth0", False, False),
        ("::ffff:169.254.169.254", False, False),
        ("0.0.0.0", False, False),  # noqa: S104 - it is refused
        ("224.0.0.1", False, False),
        ("255.255.255.255", False, False),
    ],
)
def test_who_may_be_called(address, public, private):
    assert hooks._may_be_called(address, private=False) is public
    assert hooks._may_be_called(address, private=True) is private


def test_a_loopback_address_is_called_only_where_the_settings_say_so(folder):
    with receiving() as receiver:
        (hook,) = hooks.opened([setting(receiver.url)], folder)
        assert hooks.post(hook, b"{}", identifier="id", now=datetime.now(UTC)) == ""
        refused = hooks.post(replace(hook, private=False), b"{}", identifier="id", now=datetime.now(UTC))
        assert "may not call" in refused
        assert len(receiver.asked) == 1


def test_a_name_that_is_looked_up_for_too_long_lets_no_receiver_drip_without_end(folder, monkeypatch):
    real, said = socket.getaddrinfo, []

    def slow(*asked, **how):
        time.sleep(0.6)
        return real(*asked, **how)

    with receiving("drip") as receiver:
        (hook,) = hooks.opened([setting(receiver.url, timeout_s=0.2)], folder)
        monkeypatch.setattr(socket, "getaddrinfo", slow)
        post = threading.Thread(
            target=lambda: said.append(hooks.post(hook, b"{}", identifier="id", now=datetime.now(UTC))), daemon=True
        )
        post.start()
        post.join(10)
        assert not post.is_alive()
        assert receiver.asked == []
    assert said == ["_TooLate: there was no answer in time"]


def test_nobody_there_is_said_in_words(folder):
    with receiving() as receiver:
        url = receiver.url
    (hook,) = hooks.opened([setting(url)], folder)
    assert "refused" in hooks.post(hook, b"{}", identifier="id", now=datetime.now(UTC)).lower()


@pytest.mark.parametrize(
    "change",
    [
        {"name": ""},
        {"url": "ftp://127.0.0.1/"},
        {"url": "http://user:word@127.0.0.1/"},
        {"url": "http:///hook"},
        {"url": "http://hooks.example.org/", "private": False},
        {"events": ()},
        {"events": ("access.everything",)},
        {"secret_file": "absent"},
        {"timeout_s": 0.0},
        {"first_pause_s": -1.0},
    ],
)
def test_a_setting_that_cannot_be_used_is_refused_at_start(change, folder):
    with pytest.raises(ConfigurationInvalid):
        hooks.opened([setting("http://127.0.0.1/", **change) if "url" not in change else setting(**change)], folder)
    with pytest.raises(ConfigurationInvalid, match="one name"):
        hooks.opened([setting("http://127.0.0.1/")] * 2, folder)
