"""M8: entries that 32 writers have acknowledged by the ledger, durable and signed, beside SQLite with one commit an entry."""

from __future__ import annotations

import itertools
import sqlite3
import threading
import time
from contextlib import closing
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from model_organisms.formats import entry as entries
from model_organisms.formats import note, receipt
from model_organisms.records import Entry
from model_organisms_registry.ledger import fsck
from model_organisms_registry.ledger.log import Log
from model_organisms_registry.ledger.signer import Signer
from model_organisms_registry.storage.blobs import Blobs
from model_organisms_registry.storage.database import Database

from tests.bench.measure import OURS, Goal, Row, interleaved, rate

if TYPE_CHECKING:
    from pathlib import Path

    from model_organisms.records import Receipt

WRITERS = 32
ORIGIN = "bench.ledger"
SQLITE = "SQLite, a commit an entry"


class Writers:
    """Writers who wait for each receipt, and keep every hundredth to be verified."""

    def __init__(self, log: Log) -> None:
        """Write nothing yet."""
        self._log = log
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self.acknowledged: list[int] = []
        self.waits: list[float] = []
        self.kept: list[Receipt] = []

    def write(self) -> None:
        """Put one entry in, and wait until it is proved."""
        number = next(self._numbers)
        begin = time.perf_counter()
        proof = self._log.record(made(number), timeout_s=30)
        took = time.perf_counter() - begin
        with self._lock:
            self.acknowledged.append(number)
            self.waits.append(took)
            if number % 100 == 0:
                self.kept.append(proof)


def made(number: int) -> Entry:
    """An entry like those of calls."""
    facts = {"level": "CL1", "digest": "0" * 64}
    return Entry(
        seq=number, time=datetime.now(UTC), type="organisms.create", actor="users/bench", subject=f"things/{number}", facts=facts
    )


def acknowledged(folder: Path, *, quick: bool) -> list[Row]:
    """M8."""
    (folder / "blobs").mkdir(parents=True)
    database, blobs = Database(f"sqlite:///{folder / 'ledger.db'}"), Blobs(f"file://{folder / 'blobs'}")
    database.migrate()
    Signer.create(folder / "signer", origin=ORIGIN)
    log = Log(database, blobs, Signer.open(folder / "signer"))
    log.start()
    duration, rounds = (0.4, 3) if quick else (1.5, 7)
    writers = Writers(log)
    with closing(sqlite3.connect(folder / "single.db", isolation_level=None, check_same_thread=False)) as single:
        for statement in (
            "PRAGMA journal_mode = WAL",
            "PRAGMA synchronous = FULL",
            "CREATE TABLE e (i INTEGER PRIMARY KEY, b BLOB)",
        ):
            single.execute(statement)
        numbers = itertools.count(1)

        def commit() -> None:
            number = next(numbers)
            single.execute("INSERT INTO e VALUES (?, ?)", (number, entries.encode(made(number))))

        found = interleaved(
            {OURS: lambda: rate([writers.write] * WRITERS, duration), SQLITE: lambda: rate([commit], duration)}, rounds
        )
    log.close()
    checks = _checked(database, blobs, log, writers)
    database.close()
    late = sorted(writers.waits)[int(len(writers.waits) * 0.99)]
    return [
        Row("M8", f"entries acknowledged, {WRITERS} writers", "entries/s", found, (Goal(3.0, SQLITE),), checks),
        Row("M8", "wait for a receipt, p99", "s", {OURS: [late]}, (Goal(1.0, at_most=True),), checks),
    ]


def _checked(database: Database, blobs: Blobs, log: Log, writers: Writers) -> dict[str, bool]:
    key = note.parse_vkey(log.vkey)
    with database.read() as tx:
        bodies, findings = fsck.check_database(tx, key, origin=ORIGIN)
    findings += fsck.check_published(blobs, key, origin=ORIGIN, bodies=bodies)[1]
    numbers = {entries.parse(body).seq for body in bodies}
    for proof in writers.kept:
        receipt.verify(proof, log.vkey, origin=ORIGIN)
    count = len(writers.acknowledged)
    return {
        f"{count} acknowledged, all in the ledger once": len(bodies) == len(numbers) and numbers >= set(writers.acknowledged),
        "fsck clean": not findings,
        f"{len(writers.kept)} receipts verified": len(writers.kept) > 0,
    }
