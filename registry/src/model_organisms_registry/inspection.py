"""Checks and copies of a registry at rest or at work: what `mo-registry fsck`, `backup` and `restore` do.

An inspection changes nothing. It derives the ledger again from its entries, holds it against head, tiles and the signer's memory,
and lists what was begun and not finished, so that a crash is seen for what it left.

A copy may be made of a registry at work, so it has an order: what is copied first speaks of nothing that came after it. The keys
of versions are in no copy, because one that was destroyed must not come back with an old copy (ADR 0008).
"""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from model_organisms.errors import (
    AlreadyExists,
    InvalidArgument,
    Unavailable,
    VerificationFailed,
)
from model_organisms.formats import checkpoint as checkpoints
from model_organisms.formats import note, tiles

from model_organisms_registry.config import load
from model_organisms_registry.ledger import fsck
from model_organisms_registry.ledger import rows as ledger_rows
from model_organisms_registry.ledger.signer import HEAD, Signer
from model_organisms_registry.ledger.tiles import PREFIX
from model_organisms_registry.storage import key_standing
from model_organisms_registry.storage.blobs import Blobs
from model_organisms_registry.storage.bundles import Stored
from model_organisms_registry.storage.catalog import organisms as organism_rows
from model_organisms_registry.storage.catalog import sandbox as sandbox_rows
from model_organisms_registry.storage.catalog import search
from model_organisms_registry.storage.database import Database
from model_organisms_registry.storage.paging import every
from model_organisms_registry.storage.sealed import key_record

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from model_organisms.records import Version

    from model_organisms_registry.config import Config
    from model_organisms_registry.ledger.fsck import Finding
    from model_organisms_registry.storage.database import Connection
    from model_organisms_registry.storage.key_standing import Standing

_TRIES = 10


@dataclass(frozen=True, slots=True)
class Report:
    """What an inspection found."""

    entries: int
    published: int
    versions: int
    waiting: int
    """Entries that transactions have asked for and no head covers yet; the next start sequences them."""
    unfinished: tuple[str, ...]
    """Intents without a result: what was begun when the registry stopped, and never left."""
    keys: Standing
    """How the keys of versions stand."""
    unindexed: int
    """Sealed texts that no transaction knows of: each was kept for one that was cut off. Nobody can be shown them."""
    findings: tuple[Finding, ...]

    @property
    def clean(self) -> bool:
        """Whether nothing is wrong. What is unfinished is not wrong, and what was destroyed is meant so."""
        return not self.findings

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {**asdict(self), "clean": self.clean}

    def as_text(self) -> str:
        """For people; the last line is the verdict."""
        lines = [
            f"ledger: {self.entries} entries, {self.published} published, {self.waiting} waiting to be sequenced",
            f"versions: {self.versions}, each with its sealed bundle",
            *(f"unfinished: {what}" for what in self.unfinished),
            *self.keys.as_lines(),
            *([f"unindexed: {self.unindexed} blobs"] if self.unindexed else []),
            *(f"WRONG {finding.place}: {finding.what}" for finding in self.findings),
            "clean" if self.clean else f"{len(self.findings)} findings; keep the folder as evidence, see deploy/runbook.md",
        ]
        return "\n".join(lines)


def inspect(config: Config) -> Report:
    """Check a registry's data folder, stores and database."""
    signer = Signer.open(config.keys_folder / "ledger")
    key, origin = note.parse_vkey(signer.vkey), signer.origin
    blobs, database = Blobs(config.blobs_url), Database(config.database_url)
    try:
        lying = blobs.list("contents")  # before the rows, so that what is kept meanwhile is not counted
        with database.read() as tx:
            bodies, findings = fsck.check_database(tx, key, origin=origin)
            waiting = fsck.unsequenced(tx)
            staged = _staged(tx, len(bodies))
            versions = [(version, Stored.of(version)) for version in _versions(tx)]
            intents = sandbox_rows.unfinished_intents(tx)
            unindexed = _unindexed(tx, lying)
        missing = [
            fsck.Finding(version.name, "its sealed bundle or its key record is missing")
            for version, stored in versions
            if not (blobs.exists(stored.path) and blobs.exists(key_record(stored.path)))
        ]
        keys = key_standing.ask(config.keys, config.kek_folder, blobs, (version for version, _ in versions))
        published, wrong = fsck.check_published(blobs, key, origin=origin, bodies=bodies)
        findings += wrong + missing + fsck.check_signer(signer.path.parent / HEAD, bodies + staged, origin=origin)
    finally:
        database.close()
    unfinished = tuple(
        f"{intent.kind.value} {intent.id} on {intent.subject} since {intent.time:%Y-%m-%d %H:%M:%S} UTC" for intent in intents
    )
    lost = "its key is lost, or was not put back; nothing says that it was destroyed"
    findings += [fsck.Finding(name, lost) for name in keys.lost]
    findings += [fsck.Finding(name, "its key record is not what was stored") for name in keys.broken]
    return Report(len(bodies), published, len(versions), waiting, unfinished, keys, unindexed, tuple(findings))


def copy(config: Config, to: Path) -> tuple[str, ...]:
    """Copy what a data folder holds into a new folder, while the registry runs, but for the keys of versions.

    Returns:
        What is kept elsewhere and was not copied: `database`, `blobs`.

    Raises:
        AlreadyExists: There is something in that folder.
        Unavailable: The ledger grew too fast to be copied.
    """
    if to.exists() and any(to.iterdir()):
        raise AlreadyExists(f"{to} is not empty; name a new folder.")
    to.mkdir(parents=True, mode=0o700, exist_ok=True)
    shutil.copy2(config.folder / "registry.toml", to / "registry.toml")
    _copy_files(config.keys_folder, to / "keys", without=config.kek_folder.name)
    blobs = config.folder / "blobs"
    if not config.blobs:
        _copy_published(blobs / PREFIX, to / "blobs" / PREFIX)
    if not config.database:
        database = Database(config.database_url)
        try:
            database.backup(to / "registry.db")
        finally:
            database.close()
    if not config.blobs:
        _copy_files(blobs, to / "blobs", without=PREFIX.rstrip("/"))
    return tuple(name for name in ("database", "blobs") if getattr(config, name))


def put_back(copied: Path, folder: Path, version_keys: Path | None) -> None:
    """Make a data folder from a copy.

    Args:
        copied: What `copy` made.
        folder: The new data folder.
        version_keys: The keys of versions as they are kept now, apart from copies; what was destroyed since stays destroyed.

    Raises:
        AlreadyExists: There is something in that folder.
        InvalidArgument: There are keys of versions, and the copy's settings say that they are kept elsewhere.
    """
    if folder.exists() and any(folder.iterdir()):
        raise AlreadyExists(f"{folder} is not empty; name a new folder.")
    if version_keys is not None and "file" not in (providers := load(copied).keys.providers):
        raise InvalidArgument(f"The keys of versions are kept by {providers[0]}, not in files; leave --version-keys away.")
    folder.mkdir(parents=True, mode=0o700, exist_ok=True)
    _copy_files(copied, folder)
    if version_keys is not None:
        _copy_files(version_keys, load(folder).kek_folder)


def _copy_published(source: Path, target: Path) -> None:
    """Copy the ledger's files, the checkpoint first: the tiles under it are there, unless fuller ones just took their place."""
    for _ in range(_TRIES):
        note = (source / tiles.CHECKPOINT).read_bytes()
        _copy_files(source, target)
        (target / tiles.CHECKPOINT).write_bytes(note)
        size = checkpoints.parse_unverified(note).size
        if all((target / tiles.path(tile)).exists() for tile in tiles.tiles(0, size)):
            return
        shutil.rmtree(target)
    raise Unavailable("The ledger grew too fast to be copied; try again when the registry is less busy.")


def _copy_files(source: Path, target: Path, *, without: str = "") -> None:
    """Copy a folder that is in use: what vanishes meanwhile was not to be kept, and what is hidden is not finished."""
    for place, folders, files in os.walk(source):
        here = target / os.path.relpath(place, source)
        here.mkdir(parents=True, mode=0o700, exist_ok=True)
        folders[:] = [name for name in folders if name != without and not name.startswith(".")]
        for name in files:
            with suppress(FileNotFoundError):
                shutil.copy2(os.path.join(place, name), here / name)  # noqa: PTH118 - os.walk speaks in strings


def _staged(tx: Connection, size: int) -> list[bytes]:
    """Entries after the head. The signer may know them: it signs first, and a crash may come before the head is moved."""
    try:
        return ledger_rows.staged(tx, size)
    except VerificationFailed:  # `check_database` says what is wrong with them
        return []


def _unindexed(tx: Connection, lying: Sequence[str]) -> int:
    commits = {path.rsplit("/", 1)[-1] for path in lying if not path.endswith(".key")}
    return len(commits - sandbox_rows.commits(tx))


def _versions(tx: Connection) -> Iterator[Version]:
    """Every version of every organism."""
    for organism in every(partial(search.organisms, tx, visible=search.EVERYTHING)):
        yield from every(partial(organism_rows.versions, tx, organism.name))
