"""`mo.connect()` and the client it gives: one connection, one person, five words."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Self

from model_organisms.client import keys
from model_organisms.client.access import Access
from model_organisms.client.audit import Audit
from model_organisms.client.channel import Channel, enrol
from model_organisms.client.identity import Users
from model_organisms.client.motions import Motions
from model_organisms.client.organisms import Organisms
from model_organisms.client.sandbox import Sandbox
from model_organisms.formats.enrolment import Ticket

if TYPE_CHECKING:
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


def login(ticket: str, identity: str | Path | None = None) -> Client:
    """Enrol with an admin's ticket: make keys here, get a certificate, write the identity file.

    Args:
        ticket: The text an admin handed over; it begins with `mo1.`.
        identity: Where to write the identity file.

    Returns:
        A client of the new person.

    Raises:
        EnrolmentRefused: The ticket is not whole, wrong, used or expired.
    """
    path = Path(identity) if identity else keys.default_path()
    keys.write(enrol(Ticket.parse(ticket)), path)
    return connect(path)
