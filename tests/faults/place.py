"""A small registry without its door: real database, blobs, keys, signer and ledger in one folder, to be broken and looked at."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from model_organisms.errors import ModelOrganismsError
from model_organisms.formats import entry as entries
from model_organisms.formats import note
from model_organisms.records import Entry
from model_organisms_registry.ledger import fsck, rows
from model_organisms_registry.ledger.log import Log
from model_organisms_registry.ledger.signer import HEAD, Signer
from model_organisms_registry.storage.blobs import Blobs
from model_organisms_registry.storage.bundles import Bundles, Stored
from model_organisms_registry.storage.catalog import sandbox as content_rows
from model_organisms_registry.storage.contents import Contents
from model_organisms_registry.storage.database import Database
from model_organisms_registry.storage.key_files import FileKeys
from model_organisms_registry.storage.keyring import Keyring
from model_organisms_registry.storage.sealed import SealedStore

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from model_organisms.records import Receipt

ORIGIN = "faults.test"
NOW = datetime(2026, 11, 1, tzinfo=UTC)
BEFORE = 253
"""Entries there already: the third one after them fills a tile of 256, whose file is written in another way than partial ones."""

PACKED = bytes(range(256)) * 160
SESSION = "sessions/01j9zq3v8r5m2k7x4c6b0d1e2f"
SAID = "What the model said, window by window: "


def made(number: int, kind: str = "fault.append", commit: str = "", facts: dict[str, str] | None = None) -> Entry:
    """An entry of its own."""
    return Entry(seq=number, time=NOW, type=kind, actor="users/ada", subject=f"things/{number}", commit=commit, facts=facts or {})


@dataclass(slots=True)
class Told:
    """What a story told the world before it ended: the world has a right to find it."""

    acknowledged: list[tuple[int, bytes]]
    """Index and bytes of each entry whose receipt was handed out."""
    released: list[tuple[str, str]]
    """Commitment and text of each output that left."""
    published: list[str]
    """Digest of each bundle whose publication was acknowledged."""


class Place:
    """The parts, opened from a folder; opening again is a restart."""

    def __init__(self, folder: Path) -> None:
        """Open all but the ledger."""
        self.folder = folder
        self.database = Database(f"sqlite:///{folder / 'registry.db'}")
        self.blobs = Blobs(f"file://{folder / 'blobs'}")
        self.sealed = SealedStore(self.blobs, Keyring(FileKeys(folder / "kek")))
        self.log = Log(self.database, self.blobs, Signer.open(folder / "signer"))

    @classmethod
    def create(cls, folder: Path) -> None:
        """Make one in which something has happened already."""
        folder.mkdir()
        Signer.create(folder / "signer", origin=ORIGIN)
        place = cls(folder)
        place.database.migrate()
        place.log.start()
        with place.database.write() as tx:
            tickets = [place.log.append(tx, made(number)) for number in range(BEFORE)]
        place.log.wait(tickets[-1], timeout_s=60)
        place.close()

    def stage(self, numbers: Iterable[int]) -> None:
        """Leave entries as a crash leaves them between staging and signing."""
        with self.database.write() as tx:
            rows.stage(tx, BEFORE, [entries.encode(made(number)) for number in numbers])

    def append(self, number: int) -> Receipt:
        """Put in an entry that belongs to no transaction."""
        return self.log.record(made(number))

    def publish(self, number: int) -> tuple[Receipt, str]:
        """Keep a bundle, then say so in the ledger."""
        packed = number.to_bytes(4, "big") + PACKED
        stored = stored_as(packed)
        Bundles(self.sealed).keep(stored, memoryview(packed))
        with self.database.write() as tx:
            ticket = self.log.append(tx, made(number, "fault.publish", facts={"digest": stored.digest}))
        return self.log.wait(ticket), stored.digest

    def sample(self, number: int) -> tuple[list[Receipt], str, str]:
        """Enter the intent, keep what was said, enter its commitment; only then may the text leave."""
        contents, text = Contents(self.sealed), f"{SAID}{number}"
        intent = self.log.record(made(number, "fault.intent"))
        with contents.keeping(self.database, SESSION, text.encode()) as kept:
            with self.database.write() as tx:
                contents.index(tx, kept)
                ticket = self.log.append(tx, made(number + 1, "fault.release", kept.commit))
            receipt = self.log.wait(ticket)
        return [intent, receipt], kept.commit, text

    def close(self) -> None:
        """Stop."""
        self.log.close()
        self.database.close()


def stored_as(packed: bytes) -> Stored:
    """Where a bundle is kept."""
    return Stored("organisms/faulty", hashlib.sha256(packed).hexdigest(), len(packed))


def examine(folder: Path, told: Told) -> list[str]:
    """Restart, look for all that was told, go on working, and check everything; what is wrong, in words."""
    try:
        place = Place(folder)
        place.log.start()
    except ModelOrganismsError as error:
        return [f"the restart failed: {error.message}"]
    wrong = [f"entry {index} was acknowledged and is gone" for index, body in told.acknowledged if not _there(place, index, body)]
    wrong += [f"output left without its entry: {text}" for commit, text in told.released if not _accounted(place, commit, text)]
    wrong += [f"bundle {digest} does not open" for digest in told.published if not _opens(place, digest)]
    try:
        place.append(9_000)
    except ModelOrganismsError as error:
        wrong.append(f"nothing can be entered after a restart: {error.message}")
    place.close()
    return wrong + [f"{finding.place}: {finding.what}" for finding in _findings(folder)]


def _there(place: Place, index: int, body: bytes) -> bool:
    try:
        return place.log.entry(index) == body
    except ModelOrganismsError:
        return False


def _accounted(place: Place, commit: str, text: str) -> bool:
    """Whether the ledger commits to what left, and what it commits to can be read back."""
    with place.database.read() as tx:
        content = content_rows.content(tx, commit)
    committed = any(entries.parse(body).commit == commit for body in place.log.entries(BEFORE, 1000))
    return committed and content is not None and Contents(place.sealed).read(content) == text.encode()


def _opens(place: Place, digest: str) -> bool:
    path = f"versions/faulty/{digest}"
    memory = place.sealed.open_sealed(path, aad=bytes.fromhex(digest)).into_memory()
    return hashlib.sha256(memory[: len(PACKED) + 4]).hexdigest() == digest


def _findings(folder: Path) -> list[fsck.Finding]:
    place = Place(folder)
    key = note.parse_vkey(place.log.vkey)
    with place.database.read() as tx:
        bodies, found = fsck.check_database(tx, key, origin=ORIGIN)
    found += fsck.check_published(place.blobs, key, origin=ORIGIN, bodies=bodies)[1]
    found += fsck.check_signer(folder / "signer" / HEAD, bodies, origin=ORIGIN)
    place.database.close()
    return found
