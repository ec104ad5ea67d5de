"""Holds ledger, budgets and transcripts of sessions against each other: what `mo-registry reconcile` does. It changes nothing.

- what sessions and grants have spent is what the ledger's entries under that grant say, sessions and pulls included, and what was
  set aside for questions under way
- rows of sessions, grants and questions say what the entries about them say; `ledger/books.py` has what no entry tells
- every question has one end, or is under way; its windows are its answer. Where an error ended it, the last of them may have been
  entered and not have left
- every turn that was drawn to be said again was, or waits for it
- every text that the ledger commits to is there and is that text, unless its session was erased

All is read in one transaction, entries that wait to be sequenced included, so that a registry may be at work meanwhile.
"""

from __future__ import annotations

import hashlib
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from model_organisms.errors import InvalidArgument, ModelOrganismsError, VerificationFailed
from model_organisms.formats import entry as entries
from model_organisms.formats import note

from model_organisms_registry.domain.audit import Event
from model_organisms_registry.founding import Storage
from model_organisms_registry.ledger import fsck
from model_organisms_registry.ledger import rows as ledger_rows
from model_organisms_registry.ledger.asked import ASKED, Asked, whole
from model_organisms_registry.ledger.books import Books, Rows
from model_organisms_registry.ledger.drawn import Tally, tally
from model_organisms_registry.ledger.fsck import Finding
from model_organisms_registry.ledger.signer import Signer
from model_organisms_registry.storage import schema
from model_organisms_registry.storage.catalog import grants as grant_rows
from model_organisms_registry.storage.catalog import intents as intent_rows
from model_organisms_registry.storage.catalog import reruns as rerun_rows
from model_organisms_registry.storage.catalog import sandbox as rows
from model_organisms_registry.storage.catalog.sound import sound
from model_organisms_registry.storage.contents import Contents
from model_organisms_registry.storage.paging import every
from model_organisms_registry.storage.sealed import SealedStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from model_organisms.records import Entry

    from model_organisms_registry.config import Config
    from model_organisms_registry.storage.catalog.sandbox import Content
    from model_organisms_registry.storage.database import Connection


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
            there, unread = _rows(tx)
            findings += unread
            waiting = rerun_rows.waiting(tx)
            written = list(_parsed(bodies))
            named = {row.name for row in there.sessions} | there.unread
            kept = {content.commit: content for name in sorted(named) for content in rows.contents(tx, name)}
            revoked = (rows.content(tx, entry.commit) for entry in written if entry.type == Event.REVOKE.type)
            others = {content.commit: content for content in revoked if content}
        under_way = [intent for intent in there.intents if intent.finish_time is None and intent.kind.value in ASKED]
        spoken = Asked(written)
        findings += spoken.ends(under_way)
        opened = _Texts(written, kept, others, Contents(SealedStore(storage.blobs, storage.keys)).read)
        findings += opened.check(spoken)
        findings += Books(written, spoken, there, opened.reason).check()
        drawn, owed = tally(written, waiting)
        findings += owed
    finally:
        storage.close()
    return Account(
        len(bodies),
        len(there.sessions),
        len(there.grants),
        len(spoken.asked),
        opened.right,
        opened.erased,
        drawn,
        tuple(intent.id for intent in under_way),
        tuple(findings),
    )


def _rows(tx: Connection) -> tuple[Rows, list[Finding]]:
    """Read sessions, grants and questions, and say which of their rows cannot be read."""
    sessions, no_session = sound(tx, schema.sessions, partial(every, partial(rows.sessions, tx)), rows.session)
    grants, no_grant = sound(tx, schema.grants, partial(every, partial(grant_rows.grants, tx)), grant_rows.grant)
    intents, no_intent = sound(tx, schema.intents, partial(intent_rows.every_intent, tx), intent_rows.intent)
    wrong = no_session | no_grant | no_intent
    told = [Finding(name, f"its row cannot be read: {why}") for name, why in wrong.items()]
    return Rows(sessions, grants, intents, frozenset(wrong)), told


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


class _Texts:
    """The texts of sessions that entries commit to."""

    def __init__(
        self,
        written: Sequence[Entry],
        kept: Mapping[str, Content],
        others: Mapping[str, Content],
        read: Callable[[Content], bytes],
    ) -> None:
        self._kept, self._others, self._read = kept, others, read
        self._erased = {entry.subject for entry in written if entry.type == Event.ERASE_SESSION.type}
        self._committed = [entry for entry in written if entry.commit and _session_of(entry)]
        self._opened: dict[str, bytes] = {}
        self.right = self.erased = 0

    def check(self, spoken: Asked) -> Iterator[Finding]:
        """Open every text, and hold answers against their windows."""
        for entry in self._committed:
            yield from self._look(entry)
        unknown = self._kept.keys() - {entry.commit for entry in self._committed}
        for commit in sorted(unknown):
            yield Finding(self._kept[commit].owner, f"a text is kept that no entry commits to ({commit[:12]})")
        for name, ends in spoken.ended.items():
            yield from self._answer(name, [end for end in ends if "output" in end.facts], spoken.windows[name])

    def reason(self, commit: str) -> str | None:
        """Open the text behind the commitment of a session's end, or of a revocation; None where that cannot be."""
        text = self._opened.get(commit)
        if text is None and commit in self._others:
            with suppress(ModelOrganismsError):
                text = self._read(self._others[commit])
        return None if text is None else text.decode(errors="replace")

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
            possible = {b"".join(parts)} if whole(end) else {b"".join(parts), b"".join(parts[:-1])}
            if windows and text not in possible:
                yield Finding(name, "its windows do not make up its answer")
            if hashlib.sha256(text).hexdigest() != end.facts["output"]:
                yield Finding(name, "its answer is not the one its receipt speaks of")


def _session_of(entry: Entry) -> str:
    """Name the session a text was said in; empty where it is about something else."""
    if entry.type == Event.END_SESSION.type:
        return entry.subject
    return entry.facts.get("session", "")
