"""Readers of other people's making accept our ledger's files and receipts, and refuse a flipped byte: Go's sumdb, aics-tlog."""

import base64
from datetime import UTC, datetime

import pytest
from model_organisms.formats import receipt as receipts
from model_organisms.records import Entry
from model_organisms_registry.ledger.log import Log
from model_organisms_registry.ledger.signer import Signer
from model_organisms_registry.storage.blobs import Blobs
from model_organisms_registry.storage.database import Database

from tests.support.outside import setup

ORIGIN = "ledger.test"
NOW = datetime(2026, 11, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def outside():
    return {reader.name: reader for reader in setup.readers()}


@pytest.fixture(scope="module")
def ledger(tmp_path_factory):
    """300 entries: one full tile and a partial one, and a tile of the second level."""
    folder = tmp_path_factory.mktemp("ledger")
    (folder / "blobs").mkdir()
    Signer.create(folder / "signer", origin=ORIGIN)
    database = Database(f"sqlite:///{folder / 'ledger.db'}")
    database.migrate()
    log = Log(database, Blobs(f"file://{folder / 'blobs'}"), Signer.open(folder / "signer"))
    log.start()
    old = None
    for number in range(300):
        entry = Entry(seq=number, time=NOW, type="test.entry", actor="users/ada", subject=f"things/{number}")
        log.record(entry, timeout_s=20)
        if number == 99:
            old = log.checkpoint()
    yield folder / "blobs" / "ledger", log, old
    log.close()
    database.close()


@pytest.fixture(params=["go", "aics"])
def reader(request, outside):
    return outside[request.param]


def flipped(path, at):
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def test_the_published_files_are_accepted(reader, ledger):
    files, log, _ = ledger
    assert reader("folder", files, log.vkey, ORIGIN).accepted


@pytest.mark.parametrize("name", ["checkpoint", "tile/0/000", "tile/0/001.p/44", "tile/entries/000", "tile/entries/001.p/44"])
def test_a_flipped_byte_is_refused(reader, ledger, name):
    files, log, _ = ledger
    path = files / name
    at = path.stat().st_size // 2
    flipped(path, at)
    try:
        assert not reader("folder", files, log.vkey, ORIGIN).accepted
    finally:
        flipped(path, at)
    assert reader("folder", files, log.vkey, ORIGIN).accepted


@pytest.mark.parametrize("index", [0, 255, 256, 299])
def test_a_receipt_is_accepted_and_a_changed_one_refused(reader, ledger, tmp_path, index):
    _, log, _ = ledger
    path = tmp_path / "receipt"
    path.write_bytes(receipts.text(log.receipt(index)))
    assert reader("receipt", path, log.vkey, ORIGIN).accepted
    flipped(path, path.read_bytes().index(b"extra ") + 12)
    assert not reader("receipt", path, log.vkey, ORIGIN).accepted


def test_consistency_is_accepted_and_another_history_refused(reader, ledger):
    files, log, old = ledger
    proof = [base64.b64encode(node).decode() for node in log.consistency(old.size, 300)]
    root = base64.b64encode(old.root).decode()
    assert reader("consistent", files, log.vkey, ORIGIN, str(old.size), root, *proof).accepted
    other = base64.b64encode(bytes(32)).decode()
    assert not reader("consistent", files, log.vkey, ORIGIN, str(old.size), other, *proof).accepted
