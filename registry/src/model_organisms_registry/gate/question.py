"""One question to Cedar, made of a call, an action and a resource; facts only, no decision."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from model_organisms import names
from model_organisms.records import GrantState

from model_organisms_registry.domain.grants import nearest, shortcoming
from model_organisms_registry.domain.permits import Action
from model_organisms_registry.gate import entities
from model_organisms_registry.gate.entities import RUNG_OF, Conditions, Resource

if TYPE_CHECKING:
    from collections.abc import Sequence

    from model_organisms.errors import Denied
    from model_organisms.records import Grant, Rung

    from model_organisms_registry.domain.permits import Call
    from model_organisms_registry.gate.cedar import Decision, PolicySet


@dataclass(frozen=True)
class Question:
    """One call, action and resource, with the grants and conditions that matter to it, and the policies that decide it."""

    policies: PolicySet
    call: Call
    action: Action
    resource: Resource
    grants: Sequence[Grant] = ()
    rung: Rung | None = None
    lowering: bool = False
    own: bool = False
    conditions: Conditions = Conditions()  # noqa: RUF009 - frozen, and what is not known counts as missing

    @cached_property
    def deciding(self) -> Grant | None:
        """The grant that a use rests on or falls short of."""
        rung, version = RUNG_OF.get(self.action), self.resource.version
        if rung is None or version is None:
            return None
        name, now = self.call.user.name, self.call.time
        return nearest(self.grants, version, user=name, level=self.resource.level, rung=rung, now=now)

    @property
    def grant_name(self) -> str:
        """Its name; empty where there is none."""
        return self.deciding.name if self.deciding else ""

    @cached_property
    def grantee(self) -> bool:
        """Whether the caller has a grant on the organism that was not taken back; an expired one lets them read on."""
        return any(
            grant.user == self.call.user.name
            and grant.state is not GrantState.REVOKED
            and any(names.home_of(ref.name) == self.resource.organism for ref in grant.versions)
            for grant in self.grants
        )

    def to_view(self, view: Action) -> Question:
        """The question whether the caller may know of it."""
        return Question(self.policies, self.call, view, self.resource, self.grants, conditions=self.conditions)

    def decide(self) -> Decision:
        """Ask them."""
        return self.policies.decide(self.request(), self.entities())

    def shortcoming(self) -> Denied | None:
        """What the deciding grant lacks, in the domain's words."""
        rung, version = RUNG_OF.get(self.action), self.resource.version
        if rung is None or version is None:
            return None
        return shortcoming(self.deciding, version, level=self.resource.level, rung=rung, now=self.call.time)

    def entities(self) -> str:
        """The entities it names."""
        return entities.store(self.call.user, self.resource)

    def request(self) -> dict[str, Any]:
        """Cedar's request."""
        return {
            "principal": {"type": "User", "id": self.call.user.name},
            "action": {"type": "Action", "id": str(self.action)},
            "resource": self.resource.uid,
            "context": self._context(),
        }

    def _context(self) -> dict[str, Any]:
        context: dict[str, Any] = {"ledger": self.conditions.ledger}
        if self.resource.type in {"Organism", "Version"} or self.action in RUNG_OF:
            context["grantee"] = self.grantee
        if self.action in RUNG_OF:
            context["jail"] = self.conditions.jail
            context["witness"] = self.conditions.witness
            context["grant"] = entities.held(self.deciding, now=self.call.time)
        elif self.action is Action.RERUN:
            context["jail"] = self.conditions.jail
        elif self.action is Action.REQUEST:
            context["rung"] = int(self.rung) if self.rung is not None else 0
        elif self.action is Action.SET_LEVEL:
            context["lowering"] = self.lowering
        elif self.action is Action.READ_LEDGER:
            context["own"] = self.own
        return context
