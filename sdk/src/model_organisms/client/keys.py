"""A person's keys, in one 0600 file, under a passphrase if they like; nothing else of the SDK writes a secret down.

Two keys are made on this machine and never leave it: Ed25519 to be known and to sign by, X-Wing (ML-KEM-768+X25519) to receive
capsules. A third, for TLS, is P-256 because the TLS library under gRPC takes no Ed25519. The file also pins the registry: its
certificate authority, ledger key, release key, and the newest checkpoint seen.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import ssl
import stat
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from platformdirs import user_config_path

from model_organisms.client.locking import Lock, locked, unlock
from model_organisms.errors import ConfigurationInvalid, PassphraseRefused
from model_organisms.formats.capsule import generate_sealing_key
from model_organisms.formats.dsse import key_id

ENVIRONMENT = "MODEL_ORGANISMS_IDENTITY"
"""Variable that names the identity file, where the default does not suit."""
PASSPHRASE = "MODEL_ORGANISMS_PASSPHRASE"  # noqa: S105 - the name of a variable
"""Variable with the passphrase of a locked file, for programs at which nobody sits."""
Passphrase = str | Callable[[], str]
"""A passphrase, or what asks for it when it is needed."""


@dataclass(frozen=True, slots=True)
class Identity:
    """One person at one registry."""

    user: str
    registry: str
    """Host and port of the main door."""
    authority: bytes
    """Certificate of the registry's authority, PEM."""
    certificate: bytes
    """Client certificate, PEM; short-lived."""
    certificate_expires: datetime
    tls_key: bytes
    """P-256 private key, PEM."""
    identity_seed: bytes
    """Ed25519 seed, 32 bytes."""
    sealing_seed: bytes
    """X-Wing seed, 32 bytes."""
    sealing_key: bytes
    """X-Wing public key, 1,216 bytes."""
    origin: str
    ledger_key: str
    release_key: bytes
    """Raw Ed25519 public key."""
    enrol: str = ""
    """Host and port of the enrolment door, where an ended certificate is renewed."""
    lock: Lock | None = field(default=None, repr=False, compare=False)
    """What its file is sealed by; nothing where the file is open."""

    @property
    def signer(self) -> Ed25519PrivateKey:
        """The key this person signs by."""
        return Ed25519PrivateKey.from_private_bytes(self.identity_seed)

    @property
    def key_id(self) -> str:
        """Id of that key."""
        return key_id(public_bytes(self.signer))

    @property
    def thumbprint(self) -> str:
        """SHA-256 of the certificate, in hex: how it is denied."""
        return hashlib.sha256(ssl.PEM_cert_to_DER_cert(self.certificate.decode())).hexdigest()


@dataclass(frozen=True, slots=True)
class FreshKeys:
    """Keys just made, not yet known to any registry."""

    tls: ec.EllipticCurvePrivateKey
    signer: Ed25519PrivateKey
    sealing_seed: bytes
    sealing_key: bytes

    @classmethod
    def generate(cls) -> FreshKeys:
        """Make all three."""
        seed, public = generate_sealing_key()
        return cls(ec.generate_private_key(ec.SECP256R1()), Ed25519PrivateKey.generate(), seed, public)

    @property
    def tls_pem(self) -> bytes:
        """The TLS key, PEM."""
        encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
        return self.tls.private_bytes(encoding, form, serialization.NoEncryption())


def public_bytes(key: Ed25519PrivateKey) -> bytes:
    """Raw public key of a signer, 32 bytes."""
    return key.public_key().public_bytes_raw()


def certificate_request(key: ec.EllipticCurvePrivateKey) -> bytes:
    """PKCS#10 request (DER) that proves a TLS key; the registry writes the names."""
    from cryptography import x509  # needed at enrolment only, and slow to import
    from cryptography.x509.oid import NameOID

    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "model organisms client")])
    request = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.DER)


def default_path() -> Path:
    """Where the identity lies unless told otherwise."""
    return Path(os.environ.get(ENVIRONMENT) or user_config_path("model-organisms") / "identity.json")


def read(path: Path, passphrase: Passphrase | None = None, *, lock: Lock | None = None) -> Identity:
    """Read an identity file.

    Args:
        path: Where it lies.
        passphrase: Opens it if it is locked; where absent, what the variable `PASSPHRASE` holds.
        lock: Opens it instead, where it was sealed by this lock.

    Raises:
        ConfigurationInvalid: It is missing, readable by others, or not one; the message says what to do.
        PassphraseRefused: It is locked, and there is no passphrase, or another one.
    """
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        raw = json.loads(path.read_text("utf-8"))
    except FileNotFoundError as error:
        msg = f"No identity at {path}; run `mo login TICKET` with the ticket an admin of the registry gave you."
        raise ConfigurationInvalid(msg) from error
    except (OSError, ValueError) as error:
        msg = f"The identity at {path} cannot be read ({error}); restore it, or ask an admin for a new ticket."
        raise ConfigurationInvalid(msg) from error
    if mode & 0o077:
        msg = f"The identity at {path} can be read by others (mode {mode:o}); run `chmod 600 {path}`."
        raise ConfigurationInvalid(msg)
    try:
        if locked(raw):
            plain, lock = unlock(raw, lambda: _said(path, passphrase), lock)
            raw = json.loads(plain)
        else:
            lock = None
        raw = {"enrol": ""} | raw
        return Identity(**{name: _decoded(raw[name], kind) for name, kind in _KEPT.items()}, lock=lock)
    except (KeyError, ValueError, TypeError) as error:
        msg = f"The identity at {path} is not whole ({error}); restore it, or ask an admin for a new ticket."
        raise ConfigurationInvalid(msg) from error


def write(identity: Identity, path: Path) -> None:
    """Write an identity file whole or not at all, for its owner's eyes only; sealed, if the identity has a lock."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    data = json.dumps({name: _encoded(getattr(identity, name)) for name in _KEPT}, indent=1)
    data = identity.lock.seal(data.encode()) if identity.lock else data
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def renewed(identity: Identity, certificate: bytes, expires: datetime, tls_key: bytes) -> Identity:
    """The same person with a fresh certificate."""
    return replace(identity, certificate=certificate, certificate_expires=expires, tls_key=tls_key)


_KEPT = {item.name: str(item.type) for item in fields(Identity) if item.name != "lock"}
"""What a file holds, by name and type."""


def _said(path: Path, passphrase: Passphrase | None) -> str:
    said = passphrase() if callable(passphrase) else passphrase or os.environ.get(PASSPHRASE, "")
    if not said:
        msg = f"The identity at {path} is locked; pass its passphrase, or set {PASSPHRASE}."
        raise PassphraseRefused(msg)
    return said


def _encoded(value: Any) -> str:  # noqa: ANN401 - a field of Identity
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return value.isoformat() if isinstance(value, datetime) else str(value)


def _decoded(value: str, kind: str) -> Any:  # noqa: ANN401 - a field of Identity
    if kind == "bytes":
        return base64.b64decode(value, validate=True)
    return datetime.fromisoformat(value) if kind == "datetime" else value
