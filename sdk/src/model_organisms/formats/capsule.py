r"""Prints and opens the head of a capsule: a bundle sealed to one recipient. Whether someone may have one is the gate's to say.

    magic "MOCAP\0\1\n" | u32be length | header (canonical JSON) | Ed25519 signature of the header, over its DSSE encoding
          | HPKE enc (1,120 bytes) | wrapped body key (48 bytes) | body (`streaming.py`)

HPKE is RFC 9180 base mode with X-Wing (ML-KEM-768 + X25519, KEM 0x647A), HKDF-SHA256 and ChaCha20-Poly1305; its info is
`INFO || SHA-256(everything before enc)`, so a header cannot be moved to another wrapped key.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from model_organisms import names
from model_organisms.errors import CapsuleInvalid, InvalidArgument
from model_organisms.formats import dsse, ed25519, strict_json
from model_organisms.formats.buffers import anonymous
from model_organisms.formats.sealing_keys import OVERHEAD, generate_sealing_key, open_key, seal_key, sealing_public
from model_organisms.formats.streaming import KEY_BYTES, PREFIX_BYTES, REFUSAL, SALT_BYTES, Layout, Receiver
from model_organisms.records import Level

if TYPE_CHECKING:
    import mmap

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from typing_extensions import Buffer

__all__ = [
    "BodySecrets",
    "CapsuleHeader",
    "body_associated_data",
    "body_receiver",
    "body_secrets",
    "commit_key",
    "generate_sealing_key",
    "head_length",
    "open_body",
    "open_bound",
    "open_head",
    "seal_head",
]

MAGIC = b"MOCAP\0\1\n"
MAX_HEADER = 16 << 10
PAYLOAD_TYPE = "application/vnd.model-organisms.capsule.v1+json"
INFO = b"model-organisms/capsule/v1\0"
SKEW = timedelta(minutes=5)
"""How far the clocks of registry and recipient may differ when a fresh capsule arrives."""

_SIGNATURE = 64
_WRAPPED = KEY_BYTES + OVERHEAD
_MAX_ORIGIN = 255
_MAX_PLAIN = 1 << 40
_TIME = "%Y-%m-%dT%H:%M:%SZ"


@dataclass(frozen=True, slots=True)
class CapsuleHeader:
    """What a capsule says of itself, in clear and signed by the registry's release key. Times count whole seconds."""

    origin: str
    """The registry, as its ledger calls itself."""
    organism: str
    version_digest: str
    level: Level
    grant: str
    pull: str
    plain_size: int
    """Bytes of the opened body."""
    issued: datetime
    not_after: datetime
    fingerprint: str = ""
    """Commitment to the key of the mark, hex; empty where the copy is not marked."""
    recipient_key: str = ""
    """Id of the sealing key it is for; `seal_head` fills it in."""
    key_commitment: str = ""
    """Commitment to the body key, hex; `seal_head` fills it in."""


class BodySecrets(NamedTuple):
    """What a marked body is sealed with; the same for each attempt at one pull."""

    key: bytes
    salt: bytes
    nonce_prefix: bytes


def seal_head(header: CapsuleHeader, body_key: bytes, *, recipient_public: bytes, release_key: Ed25519PrivateKey) -> bytes:
    """Print everything of a capsule that comes before its body.

    Args:
        header: What it shall say; `recipient_key` and `key_commitment` are filled in here.
        body_key: Key of the body, 32 bytes.
        recipient_public: The recipient's enrolled sealing key.
        release_key: The registry's.

    Raises:
        InvalidArgument: A header that no capsule may have, or a key that nothing may be sealed to.
    """
    filled = replace(
        header,
        recipient_key=dsse.key_id(recipient_public),
        key_commitment=commit_key(body_key, header.version_digest),
    )
    _check(filled)
    printed = _print(filled)
    if _parse(printed) != filled:
        msg = "This header cannot be printed and read again; give times in UTC and whole seconds."
        raise InvalidArgument(msg)
    signature = release_key.sign(dsse.pae(printed, PAYLOAD_TYPE))
    before = MAGIC + struct.pack(">I", len(printed)) + printed + signature
    return before + seal_key(body_key, recipient_public, info=_info(before))


def open_head(
    data: Buffer,
    *,
    recipient_private: bytes,
    release_public: bytes,
    origin: str,
    version_digest: str,
    grant: str,
    level: Level,
    now: datetime,
    pull: str = "",
    max_plain_size: int = _MAX_PLAIN,
) -> tuple[CapsuleHeader, bytes, int]:
    """Check a capsule's head, then open it. The body's segments authenticate themselves as they are received.

    Steps: 1. shape, 2. the release key's signature, 3. the header's own form, 4. that it is what was asked for, by this key,
    within its time, 5. decapsulation, 6. the key is the committed one. Nothing is decapsulated before 1 to 4 hold.

    Args:
        data: The head, or more.
        recipient_private: Seed of the recipient's sealing key, 32 bytes.
        release_public: The registry's release key, raw, as pinned at enrolment.
        origin: The registry asked.
        version_digest: The version asked for.
        grant: The grant it was asked under.
        level: The version's level as the caller knows it; a capsule may say a higher one, never a lower.
        now: The time.
        pull: The pull's name, where it is known beforehand.
        max_plain_size: Most bytes the caller will take.

    Returns:
        The header, the body key, and the length of the head, where the body begins.

    Raises:
        CapsuleInvalid: Any of it is not so; the message never says which.
    """
    mine = dsse.key_id(sealing_public(recipient_private))
    view = memoryview(data).cast("B")
    printed, end = _frame(view)
    if not ed25519.verifies(release_public, bytes(view[end - _SIGNATURE : end]), dsse.pae(printed, PAYLOAD_TYPE)):
        raise CapsuleInvalid(REFUSAL)
    try:
        header = _parse(printed)
    except (InvalidArgument, ValueError):
        raise CapsuleInvalid(REFUSAL) from None
    expected = (origin, version_digest, grant, pull or header.pull, mine)
    if (header.origin, header.version_digest, header.grant, header.pull, header.recipient_key) != expected:
        raise CapsuleInvalid(REFUSAL)
    if header.level < level or header.plain_size > max_plain_size or not header.issued - SKEW <= now < header.not_after:
        raise CapsuleInvalid(REFUSAL)
    body_key = open_key(bytes(view[end : end + _WRAPPED]), recipient_private, info=_info(bytes(view[:end])))
    if not hmac.compare_digest(header.key_commitment, commit_key(body_key, version_digest)):
        raise CapsuleInvalid(REFUSAL)
    return header, body_key, end + _WRAPPED


def head_length(data: Buffer) -> int | None:
    """Tell how long the head is whose first bytes these are; nothing while there are too few to tell.

    Raises:
        CapsuleInvalid: No capsule begins so.
    """
    view = memoryview(data).cast("B")
    start = bytes(view[: len(MAGIC)])
    if not MAGIC.startswith(start):
        raise CapsuleInvalid(REFUSAL)
    if len(view) < len(MAGIC) + 4:
        return None
    (length,) = struct.unpack_from(">I", view, len(MAGIC))
    if length > MAX_HEADER:
        raise CapsuleInvalid(REFUSAL)
    return len(MAGIC) + 4 + int(length) + _SIGNATURE + _WRAPPED


def commit_key(body_key: bytes, version_digest: str) -> str:
    """Commit to a body key, so that one body cannot be made to open to two plaintexts under two keys."""
    if len(body_key) != KEY_BYTES or not _is_hex(version_digest, 64):
        raise _malformed(f"a body key has {KEY_BYTES} bytes, and a version's digest 64 hex digits")
    return hashlib.sha256(b"model-organisms/capsule-key/v1\0" + body_key + bytes.fromhex(version_digest)).hexdigest()


def body_associated_data(header: CapsuleHeader) -> bytes:
    """Say what the body is bound to: the version, and the pull where the copy is marked."""
    return bytes.fromhex(header.version_digest) + (header.pull.encode() if header.fingerprint else b"")


def body_secrets(pull_secret: bytes, *, plaintext_id: bytes) -> BodySecrets:
    """Derive what a marked body is sealed with, so that an interrupted pull can be sealed again from where it was cut.

    Args:
        pull_secret: 32 random bytes kept for this pull alone.
        plaintext_id: SHA-256 of what marking changed. Marks are computed in floating point: should another machine round
            otherwise, it also seals otherwise, and no two plaintexts ever meet under one key.
    """
    length = KEY_BYTES + SALT_BYTES + PREFIX_BYTES
    derived = HKDF(algorithm=SHA256(), length=length, salt=plaintext_id, info=INFO + b"body").derive(pull_secret)
    return BodySecrets(derived[:KEY_BYTES], derived[KEY_BYTES:-PREFIX_BYTES], derived[-PREFIX_BYTES:])


def body_receiver(header: CapsuleHeader, body_key: bytes, out: Buffer) -> Receiver:
    """Make ready to receive the body into `out`, which has `header.plain_size` bytes."""
    return Receiver(body_key, body_associated_data(header), memoryview(out).cast("B")[: header.plain_size])


def open_body(header: CapsuleHeader, body_key: bytes, body: Buffer) -> mmap.mmap:
    """Open a body that is all there, into anonymous memory.

    Raises:
        CapsuleInvalid: It is not this header's body, or not all of it, or followed by something else.
    """
    return open_bound(body, body_key, bound_to=body_associated_data(header), plain_size=header.plain_size)


def open_bound(body: Buffer, body_key: bytes, *, bound_to: bytes, plain_size: int) -> mmap.mmap:
    """Open a body without its header, where who checked the header says what it is bound to.

    Args:
        body: All of it.
        body_key: From the head, 32 bytes.
        bound_to: `body_associated_data` of the header.
        plain_size: Bytes of the opened body, as the header says.

    Raises:
        CapsuleInvalid: As for `open_body`.
    """
    view = memoryview(body).cast("B")
    if len(view) != Layout(plain_size).sealed_size:  # before any memory is taken on the header's word
        raise CapsuleInvalid(REFUSAL)
    memory = anonymous(plain_size)
    receiver = Receiver(body_key, bound_to, memoryview(memory)[:plain_size])
    receiver.feed(view)
    receiver.finish()
    return memory


def _frame(view: memoryview) -> tuple[bytes, int]:
    """Cut the header out, and say where the signature ends."""
    start = len(MAGIC) + 4
    length = head_length(view)
    if length is None or len(view) < length:
        raise CapsuleInvalid(REFUSAL)
    end = length - _WRAPPED
    return bytes(view[start : end - _SIGNATURE]), end


def _print(header: CapsuleHeader) -> bytes:
    fields = {name: getattr(header, name) for name in CapsuleHeader.__dataclass_fields__}
    fields |= {"level": header.level.name, "issued": _time(header.issued), "not_after": _time(header.not_after)}
    return strict_json.canonical(fields)


def _parse(printed: bytes) -> CapsuleHeader:
    fields = strict_json.parse(printed, what="The capsule's header", limit=MAX_HEADER, error=InvalidArgument)
    if not isinstance(fields, dict) or set(fields) != set(CapsuleHeader.__dataclass_fields__):
        raise _malformed("its fields are not those of this format")
    numbers = {"plain_size"}
    if any(type(value) is not (int if name in numbers else str) for name, value in fields.items()):
        raise _malformed("a field has the wrong type")
    if fields["level"] not in Level.__members__:
        raise _malformed("its level is unknown")
    fields |= {
        "level": Level[fields["level"]],
        "issued": _read_time(fields["issued"]),
        "not_after": _read_time(fields["not_after"]),
    }
    header = CapsuleHeader(**fields)
    _check(header)
    if _print(header) != printed:
        raise _malformed("it is not canonical")
    return header


def _check(header: CapsuleHeader) -> None:
    """Refuse a header that no capsule may have, whoever signed it."""
    names.check("organism", header.organism)
    names.check("grant", header.grant)
    names.check("pull", header.pull)
    if not header.origin.isascii() or not header.origin.isprintable() or not 0 < len(header.origin) <= _MAX_ORIGIN:
        raise _malformed(f"an origin is 1 to {_MAX_ORIGIN} printable ASCII characters")
    if header.level >= Level.CL4:
        raise _malformed("CL4 is never pulled")
    if not _is_hex(header.version_digest, 64) or not _is_hex(header.key_commitment, 64) or not _is_hex(header.recipient_key, 16):
        raise _malformed("digests, commitments and key ids are lower-case hex of full length")
    if header.fingerprint and not _is_hex(header.fingerprint, 64):
        raise _malformed("a fingerprint commitment is 64 hex digits")
    if header.issued.tzinfo is None or header.not_after.tzinfo is None:
        raise _malformed("a time has no zone; give times in UTC")
    if not header.issued < header.not_after:
        raise _malformed("it is out of date when issued")
    if header.plain_size > _MAX_PLAIN:
        raise _malformed(f"a bundle has at most {_MAX_PLAIN} bytes")
    Layout(header.plain_size)


def _malformed(why: str) -> InvalidArgument:
    return InvalidArgument(f"This is no header of a capsule: {why}.")


def _is_hex(text: str, length: int) -> bool:
    return len(text) == length and set(text) <= set("0123456789abcdef")


def _time(value: datetime) -> str:
    return value.astimezone(UTC).strftime(_TIME)


def _read_time(text: str) -> datetime:
    return datetime.strptime(text, _TIME).replace(tzinfo=UTC)


def _info(before: bytes) -> bytes:
    return INFO + hashlib.sha256(before).digest()
