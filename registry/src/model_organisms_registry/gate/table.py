"""The decision table: abstract calls for every action, the same ones each time, to hold a policy set against.

A row states facts and decides nothing. What should be decided is for whoever asks: the tests ask an oracle written from the
prose, `difference.py` asks another policy set.

How rows are chosen, for each action and type of resource: all combinations of its facts where those are few. Where they are many,
at every level all that differ in at most two facts from the most permissive combination; at the lowest and the highest those that
differ so from a researcher who has nothing to do with the thing; and then some more by lot. The lot is drawn from a fixed seed
and falls on the permissive side more often, because a call with ten things wrong with it tells little.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from functools import cache
from itertools import combinations, product
from math import prod
from typing import TYPE_CHECKING, Any

from model_organisms.records import MotionKind, Role

from model_organisms_registry.domain.hazard import known
from model_organisms_registry.domain.identity import ITSELF
from model_organisms_registry.domain.permits import Action

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

FEW = 1000
"""Up to so many combinations are all taken."""
BY_LOT = 200
_PERMISSIVE = 0.7
"""Share of the facts of a row drawn by lot that are the most permissive ones."""
_ME, _OTHER = "users/me", "users/other"
_PEOPLE = ("owner", "requester", "user", "proposer", "master")
_YES, _NO = (True, False), (False, True)
"""Both ways, the permissive one first."""

_ROLES = (
    frozenset(Role),
    frozenset[Role](),
    *(frozenset({role}) for role in Role),
    frozenset({Role.RESEARCHER, Role.REVIEWER}),
    frozenset({Role.REVIEWER, Role.PUBLISHER}),
    frozenset({Role.ADMIN, Role.REVIEWER}),
)
_STRANGER: dict[str, Any] = dict.fromkeys(("owner", "author", "grantee"), False)
_STRANGER |= {"roles": frozenset({Role.RESEARCHER})}
_STATES = ("published", "quarantined", "withdrawn")
_LEVEL = {"level": (1, 2, 3, 4, "unknown")}
_ALWAYS: dict[str, tuple[Any, ...]] = {"roles": _ROLES, "active": _YES, "ledger": _YES}
_ORGANISM = {**_ALWAYS, **_LEVEL, "owner": _YES, "hidden": _NO, "grantee": _YES}
_VERSION = {**_ORGANISM, "author": _YES, "state": _STATES}
_REQUEST = {**_ALWAYS, **_LEVEL, "rung": (2, 3, 4), "requester": _YES, "owner": _YES, "author": _YES}
_RERUN = {**_VERSION, "itself": _YES, "jail": _YES}
_SESSION = {**_ALWAYS, **_LEVEL, "user": _YES, "state": _STATES}
_GRANT = {**_ALWAYS, "user": _YES, "owner": _YES}
_MOTION = {**_ALWAYS, "motion": tuple(kind.value for kind in MotionKind), "proposer": _YES}
_GAME = {**_ALWAYS, "master": _YES, "player": _YES, "revealed": _NO}
_USE: dict[str, tuple[Any, ...]] = {
    "jail": _YES,
    "witness": _YES,
    "grant_rung": (4, 3, 2, 1, 0),
    "grant_level": (4, 3, 2, 1, 0),
    "expired": _NO,
    "revoked": _NO,
    "grantee": _YES,
}
SHAPES: dict[Action, dict[str, dict[str, tuple[Any, ...]]]] = {
    Action.LIST: {"Registry": _ALWAYS},
    Action.DESCRIBE: {"Organism": _ORGANISM, "Version": _VERSION},
    Action.CREATE_ORGANISM: {"Registry": _ALWAYS},
    Action.PUBLISH: {"Organism": _ORGANISM},
    Action.ATTEST: {"Version": _VERSION},
    Action.WITHDRAW_VERSION: {"Version": _VERSION},
    Action.QUARANTINE_VERSION: {"Version": _VERSION},
    Action.RELEASE_VERSION: {"Version": {**_VERSION, "owner": _NO, "author": _NO}},
    Action.SET_CONDITIONS: {"Organism": _ORGANISM},
    Action.ADD_ERRATUM: {"Version": _VERSION},
    Action.VIEW_HOLDERS: {"Version": _VERSION},
    Action.SET_LEVEL: {"Organism": {**_ORGANISM, "lowering": _NO}},
    Action.REQUEST: {"Version": {**_VERSION, "rung": (2, 3, 4)}},
    Action.AMEND_REQUEST: {"Request": _REQUEST},
    Action.WITHDRAW_REQUEST: {"Request": _REQUEST},
    Action.VIEW_REQUEST: {"Request": _REQUEST},
    Action.REVIEW: {"Request": {**_REQUEST, "requester": _NO, "owner": _NO, "author": _NO}},
    Action.VIEW_GRANT: {"Grant": _GRANT},
    Action.REVOKE_GRANT: {"Grant": _GRANT},
    Action.ATTEST_DESTRUCTION: {"Grant": _GRANT},
    Action.OPEN_SESSION: {"Version": {**_VERSION, **_USE}},
    Action.OPEN_LOCAL_SESSION: {"Version": {**_VERSION, **_USE}},
    Action.SAMPLE: {"Session": {**_SESSION, **_USE}},
    Action.PROBE: {"Session": {**_SESSION, **_USE}},
    Action.PULL: {"Version": {**_VERSION, **_USE}},
    Action.VIEW_SESSION: {"Session": _SESSION},
    Action.WATCH_SESSION: {"Session": _SESSION},
    Action.CLOSE_SESSION: {"Session": _SESSION},
    Action.KILL_SESSION: {"Session": _SESSION},
    Action.RERUN: {"Version": _RERUN},
    Action.PROPOSE_MOTION: {"Motion": _MOTION},
    Action.SECOND_MOTION: {"Motion": {**_MOTION, "proposer": _NO}},
    Action.VIEW_MOTION: {"Motion": _MOTION},
    Action.WITHDRAW_MOTION: {"Motion": _MOTION},
    Action.CREATE_GAME: {"Registry": _ALWAYS},
    Action.VIEW_GAME: {"Game": _GAME},
    Action.VIEW_TRUTH: {"Game": {**_GAME, "player": _NO}},
    Action.JOIN_GAME: {"Game": _GAME},
    Action.GUESS: {"Game": _GAME},
    Action.READ_LEDGER: {"Ledger": {**_ALWAYS, "own": _YES}},
    Action.VIEW_USERS: {"Registry": _ALWAYS, "User": {**_ALWAYS, "oneself": _YES}},
    Action.MANAGE_USERS: {"User": {**_ALWAYS, "oneself": _NO}},
    Action.DENY_CERTIFICATE: {"Registry": _ALWAYS},
}
"""Facts of each action by type of resource, each with its values: for one who asks, the most permissive first."""


@dataclass(frozen=True, slots=True)
class Row:
    """One abstract call."""

    action: Action
    kind: str
    """Type of the resource."""
    facts: Mapping[str, Any]

    @property
    def caller(self) -> str:
        """Who asks: somebody, or the registry itself."""
        return ITSELF if self.facts.get("itself") else _ME

    @property
    def resource(self) -> str:
        """Its id; only an account's matters, because it may be the caller's own."""
        return _ME if self.facts.get("oneself") else f"{self.kind.lower()}/it"

    def request(self) -> dict[str, Any]:
        """As Cedar is asked."""
        return {
            "principal": {"type": "User", "id": self.caller},
            "action": {"type": "Action", "id": str(self.action)},
            "resource": {"type": self.kind, "id": self.resource},
            "context": self._context(),
        }

    def entities(self) -> str:
        """The two entities that the request names, as JSON text."""
        me = _entity("User", self.caller, _account(active=self.facts["active"]), sorted(self.facts["roles"]))
        it = [] if self.resource == _ME else [_entity(self.kind, self.resource, self._attributes())]
        return json.dumps([me, *it])

    def as_text(self) -> str:
        """Its facts, for people."""
        roles = "+".join(sorted(self.facts["roles"])) or "none"
        others = (f"{name} {str(value).lower()}" for name, value in self.facts.items() if name != "roles")
        return f"roles {roles}, {', '.join(others)}"

    def _context(self) -> dict[str, Any]:
        facts = self.facts
        plain = {name: facts[name] for name in ("ledger", "grantee", "jail", "witness", "lowering", "own") if name in facts}
        if self.action is Action.REQUEST:
            plain["rung"] = facts["rung"]
        if "grant_rung" in facts:
            held = {"rung": facts["grant_rung"], "level": facts["grant_level"]}
            plain["grant"] = held | {name: facts[name] for name in ("expired", "revoked")}
        return plain

    def _attributes(self) -> dict[str, Any]:
        facts = self.facts
        level = {"level": int(known(facts["level"]))} if "level" in facts else {}
        plain = {"hidden": facts["hidden"]} if "hidden" in facts else {}
        if "state" in facts:
            plain |= {state: facts["state"] == state for state in ("published", "quarantined")}
        one = {name: _person(mine=facts[name]) for name in _PEOPLE if name in facts}
        authors = [_person(mine=False), *([_person(mine=True)] if facts.get("author") else [])]
        if self.kind == "Version":
            return level | plain | one | {"authors": authors}
        if self.kind == "Request":
            owner = one.pop("owner")
            return level | one | {"rung": facts["rung"], "owners": [owner], "authors": authors}
        if self.kind == "Motion":
            return one | {"kind": facts["motion"]}
        if self.kind == "Game":
            players = [_person(mine=False), *([_person(mine=True)] if facts["player"] else [])]
            return one | {"players": players, "revealed": facts["revealed"]}
        if self.kind == "Grant":
            return {"user": one["user"], "owners": [one["owner"]]}
        return _account(active=True) if self.kind == "User" else level | plain | one


@cache
def rows() -> tuple[Row, ...]:
    """The whole table."""
    return tuple(
        Row(action, kind, facts)
        for action, kinds in SHAPES.items()
        for kind, values in kinds.items()
        for facts in _chosen(f"{action} {kind}", values)
    )


def _chosen(seed: str, values: dict[str, tuple[Any, ...]]) -> list[dict[str, Any]]:
    if prod(map(len, values.values())) <= FEW:
        return [dict(zip(values, chosen, strict=True)) for chosen in product(*values.values())]
    best = {name: each[0] for name, each in values.items()}
    stranger = best | {name: value for name, value in _STRANGER.items() if name in values}
    near = (*_near(best, values, values["level"]), *_near(stranger, values, (1, 4)))
    chosen = {tuple(facts.values()): facts for facts in near}
    lot = random.Random(seed)  # noqa: S311 - the same rows each time, not secret ones
    enough = len(chosen) + BY_LOT
    while len(chosen) < enough:
        facts = {name: each[0] if lot.random() < _PERMISSIVE else lot.choice(each) for name, each in values.items()}
        chosen.setdefault(tuple(facts.values()), facts)
    return list(chosen.values())


def _near(base: dict[str, Any], values: dict[str, tuple[Any, ...]], levels: tuple[Any, ...]) -> Iterator[dict[str, Any]]:
    """A combination at some levels, and all that differ from it in one or two further facts."""
    others = [name for name in values if name != "level"]
    for level in levels:
        here = base | {"level": level}
        yield here
        for name in others:
            yield from (here | {name: value} for value in values[name])
        for one, two in combinations(others, 2):
            yield from (here | {one: first, two: second} for first, second in product(values[one], values[two]))


def _entity(kind: str, name: str, attributes: dict[str, Any], roles: list[Role] | None = None) -> dict[str, Any]:
    parents = [{"type": "Role", "id": role.value} for role in roles or ()]
    return {"uid": {"type": kind, "id": name}, "attrs": attributes, "parents": parents}


def _account(*, active: bool) -> dict[str, Any]:
    return {"organisation": {"__entity": {"type": "Organisation", "id": "organisations/lab"}}, "active": active}


def _person(*, mine: bool) -> dict[str, Any]:
    return {"__entity": {"type": "User", "id": _ME if mine else _OTHER}}
