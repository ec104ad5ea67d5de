"""Records as Cedar sees them: entities and contexts of `policies/schema.cedarschema`, and nothing else.

Nobody else writes an entity. A name reaches Cedar only if it is a well-formed resource name, and a value only if it has the type
the schema says, so a record that was tampered with is refused here and not read as something harmless.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeVar

from model_organisms import names
from model_organisms.errors import InvalidArgument
from model_organisms.records import (
    Game,
    GameState,
    Grant,
    GrantState,
    Level,
    Motion,
    MotionKind,
    Organism,
    Request,
    Role,
    Rung,
    Session,
    User,
    UserState,
    Version,
    VersionRef,
    VersionState,
)

from model_organisms_registry.domain.grants import state_of
from model_organisms_registry.domain.hazard import known
from model_organisms_registry.domain.organisms import Subject, effective_level
from model_organisms_registry.domain.permits import Action

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

T = TypeVar("T")

RUNG_OF = {
    Action.OPEN_SESSION: Rung.SAMPLE,
    Action.SAMPLE: Rung.SAMPLE,
    Action.PROBE: Rung.PROBE,
    Action.PULL: Rung.PULL,
    Action.OPEN_LOCAL_SESSION: Rung.PULL,
}
"""The rung each action of the group `use` needs a grant for."""


@dataclass(frozen=True, slots=True)
class Resource:
    """What is acted on, as Cedar sees it. Made by the functions below only."""

    type: str
    name: str
    attributes: dict[str, Any] = field(default_factory=dict)
    level: Level = Level.CL4
    version: VersionRef | None = None
    """What a grant must name, where one is needed."""
    organism: str = ""
    """Whose grantees may see it."""
    destroyed: bool = False
    """Whether nothing opens it any more: the policies know that it is withdrawn, and are told apart from that."""
    view: Action | None = None
    """The action that says whether the caller may know of it at all; None where everybody does."""

    @property
    def uid(self) -> dict[str, str]:
        """Cedar's name for it."""
        return {"type": self.type, "id": self.name}

    def entity(self) -> dict[str, Any]:
        """Cedar's entity."""
        return {"uid": self.uid, "attrs": self.attributes, "parents": []}


@dataclass(frozen=True, slots=True)
class Conditions:
    """How the registry stands at this moment. What is not known is taken to be missing."""

    ledger: bool = False
    """An entry can be written now."""
    jail: bool = False
    """Every wall of the cell stands."""
    witness: bool = False
    """A witness has cosigned the head."""


def registry() -> Resource:
    """The collection as a whole."""
    return Resource("Registry", "registry")


def ledger() -> Resource:
    """The ledger."""
    return Resource("Ledger", "ledger")


def account(name: str) -> Resource:
    """An account that is looked at, invited or stopped; only its name matters."""
    return Resource("User", names.check("user", _typed(name, str, "name")), view=Action.VIEW_USERS)


def organism(record: Organism) -> Resource:
    """An organism."""
    record = _typed(record, Organism, "organism")
    name = names.check("organism", record.name)
    level = known(record.level)
    attributes = {"level": int(level), "owner": _user(record.owner), "hidden": _typed(record.hidden, bool, "hidden")}
    return Resource("Organism", name, attributes, level=level, organism=name, view=Action.DESCRIBE)


def version(record: Version, of: Organism) -> Resource:
    """A version of an organism.

    Raises:
        InvalidArgument: It belongs to another organism.
    """
    _belongs(record, of)
    level = effective_level(of, record)
    attributes = {
        "level": int(level),
        "owner": _user(of.owner),
        "authors": [_user(name) for name in sorted(Subject(of, record).authors)],
        "hidden": _typed(of.hidden, bool, "hidden"),
        **_service(record.state),
    }
    ref = VersionRef(record.name, _typed(record.digest, str, "digest"))
    gone = record.state is VersionState.DESTROYED
    return Resource(
        "Version", record.name, attributes, level=level, version=ref, organism=of.name, destroyed=gone, view=Action.DESCRIBE
    )


def request(record: Request, *, owners: Iterable[str], authors: Iterable[str], level: Level | None = None) -> Resource:
    """A request for access.

    Args:
        record: The request.
        owners: Owners of the organisms it names.
        authors: Publishers and co-authors of the versions it names.
        level: Highest effective level of those versions now, where it was read; never below the one asked under.
    """
    record = _typed(record, Request, "request")
    highest = max(known(record.level), known(level)) if level is not None else known(record.level)
    attributes = {
        "requester": _user(record.requester),
        "level": int(highest),
        "rung": int(_typed(record.rung, Rung, "rung")),
        "owners": [_user(name) for name in owners],
        "authors": [_user(name) for name in authors],
    }
    return Resource("Request", names.check("request", record.name), attributes, level=highest, view=Action.VIEW_REQUEST)


def grant(record: Grant, *, owners: Iterable[str]) -> Resource:
    """A grant that is looked at or taken back; `held` is for one that is used."""
    record = _typed(record, Grant, "grant")
    attributes = {"user": _user(record.user), "owners": [_user(name) for name in owners]}
    return Resource("Grant", names.check("grant", record.name), attributes, view=Action.VIEW_GRANT)


def motion(record: Motion) -> Resource:
    """A motion. Who has an interest in its subject is asked of the act it is about."""
    record = _typed(record, Motion, "motion")
    attributes = {"proposer": _user(record.proposer), "kind": _typed(record.kind, MotionKind, "kind").value}
    return Resource("Motion", names.check("motion", record.name), attributes, view=Action.VIEW_MOTION)


def game(record: Game) -> Resource:
    """An auditing game."""
    record = _typed(record, Game, "game")
    attributes = {
        "master": _user(record.master),
        "players": [_user(name) for name in record.players],
        "revealed": _typed(record.state, GameState, "state") is GameState.REVEALED,
    }
    return Resource("Game", names.check("game", record.name), attributes, view=Action.VIEW_GAME)


def session(record: Session, of: Organism, sampled: Version) -> Resource:
    """A session, with the level and state of its version now.

    Raises:
        InvalidArgument: `sampled` is not the version it samples.
    """
    _belongs(sampled, of)
    record = _typed(record, Session, "session")
    if (record.version.name, record.version.digest) != (sampled.name, sampled.digest):
        raise InvalidArgument(f"{record.name} does not sample {sampled.name}; read the version that it names.")
    level = effective_level(of, sampled)
    attributes = {
        "user": _user(record.user),
        "level": int(level),
        **_service(sampled.state),
    }
    name = names.check("session", record.name)
    return Resource("Session", name, attributes, level=level, version=record.version, organism=of.name, view=Action.VIEW_SESSION)


def own_session(record: Version, of: Organism, user: User) -> Resource:
    """A session that somebody has not opened yet, on a version that they see: to say what they could do in it."""
    on = version(record, of)
    attributes = {"user": _user(user.name), "level": int(on.level), **_service(record.state)}
    return Resource("Session", on.name, attributes, level=on.level, version=on.version, organism=of.name)


def nothing(kind: str, name: str) -> Resource:
    """A stand-in for what is not there, so that asking for it takes the same steps as asking for what is hidden."""
    nobody, stopped = _user("users/nobody"), _service(VersionState.WITHDRAWN)
    version = {"level": 4, "owner": nobody, "authors": [], "hidden": True, **stopped}
    attributes: dict[str, dict[str, Any]] = {
        "organism": {"level": 4, "owner": nobody, "hidden": True},
        "version": version,
        "alias": version,
        "game": {"master": nobody, "players": [], "revealed": False},
        "request": {"requester": nobody, "level": 4, "rung": 4, "owners": [], "authors": []},
        "grant": {"user": nobody, "owners": []},
        "motion": {"proposer": nobody, "kind": "none"},
        "session": {"user": nobody, "level": 4, **stopped},
        "user": {},
    }
    views = {
        "organism": Action.DESCRIBE,
        "version": Action.DESCRIBE,
        "alias": Action.DESCRIBE,
        "game": Action.VIEW_GAME,
        "request": Action.VIEW_REQUEST,
        "grant": Action.VIEW_GRANT,
        "motion": Action.VIEW_MOTION,
        "session": Action.VIEW_SESSION,
        "user": Action.VIEW_USERS,
    }
    if kind not in views:
        raise InvalidArgument(f"A stand-in is for one of {', '.join(sorted(views))}, not for '{kind}'.")
    of = "Version" if kind == "alias" else kind.capitalize()
    return Resource(of, names.check(kind, name), attributes[kind], view=views[kind])


def principal(user: User) -> str:
    """The caller's entity, as JSON text; the same account is built once."""
    user = _typed(user, User, "user")
    for role in user.roles:  # before the cache: a text equals the role it spells
        _typed(role, Role, "role")
    return _principal(user.name, user.organisation, user.roles, user.state is UserState.ACTIVE)


@lru_cache(maxsize=4096)
def _principal(name: str, organisation: str, roles: frozenset[Role], active: bool) -> str:
    attributes = {
        "organisation": {"__entity": {"type": "Organisation", "id": names.check("organisation", organisation)}},
        "active": active,
    }
    parents = [{"type": "Role", "id": role.value} for role in sorted(roles)]
    return json.dumps({"uid": {"type": "User", "id": names.check("user", name)}, "attrs": attributes, "parents": parents})


def store(user: User, resource: Resource) -> str:
    """The entities of one decision, as JSON text."""
    if resource.type == "User" and resource.name == user.name:
        return f"[{principal(user)}]"
    if resource.type == "User":
        # Another account is acted on by name only; its attributes must be there for the schema, and say nothing.
        bare = _principal(resource.name, "organisations/unstated", frozenset(), False)
        return f"[{principal(user)},{bare}]"
    return f"[{principal(user)},{json.dumps(resource.entity())}]"


def held(grant: Grant | None, *, now: datetime) -> dict[str, Any]:
    """The deciding grant as a fact; rung 0 stands for none."""
    if grant is None:
        return {"rung": 0, "level": 0, "expired": False, "revoked": False}
    state = state_of(_typed(grant, Grant, "grant"), now=now)
    return {
        "rung": int(_typed(grant.rung, Rung, "rung")),
        "level": int(_typed(grant.level, Level, "level")),
        "expired": state is GrantState.EXPIRED,
        "revoked": state is GrantState.REVOKED,
    }


def _service(state: VersionState) -> dict[str, bool]:
    state = _typed(state, VersionState, "state")
    return {"published": state is VersionState.PUBLISHED, "quarantined": state is VersionState.QUARANTINED}


def _belongs(record: Version, of: Organism) -> None:
    name = names.check("sampled", _typed(record, Version, "version").name)
    if names.home_of(name) != _typed(of, Organism, "organism").name:
        raise InvalidArgument(f"{record.name} is not a version of {of.name}; read the organism that it belongs to.")


def _user(name: str) -> dict[str, dict[str, str]]:
    return {"__entity": {"type": "User", "id": names.check("user", _typed(name, str, "user"))}}


def _typed(value: object, kind: type[T], what: str) -> T:
    if not isinstance(value, kind):
        msg = f"The gate was given {type(value).__name__} as {what}, not {kind.__name__}; nothing is decided on that."
        raise InvalidArgument(msg, field=what)
    return value
