"""The gate: a call, an action and a resource in; a permit out, or a refusal that is already in the ledger. It changes nothing.

Steps of `permit`, and who does the rest:

1. The grant that decides is found among those given; the workflow read them in its transaction.
2. Cedar decides over facts; how many approved and how much is left to spend is counted in `domain/`.
3. On a no: whoever may not know of the resource is told that there is none, in the words the catalog uses.
4. The refusal is recorded before it is raised. If it cannot be recorded, that is the refusal.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from model_organisms.errors import (
    Denied,
    GrantExpired,
    GrantRequired,
    GrantRevoked,
    LedgerUnavailable,
    NotFound,
    Suspended,
    Withdrawn,
)

from model_organisms_registry.domain import audit
from model_organisms_registry.domain.organisms import destroyed
from model_organisms_registry.domain.permits import Action, Permit
from model_organisms_registry.gate import entities
from model_organisms_registry.gate.cedar import FAULT, Decision, PolicySet
from model_organisms_registry.gate.entities import RUNG_OF
from model_organisms_registry.gate.question import Question
from model_organisms_registry.gate.remedies import Remedies, find

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from model_organisms.errors import ModelOrganismsError
    from model_organisms.records import Entry, Grant, Rung

    from model_organisms_registry.domain.permits import Call
    from model_organisms_registry.gate.entities import Conditions, Resource

_NO_PERMIT = {
    Action.CREATE_ORGANISM: "Only publishers create organisms; ask an admin for the role.",
    Action.PUBLISH: "Only its owner publishes versions of an organism, and only as a publisher; ask its owner.",
    Action.ATTEST: "Only researchers, reviewers and publishers attest; ask an admin for the role.",
    Action.WITHDRAW_VERSION: "Only its owner, a reviewer or an admin withdraws a version; write to a reviewer.",
    Action.QUARANTINE_VERSION: "Only its owner, a reviewer or an admin quarantines a version; write to a reviewer.",
    Action.RELEASE_VERSION: "Only reviewers release a version from quarantine; write to one.",
    Action.SET_CONDITIONS: "Only the owner of an organism says what is asked of its users; write to them.",
    Action.ADD_ERRATUM: "Only its owner and reviewers say what is wrong with a version; write to one.",
    Action.VIEW_HOLDERS: "Only its owner, reviewers, auditors and admins see who holds a version.",
    Action.SET_LEVEL: "Only reviewers set a level; write to one.",
    Action.REQUEST: "Only researchers ask for access; ask an admin for the role.",
    Action.AMEND_REQUEST: "Only its requester changes a request.",
    Action.WITHDRAW_REQUEST: "Only its requester withdraws a request; a reviewer can reject it.",
    Action.REVIEW: "Only reviewers decide on requests; ask one.",
    Action.REVOKE_GRANT: "Only its user, the organism's owner, a reviewer or an admin takes a grant back; write to a reviewer.",
    Action.ATTEST_DESTRUCTION: "Only its user attests that the copies under a grant are destroyed.",
    Action.OPEN_SESSION: "Only researchers open sessions; ask an admin for the role.",
    Action.OPEN_LOCAL_SESSION: "Only researchers open sessions; ask an admin for the role.",
    Action.SAMPLE: "Only the researcher who opened a session samples in it; open one of your own.",
    Action.PROBE: "Only the researcher who opened a session probes in it; open one of your own.",
    Action.PULL: "Only researchers pull; ask an admin for the role.",
    Action.WATCH_SESSION: "Only reviewers and admins read what is said in a session; ask one.",
    Action.CLOSE_SESSION: "Only its user closes a session; a reviewer or an admin kills it.",
    Action.KILL_SESSION: "Only reviewers and admins kill a session; its user closes it.",
    Action.RERUN: "Only the registry itself has turns said again, to check what was kept.",
    Action.READ_LEDGER: "You may read your own entries, heads and proofs; ask an auditor for the rest.",
    Action.PROPOSE_MOTION: "Your role proposes no motion of this kind; ask a reviewer or an admin.",
    Action.SECOND_MOTION: "Your role signs no motion of this kind; another reviewer or admin must.",
    Action.WITHDRAW_MOTION: "Only its proposer withdraws a motion; sign a no instead.",
    Action.CREATE_GAME: "Only reviewers and publishers make games; ask one.",
    Action.VIEW_TRUTH: "The truth of a game is told after its deadline; until then only its master and reviewers read it.",
    Action.JOIN_GAME: "Only the researchers that a game names as its players join it; ask its master.",
    Action.GUESS: "Only the researchers that a game names as its players guess; ask its master.",
    Action.VIEW_USERS: "Only reviewers, auditors and admins see other accounts.",
    Action.MANAGE_USERS: "Only admins manage accounts; write to one.",
    Action.DENY_CERTIFICATE: "Only admins deny certificates; write to one.",
}
"""What to do where no policy permits."""

_ABOUT_THE_CALLER = (Suspended, LedgerUnavailable)
"""Refusals that say nothing of the resource, so they are told also where the resource is hidden."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """A decision that was not acted on."""

    error: ModelOrganismsError | None
    """What the caller would be told; None where the call is allowed."""
    reasons: tuple[str, ...]
    """Ids of the deciding policies, the one that speaks first."""
    policies: str
    remedies: Remedies | None = None
    """What would change a denial; None where nothing would, or nothing may be said of it."""


class Gate:
    """Decides every call by the policy set that stands.

    Invariants:

    - A permit is returned only on a clean Allow of Cedar, under the schema.
    - A refusal is raised only after its entry was recorded; if that fails, the refusal is `LedgerUnavailable`.
    - Absent and hidden resources get the same error, after the same steps.

    Args:
        policies: The set, or the folder to read it from; None for the shipped one.
        record_denial: Makes an entry durable, or raises.
        conditions: How the registry stands now: is the ledger up, do the walls stand, has a witness cosigned.
    """

    def __init__(
        self,
        policies: PolicySet | Path | None,
        *,
        record_denial: Callable[[Entry], object],
        conditions: Callable[[], Conditions],
    ) -> None:
        """Read the policies, unless they were read already."""
        self._policies = policies if isinstance(policies, PolicySet) else PolicySet.read(policies)
        self._record = record_denial
        self._conditions = conditions

    @property
    def digest(self) -> str:
        """Digest of the policy set, as entries and permits carry it."""
        return self._policies.digest

    def use(self, policies: PolicySet) -> None:
        """Decide by another set from here on; a call that is being decided is decided by one set throughout."""
        self._policies = policies

    @property
    def conditions(self) -> Conditions:
        """How the registry stands now."""
        return self._conditions()

    def permit(
        self,
        call: Call,
        action: Action,
        resource: Resource,
        *,
        grants: Sequence[Grant] = (),
        rung: Rung | None = None,
        lowering: bool = False,
        own: bool = False,
        conditions: Conditions | None = None,
    ) -> Permit:
        """Permit an action, or record why not and raise it.

        Args:
            call: Who asks, and when.
            action: What for.
            resource: On what; made by `gate/entities.py`.
            grants: The caller's grants that might matter: for sample and probe the session's own, for openSession,
                openLocalSession and pull those that name the version, for what may be hidden those on the organism.
            rung: With `request`: the rung that is asked for.
            lowering: With `setLevel`: the new level is lower.
            own: With `readLedger`: only the caller's own entries, or heads and proofs.
            conditions: Where the caller knows better than the registry at large: the cell of this very session.

        Returns:
            The permit, with the grant it rests on.

        Raises:
            NotFound: The caller may not know of the resource.
            Denied: No; the class and the message say why and what to do.
            JailMissing: A wall of the sandbox is missing, above CL1.
            LedgerUnavailable: The ledger cannot be written.
        """
        asked = Question(self._policies, call, action, resource, grants, rung, lowering, own, conditions or self._conditions())
        decision = asked.decide()
        if not decision.allowed:
            self._refuse(asked, decision)
        return Permit(call, str(action), resource.name, asked.policies.digest, decision.reasons, asked.grant_name)

    def absent(self, call: Call, action: Action, kind: str, name: str) -> NoReturn:
        """Refuse what is not there, in the same steps, entry and words as what is hidden.

        Args:
            call: Who asks.
            action: What for.
            kind: Kind of name, as in `names.PATTERNS`.
            name: The name that was asked for.

        Raises:
            NotFound: Always, unless the account or the ledger does not stand.
        """
        asked = Question(self._policies, call, action, entities.nothing(kind, name), conditions=self._conditions())
        decision = asked.decide()
        self._refuse(asked, Decision(False, () if decision.allowed else decision.reasons), there=False)

    def sees(self, call: Call, resource: Resource, *, grants: Sequence[Grant] = ()) -> bool:
        """Whether the caller may know of a resource; nothing is recorded. Listings of organisms filter by `domain` instead."""
        view = resource.view
        return (
            view is None or Question(self._policies, call, view, resource, grants, conditions=self._conditions()).decide().allowed
        )

    def explain(
        self,
        call: Call,
        action: Action,
        resource: Resource,
        *,
        grants: Sequence[Grant] = (),
        rung: Rung | None = None,
        lowering: bool = False,
        there: bool = True,
    ) -> Explanation:
        """Say how a call would be decided and what would change that; nothing is permitted or recorded.

        Args:
            call: Who asks, and when.
            action: What for.
            resource: On what; what is not there by a stand-in (`entities.nothing`), so that it takes the steps of what is hidden.
            grants: As for `permit`.
            rung: As for `permit`.
            lowering: As for `permit`.
            there: Whether it is there at all.

        Returns:
            The explanation. Of what the caller may not know of, it says what it says of what is not there.
        """
        asked = Question(self._policies, call, action, resource, grants, rung, lowering, conditions=self._conditions())
        decision = asked.decide()
        error = self._error(asked, decision, there=there)
        if isinstance(error, (NotFound, *_ABOUT_THE_CALLER)):
            # The other reasons might say what is there.
            return Explanation(error, _naming(error), asked.policies.digest)
        if decision.allowed:
            return Explanation(None, decision.reasons, asked.policies.digest)
        remedies = find(asked.request(), asked.entities(), rung=RUNG_OF.get(action), allows=asked.policies.allows)
        return Explanation(error, decision.reasons, asked.policies.digest, remedies)

    def _refuse(self, asked: Question, decision: Decision, *, there: bool = True) -> NoReturn:
        error = self._error(asked, decision, there=there)
        # Whoever was refused may read the entry: it says no more to them than the error does.
        untold = isinstance(error, (NotFound, *_ABOUT_THE_CALLER))
        entry = audit.denial(
            asked.call,
            seq=secrets.randbits(audit.SEQ_BITS),
            action=str(asked.action),
            subject=asked.resource.name,
            reason=error.reason,
            policies=asked.policies.digest,
            reasons=_naming(error) if untold else decision.reasons,
            grant="" if untold else asked.grant_name,
        )
        try:
            self._record(entry)
        # Whatever keeps the refusal out of the ledger, the caller must not get past here unrecorded.
        except Exception as failure:
            raise LedgerUnavailable("The ledger cannot be written, so nothing is served; try again later.") from failure
        raise error

    def _error(self, asked: Question, decision: Decision, *, there: bool = True) -> ModelOrganismsError:
        """Choose what the caller is told. The same decisions are made whether the resource is there or not."""
        view = asked.resource.view
        seen = Decision(allowed=True, reasons=()) if view is None else asked.to_view(view).decide()
        told = _told(asked.policies, seen.reasons) or _told(asked.policies, decision.reasons)
        if isinstance(told, _ABOUT_THE_CALLER):
            return told
        if not there or not seen.allowed or isinstance(told, NotFound):
            return NotFound.named(asked.resource.name)
        if isinstance(told, GrantRequired | GrantExpired | GrantRevoked):
            # The domain knows the grant and says more; on a disagreement the policy's word stands.
            return self._by(asked.shortcoming(), decision) or told
        if isinstance(told, Withdrawn) and asked.resource.destroyed:
            return self._by(destroyed(asked.resource.name), decision) or told
        if told is None and FAULT in decision.reasons:
            return Denied("The policies could not be evaluated; tell the operator.", action=str(asked.action))
        return told or Denied(_NO_PERMIT.get(asked.action, "No policy permits this."), action=str(asked.action))

    def _by(self, error: Denied | None, decision: Decision) -> Denied | None:
        """Name the deciding policy in an error of the domain's making."""
        if error is not None and decision.reasons:
            error.details["policy"] = decision.reasons[0]
        return error


def _naming(error: ModelOrganismsError) -> tuple[str, ...]:
    """The policy that an error about the caller names; none of what the caller may not know of."""
    return () if isinstance(error, NotFound) else (error.details["policy"],)


def _told(policies: PolicySet, reasons: tuple[str, ...]) -> ModelOrganismsError | None:
    """What the first of the forbidding policies says."""
    for name in reasons:
        if forbid := policies.forbids.get(name):
            return forbid.refusal(forbid.advice, policy=name)
    return None
