"""Signatures of webhooks as Standard Webhooks has them (standardwebhooks.com): what a receiver checks before it reads a body.

    webhook-id           names the message; a message that is sent again has the same
    webhook-timestamp    seconds since 1970, of this attempt
    webhook-signature    v1,base64(HMAC-SHA256(key, id "." timestamp "." body)); several, spaced, while a key is changed
    secret               whsec_base64(key), a key of 24 to 64 bytes

A receiver that keeps the ids it has seen reads each message once; one that looks at the timestamp reads no recording.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from model_organisms.errors import ConfigurationInvalid, SignatureInvalid

if TYPE_CHECKING:
    from collections.abc import Mapping

ID, TIMESTAMP, SIGNATURE = "webhook-id", "webhook-timestamp", "webhook-signature"
TOLERANCE = timedelta(minutes=5)
"""How far the clocks of sender and receiver may be apart."""
_PREFIX = "whsec_"
_SHORTEST, _LONGEST = 24, 64
_SECONDS = re.compile(r"[1-9][0-9]{0,11}", re.ASCII)


def parse_secret(text: str) -> bytes:
    """Read a shared secret.

    Raises:
        ConfigurationInvalid: It is none, or too short to be one.
    """
    try:
        key = base64.b64decode(text.strip().removeprefix(_PREFIX).encode("ascii"), validate=True)
    except ValueError:
        key = b""
    if not text.strip().startswith(_PREFIX) or not _SHORTEST <= len(key) <= _LONGEST:
        msg = f"A webhook's secret is {_PREFIX} and the base64 of {_SHORTEST} to {_LONGEST} random bytes."
        raise ConfigurationInvalid(msg)
    return key


def print_secret(key: bytes) -> str:
    """Print a shared secret, as its receiver's software takes it too."""
    return _PREFIX + base64.b64encode(key).decode()


def sign(body: bytes, *, identifier: str, time: datetime, key: bytes) -> dict[str, str]:
    """Make the three headers of one attempt."""
    seconds = str(int(time.timestamp()))
    return {ID: identifier, TIMESTAMP: seconds, SIGNATURE: f"v1,{_mac(key, identifier, seconds, body)}"}


def verify(headers: Mapping[str, str], body: bytes, *, key: bytes, now: datetime) -> str:
    """Check a message, for a receiver.

    Args:
        headers: As they came, by names in lower case.
        body: The bytes as they came.
        key: The shared secret's key.
        now: The receiver's time.

    Returns:
        The message's id, by which a receiver knows one that is sent again.

    Raises:
        SignatureInvalid: It is not of the sender who has the key, was changed, or is older or newer than the tolerance.
    """
    identifier, seconds, given = (headers.get(name, "") for name in (ID, TIMESTAMP, SIGNATURE))
    if not identifier or not _SECONDS.fullmatch(seconds):
        raise SignatureInvalid("The webhook has no id or no timestamp; drop it.")
    wanted = f"v1,{_mac(key, identifier, seconds, body)}".encode()
    if not any(hmac.compare_digest(wanted, one.encode()) for one in given.split(" ")):
        raise SignatureInvalid("The webhook is not signed with this secret; drop it.")
    if abs(now - datetime.fromtimestamp(int(seconds), UTC)) > TOLERANCE:
        raise SignatureInvalid("The webhook was signed at another time; set the clock, or drop it as a recording.")
    return identifier


def _mac(key: bytes, identifier: str, seconds: str, body: bytes) -> str:
    signed = b".".join((identifier.encode(), seconds.encode(), body))
    return base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()
