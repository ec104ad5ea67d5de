"""Fresh keys for what is stored: what `mo-registry rewrap` does, with the registry stopped. What is sealed stays as it is.

Each step leaves everything readable, so a run that was cut off is simply run again:

1. a fresh rotation of each key is made; nothing is under it, and the older one still counts
2. each data key is unwrapped and wrapped under the fresh rotation; its record is replaced whole
3. records are listed again: what came meanwhile is wrapped anew too
4. the older rotations are destroyed; from here on an older copy of the records opens nothing
5. where keys moved to another keeper, the marks of what was destroyed are set there too
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from model_organisms.errors import LedgerUnavailable, NotFound, VerificationFailed

from model_organisms_registry import hooks
from model_organisms_registry.domain.audit import Event, entry
from model_organisms_registry.founding import Storage
from model_organisms_registry.storage.bundles import Stored
from model_organisms_registry.storage.catalog import organisms as organism_rows
from model_organisms_registry.storage.keyring import keeper_of, parsed
from model_organisms_registry.storage.keys import KeyState
from model_organisms_registry.storage.sealed import SealedStore
from model_organisms_registry.workflows.changes import Changes, seq
from model_organisms_registry.workflows.notifying import Outbox

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime

    from model_organisms_registry.config import Config
    from model_organisms_registry.storage.keyring import Wrapped


@dataclass(frozen=True, slots=True)
class Rewrapped:
    """What became of the keys."""

    keys: int
    """Keys that have a fresh rotation."""
    records: int
    """Data keys under them."""
    marks: int
    """Marks of destroyed keys, where those were carried to another keeper."""
    failed: tuple[str, ...]
    """Key records that did not unwrap, and keys that are lost. Where there are any, no older rotation was destroyed."""

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return asdict(self)

    def as_text(self) -> str:
        """For people; the last line is the verdict."""
        lines = [f"WRONG {what}" for what in self.failed]
        older = "the older keys were kept" if self.failed else "the older keys are destroyed; back up now"
        return "\n".join([*lines, f"{self.records} data keys are under {self.keys} fresh keys; {older}"])


def rewrap(config: Config, *, versions: Sequence[str], to: str, now: datetime, tell: Callable[[int, int], None]) -> Rewrapped:
    """Give stored things fresh keys.

    Args:
        config: The registry's settings.
        versions: Of which versions; empty means of everything that is stored: transcripts and reasons too.
        to: The keeper that makes the fresh keys, and then keys that it has already are left alone; empty means the one that
            makes new ones, and every key is turned.
        now: The time.
        tell: Told how many data keys are done, of how many.

    Returns:
        What was done.

    Raises:
        ConfigurationInvalid: A `[[notify]]` that cannot be used.
        LedgerUnavailable: The registry runs; stop it.
        NotFound: There is no such version.
        Unavailable: A keeper cannot be reached; run it again.
    """
    outbox, storage = Outbox(hooks.opened(config.notify, config.folder)), Storage.open(config)
    try:
        try:
            storage.log.start()
        except LedgerUnavailable as error:
            raise LedgerUnavailable(f"Stop the registry first, then run this again. {error.message}") from error
        changes = Changes(storage.database, storage.log, wait_s=config.limits.ledger_wait_s, outbox=outbox)
        with storage.database.read() as tx:
            chosen = {Stored.of(organism_rows.version(tx, name)).key_id for name in versions}
        keeper = to or config.keys.provider
        facts = {"keeper": keeper, "of": ",".join(sorted(chosen)) if 0 < len(chosen) <= _NAMED else str(len(chosen) or "all")}
        begun = changes.enter(entry(Event.REWRAP_INTENT, None, time=now, seq=seq(), subject="registry", facts=facts))
        done = turn(SealedStore(storage.blobs, storage.keys), chosen, keeper, lazy=bool(to), tell=tell)
        facts = {"keys": str(done.keys), "records": str(done.records), "failed": str(len(done.failed))}
        ended = entry(Event.REWRAP_RESULT, None, time=now, seq=seq(), subject="registry", intent=begun.index, facts=facts)
        changes.enter(ended)
    finally:
        storage.close()
    return done


_NAMED = 2
"""Keys that an entry names; of more it says how many."""


def turn(sealed: SealedStore, chosen: set[str], to: str, *, lazy: bool, tell: Callable[[int, int], None]) -> Rewrapped:
    """Turn keys: the five steps above, without the ledger.

    Args:
        sealed: What is stored.
        chosen: Ids of keys; empty means all.
        to: The keeper that makes the fresh ones.
        lazy: Leave alone what it has already.
        tell: As for `rewrap`.
    """
    failed: dict[str, str] = {}
    groups: dict[str, list[Wrapped]] = {}
    for record in _records(sealed, chosen, failed).values():
        groups.setdefault(parsed(record.kek)[0], []).append(record)
    fresh = {key_id: _settled(group, to) if lazy else "" for key_id, group in groups.items()}
    turned = [key_id for key_id in sorted(groups) if not fresh[key_id]]
    fresh |= {key_id: _turned(sealed, key_id, to, failed) for key_id in turned}
    done, total = 0, sum(len(groups[key_id]) for key_id in turned if fresh[key_id])
    while left := _left(_records(sealed, chosen, failed), fresh):
        for path, kek in left.items():
            try:
                sealed.rewrap(path, kek)
            except (NotFound, VerificationFailed) as error:
                failed[path] = error.message
            else:
                done += 1
            tell(done, max(done, total))
    if not failed:  # else who mends what failed may want the older rotations
        for kek in filter(None, fresh.values()):
            sealed.keys.retire(kek)
    marks = sealed.keys.carry_marks(to) if not chosen and len(sealed.keys.keepers) > 1 else 0
    told = tuple(f"{what}: {why}" for what, why in failed.items())
    return Rewrapped(sum(bool(fresh[key_id]) for key_id in turned), done, marks, told)


def _settled(group: Sequence[Wrapped], to: str) -> str:
    """The rotation that all of a key's records are under, where that keeper has it already."""
    keks = {record.kek for record in group}
    return keks.pop() if len(keks) == 1 and all(keeper_of(record) == to for record in group) else ""


def _turned(sealed: SealedStore, key_id: str, to: str, failed: dict[str, str]) -> str:
    state = sealed.keys.state(key_id)
    if state is KeyState.MISSING:
        failed[key_id] = "the key is lost"
    try:
        return sealed.keys.turn(key_id, to) if state is KeyState.LIVE else ""
    except NotFound:  # destroyed meanwhile, as `mo-registry erase` does
        return ""


def _records(sealed: SealedStore, chosen: set[str], failed: dict[str, str]) -> dict[str, Wrapped]:
    found = {}
    for path in sealed.records():
        if path not in failed:
            try:
                record = sealed.record(path)
            except NotFound:  # deleted meanwhile
                continue
            except VerificationFailed as error:
                failed[path] = error.message
                continue
            if not chosen or parsed(record.kek)[0] in chosen:
                found[path] = record
    return found


def _left(records: Mapping[str, Wrapped], fresh: Mapping[str, str]) -> dict[str, str]:
    """Key records that are not under the fresh rotation of their key, and what that is."""
    wanted = {path: fresh.get(parsed(record.kek)[0], "") for path, record in records.items()}
    return {path: kek for path, kek in wanted.items() if kek and records[path].kek != kek}
