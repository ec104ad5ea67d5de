"""`mo.connect()` and the client it gives: one connection, one person, five words."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Self

from model_organisms.client import keys, oidc
from model_organisms.client.access import Access
from model_organisms.client.audit import Audit
from model_organisms.client.channel import Channel, enrol, enrol_with_token, providers
from model_organisms.client.identity import Users
from model_organisms.client.motions import Motions
from model_organisms.client.organisms import Organisms
from model_organisms.client.sandbox import Sandbox
from model_organisms.formats.enrolment import Ticket

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

DEFAULT_TIMEOUT_S = 30.0


class Client:
    """A person's view of a registry. Safe to share between threads; close it, or use it in a `with` block.

    Attributes:
        organisms: Find, publish, pull.
        access: Ask for access, approve it.
        sandbox: Sample and probe where the weights are.
        audit: Check the ledger.
        users: Accounts.
        motions: Acts that take two people.
    """

    def __init__(self, channel: Channel, pin: Path | None) -> None:
        """Make the five words over one channel."""
        self._channel = channel
        self.audit = Audit(channel, pin)
        channel.before_change = self.audit.recognise
        self.users = Users(channel, self.audit)
        self.organisms = Organisms(channel, self.audit, self.users)
        self.access = Access(channel, self.audit)
        self.sandbox = Sandbox(channel, self.audit)
        self.motions = Motions(channel, self.audit)

    @property
    def identity(self) -> keys.Identity:
        """Who calls."""
        return self._channel.identity

    def close(self) -> None:
        """Hang up."""
        self._channel.close()

    def __enter__(self) -> Self:
        """Use the client."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Hang up."""
        self.close()


def connect(identity: str | Path | None = None, *, timeout_s: float = DEFAULT_TIMEOUT_S) -> Client:
    """Connect to the registry one is enrolled at.

    Args:
        identity: Identity file; where absent, `MODEL_ORGANISMS_IDENTITY` or the one `mo login` wrote.
        timeout_s: Deadline of each ordinary call, in seconds.

    Returns:
        A client. Nothing but a nearly ended certificate makes it call before its first use.

    Raises:
        ConfigurationInvalid: There is no usable identity; run `mo login`.
        CertificateRefused: The certificate has ended.
    """
    path = Path(identity) if identity else keys.default_path()
    channel = Channel.open(keys.read(path), path, timeout_s=timeout_s)
    return Client(channel, path.with_suffix(".checkpoint"))


def login(
    ticket: str,
    identity: str | Path | None = None,
    *,
    issuer: str = "",
    token: str = "",
    tell: Callable[[oidc.Prompt], None] = oidc.show,
) -> Client:
    """Enrol with a ticket: make keys here, get a certificate, write the identity file.

    A ticket with a code is enough. With a public ticket, you log in at an identity provider that the registry trusts, or bring a
    token of one; keys that the identity file holds for this registry are used again.

    Args:
        ticket: The text an admin handed over; it begins with `mo1.`.
        identity: Where to write the identity file.
        issuer: Which identity provider, where the registry trusts several.
        token: A service's token, got elsewhere.
        tell: Shown the page to open and the code to confirm; by default both go to standard error.

    Returns:
        A client of the new person.

    Raises:
        EnrolmentRefused: The ticket or the token is not whole, wrong, used or expired; or nobody confirmed the login.
        Unavailable: The identity provider cannot be reached.
    """
    path, given = Path(identity) if identity else keys.default_path(), Ticket.parse(ticket)
    if given.code and not (token or issuer):
        made = enrol(given)
    elif token:
        made = enrol_with_token(given, lambda _: token, fresh=_keys_at(path, given))
    else:
        chosen = oidc.choose(providers(given), issuer)
        made = enrol_with_token(given, lambda nonce: oidc.sign_in(chosen, nonce, tell=tell), fresh=_keys_at(path, given))
    keys.write(made, path)
    return connect(path)


def _keys_at(path: Path, ticket: Ticket) -> keys.FreshKeys:
    """Keys to enrol by token: those of an identity at the same registry, under a fresh TLS key; else all are new."""
    known = keys.read(path) if path.exists() else None
    if known is None or known.authority != ticket.authority.encode():
        return keys.FreshKeys.generate()
    return replace(keys.FreshKeys.generate(), signer=known.signer, sealing_seed=known.sealing_seed, sealing_key=known.sealing_key)
