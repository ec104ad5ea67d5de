"""Holds rows of sessions, grants and questions to their entries: who can write in the database does not sign the ledger.

Each table below is pairs: what a row says, and what its entry says, or None where that does not tell. What is spent is added up
from the entries alone, by the grant that they name, so that it does not matter which rows are still there.

What no entry tells, so that a change of it is not found here: which versions a grant covers (only how many), why the registry by
itself ended a session, when one ended, how many questions it counts, what it last did, and how much is set aside for a question
under way. Budgets that are given stand in the fact `budget`; entries from before there was one do not tell them.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

from model_organisms import names
from model_organisms.formats import conditions
from model_organisms.records import BUDGET_FIELDS, Budget, GrantState, SessionState

from model_organisms_registry.domain.audit import REGISTRY, Event
from model_organisms_registry.domain.budgets import stated
from model_organisms_registry.ledger.asked import ASKED, FACTS
from model_organisms_registry.ledger.fsck import Finding
from model_organisms_registry.storage.catalog.intents import IntentKind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from datetime import datetime

    from model_organisms.records import Entry, Grant, Session

    from model_organisms_registry.ledger.asked import Asked
    from model_organisms_registry.storage.catalog.intents import Intent

    Reasons = Callable[[str], str | None]

T = TypeVar("T")


class Pair(NamedTuple, Generic[T]):
    """One thing that a row says and its entry may say."""

    what: str
    row: Callable[[T], str]
    entry: Callable[[Entry], str | None]


class Rows(NamedTuple):
    """What the database says; of all of it, read in one transaction."""

    sessions: Sequence[Session]
    grants: Sequence[Grant]
    intents: Sequence[Intent]
    unread: frozenset[str]
    """Names of rows that are there and cannot be read; that has been said of them."""


def _second(time: datetime) -> str:
    return time.isoformat(timespec="seconds")


def _fact(name: str, otherwise: str | None = None) -> Callable[[Entry], str | None]:
    return lambda entry: entry.facts.get(name, otherwise)


_KINDS = {
    Event.SAMPLE_INTENT.type: IntentKind.SAMPLE,
    Event.PROBE_INTENT.type: IntentKind.PROBE,
    Event.PULL_INTENT.type: IntentKind.PULL,
}
_OPENED: tuple[Pair[Session], ...] = (
    Pair("user", lambda row: row.user, lambda entry: entry.actor),
    Pair("grant", lambda row: row.grant, lambda entry: entry.grant),
    Pair("version", lambda row: row.version.name, _fact("version")),
    Pair("digest", lambda row: row.version.digest, _fact("digest")),
    Pair("purpose", lambda row: row.purpose.value, _fact("purpose")),
    Pair("create_time", lambda row: _second(row.create_time), lambda entry: _second(entry.time)),
    Pair("expire_time", lambda row: _second(row.expire_time), _fact("expires")),
    Pair("walls", lambda row: ",".join(row.walls), lambda entry: entry.facts.get("claimed_walls", entry.facts.get("walls"))),
    Pair("place", lambda row: "holder" if row.local else "registry", _fact("place", "registry")),
    Pair("budget", lambda row: stated(row.budget), _fact("budget")),
)
_ENDED: tuple[Pair[Session], ...] = (Pair("state", lambda row: row.state.value, _fact("state")),)
_GRANTED: tuple[Pair[Grant], ...] = (
    Pair("request", lambda row: row.request, _fact("request")),
    Pair("rung", lambda row: row.rung.name.lower(), _fact("rung")),
    Pair("level", lambda row: row.level.name, _fact("level")),
    Pair("purpose", lambda row: row.purpose.value, _fact("purpose")),
    Pair("number of versions", lambda row: str(len(row.versions)), _fact("versions")),
    Pair("create_time", lambda row: _second(row.create_time), lambda entry: _second(entry.time)),
    Pair("expire_time", lambda row: _second(row.expire_time), _fact("expires")),
    Pair("conditions", lambda row: conditions.digest(row.conditions) if row.conditions else "", _fact("conditions", "")),
    Pair("budget", lambda row: stated(row.budget), _fact("budget")),
)
_ASKED_FOR: tuple[Pair[Grant], ...] = (Pair("user", lambda row: row.user, lambda entry: entry.actor),)
_ANNOUNCED: tuple[Pair[Intent], ...] = (
    Pair("kind", lambda row: row.kind.value, lambda entry: _KINDS[entry.type].value),
    Pair("grant", lambda row: row.grant, lambda entry: entry.grant),
    Pair(
        "id",
        lambda row: row.id if row.kind.value in ASKED else "",
        lambda entry: entry.subject if "session" in entry.facts else "",
    ),
    Pair("parent", lambda row: row.parent if row.kind.value in ASKED else "", _fact("session", "")),
)
_SETTLED: tuple[Pair[Intent], ...] = (Pair("outcome", lambda row: row.outcome, _fact("outcome", "lost")),)
_ABOUT_ONE = (
    Event.OPEN_SESSION,
    Event.END_SESSION,
    Event.REQUEST,
    Event.GRANT,
    Event.REVOKE,
    Event.OPEN_GAME,
    Event.JOIN_GAME,
)


class Books:
    """The ledger, as the books that rows are held to.

    Args:
        written: Its entries, in order.
        asked: What it says of questions.
        rows: What the database says.
        reasons: Opens the text behind a commitment, or says None where it does not open; that is said elsewhere.
    """

    def __init__(self, written: Sequence[Entry], asked: Asked, rows: Rows, reasons: Reasons) -> None:
        """Sort the entries."""
        self._asked, self._rows, self._reasons = asked, rows, reasons
        self._about = {event.type: defaultdict[str, list["Entry"]](list) for event in _ABOUT_ONE}
        self._announced = [entry for entry in written if entry.type in _KINDS]
        for entry in written:
            if entry.type in self._about:
                self._about[entry.type][entry.subject].append(entry)

    def check(self) -> Iterator[Finding]:
        """Say where rows and entries differ."""
        yield from self._spending()
        sessions = {session.name: session for session in self._rows.sessions}
        grants = {grant.name: grant for grant in self._rows.grants}
        yield from self._gone(Event.OPEN_SESSION, sessions)
        yield from self._gone(Event.GRANT, grants)
        for session in sessions.values():
            if session.grant not in grants and session.grant not in self._rows.unread:
                yield Finding(session.name, f"its grant is {session.grant or 'none'}, and there is no such grant")
            yield from self._session(session)
        for grant in grants.values():
            yield from self._grant(grant)
        yield from self._intents()

    def _gone(self, event: Event, there: Mapping[str, object]) -> Iterator[Finding]:
        for name in sorted(self._about[event.type].keys() - there.keys() - self._rows.unread):
            yield Finding(name, f"the ledger has its {event.type}, and there is no such row")

    def _of(self, event: Event, name: str) -> list[Entry]:
        return self._about[event.type].get(name, [])

    def _session(self, session: Session) -> Iterator[Finding]:
        opened, ends = self._of(Event.OPEN_SESSION, session.name), self._of(Event.END_SESSION, session.name)
        yield from _held(session.name, session, opened, _OPENED, once=Event.OPEN_SESSION)
        if session.state is SessionState.OPEN and not ends:
            return
        yield from _held(session.name, session, ends, _ENDED, once=Event.END_SESSION)
        for end in ends:
            yield from self._reason(session.name, session.reason, end)
            for field, fact in FACTS.items():
                spent = getattr(session.spent, field)
                if fact in end.facts and spent > int(end.facts[fact]):
                    yield Finding(session.name, f"{spent} {field} are spent, at its end {end.facts[fact]} were")

    def _grant(self, grant: Grant) -> Iterator[Finding]:
        given, revoked = self._of(Event.GRANT, grant.name), self._of(Event.REVOKE, grant.name)
        yield from _held(grant.name, grant, given, _GRANTED, once=Event.GRANT)
        for entry in given:
            event = Event.JOIN_GAME if names.in_game(entry.facts["request"]) else Event.REQUEST
            asked = self._of(event, entry.facts["request"])
            if event is Event.JOIN_GAME:  # every player has an entry there
                asked = [one for one in asked if one.actor == grant.user]
                yield from self._terms(grant, asked)
            yield from _held(grant.name, grant, asked, _ASKED_FOR, once=event)
        state = GrantState.REVOKED if revoked else GrantState.ACTIVE
        if grant.state is not state:
            yield Finding(grant.name, f"its state is {grant.state.value}, by the ledger it is {state.value}")
        for entry in revoked:
            yield from self._reason(grant.name, grant.reason, entry)

    def _terms(self, seat: Grant, joined: Iterable[Entry]) -> Iterator[Finding]:
        """A seat is taken on the terms that two people opened its game on: budget, tools, deadline, players."""
        opened = {entry.facts["terms"] for entry in self._of(Event.OPEN_GAME, seat.request)}
        if any(entry.facts["terms"] not in opened for entry in joined):
            yield Finding(seat.name, f"it was given on other terms than {seat.request} was opened on")

    def _reason(self, name: str, reason: str, entry: Entry) -> Iterator[Finding]:
        if entry.actor == REGISTRY:
            return
        said = self._reasons(entry.commit) if entry.commit else ""
        if said is not None and said != reason:
            yield Finding(name, f"its reason is not the one that its {entry.type} commits to")

    def _intents(self) -> Iterator[Finding]:
        by_seq = {intent.seq: intent for intent in self._rows.intents}
        for entry in self._announced:
            intent = by_seq.pop(entry.seq, None)
            if intent is not None:
                yield from _held(intent.id, intent, [entry], _ANNOUNCED)
                yield from _held(intent.id, intent, self._asked.ended.get(intent.id, []), _SETTLED)
            elif entry.subject not in self._rows.unread:
                yield Finding(entry.subject, f"the ledger has an {entry.type} of it, and there is no such row of intents")
        for intent in by_seq.values():
            yield Finding(intent.id, "it has a row of intents, and no entry of the ledger announces it")

    def _spending(self) -> Iterator[Finding]:
        """Add up what was spent, from entries and from what is set aside for questions under way."""
        sessions, grants = defaultdict[str, Budget](Budget), defaultdict[str, Budget](Budget)
        for opened in self._about[Event.OPEN_SESSION.type].values():
            for entry in opened:
                grants[entry.grant] = grants[entry.grant].plus(Budget(sessions=1))
        under_way = [intent for intent in self._rows.intents if intent.finish_time is None and intent.kind.value in ASKED]
        taken = [(intent.parent, intent.grant, intent.taken) for intent in under_way]
        for session, grant, cost in [*self._asked.costs(), *taken]:
            sessions[session] = sessions[session].plus(cost)
            grants[grant] = grants[grant].plus(cost)
        for grant, pulls in self._asked.pulls.items():
            grants[grant] = grants[grant].plus(Budget(pulls=pulls))
        for row in self._rows.sessions:
            yield from _compared(row.name, row.spent, sessions[row.name])
        for held in self._rows.grants:
            yield from _compared(held.name, held.spent, grants[held.name])
        known = {row.name for row in self._rows.sessions} | self._rows.unread
        for name in sorted(sessions.keys() - known):
            yield Finding(name, "the ledger tells of questions in it, and there is no such session")


def _held(name: str, row: T, found: Sequence[Entry], pairs: Iterable[Pair[T]], *, once: Event | None = None) -> Iterator[Finding]:
    """Hold one row to its entries; `once`, there must be one of this event."""
    if once is not None and len(found) != 1:
        yield Finding(name, f"the ledger has {len(found)} {once.type} of it, and it needs one")
    for entry in found:
        for what, of_row, of_entry in pairs:
            has, said = of_row(row), of_entry(entry)
            if said is not None and has != said:
                yield Finding(name, f"its {what} is '{has}', its {entry.type} says '{said}'")


def _compared(name: str, row: Budget, other: Budget) -> Iterator[Finding]:
    for field in BUDGET_FIELDS:
        has, said = getattr(row, field), getattr(other, field)
        if has != said:
            yield Finding(name, f"{has} {field} are spent, the ledger says {said}")
