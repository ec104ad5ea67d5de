"""Holds ledger, budgets and transcripts of sessions against each other: what `mo-registry reconcile` does. It changes nothing.

- what a session has spent is what its results in the ledger say, and what was set aside for questions under way
- what a grant has spent is what its sessions have, and the pulls that the ledger tells of
- every question has one end, or is under way; its windows are its answer. Where an error ended it, the last of them may have been
  entered and not have left
- every turn that was drawn to be said again was, or waits for it
- every text that the ledger commits to is there and is that text, unless its session was erased

All is read in one transaction, entries that wait to be sequenced included, so that a registry may be at work meanwhile.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from model_organisms.errors import InvalidArgument, ModelOrganismsError, VerificationFailed
from model_organisms.formats import entry as entries
from model_organisms.formats import note
from model_organisms.records import BUDGET_FIELDS, Budget

from model_organisms_registry.domain.audit import Event
from model_organisms_registry.domain.glovebox import RELEASED
from model_organisms_registry.domain.sandbox import FINISHES
from model_organisms_registry.founding import Storage
from model_organisms_registry.ledger import fsck
from model_organisms_registry.ledger import rows as ledger_rows
from model_organisms_registry.ledger.drawn import Tally, tally
from model_organisms_registry.ledger.fsck import Finding
from model_organisms_registry.ledger.signer import Signer
from model_organisms_registry.storage.catalog import grants as grant_rows
from model_organisms_registry.storage.catalog import reruns as rerun_rows
from model_organisms_registry.storage.catalog import sandbox as rows
from model_organisms_registry.storage.contents import Contents
from model_organisms_registry.storage.paging import every
from model_organisms_registry.storage.sealed import SealedStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from model_organisms.records import Entry, Grant, Session

    from model_organisms_registry.config import Config
    from model_organisms_registry.storage.catalog.sandbox import Content, Intent
    from model_organisms_registry.storage.database import Connection

_FACTS = {"tokens": "tokens", "output_bytes": "bytes", "probe_values": "values"}
"""Field of a budget to the fact that counts it."""
_FINISHED = FINISHES | {RELEASED}
_ASKED = frozenset({rows.IntentKind.SAMPLE.value, rows.IntentKind.PROBE.value})


@dataclass(frozen=True, slots=True)
class Account:
    """What was held against each other, and what differs."""

    entries: int
    sessions: int
    grants: int
    questions: int
    texts: int
    """Texts that were opened, and are what the ledger commits to."""
    erased: int
    """Texts of sessions that were erased."""
    reruns: Tally
    """Turns that were drawn to be said again."""
    under_way: tuple[str, ...]
    """Questions without an end yet; a registry that starts, or the others of its kind, end those of one that is gone."""
    findings: tuple[Finding, ...]

    @property
    def agree(self) -> bool:
        """Whether nothing differs."""
        return not self.findings

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {**asdict(self), "agree": self.agree}

    def as_text(self) -> str:
        """For people; the last line is the verdict."""
        lines = [
            f"ledger: {self.entries} entries, those that wait included",
            f"budgets: {self.sessions} sessions under {self.grants} grants, {self.questions} questions",
            f"transcripts: {self.texts} texts opened, {self.erased} erased",
            self.reruns.as_text(),
            *(f"under way: {name}" for name in self.under_way),
            *(f"DIFFERS {finding.place}: {finding.what}" for finding in self.findings),
            "ledger, budgets and transcripts agree"
            if self.agree
            else f"{len(self.findings)} differences; keep the folder as evidence, see deploy/runbook.md",
        ]
        return "\n".join(lines)


def reconcile(config: Config) -> Account:
    """Hold a registry's ledger, budgets and transcripts against each other.

    Args:
        config: The registry's settings; it may be running.

    Raises:
        Unavailable: The database, the blobs, or who keeps the keys cannot be reached.
    """
    signer = Signer.open(config.keys_folder / "ledger")
    storage = Storage.open(config)
    try:
        with storage.database.read() as tx:
            bodies, findings = fsck.check_database(tx, note.parse_vkey(signer.vkey), origin=signer.origin)
            bodies = [*bodies, *_after(tx), *ledger_rows.waiting(tx)]
            sessions = list(every(partial(rows.sessions, tx)))
            grants = list(every(partial(grant_rows.grants, tx)))
            under_way = [intent for intent in rows.unfinished_intents(tx) if intent.kind.value in _ASKED]
            waiting = rerun_rows.waiting(tx)
            kept = {content.commit: content for session in sessions for content in rows.contents(tx, session.name)}
        written = list(_parsed(bodies))
        spoken = _Spoken(written)
        findings += spoken.ends(under_way)
        findings += _spending(sessions, grants, spoken, under_way)
        opened = _Texts(written, kept, Contents(SealedStore(storage.blobs, storage.keys)).read)
        findings += opened.check(spoken)
        drawn, owed = tally(written, waiting)
        findings += owed
    finally:
        storage.close()
    return Account(
        len(bodies),
        len(sessions),
        len(grants),
        len(spoken.asked),
        opened.right,
        opened.erased,
        drawn,
        tuple(intent.id for intent in under_way),
        tuple(findings),
    )


def _after(tx: Connection) -> list[bytes]:
    """Read the entries that have an index and no signed head yet; the ledger's own check says what is wrong with them."""
    head = ledger_rows.read_head(tx)
    try:
        return ledger_rows.staged(tx, head.size) if head else []
    except VerificationFailed:
        return []


def _parsed(bodies: Iterable[bytes]) -> Iterator[Entry]:
    """Parse entries; what is none, the ledger's own check has named."""
    for body in bodies:
        with suppress(InvalidArgument):
            yield entries.parse(body)


class _Spoken:
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
            self.pulls[entry.grant] -= lost and entry.facts["kind"] == rows.IntentKind.PULL.value
            if lost and entry.facts["kind"] in _ASKED:
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
                possible = {sum(sizes)} if _whole(end) else {sum(sizes), sum(sizes[:-1])}
                if int(end.facts["bytes"]) not in possible:
                    yield Finding(name, f"{sum(sizes)} bytes are in its windows, {end.facts['bytes']} in its end")

    def spent(self) -> Mapping[str, Budget]:
        """Give what ended questions have cost each session."""
        told: dict[str, Budget] = defaultdict(Budget)
        for ends in self.ended.values():
            for end in ends:
                session = end.facts.get("session") or end.facts["parent"]
                told[session] = told[session].plus(
                    Budget(**{field: int(end.facts.get(fact, 0)) for field, fact in _FACTS.items()})
                )
        return told

    def _sort(self, entry: Entry) -> None:
        if entry.type.endswith(".intent"):
            self.asked[entry.subject] = entry
        elif entry.type.endswith(".result"):
            self.ended[entry.subject].append(entry)
        elif entry.type.endswith(".release"):
            self.windows[entry.subject].append(entry)


def _spending(
    sessions: Iterable[Session], grants: Iterable[Grant], spoken: _Spoken, under_way: Iterable[Intent]
) -> Iterator[Finding]:
    """Hold what rows say was spent against the ledger, and grants against their sessions."""
    told, by_grant = dict(spoken.spent()), defaultdict[str, Budget](Budget)
    for intent in under_way:
        told[intent.parent] = told.get(intent.parent, Budget()).plus(intent.taken)
    for session in sessions:
        by_grant[session.grant] = by_grant[session.grant].plus(session.spent).plus(Budget(sessions=1))
        yield from _compared(session.name, session.spent, told.pop(session.name, Budget()), "the ledger says")
    for name in told:
        yield Finding(name, "the ledger tells of questions in it, and there is no such session")
    for grant in grants:
        told_of = by_grant[grant.name].plus(Budget(pulls=spoken.pulls[grant.name]))
        yield from _compared(grant.name, grant.spent, told_of, "its sessions say")


def _compared(name: str, row: Budget, other: Budget, whose: str) -> Iterator[Finding]:
    for field in BUDGET_FIELDS:
        has, said = getattr(row, field), getattr(other, field)
        if has != said:
            yield Finding(name, f"{has} {field} are spent, {whose} {said}")


class _Texts:
    """The texts of sessions that entries commit to."""

    def __init__(self, written: Sequence[Entry], kept: Mapping[str, Content], read: Callable[[Content], bytes]) -> None:
        self._kept, self._read = kept, read
        self._erased = {entry.subject for entry in written if entry.type == Event.ERASE_SESSION.type}
        self._committed = [entry for entry in written if entry.commit and _session_of(entry)]
        self._opened: dict[str, bytes] = {}
        self.right = self.erased = 0

    def check(self, spoken: _Spoken) -> Iterator[Finding]:
        """Open every text, and hold answers against their windows."""
        for entry in self._committed:
            yield from self._look(entry)
        unknown = self._kept.keys() - {entry.commit for entry in self._committed}
        for commit in sorted(unknown):
            yield Finding(self._kept[commit].owner, f"a text is kept that no entry commits to ({commit[:12]})")
        for name, ends in spoken.ended.items():
            yield from self._answer(name, [end for end in ends if "output" in end.facts], spoken.windows[name])

    def _look(self, entry: Entry) -> Iterator[Finding]:
        if _session_of(entry) in self._erased:
            self.erased += 1
            return
        content = self._kept.get(entry.commit)
        if content is None:
            yield Finding(entry.subject, f"the text of its {entry.type} is not kept")
            return
        try:
            self._opened[entry.commit] = self._read(content)
            self.right += 1
        except ModelOrganismsError as error:
            yield Finding(entry.subject, f"the text of its {entry.type} does not open: {error.message}")

    def _answer(self, name: str, ends: Iterable[Entry], windows: Sequence[Entry]) -> Iterator[Finding]:
        for end in ends:
            text = self._opened.get(end.commit)
            if text is None:
                continue
            parts = [self._opened[window.commit] for window in windows if window.commit in self._opened]
            possible = {b"".join(parts)} if _whole(end) else {b"".join(parts), b"".join(parts[:-1])}
            if windows and text not in possible:
                yield Finding(name, "its windows do not make up its answer")
            if hashlib.sha256(text).hexdigest() != end.facts["output"]:
                yield Finding(name, "its answer is not the one its receipt speaks of")


def _session_of(entry: Entry) -> str:
    """Name the session a text was said in; empty where it is about something else."""
    if entry.type == Event.END_SESSION.type:
        return entry.subject
    return entry.facts.get("session", "")


def _whole(end: Entry) -> bool:
    """Whether no error ended a question, so that all its windows left."""
    return end.facts.get("outcome") in _FINISHED
