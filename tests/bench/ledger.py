"""M8: entries that 32 writers, and one, have acknowledged by the ledger, durable and signed; beside SQLite, a commit an entry."""

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
from model_organisms_registry.ledger.seat import Seat
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


NUMBERS = itertools.count(1)


class Writers:
    """Writers who wait for each receipt, and keep every hundredth to be verified."""

    def __init__(self, log: Log) -> None:
        """Write nothing yet."""
        self._log = log
        self._numbers = NUMBERS
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
    log = Log(database, blobs, Seat(folder / "signer"))  # a process of its own, as in a registry that serves
    log.start()
    duration, rounds = (0.4, 3) if quick else (1.5, 7)
    many, alone = Writers(log), Writers(log)
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

        def beside(writers: Writers, count: int) -> dict[str, list[float]]:
            sides = {OURS: lambda: rate([writers.write] * count, duration), SQLITE: lambda: rate([commit], duration)}
            return interleaved(sides, rounds)

        found, single_writer = beside(many, WRITERS), beside(alone, 1)
    log.close()
    checks = _checked(database, blobs, log, many, alone)
    database.close()
    return [
        Row("M8", f"entries acknowledged, {WRITERS} writers", "entries/s", found, (Goal(3.0, SQLITE),), checks),
        Row("M8", "entries acknowledged, 1 writer", "entries/s", single_writer, (), checks),
        *(
            Row("M8", f"wait for a receipt, {count} writers, p{share}", "s", {OURS: [waited(writers, share)]}, goals, checks)
            for writers, count in ((many, WRITERS), (alone, 1))
            for share, goals in ((50, ()), (99, (Goal(1.0, at_most=True),)))
        ),
    ]


def waited(writers: Writers, share: int) -> float:
    """How long so many in a hundred of them waited at most."""
    return sorted(writers.waits)[int(len(writers.waits) * share / 100)]


def _checked(database: Database, blobs: Blobs, log: Log, *all_writers: Writers) -> dict[str, bool]:
    key = note.parse_vkey(log.vkey)
    with database.read() as tx:
        bodies, findings = fsck.check_database(tx, key, origin=ORIGIN)
    findings += fsck.check_published(blobs, key, origin=ORIGIN, bodies=bodies)[1]
    numbers = {entries.parse(body).seq for body in bodies}
    kept = [proof for writers in all_writers for proof in writers.kept]
    for proof in kept:
        receipt.verify(proof, log.vkey, origin=ORIGIN)
    acknowledged_numbers = {number for writers in all_writers for number in writers.acknowledged}
    once = len(bodies) == len(numbers) and numbers >= acknowledged_numbers
    return {
        f"{len(acknowledged_numbers)} acknowledged, all in the ledger once": once,
        "fsck clean": not findings,
        f"{len(kept)} receipts verified": len(kept) > 0,
    }
