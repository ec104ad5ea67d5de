"""C2SP signed notes and their keys: text that somebody signed with Ed25519; what the text says is not read here.

A note is UTF-8 text ending in a newline, an empty line, then one line per signature:

    EM DASH, space, key name, space, base64(key id[4] || signature)

The text may hold empty lines: the last one ends it. Signatures by keys the reader does not know are ignored; one by a known
key that fails condemns the note.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import secrets
from dataclasses import dataclass, field
from functools import cached_property

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from model_organisms.errors import ConfigurationInvalid, SignatureInvalid
from model_organisms.formats import ed25519

ED25519 = 0x01
"""Signature type of a log's own signature."""

COSIGNATURE = 0x04
"""Signature type of a witness's cosignature with its time (`formats/checkpoint.py`)."""

MAX_NOTE_SIZE = 256 * 1024
"""Enough for sixteen post-quantum signatures, which the format obliges us to accept."""

MAX_SIGNATURES = 64
KEY_SIZE = 32
_ID_SIZE = 4
_DASH = "\u2014 "
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f]")


@dataclass(frozen=True, slots=True)
class VerifierKey:
    """A public key with its name: a C2SP vkey."""

    name: str
    public: bytes
    """Raw Ed25519 public key, 32 bytes."""
    kind: int = ED25519

    @property
    def key_id(self) -> bytes:
        """Four bytes that find the key's signature in a note; they identify, they do not authenticate."""
        return hashlib.sha256(self.name.encode() + b"\n" + bytes([self.kind]) + self.public).digest()[:_ID_SIZE]

    def __str__(self) -> str:
        """Print the vkey, as other programs take it."""
        return f"{self.name}+{self.key_id.hex()}+{encode64(bytes([self.kind]) + self.public)}"

    def verifies(self, message: bytes, signature: bytes) -> bool:
        """Say whether a raw Ed25519 signature is this key's over `message`."""
        return ed25519.verifies(self.public, signature, message)


@dataclass(frozen=True)
class SigningKey:
    """A private key with its name: a C2SP skey. Printed only by `secret_text`."""

    name: str
    seed: bytes = field(repr=False)
    """Raw Ed25519 seed, 32 bytes."""
    kind: int = ED25519

    @classmethod
    def generate(cls, name: str, *, kind: int = ED25519) -> SigningKey:
        """Make a new key; the name goes into every signature line, so it must stand in one."""
        return cls(check_key_name(name), secrets.token_bytes(KEY_SIZE), kind)

    @cached_property
    def verifier(self) -> VerifierKey:
        """The public half."""
        return VerifierKey(self.name, self._private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw), self.kind)

    def sign(self, message: bytes) -> bytes:
        """Sign bytes (raw Ed25519)."""
        return self._private.sign(message)

    def secret_text(self) -> str:
        """Print the skey, for the owner's key file only."""
        return f"PRIVATE+KEY+{self.name}+{self.verifier.key_id.hex()}+{encode64(bytes([self.kind]) + self.seed)}"

    @cached_property
    def _private(self) -> Ed25519PrivateKey:
        return Ed25519PrivateKey.from_private_bytes(self.seed)


@dataclass(frozen=True, slots=True)
class SignatureLine:
    """One signature line, not verified."""

    name: str
    key_id: bytes
    signature: bytes

    def __str__(self) -> str:
        """Print the line without its newline."""
        return f"{_DASH}{self.name} {encode64(self.key_id + self.signature)}"


@dataclass(frozen=True, slots=True)
class Note:
    """A note in its parts. Who made one with `parse` must not believe its text."""

    text: str
    lines: tuple[SignatureLine, ...]

    def __bytes__(self) -> bytes:
        """Print the note."""
        return (self.text + "\n" + "".join(f"{line}\n" for line in self.lines)).encode()

    def by(self, key: VerifierKey) -> list[SignatureLine]:
        """Find the lines that claim to be by this key."""
        key_id = key.key_id
        return [line for line in self.lines if line.name == key.name and line.key_id == key_id]


def parse(data: bytes) -> Note:
    """Split a note into text and signature lines, believing nothing.

    Raises:
        SignatureInvalid: It is no signed note, to the letter of the specification.
    """
    if len(data) > MAX_NOTE_SIZE:
        raise _malformed(f"it is longer than {MAX_NOTE_SIZE} bytes")
    try:
        whole = data.decode("utf-8")
    except UnicodeDecodeError:
        raise _malformed("it is not UTF-8") from None
    if _CONTROL.search(whole):
        raise _malformed("it holds a control character")
    split = whole.rfind("\n\n")
    if split < 0 or not whole.endswith("\n"):
        raise _malformed("no empty line stands before the signatures, or the last line is cut off")
    lines = whole[split + 2 :].split("\n")[:-1]
    if not 1 <= len(lines) <= MAX_SIGNATURES:
        raise _malformed(f"it has {len(lines)} signatures; between 1 and {MAX_SIGNATURES} are taken")
    return Note(whole[: split + 1], tuple(_parse_line(line) for line in lines))


def verify(data: bytes, *keys: VerifierKey) -> Note:
    """Open a note signed by at least one of the given Ed25519 keys (type 0x01).

    1. Parse it. 2. Every line that claims to be by a known key must verify. 3. There must be such a line.
    What the text says, and whether it is the newest, is for the caller to check.

    Raises:
        SignatureInvalid: It does not parse, a known key's signature fails, or no known key signed.
    """
    note = parse(data)
    message = note.text.encode()
    signed = False
    for key in keys:
        for line in note.by(key):
            if key.kind != ED25519 or not key.verifies(message, line.signature):
                raise SignatureInvalid(f"The signature of {key.name} does not verify; the text was changed after signing.")
            signed = True
    if not signed:
        known = ", ".join(key.name for key in keys) or "none"
        raise SignatureInvalid(f"No known key signed this note (known: {known}); check the verifier key in your configuration.")
    return note


def sign(text: str, key: SigningKey) -> Note:
    """Sign text that ends in a newline with an Ed25519 key (type 0x01)."""
    line = SignatureLine(key.name, key.verifier.key_id, key.sign(text.encode()))
    return Note(text, (line,))


def parse_vkey(text: str) -> VerifierKey:
    """Read a verifier key.

    Raises:
        ConfigurationInvalid: It is no vkey of a type known here, or its key id is another key's.
    """
    name, key_id, kind, public = _key_parts(text, text.split("+", 2), "verifier key")
    key = VerifierKey(name, public, kind)
    if key.key_id.hex() != key_id:
        raise ConfigurationInvalid(f"The verifier key of {name} has another key's id; copy it again, whole.")
    return key


def parse_skey(text: str) -> SigningKey:
    """Read a signing key.

    Raises:
        ConfigurationInvalid: It is no skey of a type known here, or its key id is another key's. The text is not repeated.
    """
    parts = text.split("+", 4)
    if parts[:2] != ["PRIVATE", "KEY"]:
        raise ConfigurationInvalid("This is no signing key; it must begin with PRIVATE+KEY+.")
    name, key_id, kind, seed = _key_parts("", parts[2:], "signing key")
    key = SigningKey(name, seed, kind)
    if key.verifier.key_id.hex() != key_id:
        raise ConfigurationInvalid(f"The signing key of {name} has another key's id; restore the key file from a backup.")
    return key


def check_key_name(name: str) -> str:
    """Return `name` if it may stand in a signature line.

    Raises:
        ConfigurationInvalid: It is empty, or holds a space, a plus sign or a control character.
    """
    if not name or "+" in name or _CONTROL.search(name) or any(character.isspace() for character in name):
        raise ConfigurationInvalid(f"{name[:80]!r} cannot name a key: no spaces, no plus sign; write it like ledger.example.org.")
    return name


def encode64(data: bytes) -> str:
    """Print bytes in base64 (RFC 4648, section 4)."""
    return base64.b64encode(data).decode("ascii")


def decode64(text: str) -> bytes:
    """Read base64 that is written in the one canonical way.

    Raises:
        ValueError: Another alphabet, missing padding, stray bits or characters; callers say what it stood for.
    """
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError(text[:80]) from None
    if encode64(data) != text:
        raise ValueError(text[:80])
    return data


def _parse_line(line: str) -> SignatureLine:
    name, space, rest = line.removeprefix(_DASH).partition(" ")
    try:
        check_key_name(name)
        signature = decode64(rest)
    except (ConfigurationInvalid, ValueError):
        raise _malformed(f"this is no signature line: {line[:80]!r}") from None
    if not line.startswith(_DASH) or not space or len(signature) <= _ID_SIZE:
        raise _malformed(f"this is no signature line: {line[:80]!r}")
    return SignatureLine(name, signature[:_ID_SIZE], signature[_ID_SIZE:])


def _key_parts(shown: str, parts: list[str], what: str) -> tuple[str, str, int, bytes]:
    hint = f" ({shown[:80]!r})" if shown else ""
    try:
        name, key_id, encoded = parts
        material = decode64(encoded)
    except ValueError:
        raise ConfigurationInvalid(f"This is no {what}{hint}; copy it again, whole.") from None
    if len(material) != 1 + KEY_SIZE or material[0] not in {ED25519, COSIGNATURE}:
        raise ConfigurationInvalid(f"This {what}{hint} is of a type not known here; Ed25519 keys of types 1 and 4 are.")
    return check_key_name(name), key_id, material[0], material[1:]


def _malformed(why: str) -> SignatureInvalid:
    return SignatureInvalid(f"This is not a signed note: {why}. Fetch it again from where it is published.")
