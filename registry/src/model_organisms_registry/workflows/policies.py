"""Which policies stand, and how others come to stand: two admins sign the digest of what lies in the deployment's folder.

- The set a registry first starts with is adopted by that. After it, nothing in the folder decides before it was adopted: the set
  that stands lies in the database, under the digest that was signed.
- The program's own set changes with the program; so do the schema and `never.cedar`, which no folder changes.
- No set is adopted that allows what the shipped cases refuse, or under which those who sign could not adopt another.
- What is adopted is what was read when the last signature came, and its digest is the one that was signed.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import replace
from typing import TYPE_CHECKING

from model_organisms.errors import ConfigurationInvalid, Conflict, ModelOrganismsError
from model_organisms.records import PolicyStatus

from model_organisms_registry.domain.audit import Event, entry
from model_organisms_registry.domain.identity import OVERSIGHT
from model_organisms_registry.domain.motions import Stakes
from model_organisms_registry.domain.permits import Action
from model_organisms_registry.gate import cases, entities
from model_organisms_registry.gate.cedar import PolicySet
from model_organisms_registry.gate.entities import Conditions
from model_organisms_registry.gate.question import Question
from model_organisms_registry.storage.catalog import policies as rows
from model_organisms_registry.workflows.changes import seq
from model_organisms_registry.workflows.motions import Act

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime
    from pathlib import Path

    from model_organisms.records import Motion

    from model_organisms_registry.domain.permits import Call
    from model_organisms_registry.gate.gate import Gate
    from model_organisms_registry.storage.catalog.policies import Adopted
    from model_organisms_registry.storage.database import Connection, Database
    from model_organisms_registry.workflows.changes import Change, Changes

_LOG = logging.getLogger(__name__)
_FINDINGS = 3
"""Findings about a set that an error tells."""
_OTHER = "users/somebody-else"


def standing(database: Database, folder: Path | None) -> PolicySet:
    """Read the set that decides; before a registry's first start that is what its folder holds.

    Args:
        database: Where adopted sets lie.
        folder: The deployment's policies; None for the program's own.

    Raises:
        ConfigurationInvalid: It does not fit this release.
    """
    with database.read() as tx:
        adopted = rows.newest(tx)
    return PolicySet.read(folder) if adopted is None else _restored(adopted)


def begin(changes: Changes, folder: Path | None, now: datetime) -> PolicySet:
    """Return the set that stands; where none was ever adopted, adopt what the folder holds."""
    policies = standing(changes.database, folder)
    with changes.database.read() as tx:
        if rows.newest(tx) is not None:
            return policies
    with changes.open() as change:
        _adopt(change, 1, policies, now)
        facts = {"from": "", "to": policies.digest}
        change.enter(entry(Event.ADOPT_POLICIES, None, time=now, seq=seq(), subject="registry", facts=facts))
    return policies


class Policies:
    """The policies of a running registry.

    Args:
        changes: Opens transactions.
        gate: Decides by the set that stands.
        folder: The deployment's policies; None for the program's own.
    """

    def __init__(self, changes: Changes, gate: Gate, folder: Path | None) -> None:
        """Look at the folder once."""
        self._changes = changes
        self._gate = gate
        self._folder = folder
        self._lock = threading.Lock()
        self._number = self._newest()
        self._asked = False
        self._candidate, self._problem = self._look()

    def status(self, call: Call) -> PolicyStatus:
        """Say which set stands, and to those who oversee what lies in the folder."""
        self._gate.permit(call, Action.LIST, entities.registry())
        if OVERSIGHT.isdisjoint(call.user.roles):
            return PolicyStatus(self._gate.digest)
        candidate, problem = self._look()
        return PolicyStatus(self._gate.digest, candidate, problem)

    @property
    def settled(self) -> bool:
        """Whether what lies in the folder is what stands, as it was last looked at."""
        return not self._problem and self._candidate in ("", self._gate.digest)

    def reload(self) -> None:
        """Have the folder looked at with the next round; safe in a signal handler."""
        self._asked = True

    def follow(self, now: datetime) -> None:
        """Take up what was adopted, here or by another process of this registry, and look at the folder if somebody asked.

        A set that cannot be read leaves the one that stands where it is.
        """
        del now
        with self._lock:
            newest = self._newest()
            if newest == self._number and not self._asked:
                return
            if newest != self._number:
                self._gate.use(standing(self._changes.database, self._folder))
            self._number, self._asked = newest, False
            self._candidate, self._problem = self._look()
            _LOG.warning("policies %s stand; the folder: %s", self._gate.digest, self._problem or "the same")

    def adopting(self) -> Act:
        """What a motion to adopt policies does."""
        return Act(self._weigh, self._adopt, lambda _, now: self.follow(now))

    def _weigh(self, tx: Connection, call: Call, motion: Motion) -> Stakes:
        _, policies = self._about(tx, motion)  # who may, `policies/motions.cedar` says
        if call.user.name == motion.proposer:  # and not whoever says no
            _check_way_back(policies, call, motion)
        return Stakes()

    def _adopt(self, change: Change, call: Call, motion: Motion) -> dict[str, str]:
        number, policies = self._about(change.tx, motion)
        _check_way_back(policies, call, motion)
        _adopt(change, number + 1, policies, call.time)
        facts = {"from": motion.facts["from"], "to": policies.digest, "motion": motion.name}
        change.enter(entry(Event.ADOPT_POLICIES, call, seq=seq(), subject="registry", facts=facts))
        return {"policies": policies.digest}

    def _about(self, tx: Connection, motion: Motion) -> tuple[int, PolicySet]:
        """Read the folder once, and hold motion, folder and what stands against each other."""
        adopted = rows.newest(tx)
        stands = _restored(adopted).digest if adopted else ""
        if motion.facts["from"] != stands:
            raise Conflict(f"The policies that stand are {stands}; propose to change from these.", policies=stands)
        policies = PolicySet.read(self._folder)
        if motion.facts["to"] != policies.digest:
            msg = f"The operator's folder holds {policies.digest}; sign that, or have the operator put there what you mean."
            raise Conflict(msg, policies=policies.digest)
        if policies.digest == stands:
            raise Conflict("These policies stand already; there is nothing to adopt.", policies=stands)
        _check_refusals(policies)
        return adopted.number if adopted else 0, policies

    def _look(self) -> tuple[str, str]:
        """Digest of what lies in the folder, and what keeps it from standing."""
        try:
            candidate = PolicySet.read(self._folder).digest
        except ModelOrganismsError as error:
            return "", error.message
        if candidate == self._gate.digest:
            return candidate, ""
        msg = "Not adopted, so it does not decide; two admins sign it: mo motions propose adopt-policies registry."
        return candidate, msg

    def _newest(self) -> int:
        with self._changes.database.read() as tx:
            adopted = rows.newest(tx)
        return adopted.number if adopted else 0


def _restored(adopted: Adopted) -> PolicySet:
    return PolicySet.restored(adopted.texts) if adopted.texts else PolicySet.read()


def _check_refusals(policies: PolicySet) -> None:
    """Refuse a set that allows what the shipped cases refuse.

    Raises:
        ConfigurationInvalid: It does; the first findings say which.
    """
    found = [told for case in cases.shipped_refusals() if (told := case.shortcoming(policies, by=False))]
    if found:
        msg = f"The set breaks {len(found)} shipped cases; correct it (mo-registry policy check): {'; '.join(found[:_FINDINGS])}"
        raise ConfigurationInvalid(msg)


def _check_way_back(policies: PolicySet, call: Call, motion: Motion) -> None:
    """Refuse a set under which the proposer, or who signs last, could no longer move to adopt another.

    Raises:
        ConfigurationInvalid: It is one.
    """
    own, others = entities.motion(replace(motion, proposer=call.user.name)), entities.motion(replace(motion, proposer=_OTHER))
    for action, about in ((Action.PROPOSE_MOTION, own), (Action.VIEW_MOTION, others), (Action.SECOND_MOTION, others)):
        decision = Question(policies, call, action, about, conditions=Conditions(ledger=True)).decide()
        if not decision.allowed:
            by = ", ".join(decision.reasons) or "no policy"
            msg = (
                f"Under this set {call.user.name} may not {action} to adopt another ({by}), so nobody could undo it; correct it."
            )
            raise ConfigurationInvalid(msg)


def _adopt(change: Change, number: int, policies: PolicySet, now: datetime) -> None:
    own: Mapping[str, str] = {} if policies.digest == PolicySet.read().digest else policies.own
    rows.adopt(change.tx, rows.Adopted(number, policies.digest, own), now)
