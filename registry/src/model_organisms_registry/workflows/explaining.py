"""Why a call would be denied and what would change that, for the one who would call; nothing is permitted, changed or recorded.

Of what the caller may not know of, the answer is that of what is not there, after the same reads and the same decisions:
organisms and versions have names that can be guessed. Requests, grants and sessions have names of eighty random bits, so there
only the answer is the same. Nobody else is named: a person appears as the role or the part that they have.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from model_organisms import names
from model_organisms.errors import InvalidArgument, InvalidName, NotFound
from model_organisms.records import Explanation, RequestState, Role, Rung

from model_organisms_registry.domain.approvals import counted
from model_organisms_registry.domain.organisms import Subject
from model_organisms_registry.domain.permits import Action
from model_organisms_registry.gate import entities
from model_organisms_registry.gate.entities import RUNG_OF
from model_organisms_registry.gate.remedies import Lack, Whose
from model_organisms_registry.gate.table import SHAPES
from model_organisms_registry.storage.catalog import games as game_rows
from model_organisms_registry.storage.catalog import grants as grant_rows
from model_organisms_registry.storage.catalog import motions as motion_rows
from model_organisms_registry.storage.catalog import organisms as organism_rows
from model_organisms_registry.storage.catalog import requests as request_rows
from model_organisms_registry.storage.catalog import sandbox as session_rows
from model_organisms_registry.workflows import finding

if TYPE_CHECKING:
    from model_organisms.records import Grant, Request

    from model_organisms_registry.domain.hazard import HazardTable
    from model_organisms_registry.domain.permits import Call
    from model_organisms_registry.gate.entities import Resource
    from model_organisms_registry.gate.gate import Gate
    from model_organisms_registry.gate.remedies import Remedies
    from model_organisms_registry.storage.database import Connection, Database

_MANY = 1000
"""Grants and requests of one person that are looked at."""
_ON: dict[Action, tuple[str, ...]] = {
    action: tuple(kind.lower() for kind in kinds)
    for action, kinds in SHAPES.items()
    if action is not Action.PROPOSE_MOTION  # it has no name yet
}
"""On what each action is; the collection and the ledger have no name but these words."""
_ON |= dict.fromkeys((Action.SAMPLE, Action.PROBE), ("session", "version"))
_LACKING = {
    Lack.JAIL: "every wall of the sandbox stands; the operator sees to that",
    Lack.WITNESS: "a witness has cosigned the ledger's head",
}
_CALLER = {Whose.OWN: "its being yours", Whose.ANOTHER: "another person, who has no part in it"}


@dataclass(frozen=True, slots=True)
class _Found:
    """What is asked about: as Cedar sees it, with the caller's grants; a stand-in where it is not there."""

    resource: Resource
    grants: tuple[Grant, ...] = ()
    subject: Subject | None = None
    there: bool = True


class Explaining:
    """Explains decisions.

    Args:
        database: Where the catalog is; only read.
        gate: Decides, without acting on it.
        table: The hazard table of this deployment.
    """

    def __init__(self, database: Database, gate: Gate, table: HazardTable) -> None:
        """Keep them."""
        self._database = database
        self._gate = gate
        self._table = table

    def explain(self, call: Call, action: str, resource: str, *, rung: Rung | None = None) -> Explanation:
        """Explain how a call would be decided.

        Args:
            call: Who asks, and when.
            action: An action of the policies, such as `pull`.
            resource: Its name; `registry` for the collection, `ledger` for the ledger.
            rung: With `request`: the rung that would be asked for; `sample` by default.

        Returns:
            The explanation.

        Raises:
            InvalidArgument: There is no such action, or it is on something else.
        """
        wanted = _known(action)
        kind = _kind(wanted, resource)
        with self._database.read() as tx:
            found = self._found(tx, call, kind, resource)
            if kind == "version" and wanted in {Action.SAMPLE, Action.PROBE}:
                found = self._own_session(call, found)
            told = self._gate.explain(
                call,
                wanted,
                found.resource,
                grants=found.grants,
                rung=(rung or Rung.SAMPLE) if wanted is Action.REQUEST else None,
                there=found.there,
            )
            changes = self._changes(tx, call, wanted, found, told.remedies) if told.remedies else ()
        error = told.error
        return Explanation(
            allowed=error is None,
            action=str(wanted),
            resource=resource,
            policies=told.reasons,
            reason=error.reason if error else "",
            message=error.message if error else "",
            changes=changes,
            policy_set=told.policies,
        )

    def _found(self, tx: Connection, call: Call, kind: str, name: str) -> _Found:
        if kind not in _READERS:
            return _Found({"registry": entities.registry, "ledger": entities.ledger}.get(kind, partial(entities.account, name))())
        held = grant_rows.grants(tx, user=call.user.name, page_size=_MANY).items
        try:
            return _READERS[kind](tx, name, held)
        except NotFound:
            return _Found(entities.nothing(kind, name), held, there=False)

    def _own_session(self, call: Call, found: _Found) -> _Found:
        """A session that the caller would open on a version, if they see that."""
        seen = self._gate.sees(call, found.resource, grants=found.grants)
        if found.subject is None or not seen:
            return _Found(entities.nothing("version", found.resource.name), found.grants, there=False)
        session = entities.own_session(found.subject.version, found.subject.organism, call.user)
        return _Found(session, found.grants, found.subject)

    def _changes(self, tx: Connection, call: Call, action: Action, found: _Found, remedies: Remedies) -> tuple[str, ...]:
        told = [_LACKING[lack] for lack in remedies.lacks if lack in _LACKING]
        if Lack.PUBLISHED in remedies.lacks and found.subject is not None:
            told.append(f"a version that is published; this one is {found.subject.version.state.value}")
        if Lack.GRANT in remedies.lacks and found.subject is not None and names.in_game(found.subject.version.name):
            told.append("a seat with another tool; the game's terms say who has which, and nobody asks for more")
        elif Lack.GRANT in remedies.lacks and found.subject is not None:
            told.append(self._grant(tx, call, RUNG_OF[action], found.subject))
        if remedies.callers:
            told.append(", or ".join(" and ".join(map(_caller, way)) for way in remedies.callers))
        return tuple(told)

    def _grant(self, tx: Connection, call: Call, rung: Rung, subject: Subject) -> str:
        """The grant that is lacking, with what it takes and how far the caller's own request for it has come."""
        demands = self._table.of(subject.level, rung)
        takes = f"{demands.approvals} approval{'s' if demands.approvals > 1 else ''}" if demands.approvals else "no approval"
        if demands.distinct_organisations:
            takes += " from reviewers of different organisations"
        told = f"a grant of rung {rung.name.lower()} at {subject.level.name}, which takes {takes}"
        wanted = request_rows.RequestFilter(call.user.name, RequestState.PENDING, subject.version.name)
        for request in request_rows.requests(tx, filter=wanted, page_size=_MANY).items:
            if request.rung >= rung and call.time < request.expire_time:
                return f"{told}; {self._standing(tx, call, request)}"
        return told

    def _standing(self, tx: Connection, call: Call, request: Request) -> str:
        given = counted(request, now=call.time, reviewers=finding.reviewers(tx, request))
        return f"{request.name} for it has {len(given)} of {request.needed}"


def _organism(tx: Connection, name: str, held: tuple[Grant, ...]) -> _Found:
    return _Found(entities.organism(organism_rows.organism(tx, name)), held)


def _version(tx: Connection, name: str, held: tuple[Grant, ...]) -> _Found:
    try:
        version = organism_rows.version(tx, name)
    except NotFound:
        with suppress(NotFound):  # read all the same: it must take as long
            organism_rows.organism(tx, names.parse_version(name).organism)
        raise
    of = organism_rows.organism(tx, names.parse_version(name).organism)
    return _Found(entities.version(version, of), held, Subject(of, version))


def _session(tx: Connection, name: str, held: tuple[Grant, ...]) -> _Found:
    session = session_rows.session(tx, name)
    subject = finding.subject(tx, session.version.name)
    resource = entities.session(session, subject.organism, subject.version)
    return _Found(resource, tuple(grant for grant in held if grant.name == session.grant), subject)


def _grant(tx: Connection, name: str, held: tuple[Grant, ...]) -> _Found:
    grant = grant_rows.grant(tx, name)
    owners = {finding.subject(tx, ref.name).organism.owner for ref in grant.versions}
    return _Found(entities.grant(grant, owners=sorted(owners)), held)


def _request(tx: Connection, name: str, held: tuple[Grant, ...]) -> _Found:
    request = request_rows.request(tx, name)
    return _Found(finding.request(request, [finding.subject(tx, ref.name) for ref in request.versions]), held)


def _motion(tx: Connection, name: str, held: tuple[Grant, ...]) -> _Found:
    return _Found(entities.motion(motion_rows.motion(tx, name)), held)


def _game(tx: Connection, name: str, held: tuple[Grant, ...]) -> _Found:
    return _Found(entities.game(game_rows.game(tx, name)), held)


_READERS = {
    "organism": _organism,
    "version": _version,
    "session": _session,
    "grant": _grant,
    "request": _request,
    "motion": _motion,
    "game": _game,
}


def _known(action: str) -> Action:
    known = {str(one): one for one in _ON}
    if action not in known:
        raise InvalidArgument(f"There is no such action; name one of {', '.join(sorted(known))}.", field="action")
    return known[action]


def _kind(action: Action, name: str) -> str:
    for kind in _ON[action]:
        if kind == name:
            return kind
        if kind in names.PATTERNS:
            with suppress(InvalidName):
                names.check(kind, name)
                return kind
    raise InvalidArgument(f"'{action}' is on a {' or a '.join(_ON[action])}; name one.", field="resource")


def _caller(who: Role | Whose) -> str:
    return f"the role {who.value}" if isinstance(who, Role) else _CALLER[who]
