"""An operator removes, replaces, fills up or hangs what the ledger is written to: within two seconds nothing is served any more.

Once it is back, the ledger goes on without a gap.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from datetime import UTC, datetime

import pytest
from model_organisms import errors
from model_organisms.formats import entry
from model_organisms.records import Entry
from model_organisms_registry.ledger import fsck
from model_organisms_registry.ledger.log import Log
from model_organisms_registry.ledger.signer import HEAD, Signer
from model_organisms_registry.storage.blobs import Blobs
from model_organisms_registry.storage.database import Database
from model_organisms_registry.testing import running, settings

from tests.support.cells import eventually
from tests.support.s3 import SECRET
from tests.support.stories import BASE

ORIGIN = "ledger.test"
WAIT_S = 2.0
MARGIN_S = 1.5
"""What a busy machine adds; the promise is two seconds."""


def made(number):
    return Entry(seq=number, time=datetime.now(UTC), type="test.entry", actor="users/ada", subject=f"things/{number}")


def refused(log, number, *, wait_s=WAIT_S):
    begun = time.monotonic()
    with pytest.raises(errors.LedgerUnavailable):
        log.record(made(number), timeout_s=wait_s)
    assert time.monotonic() - begun < wait_s + MARGIN_S


def whole(database, blobs, folder):
    """The sequence numbers in the ledger; it must be clean."""
    key = Signer.open(folder / "signer").verifier
    with database.read() as tx:
        bodies, wrong = fsck.check_database(tx, key, origin=ORIGIN)
    wrong += fsck.check_published(blobs, key, origin=ORIGIN, bodies=bodies)[1]
    assert wrong + fsck.check_signer(folder / "signer" / HEAD, bodies, origin=ORIGIN) == []
    return [entry.parse(body).seq for body in bodies]


@pytest.fixture
def parts(tmp_path):
    Signer.create(tmp_path / "signer", origin=ORIGIN)
    database = Database(f"sqlite:///{tmp_path / 'ledger.db'}", patience_s=WAIT_S)
    database.migrate()
    blobs = Blobs(f"file://{tmp_path / 'blobs'}")
    log = Log(database, blobs, Signer.open(tmp_path / "signer"))
    log.start()
    yield log, database, blobs
    log.close()
    database.close()


PULLED = {
    "the database is removed": "ledger.db",
    "its write-ahead log is removed": "ledger.db-wal",
    "the blob folder is removed": "blobs",
}


@pytest.mark.parametrize("replaced", [False, True], ids=["", "and another is put there"])
@pytest.mark.parametrize("what", PULLED)
def test_what_is_pulled_from_under_the_ledger_is_noticed(parts, tmp_path, what, replaced):
    log, database, blobs = parts
    log.record(made(1), timeout_s=20)
    path, away = tmp_path / PULLED[what], tmp_path / "away"
    path.rename(away)
    if replaced:
        (shutil.copytree if away.is_dir() else shutil.copy)(away, path)
    assert eventually(lambda: not log.healthy)  # also while nobody writes
    refused(log, 2, wait_s=0.5)
    if replaced:
        (shutil.rmtree if path.is_dir() else os.unlink)(path)
    away.rename(path)
    assert log.record(made(3), timeout_s=20)
    assert log.healthy
    assert whole(database, blobs, tmp_path) == [1, 3]


def test_a_database_that_somebody_locks_holds_nobody_longer_than_two_seconds(parts, tmp_path):
    log, database, blobs = parts
    log.record(made(1), timeout_s=20)
    with closing(sqlite3.connect(tmp_path / "ledger.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        refused(log, 2)
        begun = time.monotonic()
        with pytest.raises(errors.Unavailable), database.write():
            pass
        assert time.monotonic() - begun < WAIT_S + MARGIN_S
        other.execute("ROLLBACK")
    log.record(made(3), timeout_s=20)
    assert [number for number in whole(database, blobs, tmp_path) if number != 2] == [1, 3]


class Wire:
    """A TCP proxy in front of a server, that stops passing anything on when it is told to."""

    def __init__(self, endpoint):
        self.flows = threading.Event()
        self.flows.set()
        self._to = (endpoint.split("//")[1].split(":")[0], int(endpoint.rsplit(":", 1)[1]))
        self._server = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"http://127.0.0.1:{self._server.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        with suppress(OSError):
            while True:
                near, _ = self._server.accept()
                far = socket.create_connection(self._to)
                for pair in ((near, far), (far, near)):
                    threading.Thread(target=self._pass, args=pair, daemon=True).start()

    def _pass(self, of, to):
        with suppress(OSError), of, to:
            while data := of.recv(65536):
                self.flows.wait()
                to.sendall(data)

    def close(self):
        self.flows.set()
        self._server.close()


def test_a_blob_store_that_hangs_holds_nobody_longer_than_two_seconds(tmp_path, moto_s3):
    wire = Wire(moto_s3.endpoint)
    Signer.create(tmp_path / "signer", origin=ORIGIN)
    database = Database(f"sqlite:///{tmp_path / 'ledger.db'}")
    database.migrate()
    blobs = Blobs(moto_s3.url().replace(moto_s3.endpoint, wire.endpoint), secret_access_key=SECRET)
    log = Log(database, blobs, Signer.open(tmp_path / "signer"))
    log.start()
    try:
        log.record(made(1), timeout_s=20)
        wire.flows.clear()
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda number: refused(log, number), range(2, 6)))
        wire.flows.set()
        log.record(made(6), timeout_s=60)
        seen = whole(database, blobs, tmp_path)
        assert (seen[0], seen[-1], len(seen)) == (1, 6, len(set(seen)))
    finally:
        wire.close()
        log.close()
        database.close()


FULL = """
import json, sys, time
from datetime import UTC, datetime
from pathlib import Path
from model_organisms.errors import LedgerUnavailable
from model_organisms.records import Entry
from model_organisms_registry.ledger.log import Log
from model_organisms_registry.ledger.signer import Signer
from model_organisms_registry.storage.blobs import Blobs
from model_organisms_registry.storage.database import Database

folder = Path(sys.argv[1])
(folder / "ballast").write_bytes(bytes(256 << 10))
Signer.create(folder / "signer", origin="ledger.test")
database = Database(f"sqlite:///{folder / 'ledger.db'}")
database.migrate()
log = Log(database, Blobs(f"file://{folder / 'blobs'}"), Signer.open(folder / "signer"))
log.start()
acknowledged, number, took = [], 0, 0.0
def write():
    global number
    number += 1
    facts = {"padding": "x" * 500, "more": "x" * 500, "again": "x" * 500}
    entry = Entry(number, datetime.now(UTC), "test.entry", actor="users/ada", subject=f"things/{number}", facts=facts)
    log.record(entry, timeout_s=2.0)
    acknowledged.append(number)
while not took and number < 5000:
    begun = time.monotonic()
    try:
        write()
    except LedgerUnavailable:
        took = time.monotonic() - begun
(folder / "ballast").unlink()
until = time.monotonic() + 30
while time.monotonic() < until:
    try:
        write()
        break
    except LedgerUnavailable:
        pass
log.close()
database.close()
print(json.dumps({"acknowledged": acknowledged, "took": took, "last": number}))
"""


def test_a_full_disk_is_a_typed_error_and_once_there_is_room_the_ledger_goes_on(tmp_path):
    """On a tmpfs of two megabytes, which root of a user namespace may mount; its files are copied out to be checked."""
    tiny, out = tmp_path / "tiny", tmp_path / "out"
    tiny.mkdir()
    (tmp_path / "full.py").write_text(FULL)
    steps = "mount -t tmpfs -o size=2m tiny {0} && {1} {2} {0} && cp -a {0} {3}"
    command = steps.format(tiny, sys.executable, tmp_path / "full.py", out)
    done = subprocess.run(["unshare", "-rm", "sh", "-c", command], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    said = json.loads(done.stdout)
    assert 0 < said["took"] < WAIT_S + MARGIN_S, "the disk was never full, or hung"
    assert said["acknowledged"][-1] == said["last"]
    database = Database(f"sqlite:///{out / 'ledger.db'}")
    seen = whole(database, Blobs(f"file://{out / 'blobs'}"), out)
    database.close()
    assert set(said["acknowledged"]) <= set(seen)
    assert len(seen) == len(set(seen))


def test_a_registry_whose_folder_is_gone_serves_nothing(tmp_path):
    """Over the wire: a read that needs no entry of its own is refused as well, with a typed error, and works again afterwards."""
    config = settings(tmp_path / "data")
    with running(config, people=[("pia", "publisher", "lab")]) as world:
        pia = world.person("pia")
        pia.organisms.create("organisms/before", level="CL1", base_model=BASE)
        blobs = config.folder / "blobs"
        blobs.rename(tmp_path / "away")
        assert eventually(lambda: not world.registry.storage.log.healthy)
        for ask in (
            lambda: pia.organisms.get("organisms/before"),
            lambda: list(pia.organisms.list()),
            lambda: pia.organisms.create("organisms/during", level="CL1", base_model=BASE),
        ):
            begun = time.monotonic()
            with pytest.raises(errors.LedgerUnavailable):
                ask()
            assert time.monotonic() - begun < 2 * WAIT_S + MARGIN_S
        (tmp_path / "away").rename(blobs)
        assert eventually(lambda: world.registry.storage.log.healthy)
        assert pia.organisms.get("organisms/before").name == "organisms/before"
