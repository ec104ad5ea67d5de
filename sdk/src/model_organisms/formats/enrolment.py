"""What passes between a registry and a newcomer: a ticket, and the statements by which new keys prove themselves."""

from __future__ import annotations

import base64
import json
from dataclasses import asdict, dataclass, fields
from hashlib import sha256

from model_organisms.errors import EnrolmentRefused
from model_organisms.formats import strict_json

_TICKET = "mo1."
_MOST_BYTES = 16 << 10


@dataclass(frozen=True, slots=True)
class Ticket:
    """What a new user is handed: where to go, whom to trust there, and a code that works once.

    A public ticket has no code: whoever holds it proves who they are by a token of an identity provider.
    """

    registry: str
    enrol: str
    authority: str
    code: str

    def __str__(self) -> str:
        """Print it as one word to paste."""
        data = json.dumps(asdict(self), separators=(",", ":")).encode()
        return _TICKET + base64.urlsafe_b64encode(data).decode().rstrip("=")

    @classmethod
    def parse(cls, text: str) -> Ticket:
        """Read a pasted ticket.

        Raises:
            EnrolmentRefused: It is not a whole ticket.
        """
        from cryptography import x509  # needed once in a person's life, and slow to import

        body = "".join(text.split()).removeprefix(_TICKET)
        try:
            data = base64.b64decode(body + "=" * (-len(body) % 4), altchars=b"-_", validate=True)
            values = strict_json.parse(data, what="The ticket", limit=_MOST_BYTES, error=EnrolmentRefused)
            ticket = cls(**values)
            x509.load_pem_x509_certificate(ticket.authority.encode())
        except (ValueError, TypeError, AttributeError, EnrolmentRefused) as error:
            raise EnrolmentRefused("This is not a whole enrolment ticket; paste all of it, it begins with 'mo1.'.") from error
        if not all(isinstance(getattr(ticket, item.name), str) for item in fields(cls)):
            raise EnrolmentRefused("This is not an enrolment ticket; paste the one that an admin of the registry handed you.")
        return ticket


def enrolment_statement(code: str, certificate_request: bytes, sealing_key: bytes) -> bytes:
    """What an identity key signs at enrolment: it binds the code, the TLS key and the sealing key together.

    Args:
        code: The one-time code, ASCII.
        certificate_request: PKCS#10, DER.
        sealing_key: X-Wing public key, 1,216 bytes.

    Returns:
        The bytes to sign.
    """
    parts = (code.encode(), certificate_request, sealing_key)
    return b"model-organisms/enrol/v1\0" + b"".join(sha256(part).digest() for part in parts)


def renewal_statement(certificate_request: bytes) -> bytes:
    """What an identity key signs to renew its certificate."""
    return b"model-organisms/renew/v1\0" + sha256(certificate_request).digest()


def token_statement(token: str, certificate_request: bytes, sealing_key: bytes) -> bytes:
    """What an identity key signs to enrol by a token: `enrolment_statement`, with the token in the place of the code.

    Args:
        token: The JWT, ASCII.
        certificate_request: PKCS#10, DER.
        sealing_key: X-Wing public key, 1,216 bytes.

    Returns:
        The bytes to sign.
    """
    parts = (token.encode(), certificate_request, sealing_key)
    return b"model-organisms/enrol-token/v1\0" + b"".join(sha256(part).digest() for part in parts)


def token_nonce(certificate_request: bytes, identity_key: bytes, sealing_key: bytes) -> str:
    """What a provider is asked to write into an ID token: it binds the token to these keys before there is a token.

    Args:
        certificate_request: PKCS#10, DER.
        identity_key: Raw Ed25519 public key.
        sealing_key: X-Wing public key, 1,216 bytes.

    Returns:
        43 characters of base64url, without padding.
    """
    parts = (certificate_request, identity_key, sealing_key)
    bound = sha256(b"model-organisms/token-nonce/v1\0" + b"".join(sha256(part).digest() for part in parts))
    return base64.urlsafe_b64encode(bound.digest()).decode().rstrip("=")


def rotation_statement(user: str, old_key: bytes, new_key: bytes, sealing_key: bytes, certificate_request: bytes) -> bytes:
    """What the old identity key and the new one both sign when somebody exchanges their keys.

    Args:
        user: Whose keys they are.
        old_key: Raw Ed25519 public key of before.
        new_key: The one that takes its place.
        sealing_key: X-Wing public key that goes with the new one.
        certificate_request: PKCS#10, DER, of a fresh TLS key.

    Returns:
        The bytes to sign.
    """
    parts = (user.encode(), old_key, new_key, sealing_key, certificate_request)
    return b"model-organisms/rotate/v1\0" + b"".join(sha256(part).digest() for part in parts)
