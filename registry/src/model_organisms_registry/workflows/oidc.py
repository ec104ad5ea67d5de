"""How people and services come from an identity provider: a token is traded for a certificate. Rules: `domain/oidc.py`."""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING

from model_organisms.errors import AlreadyExists, EnrolmentRefused
from model_organisms.formats.dsse import key_id
from model_organisms.formats.enrolment import token_nonce, token_statement

from model_organisms_registry.domain import identity as rules
from model_organisms_registry.domain import oidc
from model_organisms_registry.domain.audit import Event, entry
from model_organisms_registry.storage.catalog import identity as accounts
from model_organisms_registry.storage.catalog import oidc as subjects
from model_organisms_registry.workflows.changes import seq
from model_organisms_registry.workflows.identity import check_proof

if TYPE_CHECKING:
    from datetime import datetime

    from model_organisms.records import Receipt, User

    from model_organisms_registry.config import Issuer
    from model_organisms_registry.domain.oidc import Token
    from model_organisms_registry.issuers import Issuers
    from model_organisms_registry.storage.authority import Authority
    from model_organisms_registry.workflows.changes import Change, Changes


class Oidc:
    """Enrolment by token.

    Args:
        changes: Opens transactions.
        authority: Issues certificates.
        issuers: Verifies tokens.
    """

    def __init__(self, changes: Changes, authority: Authority, issuers: Issuers) -> None:
        """Keep what the steps need."""
        self._changes = changes
        self._authority = authority
        self._issuers = issuers

    def providers(self) -> list[Issuer]:
        """Where people can get a token."""
        return [issuer for issuer in self._issuers.all if issuer.kind == "person"]

    def enrol(
        self, text: str, *, request: bytes, identity_key: bytes, sealing_key: bytes, proof: bytes, now: datetime
    ) -> tuple[User, bytes, datetime, Receipt]:
        """Trade a token for a certificate.

        1. The newcomer holds the key they show: it signed the token, the TLS key and the sealing key.
        2. The token is good, and bound to these keys.
        3. It is spent, its account is found or made and gets the keys, and the entries are written, together.
        4. The certificate is issued for what is now in the account.
        """
        check_proof(identity_key, proof, token_statement(text, request, sealing_key))
        nonce = token_nonce(request, identity_key, sealing_key)
        token, issuer = self._issuers.verify(text, nonce=nonce, now=now)
        _, not_after = rules.certificate_times(now)
        with self._changes.open() as change:
            subjects.spend_token(change.tx, token.digest, until=oidc.remembered_until(issuer, now), now=now)
            origin = {"issuer": issuer.issuer, "subject": sha256(token.claims["sub"].encode()).hexdigest()}
            found = self._account(change, token, issuer, origin, now)
            user = rules.enrol_again(found, identity_key=identity_key, sealing_key=sealing_key)
            certificate, facts = self._certified(user, request, now, not_after)
            if user != found:
                facts |= self._rekeyed(change, found, user)
            event = Event.CERTIFICATE if user == found else Event.ENROL
            change.enter(entry(event, None, time=now, seq=seq(), subject=user.name, facts=origin | facts))
        return user, certificate, not_after, change.receipt

    def _certified(self, user: User, request: bytes, now: datetime, not_after: datetime) -> tuple[bytes, dict[str, str]]:
        """Issue a certificate, and say what the ledger says of it."""
        key = key_id(user.identity_key)
        certificate = self._authority.client_certificate(request, user=user.name, key_id=key, now=now, not_after=not_after)
        thumbprint = self._authority.read_client(certificate).thumbprint
        return certificate, {"certificate": thumbprint, "expires": not_after.isoformat(timespec="seconds")}

    @staticmethod
    def _rekeyed(change: Change, found: User, user: User) -> dict[str, str]:
        """Give an account the keys it has now, and say what the ledger says of them."""
        accounts.change_user(change.tx, user, expected=found)
        facts = {"identity_key": key_id(user.identity_key), "sealing_key": key_id(user.sealing_key)}
        return facts | ({"replaces": key_id(found.identity_key)} if found.identity_key else {})

    @staticmethod
    def _account(change: Change, token: Token, issuer: Issuer, origin: dict[str, str], now: datetime) -> User:
        """Find the subject's account, or make it. What the rules say today must still give it one."""
        wanted, subject = oidc.newcomer(token, issuer), token.claims["sub"]
        if name := subjects.user_of(change.tx, issuer.issuer, subject):
            return accounts.user(change.tx, name, lock=True)
        user = rules.invite(
            wanted.name, display_name=wanted.display_name, organisation=wanted.organisation, roles=wanted.roles, now=now
        )
        try:
            accounts.add_user(change.tx, user)
        except AlreadyExists:
            # however it came to be, it is not this subject's: a name is no proof
            msg = f"The name {user.name} is somebody else's account here; ask an admin of this registry for a ticket."
            raise EnrolmentRefused(msg, check="username") from None
        subjects.bind(change.tx, issuer.issuer, subject, user.name)
        facts = origin | {"organisation": user.organisation, "roles": ",".join(sorted(user.roles))}
        change.enter(entry(Event.INVITE, None, time=now, seq=seq(), subject=user.name, facts=facts))
        return user
