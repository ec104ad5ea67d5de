"""`mo.connect()` and the client it gives: one connection, one person, five words."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Self

from model_organisms.client import keys, oidc, rotating
from model_organisms.client.access import Access
from model_organisms.client.audit import Audit
from model_organisms.client.channel import Channel, enrol, enrol_with_token, providers
from model_organisms.client.games import Games
from model_organisms.client.identity import Users
from model_organisms.client.locking import Lock
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
        games: Blind audits under aliases.
    """

    def __init__(self, channel: Channel, pin: Path | None) -> None:
        """Make the five words over one channel."""
        self._channel = channel
        self.audit = Audit(channel, pin)
        channel.before_change = self.audit.recognise
        self.users = Users(channel, self.audit)
        self.organisms = Organisms(channel, self.audit, self.users)
        self.access = Access(channel, self.audit)
        self.sandbox = Sandbox(channel, self.audit, self.organisms)
        self.motions = Motions(channel, self.audit)
        self.games = Games(channel, self.audit, self.sandbox, self.motions)

    @property
    def identity(self) -> keys.Identity:
        """Who calls."""
        return self._channel.identity

    def rotate(self, path: Path) -> keys.Identity:
        """Exchange the caller's keys; `rotate_keys` does it whole. This client is of no more use then."""
        return rotating.rotate(self._channel, self.audit, path)

    def close(self) -> None:
        """Hang up."""
        self._channel.close()

    def __enter__(self) -> Self:
        """Use the client."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Hang up."""
        self.close()


def connect(
    identity: str | Path | None = None,
    *,
    passphrase: keys.Passphrase | None = None,
    timeout_s: float = DEFAULT_TIMEOUT_S,
) -> Client:
    """Connect to the registry one is enrolled at.

    Args:
        identity: Identity file; where absent, `MODEL_ORGANISMS_IDENTITY` or the one `mo login` wrote.
        passphrase: Opens the file if it is locked, or is called to ask for it; where absent, `MODEL_ORGANISMS_PASSPHRASE`.
        timeout_s: Deadline of each ordinary call, in seconds.

    Returns:
        A client. Nothing but a nearly ended certificate makes it call before its first use.

    Raises:
        ConfigurationInvalid: There is no usable identity; run `mo login`.
        PassphraseRefused: It is locked, and there is no passphrase, or another one.
        CertificateRefused: The certificate has ended.
    """
    path = Path(identity) if identity else keys.default_path()
    return _connected(keys.read(path, passphrase), path, timeout_s)


def rotate_keys(
    identity: str | Path | None = None,
    *,
    passphrase: keys.Passphrase | None = None,
    timeout_s: float = DEFAULT_TIMEOUT_S,
) -> Client:
    """Exchange one's identity and sealing keys, by the old and the new, or finish an exchange whose answer was lost.

    Grants stay. What one signed for others' pending requests and motions counts no more, and capsules pulled before open with the
    old keys only.

    Args:
        identity: Identity file, as for `connect`; it has the new keys then, under the same passphrase.
        passphrase: As for `connect`.
        timeout_s: Deadline of each call, in seconds.

    Returns:
        A client of the same person with the new keys.

    Raises:
        ModelOrganismsError: The registry refused, and the old keys stay; or it did not answer: call this again, which finds out.
    """
    path = Path(identity) if identity else keys.default_path()
    held = keys.read(path, passphrase)
    fresh = rotating.resume(path, held, timeout_s=timeout_s)
    if fresh is None:
        with _connected(held, path, timeout_s) as client:
            fresh = client.rotate(path)
    return _connected(fresh, path, timeout_s)


def _connected(identity: keys.Identity, path: Path, timeout_s: float) -> Client:
    return Client(Channel.open(identity, path, timeout_s=timeout_s), path.with_suffix(".checkpoint"))


def login(
    ticket: str,
    identity: str | Path | None = None,
    *,
    passphrase: str = "",
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
        passphrase: Locks the file, or opens the locked one that is there; without one, whoever reads the file has the keys.
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
    lock = Lock.of(passphrase) if passphrase else None
    if given.code and not (token or issuer):
        made = enrol(given)
    else:
        known = _known_at(path, given, passphrase)
        fresh, lock = _fresh(known), lock or (known.lock if known else None)
        if token:
            made = enrol_with_token(given, lambda _: token, fresh=fresh)
        else:
            chosen = oidc.choose(providers(given), issuer)
            made = enrol_with_token(given, lambda nonce: oidc.sign_in(chosen, nonce, tell=tell), fresh=fresh)
    made = replace(made, lock=lock)
    keys.write(made, path)
    return _connected(made, path, DEFAULT_TIMEOUT_S)


def _known_at(path: Path, ticket: Ticket, passphrase: str) -> keys.Identity | None:
    """The identity that lies there, if it is one at the registry of the ticket."""
    known = keys.read(path, passphrase or None) if path.exists() else None
    return known if known is not None and known.authority == ticket.authority.encode() else None


def _fresh(known: keys.Identity | None) -> keys.FreshKeys:
    """Keys to enrol by token: those of an identity that is there, under a fresh TLS key; else all are new."""
    fresh = keys.FreshKeys.generate()
    if known is None:
        return fresh
    return replace(fresh, signer=known.signer, sealing_seed=known.sealing_seed, sealing_key=known.sealing_key)
