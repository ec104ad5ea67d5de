"""Follows a ledger and raises alarms: forks, rollbacks, silence, missing witnesses, and entries that somebody should look at.

A monitor reads every leaf once and computes the root itself, so each new head is held against all that it has read before; it
needs no proof from anybody. Its pin is the last head it verified: a ledger that does not lead there is a fork.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Protocol

from model_organisms.errors import (
    InvalidArgument,
    LedgerForked,
    ModelOrganismsError,
    SignatureInvalid,
    Unavailable,
    VerificationFailed,
)
from model_organisms.formats import checkpoint as checkpoints
from model_organisms.formats import entry as entries
from model_organisms.formats import merkle

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime
    from pathlib import Path

    from model_organisms.formats.note import VerifierKey
    from model_organisms.records import Checkpoint, Entry

WATCHED = {
    "reviewers": "somebody was invited, appointed, let back in or given new keys",
    "levels": "a containment level was set",
    "policies": "the policies that decide are others than before",
    "motions": "two people were asked to agree on something, or have",
}
"""What may be watched by name; anything else is a pattern of entry types, such as `organisms.*`."""

_TYPES = {"levels": "organisms.level", "motions": "motions.*"}
_POWERFUL = {"reviewer", "admin"}
_RESTORING = {"identity.reinstate", "identity.recover"}
_ADOPTED = "policies.adopt"


class Source(Protocol):
    """Where a ledger is read: its public files (`Published`), or a registry (`Audit`)."""

    def checkpoint(self) -> Checkpoint:
        """Read the newest head, signed by the ledger's key."""

    def cosigned(self) -> bytes:
        """Read the newest note that witnesses have cosigned; empty where there is none."""

    def leaves(self, start: int, end: int) -> Iterator[tuple[bytes, bytes]]:
        """Read leaf hashes, and entries where they may be read."""


@dataclass(frozen=True, slots=True)
class Alarm:
    """Something that a person must hear of."""

    kind: str
    """`fork`, `rollback`, `invalid`, `unreachable`, `stale`, `unwitnessed`, or `watched`."""
    message: str
    index: int = -1
    """Of the entry, where there is one."""
    entry: Entry | None = None


@dataclass(slots=True)
class Monitor:
    """One monitor of one ledger.

    Args:
        source: Where it is read.
        pin: File with the last head that was verified; None begins anew with each run.
        witnesses: Keys of witnesses whose cosignatures are expected.
        quorum: How many of them.
        lag_s: How old the newest cosigned head may be, in seconds.
        stale_s: How long the ledger may be without a new entry, in seconds; 0 is for ever.
        watch: Names of `WATCHED`, or patterns of entry types.
    """

    source: Source
    key: VerifierKey
    origin: str
    pin: Path | None = None
    witnesses: Sequence[VerifierKey] = ()
    quorum: int = 0
    lag_s: float = 600.0
    stale_s: float = 0.0
    watch: Sequence[str] = tuple(WATCHED)
    head: Checkpoint | None = None
    """The last head that was verified."""
    seen: int = 0
    """Entries under the newest signed head that was shown, whether it is of this history or not."""
    unread: int = 0
    """Entries that may not be read here: their hashes are verified, and nothing in them is watched."""
    _frontier: merkle.Frontier = field(default_factory=merkle.Frontier)
    _roots: dict[int, bytes] = field(default_factory=dict)
    _policies: str = ""
    _moved: datetime | None = None

    def look(self, now: datetime) -> list[Alarm]:
        """Look once.

        1. The newest head is signed. 2. It is no shorter than the last one. 3. All leaves give it, and the last one on the way.
        4. Enough witnesses have cosigned a head of the same history, not long ago. 5. There is something new, not long ago.
        After a fork or a rollback the last head stays pinned, and every further look says so again.

        Args:
            now: The time.

        Returns:
            Alarms, the gravest first; none means that all is well.
        """
        try:
            last = self.head or self._pinned()
            self.seen = last.size if last else 0
            head = self.source.checkpoint()
            note = self.source.cosigned() if self.quorum else b""
            found = self._follow(head, last, now)
            if note and (cosigned := checkpoints.verified(note, self.key, origin=self.origin)).size > head.size:
                found += self._follow(cosigned, self.head, now)
            return [*self._witnessed(note, now), *self._stale(now), *found]
        except LedgerForked as error:
            self.seen = int(error.details.get("size", self.seen))
            return [Alarm(error.details.get("kind", "fork"), error.message)]
        except VerificationFailed as error:
            return [Alarm("invalid", error.message)]
        except Unavailable as error:
            return [Alarm("unreachable", error.message)]

    def _follow(self, head: Checkpoint, last: Checkpoint | None, now: datetime) -> list[Alarm]:
        """Steps 2 and 3; gives the entries to look at."""
        self.seen = head.size
        if last is not None and head.size < last.size:
            msg = f"The ledger went back from {last.size} to {head.size} entries; keep both checkpoints as evidence."
            raise LedgerForked(msg, kind="rollback")
        found: list[Alarm] = []
        for leaf, body in self.source.leaves(self._frontier.size, head.size):
            index = self._frontier.size
            self._frontier.append(leaf)
            if last is not None and index + 1 == last.size:
                self._hold(last)
            found += self._notable(index, body, new=last is None or index >= last.size)
        self._hold(head)
        if self.head is None or head.size > self.head.size:
            self._moved = now
        self.head = head
        self._write_pin(head)
        return found

    def _hold(self, head: Checkpoint) -> None:
        """Hold a head against all that was read."""
        if (self._frontier.size, self._frontier.root()) != (head.size, head.root):
            self._frontier = merkle.Frontier()  # what was read is of another history, or was changed: read it anew
            self._roots.clear()
            self.unread = 0
            raise LedgerForked(f"The leaves do not give the signed head of {head.size} entries; keep both as evidence.")
        self._roots[head.size] = head.root
        while len(self._roots) > _KEPT:
            del self._roots[next(iter(self._roots))]

    def _witnessed(self, note: bytes, now: datetime) -> list[Alarm]:
        """Step 4."""
        if not self.quorum:
            return []
        if not note:
            return [Alarm("unwitnessed", "No checkpoint that witnesses have cosigned is published.")]
        head = checkpoints.verified(note, self.key, origin=self.origin)
        if self._root_at(head.size) != head.root:
            raise LedgerForked(f"The cosigned checkpoint of {head.size} entries is of another history; keep both as evidence.")
        try:
            times = sorted(checkpoints.cosignatures(note, self.witnesses).values(), reverse=True)
        except SignatureInvalid as error:
            return [Alarm("unwitnessed", error.message)]
        if len(times) < self.quorum:
            return [Alarm("unwitnessed", f"{len(times)} of the expected witnesses have cosigned; {self.quorum} must.")]
        age = now.timestamp() - times[self.quorum - 1]
        late = f"The newest cosigned checkpoint, of {head.size} entries, is {age:.0f} s old; {self.lag_s:.0f} s are allowed."
        return [Alarm("unwitnessed", late)] if age > self.lag_s else []

    def _root_at(self, size: int) -> bytes:
        """The root of a smaller tree; where it was not met on the way, the leaves are read again."""
        if size not in self._roots:
            frontier = merkle.Frontier()
            for leaf, _ in self.source.leaves(0, size):
                frontier.append(leaf)
            self._roots[size] = frontier.root()
        return self._roots[size]

    def _stale(self, now: datetime) -> list[Alarm]:
        """Step 5."""
        if not self.stale_s or self._moved is None or (now - self._moved).total_seconds() <= self.stale_s:
            return []
        return [Alarm("stale", f"No entry has come since {self._moved:%Y-%m-%d %H:%M} UTC; is an old copy served?")]

    def _notable(self, index: int, body: bytes, *, new: bool) -> Iterator[Alarm]:
        """Choose what a person should look at among the entries that may be read."""
        if not body:
            self.unread += 1
            return
        try:
            entry = entries.parse(body)
        except InvalidArgument as error:
            yield Alarm("watched", f"Entry {index} cannot be read: {error.message}", index)
            return
        ruled = entry.policies or entry.facts.get("policies", "")
        others = bool(ruled and self._policies and ruled != self._policies)
        self._policies = ruled or self._policies
        for name in self.watch if new else ():
            if others or entry.type == _ADOPTED if name == "policies" else _matches(name, entry):
                why = WATCHED.get(name, f"it is of a type that is watched ({name})")
                yield Alarm("watched", f"Entry {index}, {entry.type} of {entry.subject} by {entry.actor}: {why}.", index, entry)
                return

    def _pinned(self) -> Checkpoint | None:
        if self.pin is None or not self.pin.exists():
            return None
        return checkpoints.verified(self.pin.read_bytes(), self.key, origin=self.origin)

    def _write_pin(self, head: Checkpoint) -> None:
        if self.pin is not None:
            partial = self.pin.with_name(f".{self.pin.name}.{os.getpid()}")
            partial.write_bytes(head.note)
            partial.replace(self.pin)


_KEPT = 1000
"""Roots kept of heads that were met."""


def _matches(name: str, entry: Entry) -> bool:
    if name == "reviewers":
        given = set(entry.facts.get("roles", "").replace(",", " ").split())
        return entry.type in _RESTORING or (entry.type == "identity.invite" and not _POWERFUL.isdisjoint(given))
    return fnmatchcase(entry.type, _TYPES.get(name, name))


def gravest(alarms: Sequence[Alarm]) -> type[ModelOrganismsError] | None:
    """The error that the gravest of some alarms stands for; none if something was only watched for."""
    kinds = {alarm.kind for alarm in alarms}
    if kinds & {"fork", "rollback", "invalid", "unwitnessed"}:
        return VerificationFailed
    return Unavailable if kinds & {"unreachable", "stale"} else None
