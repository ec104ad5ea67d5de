"""The ledger on both databases: order, proofs, recovery after a crash at each step, and a check that finds any flipped byte."""

import random
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest
from model_organisms.errors import LedgerForked, LedgerUnavailable, NotFound
from model_organisms.formats import checkpoint, entry, note, receipt
from model_organisms.records import Entry
from model_organisms_registry.ledger import fsck
from model_organisms_registry.ledger.log import Log
from model_organisms_registry.ledger.signer import HEAD, Signer
from model_organisms_registry.storage.blobs import Blobs
from model_organisms_registry.storage.database import Database

NOW = datetime(2026, 11, 1, tzinfo=UTC)


def made(number):
    return Entry(seq=number, time=NOW, type="test.entry", actor="users/ada", subject=f"things/{number}")


class Setting:
    """One ledger's parts, to be opened again after a crash."""

    def __init__(self, database, folder):
        self.database = database
        self.folder = folder
        self.blobs = Blobs(f"file://{folder / 'blobs'}")
        Signer.create(folder / "signer", origin="ledger.test")

    def open(self):
        log = Log(self.database, self.blobs, Signer.open(self.folder / "signer"))
        log.start()
        return log

    def findings(self, log):
        key = note.parse_vkey(log.vkey)
        with self.database.read() as tx:
            bodies, found = fsck.check_database(tx, key, origin="ledger.test")
        found += fsck.check_published(self.blobs, key, origin="ledger.test", bodies=bodies)[1]
        return found + fsck.check_signer(self.folder / "signer" / HEAD, bodies, origin="ledger.test")


@pytest.fixture
def setting(database, tmp_path):
    (tmp_path / "blobs").mkdir()
    return Setting(database, tmp_path)


def test_every_entry_gets_a_receipt_that_proves_it(setting):
    log = setting.open()
    proofs = [log.record(made(number)) for number in range(5)]
    with setting.database.write() as tx:
        ticket = log.append(tx, made(5))
    proofs.append(log.wait(ticket))
    assert [proof.index for proof in proofs] == list(range(6))
    for number, proof in enumerate(proofs):
        assert receipt.verify(proof, log.vkey, origin="ledger.test").size >= number + 1
        assert entry.parse(proof.entry) == made(number)
    assert [entry.parse(body).seq for body in log.entries(2, 100)] == [2, 3, 4, 5]
    assert setting.findings(log) == []
    with pytest.raises(NotFound):
        log.receipt(6)
    log.close()


def test_heads_are_consistent_across_tiles_and_restarts(setting):
    log = setting.open()
    heads = [log.checkpoint()]
    with ThreadPoolExecutor(16) as pool:
        for burst in range(4):
            list(pool.map(lambda n, log=log, base=burst * 100: log.record(made(base + n), timeout_s=20), range(100)))
            heads.append(log.checkpoint())
            log.close()
            log = setting.open()
    assert [head.size for head in heads] == [0, 100, 200, 300, 400]
    for old in heads:
        checkpoint.consistent(old, heads[-1], log.consistency(old.size, 400))
    assert setting.findings(log) == []
    log.close()


@pytest.mark.parametrize("step", ["sign", "swap", "publish"])
@pytest.mark.parametrize("happened", [False, True])
def test_a_failure_at_each_step_loses_nothing_acknowledged(setting, monkeypatch, step, happened):
    from model_organisms_registry.ledger import rows, tiles

    owner, name = {"sign": (Signer, "sign"), "swap": (rows, "swap_head"), "publish": (tiles.Published, "publish")}[step]
    log = setting.open()
    first = log.record(made(0))
    real = getattr(owner, name)

    def broken(*arguments, **named):
        if happened:
            real(*arguments, **named)
        raise LedgerUnavailable("The disk is on fire.")

    with monkeypatch.context() as patched:
        patched.setattr(owner, name, broken)
        if step == "publish" and happened:  # it is found to be published, and acknowledged
            assert log.record(made(1), timeout_s=5).index == 1
        else:
            with pytest.raises(LedgerUnavailable):
                log.record(made(1), timeout_s=0.3)
            assert not log.healthy
    after = log.record(made(2), timeout_s=5)
    log.close()
    log = setting.open()
    assert entry.parse(log.entry(first.index)) == made(0)
    assert entry.parse(log.entry(after.index)) == made(2)
    assert [entry.parse(body).seq for body in log.entries(0, 9)].count(1) <= 1
    assert setting.findings(log) == []
    log.close()


def test_a_second_writer_is_refused(setting):
    log = setting.open()
    with pytest.raises(LedgerUnavailable, match="Another registry"):
        setting.open()
    log.close()
    setting.open().close()


def test_a_transaction_that_is_undone_leaves_no_entry(setting):
    log = setting.open()

    def undone():
        with setting.database.write() as tx:
            log.append(tx, made(1))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        undone()
    assert log.record(made(2)).index == 0
    log.close()


def test_any_flipped_byte_of_a_published_file_is_found(setting):
    log = setting.open()
    for number in range(20):
        log.record(made(number))
    log.close()
    chance = random.Random(7)
    files = [path for path in (setting.folder / "blobs" / "ledger").rglob("*") if path.is_file()]
    assert len(files) >= 3
    for path in files:
        if ".p" in path.parent.name and path.name != "20":
            continue  # a partial tile that a wider one made obsolete
        sound = path.read_bytes()
        for at in chance.sample(range(len(sound)), 5):
            path.write_bytes(sound[:at] + bytes([sound[at] ^ 1]) + sound[at + 1 :])
            assert setting.findings(log), f"{path.name} byte {at}"
        path.write_bytes(sound)
    assert setting.findings(log) == []


def test_a_changed_row_is_found(setting):
    from model_organisms_registry.ledger import schema
    from sqlalchemy import update

    log = setting.open()
    for number in range(3):
        log.record(made(number))
    log.close()
    with setting.database.write() as tx:
        tx.execute(update(schema.entries).where(schema.entries.c.idx == 1).values(body=entry.encode(made(9))))
    places = {finding.place for finding in setting.findings(log)}
    assert "ledger_head" in places
    assert any(place.startswith("tile/entries") for place in places)


def test_a_rolled_back_database_is_not_signed_over(setting, tmp_path):
    if setting.database.dialect != "sqlite":
        return
    log = setting.open()
    log.record(made(0))
    log.close()
    setting.database.backup(tmp_path / "older.db")
    log = setting.open()
    log.record(made(1))
    log.close()
    older = Database(f"sqlite:///{tmp_path / 'older.db'}")
    with pytest.raises(LedgerForked, match="one of them is an old copy"):
        Log(older, setting.blobs, Signer.open(setting.folder / "signer")).start()
    older.close()
