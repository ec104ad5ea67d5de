"""Inviting somebody, and what takes two admins: making a reviewer or an admin, and new keys in the place of lost ones."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from model_organisms.errors import AlreadyExists, NotFound
from model_organisms.records import UserState

from model_organisms_registry.domain import identity as rules
from model_organisms_registry.domain.audit import Event, entry
from model_organisms_registry.domain.motions import Stakes
from model_organisms_registry.domain.permits import Action
from model_organisms_registry.gate import entities
from model_organisms_registry.storage.catalog import identity as accounts
from model_organisms_registry.workflows.changes import seq
from model_organisms_registry.workflows.motions import Act

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from model_organisms.formats.enrolment import Ticket
    from model_organisms.records import Motion, User

    from model_organisms_registry.domain.identity import Invitation
    from model_organisms_registry.domain.permits import Call, Permit
    from model_organisms_registry.gate.gate import Gate
    from model_organisms_registry.storage.database import Connection
    from model_organisms_registry.workflows.changes import Change


class Appointing:
    """The two acts, each for its kind of motion.

    Args:
        gate: Decides who may.
        ticket: Makes what carries a code to its user.
    """

    def __init__(self, gate: Gate, ticket: Callable[[str], Ticket]) -> None:
        """Keep both."""
        self._gate = gate
        self._ticket = ticket

    def appoint(self) -> Act:
        """Invite a reviewer or an admin."""
        return Act(self._weigh_appointment, self._appoint)

    def replace_keys(self) -> Act:
        """Give an account whose keys are lost a code for new ones."""
        return Act(self._weigh_replacement, self._replace_keys)

    def _weigh_appointment(self, tx: Connection, call: Call, motion: Motion) -> Stakes:
        self._gate.permit(call, Action.MANAGE_USERS, entities.account(motion.subject))
        wanted = _appointed(motion, call.time)
        found = _found(tx, wanted.name)
        if found is not None and not _waits(found, wanted):
            raise AlreadyExists(f"There is a '{wanted.name}' already; choose another name.", name=wanted.name)
        return Stakes(frozenset({motion.subject}))

    def _appoint(self, change: Change, call: Call, motion: Motion) -> Mapping[str, str]:
        permit = self._gate.permit(call, Action.MANAGE_USERS, entities.account(motion.subject))
        code, invitation = invited(change, call, _appointed(motion, call.time), permit, motion=motion.name)
        return self._told(code, invitation)

    def _weigh_replacement(self, tx: Connection, call: Call, motion: Motion) -> Stakes:
        self._gate.permit(call, Action.MANAGE_USERS, entities.account(motion.subject))
        rules.hand_out(accounts.user(tx, motion.subject), "", now=call.time, replaces=motion.facts["key"])
        return Stakes(frozenset({motion.subject}))

    def _replace_keys(self, change: Change, call: Call, motion: Motion) -> Mapping[str, str]:
        permit = self._gate.permit(call, Action.MANAGE_USERS, entities.account(motion.subject))
        facts = {"key": motion.facts["key"], "motion": motion.name}
        code, invitation = handed_out(change.tx, call, accounts.user(change.tx, motion.subject), replaces=facts["key"])
        change.enter(entry(Event.RECOVER, call, seq=seq(), subject=motion.subject, permit=permit, facts=facts))
        return self._told(code, invitation)

    def _told(self, code: str, invitation: Invitation) -> Mapping[str, str]:
        until = invitation.expire_time.isoformat(timespec="seconds")
        return {"ticket": str(self._ticket(code)), "ticket_until": until}


def invited(
    change: Change, call: Call, user: User, permit: Permit, *, alone: bool = False, motion: str = ""
) -> tuple[str, Invitation]:
    """Make an account in the transaction that decided it, or for one that waits for its owner only a new code.

    Args:
        change: The transaction.
        call: In which call.
        user: The account.
        permit: The gate's yes.
        alone: One admin makes a reviewer or an admin by themself, because there is no other.
        motion: The motion of two admins that does.

    Returns:
        The code, and what is kept of it.

    Raises:
        AlreadyExists: The account is another by now.
    """
    found = _found(change.tx, user.name)
    if found is None or not _waits(found, user):
        accounts.add_user(change.tx, user)
    code, invitation = handed_out(change.tx, call, user)
    facts = {"organisation": user.organisation, "roles": ",".join(sorted(user.roles))}
    facts |= ({"alone": "true"} if alone else {}) | ({"motion": motion} if motion else {})
    change.enter(entry(Event.INVITE, call, seq=seq(), subject=user.name, permit=permit, facts=facts))
    return code, invitation


def handed_out(tx: Connection, call: Call, user: User, *, replaces: str = "") -> tuple[str, Invitation]:
    """Make a code for an account; the one before is void."""
    code = rules.print_code(secrets.token_bytes(rules.CODE_ENTROPY_BYTES))
    invitation = rules.hand_out(user, code, now=call.time, replaces=replaces)
    accounts.void_enrolments(tx, user.name, call.time)
    accounts.add_enrolment(tx, invitation.code_hash, user.name, invitation.expire_time, replaces)
    return code, invitation


def _waits(found: User, wanted: User) -> bool:
    """Whether the same account waits for its owner; any other of that name is left to be refused."""
    return found.state is UserState.INVITED and (found.organisation, found.roles) == (wanted.organisation, wanted.roles)


def _found(tx: Connection, name: str) -> User | None:
    try:
        return accounts.user(tx, name)
    except NotFound:
        return None


def _appointed(motion: Motion, now: datetime) -> User:
    facts = motion.facts
    return rules.invite(
        motion.subject,
        display_name=facts["display_name"],
        organisation=facts["organisation"],
        roles=rules.roles_of(facts["roles"]),
        now=now,
    )
