"""Reads what a call names, together with the caller's grants on it; what is absent is refused in the words for what is hidden."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from model_organisms import names
from model_organisms.errors import NotFound
from model_organisms.records import Past

from model_organisms_registry.domain import games as rules
from model_organisms_registry.domain import tools
from model_organisms_registry.domain.access import lapse
from model_organisms_registry.domain.organisms import Subject
from model_organisms_registry.gate import entities
from model_organisms_registry.storage.catalog import games as game_rows
from model_organisms_registry.storage.catalog import grants as grant_rows
from model_organisms_registry.storage.catalog import identity as accounts
from model_organisms_registry.storage.catalog import organisms as organism_rows
from model_organisms_registry.storage.catalog import requests as request_rows

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from datetime import datetime

    from model_organisms.records import Grant, Motion, Organism, Request, Session, Tool, User

    from model_organisms_registry.domain.permits import Action, Call
    from model_organisms_registry.gate.entities import Resource
    from model_organisms_registry.gate.gate import Gate
    from model_organisms_registry.storage.database import Connection

_CHAIN = 20
"""Earlier requests that are shown."""
_MANY = 1000
"""Grants of one person that are looked at; more than anybody holds on one organism."""


@dataclass(frozen=True, slots=True)
class Found:
    """A version with its organism, as Cedar sees it, and the caller's grants on it."""

    subject: Subject
    resource: Resource
    grants: tuple[Grant, ...]


def organism(
    tx: Connection, gate: Gate, call: Call, action: Action, name: str, *, lock: bool = False
) -> tuple[Organism, tuple[Grant, ...]]:
    """Read an organism and the caller's grants on its versions; locked, it stays as it is until the transaction ends.

    Raises:
        NotFound: There is none, in the same words as for one that is hidden.
    """
    try:
        found = organism_rows.organism(tx, name, lock=lock)
    except NotFound:
        gate.absent(call, action, "organism", name)
    return found, _grants_on(tx, call, found)


def version(tx: Connection, gate: Gate, call: Call, action: Action, name: str, *, lock: bool = False) -> Found:
    """Read a version, its organism, and the caller's grants on it; locked, the version stays as it is until the transaction ends.

    Raises:
        NotFound: There is none, in the same words as for one that is hidden.
    """
    veiled = names.in_game(name)
    try:
        record = None if veiled else organism_rows.version(tx, name, lock=lock)
        found = Subject(organism_rows.organism(tx, names.organism_of(name)), record) if record else subject(tx, name)
    except NotFound:
        gate.absent(call, action, "alias" if veiled else "version", name)
    of = found.organism
    held = grant_rows.grants(tx, user=call.user.name, version=name, page_size=_MANY).items or _grants_on(tx, call, of)
    return Found(found, entities.version(found.version, of), held)


def subject(tx: Connection, name: str) -> Subject:
    """Read a version that a stored record names, with its organism; of an alias, what stands for it."""
    if not names.in_game(name):
        return Subject(organism_rows.organism(tx, names.parse_version(name).organism), organism_rows.version(tx, name))
    veil = game_rows.veil(tx, name)
    game, others = game_rows.game(tx, veil.game), played(tx, veil.game)
    return rules.veiled(game, veil.alias, base=veil.base, behind=subject(tx, veil.version.name), others=others)


def dose(tx: Connection, session: Session) -> float | None:
    """The dose at which a session answers whatever is asked: 0 where an alias stands for a bare base model; None leaves it."""
    name = session.version.name
    return 0.0 if names.in_game(name) and game_rows.veil(tx, name).base else None


def check_tools(tx: Connection, session: Session, needed: Collection[Tool], *, beyond: bool) -> None:
    """Refuse in a game what its player has no tool for; `tools.check` has the arguments.

    Raises:
        Denied: It is a session on an alias, and they have none for this.
    """
    if names.in_game(alias := session.version.name):
        tools.check(game_rows.tools(tx, alias, session.user), needed, beyond=beyond)


def played(tx: Connection, game: str) -> tuple[Subject, ...]:
    """Read what the aliases of a game stand for, as it is now, each once.

    Raises:
        NotFound: There is no such game.
    """
    truth, _ = game_rows.truth(tx, game)
    return tuple(subject(tx, name) for name in dict.fromkeys(one.version.name for one in truth))


def request(record: Request, subjects: Sequence[Subject]) -> Resource:
    """A request as Cedar sees it, with its versions as they stand now."""
    owners = {subject.organism.owner for subject in subjects}
    authors = {author for subject in subjects for author in subject.authors}
    level = max(subject.level for subject in subjects)
    return entities.request(record, owners=sorted(owners), authors=sorted(authors), level=level)


def grant(tx: Connection, gate: Gate, call: Call, action: Action, name: str) -> tuple[Grant, set[str]]:
    """Read a grant, and who owns what it covers.

    Raises:
        NotFound: There is none, in the same words as for one that the caller may not see.
    """
    try:
        found = grant_rows.grant(tx, name)
    except NotFound:
        gate.absent(call, action, "grant", name)
    return found, {subject(tx, ref.name).organism.owner for ref in found.versions}


def history(tx: Connection, request: Request, now: datetime) -> tuple[Past, ...]:
    """What a request asks again, and what that asked again, newest first."""
    found: list[Past] = []
    previous = request.previous
    while previous and len(found) < _CHAIN:
        old = lapse(request_rows.request(tx, previous), now=now)
        found.append(Past(old.name, old.state, old.create_time, old.reason, old.grant))
        previous = old.previous
    return tuple(found)


def reviewers(tx: Connection, request: Request) -> Sequence[User]:
    """Who has decided on a request, as their accounts stand in this transaction."""
    return [accounts.user(tx, approval.reviewer) for approval in request.approvals]


def signers(tx: Connection, motion: Motion) -> Sequence[User]:
    """Who has signed a motion, as their accounts stand in this transaction."""
    return [accounts.user(tx, signature.signer) for signature in motion.signatures]


def _grants_on(tx: Connection, call: Call, of: Organism) -> tuple[Grant, ...]:
    """Grants decide who sees a hidden organism; where nothing is hidden they are not read."""
    if not of.hidden:
        return ()
    held = grant_rows.grants(tx, user=call.user.name, page_size=_MANY).items
    return tuple(grant for grant in held if any(names.home_of(ref.name) == of.name for ref in grant.versions))
