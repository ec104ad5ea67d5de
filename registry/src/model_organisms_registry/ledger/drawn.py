"""Holds the ledger against the draw: each turn that was drawn is said again once, or waits for it; and no other is."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from model_organisms.errors import InvalidArgument
from model_organisms.formats import entry as entries
from model_organisms.formats import merkle, reruns

from model_organisms_registry.domain.audit import Event
from model_organisms_registry.ledger.fsck import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from collections.abc import Set as AbstractSet

    from model_organisms.records import Entry

_ENTERED = {Event.RERUN.type, Event.RERUN_DIFFERS.type}


@dataclass(frozen=True, slots=True)
class Tally:
    """Turns that were drawn to be said again."""

    due: int
    done: int
    """Of which an entry says what came of it."""
    different: int
    """That came out otherwise."""

    def as_text(self) -> str:
        """For people."""
        return f"reruns: {self.due} due, {self.done} done, {self.different} different"


def tally(written: Sequence[Entry], waiting: AbstractSet[str]) -> tuple[Tally, list[Finding]]:
    """Draw again, and compare.

    Args:
        written: The ledger's entries, in order.
        waiting: Turns that wait to be said again.
    """
    due = {entry.subject for entry in written if _drawn(entry)}
    done = Counter(entry.subject for entry in written if entry.type in _ENTERED)
    different = sum(entry.type == Event.RERUN_DIFFERS.type for entry in written)
    return Tally(len(due), len(due & done.keys()), different), list(_findings(due, done, waiting))


def _findings(due: AbstractSet[str], done: Counter[str], waiting: AbstractSet[str]) -> Iterator[Finding]:
    for name in sorted(due - done.keys() - waiting):
        yield Finding(name, "it was drawn to be said again, and no entry says what came of it")
    for name in sorted((done.keys() | waiting) - due):
        yield Finding(name, "it is said again, and was not drawn")
    for name in sorted(name for name, count in done.items() if count > 1 or name in waiting):
        yield Finding(name, f"{done[name]} entries say that it was said again{', and it waits for it' * (name in waiting)}")


def _drawn(entry: Entry) -> bool:
    share = entry.facts.get(reruns.FACT, "") if entry.type == Event.SAMPLE_RESULT.type else ""
    try:
        return bool(share) and reruns.due(merkle.leaf_hash(entries.encode(entry)), share)
    except InvalidArgument:
        return False
