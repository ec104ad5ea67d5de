"""What would have to be otherwise for a denied call to be allowed, found by asking Cedar again with other facts.

1. Assume the best of the circumstances: all walls, a witness, a published version, a grant that covers it.
2. Ask for whom it would then be allowed: for the caller as they are; for them with another role; if the thing were theirs; for
   somebody else with their roles; and only if none of these does, for two of them together.
3. Take the circumstances away again, one by one; those without which it is denied are the ones that are lacking.

Nothing found means that no such change helps, and the advice of the forbidding policy is all there is to say.
"""

from __future__ import annotations

import json
from copy import deepcopy
from dataclasses import dataclass
from enum import StrEnum
from itertools import combinations
from typing import TYPE_CHECKING, Any

from model_organisms.records import Role

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from model_organisms.records import Rung

_SOMEBODY = "users/somebody-else"
_OWNED_BY = ("owner", "proposer", "requester", "user")


class Lack(StrEnum):
    """A circumstance."""

    JAIL = "jail"
    WITNESS = "witness"
    PUBLISHED = "published"
    GRANT = "grant"


class Whose(StrEnum):
    """Who would have to call, where another role is not the answer."""

    OWN = "own"
    """The caller, if the thing were theirs."""
    ANOTHER = "another"
    """Somebody who has no part in it."""


@dataclass(frozen=True, slots=True)
class Remedies:
    """All of `lacks`, and one of `callers`, together suffice; each of the lacks is needed."""

    lacks: tuple[Lack, ...] = ()
    callers: tuple[tuple[Role | Whose, ...], ...] = ()
    """Ways in which the caller would have to be another; none where they may be who they are."""


@dataclass
class _World:
    """The facts of one question, to be changed."""

    request: dict[str, Any]
    entities: list[dict[str, Any]]
    rung: Rung | None = None

    @property
    def me(self) -> dict[str, Any]:
        return self.entities[0]

    @property
    def it(self) -> dict[str, Any]:
        """Attributes of the resource."""
        attributes: dict[str, Any] = self.entities[-1]["attrs"]
        return attributes

    def better(self, lack: Lack) -> None:
        """Make one circumstance as good as it can be, where the question speaks of it."""
        context = self.request["context"]
        if lack is Lack.PUBLISHED:
            self.it.update({"published": True, "quarantined": False} if "published" in self.it else {})
        elif lack is Lack.GRANT:
            if self.rung is not None and "grant" in context:
                context["grant"] = {"rung": int(self.rung), "level": self.it["level"], "expired": False, "revoked": False}
        elif lack.value in context:
            context[lack.value] = True

    def by(self, who: Role | Whose) -> None:
        """Let somebody else call, or the caller be more than they are."""
        if isinstance(who, Role):
            self.me["parents"].append({"type": "Role", "id": who.value})
        elif who is Whose.OWN:
            mine = {"__entity": dict(self.me["uid"])}
            self.it.update({name: mine for name in _OWNED_BY if name in self.it})
            self.it.update({"owners": [*self.it["owners"], mine]} if "owners" in self.it else {})
        else:
            before = deepcopy(self.me)
            self.me["uid"]["id"] = self.request["principal"]["id"] = _SOMEBODY
            if len(self.entities) == 1:  # it was about the caller's own account
                self.entities.append(before)


def find(
    request: dict[str, Any], entities: str, *, rung: Rung | None, allows: Callable[[dict[str, Any], str], bool]
) -> Remedies | None:
    """Find what would change a denial.

    Args:
        request: Cedar's request that was denied.
        entities: Its entities, the caller's first.
        rung: What a grant would have to give, where one is needed.
        allows: Asks the policies.

    Returns:
        What would have to be otherwise; None where nothing of the kind helps.
    """

    def allowed(lacks: tuple[Lack, ...], callers: tuple[Role | Whose, ...]) -> bool:
        world = _World(deepcopy(request), json.loads(entities), rung)
        for lack in lacks:
            world.better(lack)
        for who in callers:
            world.by(who)
        return allows(world.request, json.dumps(world.entities))

    every = tuple(Lack)
    tries = ([way for way in tried if allowed(every, way)] for tried in _callers(json.loads(entities)[0]))
    ways = next((found for found in tries if found), [])
    if not ways:
        return None
    lacks = every
    for lack in every:
        fewer = tuple(other for other in lacks if other is not lack)
        lacks = fewer if allowed(fewer, ways[0]) else lacks
    return Remedies(lacks, tuple(way for way in ways if way))


def _callers(me: dict[str, Any]) -> Iterator[list[tuple[Role | Whose, ...]]]:
    """Who might call instead: the caller as they are, with one change, with two."""
    held = {parent["id"] for parent in me["parents"]}
    single: list[Role | Whose] = [*(role for role in Role if role.value not in held), *Whose]
    yield [()]
    yield [(one,) for one in single]
    yield list(combinations(single, 2))
