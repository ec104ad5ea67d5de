"""Checks and copies of a registry at rest or at work: what `mo-registry fsck`, `backup` and `restore` do.

An inspection changes nothing. It derives the ledger again from its entries, holds it against head, tiles and the signer's memory,
and lists what was begun and not finished, so that a crash is seen for what it left.
"""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from model_organisms.errors import AlreadyExists, ConfigurationInvalid
from model_organisms.formats import manifest, note

from model_organisms_registry.ledger import fsck
from model_organisms_registry.ledger.signer import HEAD, Signer
from model_organisms_registry.storage.blobs import Blobs
from model_organisms_registry.storage.bundles import Stored
from model_organisms_registry.storage.catalog import organisms as organism_rows
from model_organisms_registry.storage.catalog import sandbox as sandbox_rows
from model_organisms_registry.storage.catalog import search
from model_organisms_registry.storage.database import Database

if TYPE_CHECKING:
    from pathlib import Path

    from model_organisms_registry.config import Config
    from model_organisms_registry.ledger.fsck import Finding
    from model_organisms_registry.storage.database import Connection

_PAGE = 1000


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
    findings: tuple[Finding, ...]

    @property
    def clean(self) -> bool:
        """Whether nothing is wrong. What is unfinished is not wrong."""
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
        with database.read() as tx:
            bodies, findings = fsck.check_database(tx, key, origin=origin)
            waiting = fsck.unsequenced(tx)
            versions, missing = _bundles(tx, blobs)
            intents = sandbox_rows.unfinished_intents(tx)
        published, wrong = fsck.check_published(blobs, key, origin=origin, bodies=bodies)
        findings += wrong + missing + fsck.check_signer(signer.path.parent / HEAD, bodies, origin=origin)
    finally:
        database.close()
    unfinished = tuple(
        f"{intent.kind.value} {intent.id} on {intent.subject} since {intent.time:%Y-%m-%d %H:%M:%S} UTC" for intent in intents
    )
    return Report(len(bodies), published, versions, waiting, unfinished, tuple(findings))


def copy(config: Config, to: Path) -> None:
    """Copy a registry into a new folder, while it runs: the database first, so that all it names is in the copy.

    Raises:
        AlreadyExists: There is something in that folder.
        ConfigurationInvalid: Database or blobs are not in the data folder; copy those by their own tools.
    """
    if to.exists() and any(to.iterdir()):
        raise AlreadyExists(f"{to} is not empty; name a new folder.")
    if config.database or config.blobs:
        raise ConfigurationInvalid("Only the embedded database and blobs are copied here; see deploy/runbook.md for the others.")
    to.mkdir(parents=True, mode=0o700, exist_ok=True)
    database = Database(config.database_url)
    try:
        database.backup(to / "registry.db")
    finally:
        database.close()
    shutil.copytree(config.folder / "blobs", to / "blobs")
    shutil.copytree(config.keys_folder, to / "keys")
    shutil.copy2(config.folder / "registry.toml", to / "registry.toml")


def _bundles(tx: Connection, blobs: Blobs) -> tuple[int, list[Finding]]:
    """Every version has its sealed bundle and the key beside it."""
    count, found, token = 0, [], ""
    while True:
        page = search.organisms(tx, visible=search.EVERYTHING, page_size=_PAGE, page_token=token)
        for organism in page.items:
            for version in organism_rows.versions(tx, organism.name, page_size=_PAGE).items:
                count += 1
                stored = Stored(organism.name, version.digest, manifest.of_files(version.files).packed_size)
                if not (blobs.exists(stored.path) and blobs.exists(f"{stored.path}.key")):
                    found.append(fsck.Finding(version.name, "its sealed bundle or its key is missing"))
        token = page.next_page_token
        if not token:
            return count, found
