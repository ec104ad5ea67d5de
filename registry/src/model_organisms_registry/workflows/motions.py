"""Acts of two people, step by step. What is enough is in `domain/motions.py`; what is done, in the workflow that owns the act.

A workflow that owns such an act gives an `Act`, and `server.py` registers it under its kind. There is no other way to do it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from model_organisms.errors import Denied, InvalidArgument, NotFound
from model_organisms.formats import dsse, statements
from model_organisms.formats import motions as formats
from model_organisms.records import MotionState, Page

from model_organisms_registry.domain import motions as rules
from model_organisms_registry.domain.audit import Event, entry
from model_organisms_registry.domain.identity import OVERSIGHT
from model_organisms_registry.domain.permits import Action
from model_organisms_registry.gate import entities
from model_organisms_registry.storage.catalog import motions as rows
from model_organisms_registry.workflows import finding
from model_organisms_registry.workflows.changes import seq

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from model_organisms.formats.motions import Vote
    from model_organisms.records import Motion, MotionKind, Receipt

    from model_organisms_registry.domain.motions import Stakes
    from model_organisms_registry.domain.permits import Call, Permit
    from model_organisms_registry.gate.gate import Gate
    from model_organisms_registry.storage.database import Connection
    from model_organisms_registry.workflows.changes import Change, Changes


def _nothing(motion: Motion, now: datetime) -> None:
    """What most acts leave for after the transaction."""


@dataclass(frozen=True, slots=True)
class Act:
    """What motions of one kind do.

    Attributes:
        weigh: Asked of everybody who signs, in their transaction: whether the act can be done as things stand, whether the gate
            allows it to this caller, and who has an interest. Raises if not.
        carry: Does it, in the transaction of the last signature, and enters it in the ledger. The motion it is given has
            only the signatures that count. Returns short facts for the last signer's eyes, which are kept nowhere.
        carried: Runs after that transaction is in the ledger: ends what may no longer run.
    """

    weigh: Callable[[Connection, Call, Motion], Stakes]
    carry: Callable[[Change, Call, Motion], Mapping[str, str]]
    carried: Callable[[Motion, datetime], None] = _nothing


class Motions:
    """Motions.

    Args:
        changes: Opens transactions.
        gate: Decides who may.
        origin: Name of this registry, which every vote binds.
        acts: What can be moved here.
    """

    def __init__(self, changes: Changes, gate: Gate, *, origin: str, acts: Mapping[MotionKind, Act]) -> None:
        """Keep them."""
        self._changes = changes
        self._gate = gate
        self._origin = origin
        self._acts = acts

    def propose(
        self, call: Call, kind: MotionKind, subject: str, *, facts: Mapping[str, str], envelope: bytes
    ) -> tuple[Motion, Receipt]:
        """Open a motion with its proposer's signature.

        1. The vote is signed by the caller's own key, and about exactly this.
        2. The gate lets this role propose motions of this kind, and the act lets this caller have a part in it.
        3. Motion, signature and entry are one transaction.
        """
        vote = self._vote(call, envelope, approve=True)
        drawn = rules.propose(vote, call.user, kind=kind, subject=subject, facts=facts, origin=self._origin, now=call.time)
        with self._changes.open() as change:
            permit = self._gate.permit(call, Action.PROPOSE_MOTION, entities.motion(drawn))
            stakes = self._act(drawn).weigh(change.tx, call, drawn)
            motion = rules.sign(
                drawn, vote, call.user, signers=(), stakes=stakes, origin=self._origin, envelope=envelope, now=call.time
            )
            rows.add_motion(change.tx, drawn)
            rows.add_signature(change.tx, motion.name, motion.signatures[-1])
            said = {
                "kind": kind.value,
                "subject": motion.subject,
                "facts": vote.facts,
                "expires": motion.expire_time.isoformat(timespec="seconds"),
                "envelope": hashlib.sha256(envelope).hexdigest(),
            }
            change.enter(entry(Event.PROPOSE_MOTION, call, seq=seq(), subject=motion.name, permit=permit, facts=said))
        return motion, change.receipt

    def get(self, call: Call, name: str) -> Motion:
        """Read a motion."""
        with self._changes.database.read() as tx:
            motion = self._found(tx, call, Action.VIEW_MOTION, name)
        self._gate.permit(call, Action.VIEW_MOTION, entities.motion(motion))
        return rules.lapse(motion, now=call.time)

    def list(
        self, call: Call, *, state: MotionState | None, kind: MotionKind | None, page_size: int, page_token: str
    ) -> Page[Motion]:
        """List motions: one's own, or for those who oversee all."""
        self._gate.permit(call, Action.LIST, entities.registry())
        whose = "" if OVERSIGHT & call.user.roles else call.user.name
        wanted = rows.MotionFilter(proposer=whose, state=state, kind=kind)
        with self._changes.database.read() as tx:
            page = rows.motions(tx, now=call.time, filter=wanted, page_size=page_size, page_token=page_token)
        return Page(tuple(rules.lapse(item, now=call.time) for item in page.items), page.next_page_token)

    def sign(self, call: Call, name: str, envelope: bytes, *, approve: bool) -> tuple[Motion, Receipt]:
        """Take another person's signed yes or no.

        1. The vote is signed by the caller's own key.
        2. The gate lets this role sign motions of this kind, and the act lets this caller have a part in it as things stand now.
        3. The rules hold the vote against the motion as it stands in this transaction, and count.
        4. Enough of them carry the act out, in the same transaction; a no ends the motion.
        """
        vote = self._vote(call, envelope, approve=approve)
        with self._changes.open() as change:
            found = self._found(change.tx, call, Action.SECOND_MOTION, name)
            permit = self._gate.permit(call, Action.SECOND_MOTION, entities.motion(found))
            rules.pending(found, now=call.time)
            act = self._act(found)
            stakes = act.weigh(change.tx, call, found)
            motion = rules.sign(
                found,
                vote,
                call.user,
                signers=finding.signers(change.tx, found),
                stakes=stakes,
                origin=self._origin,
                envelope=envelope,
                now=call.time,
            )
            rows.add_signature(change.tx, name, motion.signatures[-1])
            motion = self._settled(change, call, motion, act=act, stakes=stakes, permit=permit)
        if motion.state is MotionState.CARRIED:
            act.carried(motion, call.time)
        return motion, change.receipt

    def withdraw(self, call: Call, name: str) -> tuple[Motion, Receipt]:
        """Take one's own open motion back."""
        with self._changes.open() as change:
            motion = self._found(change.tx, call, Action.WITHDRAW_MOTION, name)
            permit = self._gate.permit(call, Action.WITHDRAW_MOTION, entities.motion(motion))
            withdrawn = rules.withdraw(motion, now=call.time)
            rows.end_motion(change.tx, name, withdrawn.state)
            facts = {"kind": motion.kind.value}
            change.enter(entry(Event.WITHDRAW_MOTION, call, seq=seq(), subject=name, permit=permit, facts=facts))
        return withdrawn, change.receipt

    def _settled(self, change: Change, call: Call, motion: Motion, *, act: Act, stakes: Stakes, permit: Permit) -> Motion:
        """Enter the signature that was just added, and do what it decides."""
        signature, signers = motion.signatures[-1], finding.signers(change.tx, motion)
        counted = rules.counted(motion, signers=signers, stakes=stakes, now=call.time)
        facts = {
            "kind": motion.kind.value,
            "envelope": hashlib.sha256(signature.envelope).hexdigest(),
            "organisation": signature.organisation,
        }
        if motion.state is MotionState.REJECTED:
            rows.end_motion(change.tx, motion.name, motion.state)
            change.enter(entry(Event.REJECT_MOTION, call, seq=seq(), subject=motion.name, permit=permit, facts=facts))
            return motion
        facts |= {"given": str(len(counted)), "needed": str(motion.needed)}
        change.enter(entry(Event.SECOND_MOTION, call, seq=seq(), subject=motion.name, permit=permit, facts=facts))
        if not rules.complete(motion, signers=signers, stakes=stakes, now=call.time):
            return motion
        done = rules.carried(motion)
        rows.end_motion(change.tx, motion.name, done.state)
        outcome = act.carry(change, call, replace(done, signatures=counted))
        facts = {
            "kind": motion.kind.value,
            "subject": motion.subject,
            "facts": formats.facts_digest(motion.facts),
            "signers": ",".join(item.signer for item in counted),
        }
        change.enter(entry(Event.CARRY_MOTION, call, seq=seq(), subject=motion.name, permit=permit, facts=facts))
        return replace(done, outcome=dict(outcome))

    @staticmethod
    def _vote(call: Call, envelope: bytes, *, approve: bool) -> Vote:
        payload = dsse.verify(envelope, call.user.identity_key, payload_type=statements.PAYLOAD_TYPE)
        vote = formats.parse_vote(payload)
        if vote.approve is not approve:
            raise Denied("The statement says the opposite of the call; sign it again.", motion=vote.motion)
        return vote

    def _act(self, motion: Motion) -> Act:
        act = self._acts.get(motion.kind)
        if act is None:
            raise InvalidArgument(
                f"This registry carries out no motion to {motion.kind}; update it, or its client.", field="kind"
            )
        return act

    def _found(self, tx: Connection, call: Call, action: Action, name: str) -> Motion:
        try:
            return rows.motion(tx, name)
        except NotFound:
            self._gate.absent(call, action, "motion", name)
