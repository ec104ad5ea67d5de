"""What the ledger says of questions to sessions, from being asked to their end and their cost; and of pulls."""

from __future__ import annotations

from collections import defaultdict
from itertools import chain
from typing import TYPE_CHECKING

from model_organisms.records import Budget

from model_organisms_registry.domain.audit import Event
from model_organisms_registry.domain.glovebox import RELEASED
from model_organisms_registry.domain.sandbox import FINISHES
from model_organisms_registry.ledger.fsck import Finding
from model_organisms_registry.storage.catalog.intents import IntentKind

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from model_organisms.records import Entry

    from model_organisms_registry.storage.catalog.intents import Intent

FACTS = {"tokens": "tokens", "output_bytes": "bytes", "probe_values": "values"}
"""Field of a budget to the fact that counts it."""
ASKED = frozenset({IntentKind.SAMPLE.value, IntentKind.PROBE.value})
_FINISHED = FINISHES | {RELEASED}


class Asked:
    """What the ledger says of questions, by their names."""

    def __init__(self, written: Sequence[Entry]) -> None:
        self.asked: dict[str, Entry] = {}
        self.ended: dict[str, list[Entry]] = defaultdict(list)
        self.windows: dict[str, list[Entry]] = defaultdict(list)
        self.pulls: dict[str, int] = defaultdict(int)
        """By grant; one that was lost is given back."""
        for entry in written:
            lost = entry.type == Event.LOST.type
            self.pulls[entry.grant] += entry.type == Event.PULL_INTENT.type
            self.pulls[entry.grant] -= lost and entry.facts["kind"] == IntentKind.PULL.value
            if lost and entry.facts["kind"] in ASKED:
                self.ended[entry.subject].append(entry)
            elif not lost and "session" in entry.facts:
                self._sort(entry)

    def ends(self, under_way: Iterable[Intent]) -> Iterator[Finding]:
        """Every question has one end or is under way, and its windows add up to it."""
        open_ones = {intent.id for intent in under_way}
        for name in sorted({*self.asked, *self.ended, *self.windows, *open_ones}):
            ends = len(self.ended[name])
            if name not in self.asked:
                yield Finding(name, "no entry of the ledger says that it was asked")
            if ends != (name not in open_ones):
                yield Finding(name, f"it has {ends} ends in the ledger and is {'' if name in open_ones else 'not '}under way")
        for name, windows in self.windows.items():
            sizes = [int(window.facts["bytes"]) for window in windows]
            for end in self.ended[name]:
                possible = {sum(sizes)} if whole(end) else {sum(sizes), sum(sizes[:-1])}
                if int(end.facts["bytes"]) not in possible:
                    yield Finding(name, f"{sum(sizes)} bytes are in its windows, {end.facts['bytes']} in its end")

    def costs(self) -> Iterator[tuple[str, str, Budget]]:
        """Give what each ended question has cost, with its session, and the grant that its end names."""
        for end in chain.from_iterable(self.ended.values()):
            session = end.facts.get("session") or end.facts["parent"]
            yield session, end.grant, Budget(**{field: int(end.facts.get(fact, 0)) for field, fact in FACTS.items()})

    def _sort(self, entry: Entry) -> None:
        if entry.type.endswith(".intent"):
            self.asked[entry.subject] = entry
        elif entry.type.endswith(".result"):
            self.ended[entry.subject].append(entry)
        elif entry.type.endswith(".release"):
            self.windows[entry.subject].append(entry)


def whole(end: Entry) -> bool:
    """Whether no error ended a question, so that all its windows left."""
    return end.facts.get("outcome") in _FINISHED
