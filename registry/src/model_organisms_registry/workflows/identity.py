"""How people come to be known: invite, enrol, renew, suspend. The rules are in `domain/identity.py`."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING

from model_organisms import names
from model_organisms.errors import NotFound, Unauthenticated
from model_organisms.formats import ed25519
from model_organisms.formats.dsse import key_id
from model_organisms.formats.enrolment import Ticket, enrolment_statement, renewal_statement, rotation_statement
from model_organisms.records import Role

from model_organisms_registry.domain import identity as rules
from model_organisms_registry.domain.audit import Event, entry
from model_organisms_registry.domain.organisms import REASON_LIMIT, plain
from model_organisms_registry.domain.permits import Action
from model_organisms_registry.gate import entities
from model_organisms_registry.storage.catalog import identity as accounts
from model_organisms_registry.workflows import appointing
from model_organisms_registry.workflows.changes import seq

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from datetime import datetime

    from model_organisms.records import Page, Receipt, User

    from model_organisms_registry.domain.permits import Call
    from model_organisms_registry.gate.gate import Gate
    from model_organisms_registry.storage.authority import Authority
    from model_organisms_registry.storage.contents import Contents
    from model_organisms_registry.workflows.changes import Changes


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where clients call, as tickets tell them."""

    registry: str
    enrol: str


class Identity:
    """Accounts and certificates.

    Args:
        changes: Opens transactions.
        gate: Decides who may.
        authority: Issues certificates.
        addresses: Where clients call.
        contents: Where reasons are kept, encrypted.
        suspended: Told the name of a user who was stopped, so that what they run ends.
        rekeyed: Told the name of a user whose lost keys were replaced, likewise.
    """

    def __init__(
        self,
        changes: Changes,
        gate: Gate,
        authority: Authority,
        addresses: Addresses,
        *,
        contents: Contents,
        suspended: Callable[[str, datetime], None],
        rekeyed: Callable[[str, datetime], None],
    ) -> None:
        """Keep what the steps need."""
        self._changes = changes
        self._gate = gate
        self._authority = authority
        self._addresses = addresses
        self._contents = contents
        self._suspended = suspended
        self._ended = rekeyed

    def invite(
        self, call: Call, name: str, *, display_name: str, organisation: str, roles: Iterable[Role]
    ) -> tuple[User, Ticket, datetime, Receipt]:
        """Make an account, and the ticket by which its owner enrols.

        For an account that still waits for its owner, a new ticket; the one before is void.

        Raises:
            Denied: It would make a reviewer or an admin, and there are two admins to agree on that.
        """
        permit = self._gate.permit(call, Action.MANAGE_USERS, entities.account(name))
        user = rules.invite(name, display_name=display_name, organisation=organisation, roles=roles, now=call.time)
        with self._changes.open() as change:
            admins = accounts.counted_admins(change.tx, suspended_since=call.time - rules.ADMIN_COUNTS_ON)
            alone = rules.appointed_alone(user, admins=admins)
            code, invitation = appointing.invited(change, call, user, permit, alone=alone)
        return user, self.ticket(code), invitation.expire_time, change.receipt

    def ticket(self, code: str) -> Ticket:
        """What carries a code to its user."""
        return Ticket(self._addresses.registry, self._addresses.enrol, self._authority.pem.decode(), code)

    def enrol(
        self, code: str, *, request: bytes, identity_key: bytes, sealing_key: bytes, proof: bytes, now: datetime
    ) -> tuple[User, bytes, datetime, Receipt]:
        """Trade a code for a certificate.

        1. The newcomer holds the key they show: it signed the code, the TLS key and the sealing key.
        2. The code is spent, the account gets its keys, and the entry is written, together.
        3. The certificate is issued for what is now in the account. Where its keys replace lost ones, no earlier certificate is
           good any more, what runs ends, and signatures by the lost key count no more.
        """
        check_proof(identity_key, proof, enrolment_statement(code, request, sealing_key))
        _, not_after = rules.certificate_times(now)
        with self._changes.open() as change:
            name, lost = accounts.use_enrolment(change.tx, rules.code_hash(code), now)
            found = accounts.user(change.tx, name, lock=True)
            user = rules.enrol(found, replaces=lost, identity_key=identity_key, sealing_key=sealing_key)
            accounts.change_user(change.tx, user, expected=found)
            certificate, facts = self._certified(user, request, now, not_after)
            facts |= {"replaces": lost} if lost else {}
            change.enter(entry(Event.ENROL, None, time=now, seq=seq(), subject=user.name, facts=facts))
        if lost:
            self._ended(name, now)
        return user, certificate, not_after, change.receipt

    def rotate(
        self, call: Call, *, request: bytes, identity_key: bytes, sealing_key: bytes, proofs: tuple[bytes, bytes]
    ) -> tuple[User, bytes, datetime, Receipt]:
        """Exchange the caller's own keys.

        1. The old identity key and the new one signed the same: user, both identity keys, new sealing key, TLS key.
        2. Keys, certificate and entry are one transaction. Old certificates and signatures of the old key count no more.
        """
        statement = rotation_statement(call.user.name, call.user.identity_key, identity_key, sealing_key, request)
        for key, proof in zip((call.user.identity_key, identity_key), proofs, strict=True):
            check_proof(key, proof, statement)
        _, not_after = rules.certificate_times(call.time)
        with self._changes.open() as change:
            found = rules.admitted(accounts.user(change.tx, call.user.name, lock=True), key=call.key_id, denied=False)
            user = rules.rotate(found, identity_key=identity_key, sealing_key=sealing_key)
            accounts.change_user(change.tx, user, expected=found)
            certificate, facts = self._certified(user, request, call.time, not_after)
            facts |= {"replaces": call.key_id}
            change.enter(entry(Event.ROTATE, call, seq=seq(), subject=user.name, facts=facts))
        return user, certificate, not_after, change.receipt

    def _certified(self, user: User, request: bytes, now: datetime, not_after: datetime) -> tuple[bytes, dict[str, str]]:
        """Issue a certificate for new keys, and say what the ledger says of both."""
        certificate = self._issue(user, request, now, not_after)
        return certificate, {
            "identity_key": key_id(user.identity_key),
            "sealing_key": key_id(user.sealing_key),
            "certificate": self._authority.read_client(certificate).thumbprint,
            "expires": not_after.isoformat(timespec="seconds"),
        }

    def renew(self, call: Call, *, request: bytes, proof: bytes) -> tuple[bytes, datetime, Receipt]:
        """Issue a fresh certificate to an account that stands."""
        check_proof(call.user.identity_key, proof, renewal_statement(request))
        return self._renewed(call.user, request, call.time, call)

    def readmit(self, name: str, *, request: bytes, proof: bytes, now: datetime) -> tuple[bytes, datetime, Receipt]:
        """Issue a fresh certificate to somebody whose last one has ended, and who can show only their identity key.

        Raises:
            Unauthenticated: There is no such account, it was never enrolled, or its key did not sign this: the three read alike.
            Suspended: It does not stand.
        """
        with self._changes.database.read() as tx:
            try:
                user = accounts.user(tx, name)
            except NotFound:
                raise _unproved() from None
        check_proof(user.identity_key, proof, renewal_statement(request))
        return self._renewed(rules.standing(user), request, now, None)

    def _renewed(self, user: User, request: bytes, now: datetime, call: Call | None) -> tuple[bytes, datetime, Receipt]:
        _, not_after = rules.certificate_times(now)
        certificate = self._issue(user, request, now, not_after)
        facts = {
            "certificate": self._authority.read_client(certificate).thumbprint,
            "expires": not_after.isoformat(timespec="seconds"),
        }
        event = entry(Event.CERTIFICATE, call, time=None if call else now, seq=seq(), subject=user.name, facts=facts)
        return certificate, not_after, self._changes.enter(event)

    def get(self, call: Call, name: str) -> User:
        """Read an account: one's own, or any for those who oversee."""
        self._gate.permit(call, Action.VIEW_USERS, entities.account(name))
        with self._changes.database.read() as tx:
            return accounts.user(tx, names.check("user", name))

    def list(self, call: Call, *, page_size: int, page_token: str) -> Page[User]:
        """List accounts."""
        self._gate.permit(call, Action.VIEW_USERS, entities.registry())
        with self._changes.database.read() as tx:
            return accounts.users(tx, page_size=page_size, page_token=page_token)

    def suspend(self, call: Call, name: str, *, reason: str) -> tuple[User, Receipt]:
        """Stop an account: its next call is refused, and its sessions end."""
        reason = plain(reason, "reason", limit=REASON_LIMIT)
        permit = self._gate.permit(call, Action.MANAGE_USERS, entities.account(name))
        with self._changes.open() as change:
            others = accounts.other_active_admins(change.tx, name)
            found = accounts.user(change.tx, name, lock=True)
            user = rules.suspend(found, by=call.user, other_active_admins=others)
            accounts.change_user(change.tx, user, expected=found, suspend_time=call.time)
            commit = change.commit(self._contents, name, reason)
            change.enter(entry(Event.SUSPEND, call, seq=seq(), subject=name, permit=permit, commit=commit))
        self._suspended(name, call.time)
        return user, change.receipt

    def reinstate(self, call: Call, name: str, *, reason: str) -> tuple[User, Receipt]:
        """Let a stopped account stand again."""
        reason = plain(reason, "reason", limit=REASON_LIMIT)
        permit = self._gate.permit(call, Action.MANAGE_USERS, entities.account(name))
        with self._changes.open() as change:
            found = accounts.user(change.tx, name, lock=True)
            user = rules.reinstate(found, by=call.user)
            accounts.change_user(change.tx, user, expected=found)
            commit = change.commit(self._contents, name, reason)
            change.enter(entry(Event.REINSTATE, call, seq=seq(), subject=name, permit=permit, commit=commit))
        return user, change.receipt

    def deny_certificate(self, call: Call, thumbprint: str, *, reason: str) -> Receipt:
        """Refuse one certificate from now on, in calls that are under way too; its owner gets another by their identity key."""
        reason = plain(reason, "reason", limit=REASON_LIMIT)
        permit = self._gate.permit(call, Action.DENY_CERTIFICATE, entities.registry())
        with self._changes.open() as change:
            accounts.deny_certificate(change.tx, thumbprint, reason, call.time)
            commit, facts = change.commit(self._contents, call.user.name, reason), {"certificate": thumbprint}
            change.enter(
                entry(Event.DENY_CERTIFICATE, call, seq=seq(), subject="registry", permit=permit, commit=commit, facts=facts)
            )
        return change.receipt

    def _issue(self, user: User, request: bytes, now: datetime, not_after: datetime) -> bytes:
        return self._authority.client_certificate(
            request, user=user.name, key_id=key_id(user.identity_key), now=now, not_after=not_after
        )


def first_admin(changes: Changes, *, now: datetime) -> str:
    """Make the first account of an empty registry.

    Returns:
        Its enrolment code.
    """
    name = "users/admin"
    user = rules.invite(name, display_name="First admin", organisation="organisations/registry", roles=[Role.ADMIN], now=now)
    code = rules.print_code(secrets.token_bytes(rules.CODE_ENTROPY_BYTES))
    invitation = rules.hand_out(user, code, now=now)
    with changes.open() as change:
        accounts.add_user(change.tx, user)
        accounts.add_enrolment(change.tx, invitation.code_hash, name, invitation.expire_time)
        facts = {"organisation": user.organisation, "roles": ",".join(sorted(user.roles))}
        change.enter(entry(Event.INVITE, None, time=now, seq=seq(), subject=name, facts=facts))
    return code


def check_proof(key: bytes, proof: bytes, statement: bytes) -> None:
    """Check that whoever enrols or renews holds the identity key.

    Raises:
        Unauthenticated: It did not sign the statement.
    """
    if not ed25519.verifies(key, proof, statement):
        raise _unproved()


def _unproved() -> Unauthenticated:
    return Unauthenticated("The identity key of this account did not sign this request; run `mo login` with a new ticket.")
