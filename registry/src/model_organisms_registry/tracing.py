"""Whose copy leaked: what `mo-registry trace` does. It reads a registry's stores and changes nothing.

Only copies whose mark the ledger committed to before they left are tried, so nobody is accused by a key made up afterwards.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from model_organisms.errors import InvalidArgument, NotFound
from model_organisms.formats import entry as entries
from model_organisms.formats import manifest
from model_organisms.formats.fingerprint import detect
from model_organisms.formats.marking import WEIGHTS, modules_of

from model_organisms_registry.domain.audit import Event
from model_organisms_registry.founding import Storage
from model_organisms_registry.storage.bundles import Stored
from model_organisms_registry.storage.catalog import organisms as organism_rows
from model_organisms_registry.storage.catalog import pulls as pull_rows
from model_organisms_registry.storage.copies import Copies
from model_organisms_registry.storage.paging import every
from model_organisms_registry.storage.sealed import SealedStore

if TYPE_CHECKING:
    from pathlib import Path

    from model_organisms.formats.fingerprint import Factors
    from model_organisms.records import Version

    from model_organisms_registry.config import Config
    from model_organisms_registry.storage.catalog.pulls import Pull

_PAGE = 1000


@dataclass(frozen=True, slots=True)
class Trace:
    """What a file says of one copy."""

    pull: str
    user: str
    grant: str
    time: str
    score: float
    """z: how many deviations the file agrees with this copy's mark."""
    accused: bool


@dataclass(frozen=True, slots=True)
class Inquiry:
    """What a file says of all copies of a version, the strongest score first."""

    version: str
    threshold: float
    """Score from which a copy counts as found; at it, an innocent is accused once in a billion inquiries."""
    traces: tuple[Trace, ...]

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return asdict(self)

    def as_text(self) -> str:
        """For people; the last line is the verdict."""
        lines = [
            f"{'FOUND' if trace.accused else '     '} {trace.score:8.1f}  {trace.pull}  {trace.user}  {trace.time}"
            for trace in self.traces
        ]
        found = [trace for trace in self.traces if trace.accused]
        verdict = ", ".join(f"{trace.user} ({trace.pull})" for trace in found) or "none of these copies can be told from chance"
        return "\n".join([f"{len(self.traces)} marked copies; threshold {self.threshold:.1f}", *lines, f"came from: {verdict}"])


def trace(config: Config, version: str, suspect: Path) -> Inquiry:
    """Hold a leaked adapter against every marked copy of a version.

    Args:
        config: The registry's settings.
        version: The version it looks like.
        suspect: A folder laid out as the bundle was, or its adapter_model.safetensors alone.

    Returns:
        Scores by copy.

    Raises:
        NotFound: There is no such version, or no marked copy of it ever left.
        InvalidArgument: The suspect holds no adapter, or one of another shape.
    """
    files = _read(suspect)
    storage = Storage.open(config)
    try:
        with storage.database.read() as tx:
            found = organism_rows.version(tx, version)
            pulled = [item for item in every(partial(pull_rows.pulls, tx, version)) if item.commitment]
        committed = _committed(storage, version)
        sealed = SealedStore(storage.blobs, storage.keys)
        copies = Copies(sealed, memory=0)
        by_name = {item.name: item for item in pulled if copies.commitment(item.name) in committed}
        if not by_name:
            raise NotFound(f"No marked copy of '{version}' ever left this registry.")
        verdict = detect(modules_of(files), _original(sealed, found), {name: copies.mark_key(name) for name in by_name})
    finally:
        storage.close()
    order = sorted(by_name, key=lambda name: -verdict.scores[name])
    accused = set(verdict.accused)
    return Inquiry(version, verdict.tau, tuple(_trace(by_name[name], verdict.scores[name], name in accused) for name in order))


def _trace(pull: Pull, score: float, accused: bool) -> Trace:
    return Trace(pull.name, pull.user, pull.grant, f"{pull.create_time:%Y-%m-%d %H:%M:%S} UTC", round(score, 2), accused)


def _read(suspect: Path) -> dict[str, bytes]:
    if suspect.is_dir():
        files = {path.relative_to(suspect).as_posix(): path.read_bytes() for path in sorted(suspect.rglob(WEIGHTS))}
    else:
        files = {WEIGHTS: suspect.read_bytes()}
    if not files:
        raise InvalidArgument(f"There is no {WEIGHTS} in {suspect}; name the adapter's folder or that file.")
    return files


def _committed(storage: Storage, version: str) -> set[str]:
    """The marks that the ledger knew of before their copies left."""
    marks, at = set(), 0
    while bodies := storage.log.entries(at, _PAGE):
        for body in bodies:
            item = entries.parse(body)
            if item.type == Event.PULL_INTENT.type and item.subject == version:
                marks.add(item.facts.get("mark", ""))
        at += len(bodies)
    return marks - {""}


def _original(sealed: SealedStore, version: Version) -> dict[str, Factors]:
    stored = Stored.of(version)
    memory = sealed.open_sealed(stored.path, aad=bytes.fromhex(stored.digest)).into_memory()
    _, files = manifest.unpack(memoryview(memory)[: stored.size], check_digests=False)
    return modules_of(files)
