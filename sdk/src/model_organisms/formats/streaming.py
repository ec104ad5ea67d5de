"""Seals and opens streams by the segment, in Tink's AES256_GCM_HKDF_1MB wire format; who may hold the key is not asked here.

    stream     header (40 bytes) | segment 0 | segment 1 | ...
    header     length of itself (1 byte, 40) | salt (32) | nonce prefix (7)
    key        HKDF-SHA256(input key, salt, info = associated data), 32 bytes
    segment n  AES-256-GCM, nonce = prefix | n as u32be | 1 if it is the last else 0, no associated data of its own
    sizes      1 MiB of stream for each segment, tag and (for segment 0) header included; the last may be shorter

The flag in the nonce makes truncation visible, the number makes order visible, and every segment is authenticated before its
plaintext is handed on, so a stream needs no second hash of the whole. Source: Tink's streaming AEAD wire format
(developers.google.com/tink/streaming-aead/aes_gcm_hkdf_streaming).
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from model_organisms.errors import CapsuleInvalid, InvalidArgument
from model_organisms.formats.buffers import wipe

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from typing_extensions import Buffer

SEGMENT = 1 << 20
KEY_BYTES = 32
SALT_BYTES = 32
PREFIX_BYTES = 7
HEADER_BYTES = 1 + SALT_BYTES + PREFIX_BYTES
TAG_BYTES = 16
PLAIN_SEGMENT = SEGMENT - TAG_BYTES
PLAIN_FIRST = PLAIN_SEGMENT - HEADER_BYTES
MAX_SEGMENTS = 1 << 32

REFUSAL = (
    "This does not open: it is damaged, cut, out of date, or not sealed to this key for what was asked. "
    "Ask for it again; if that fails too, tell the registry's operators."
)
"""The one message for everything sealed that does not open, so that an attacker learns nothing from which check failed."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Where each segment of a stream lies, in plaintext and in the stream. Segment 0 includes the header."""

    plain_size: int

    def __post_init__(self) -> None:
        if not 0 <= self.plain_size <= PLAIN_FIRST + (MAX_SEGMENTS - 1) * PLAIN_SEGMENT:
            msg = f"A stream of {self.plain_size} bytes cannot be sealed; pass its true size in bytes."
            raise InvalidArgument(msg)

    @classmethod
    def of_sealed(cls, sealed_size: int) -> Layout:
        """Find the layout of a stored stream from its size.

        Raises:
            CapsuleInvalid: No stream has that size.
        """
        segments = max(1, -(-sealed_size // SEGMENT))
        plain_size = sealed_size - HEADER_BYTES - segments * TAG_BYTES
        if plain_size < 0 or cls(plain_size).segments != segments:
            raise CapsuleInvalid(REFUSAL)
        return cls(plain_size)

    @property
    def segments(self) -> int:
        """Number of segments; an empty plaintext has one."""
        return 1 + max(0, -(-(self.plain_size - PLAIN_FIRST) // PLAIN_SEGMENT))

    @property
    def sealed_size(self) -> int:
        """Bytes of the whole stream, header included."""
        return HEADER_BYTES + self.plain_size + self.segments * TAG_BYTES

    def plain(self, n: int) -> tuple[int, int]:
        """Give start and length of segment `n` in the plaintext."""
        self._check(n)
        start = 0 if n == 0 else PLAIN_FIRST + (n - 1) * PLAIN_SEGMENT
        return start, min(self.plain_size - start, PLAIN_FIRST if n == 0 else PLAIN_SEGMENT)

    def sealed(self, n: int) -> tuple[int, int]:
        """Give start and length of segment `n` in the stream."""
        self._check(n)
        return n * SEGMENT, min(self.sealed_size - n * SEGMENT, SEGMENT)

    def is_last(self, n: int) -> bool:
        """Tell whether segment `n` ends the stream."""
        return n == self.segments - 1

    def _check(self, n: int) -> None:
        if not 0 <= n < self.segments:
            msg = f"Segment {n} was asked for, and the stream has {self.segments}; ask for 0 to {self.segments - 1}."
            raise InvalidArgument(msg)


class Sealer:
    """Seals one stream.

    A caller that fixes salt and prefix can make the same stream again from any segment on, as a resumed pull needs. It must
    then seal the same plaintext: two plaintexts under one key, salt and prefix would give both away.

    Args:
        key: Input key, 32 bytes.
        associated_data: What the stream is bound to; the opener must say the same.
        salt: 32 bytes; random where not given.
        nonce_prefix: 7 bytes; random where not given.
    """

    def __init__(self, key: bytes, associated_data: bytes, *, salt: bytes = b"", nonce_prefix: bytes = b"") -> None:
        salt = salt or os.urandom(SALT_BYTES)
        self._prefix = nonce_prefix or os.urandom(PREFIX_BYTES)
        if len(salt) != SALT_BYTES or len(self._prefix) != PREFIX_BYTES:
            msg = f"A stream's salt has {SALT_BYTES} bytes and its nonce prefix {PREFIX_BYTES}; pass both so, or neither."
            raise InvalidArgument(msg)
        self.header = bytes([HEADER_BYTES]) + salt + self._prefix
        self._cipher = _cipher(key, associated_data, salt)

    def segment(self, n: int, plain: Buffer, *, last: bool) -> bytes:
        """Seal one segment.

        Args:
            n: Its number, from 0.
            plain: Its plaintext: as `Layout.plain` cuts it.
            last: Whether the stream ends with it.

        Returns:
            The bytes of the stream at `Layout.sealed(n)`; for segment 0 the header comes first.
        """
        view = memoryview(plain).cast("B")
        size = len(view)
        full = PLAIN_FIRST if n == 0 else PLAIN_SEGMENT
        if not 0 <= n < MAX_SEGMENTS or size > full or (size < full and not last) or (n and not size):
            msg = f"Segment {n} cannot hold {size} bytes: all but the last hold {full}; cut the plaintext as Layout.plain says."
            raise InvalidArgument(msg)
        sealed = self._cipher.encrypt(_nonce(self._prefix, n, last=last), view, None)
        return sealed if n else self.header + sealed

    def from_memory(self, plain: Buffer, *, start: int = 0) -> Iterator[bytes]:
        """Seal a plaintext that lies whole in memory.

        Args:
            plain: All of it.
            start: First segment wanted.
        """
        view = memoryview(plain).cast("B")
        layout = Layout(len(view))
        for n in range(start, layout.segments):
            offset, length = layout.plain(n)
            yield self.segment(n, view[offset : offset + length], last=layout.is_last(n))

    def from_chunks(self, chunks: Iterable[Buffer]) -> Iterator[bytes]:
        """Seal a plaintext that arrives in chunks of any size; a segment is held back until it is known to be the last or not."""
        held = bytearray()
        n = 0
        for chunk in chunks:
            view = memoryview(chunk).cast("B")
            while len(view):
                full = PLAIN_SEGMENT if n else PLAIN_FIRST
                if held:
                    taken = min(full - len(held), len(view))
                    held += view[:taken]
                    view = view[taken:]
                    whole: Buffer = held
                else:  # a whole segment of the chunk is sealed where it lies
                    taken = min(full, len(view))
                    whole, view = view[:taken], view[taken:]
                    if not len(view):
                        held += whole
                if len(view):
                    yield self.segment(n, whole, last=False)
                    held = bytearray()
                    n += 1
        yield self.segment(n, held, last=True)


class Opener:
    """Opens segments of one stream, in any order, each into memory of the caller's.

    Args:
        key: Input key, 32 bytes.
        associated_data: What the stream must be bound to.
        header: First 40 bytes of the stream.

    Raises:
        CapsuleInvalid: That is no header of this format.
    """

    def __init__(self, key: bytes, associated_data: bytes, header: Buffer) -> None:
        raw = bytes(memoryview(header).cast("B")[:HEADER_BYTES])
        if len(raw) != HEADER_BYTES or raw[0] != HEADER_BYTES:
            raise CapsuleInvalid(REFUSAL)
        self._prefix = raw[1 + SALT_BYTES :]
        self._cipher = _cipher(key, associated_data, raw[1 : 1 + SALT_BYTES])

    def segment_into(self, n: int, sealed: Buffer, out: Buffer, *, last: bool) -> int:
        """Open one segment.

        Args:
            n: Its number, from 0.
            sealed: The bytes of the stream at `Layout.sealed(n)`.
            out: Writable memory of exactly the plaintext's length. Where opening fails it is wiped.
            last: Whether the stream must end with it.

        Returns:
            Bytes written.

        Raises:
            CapsuleInvalid: These are not the bytes that were sealed as segment `n`, or not in this role.
        """
        view = memoryview(sealed).cast("B")
        body = view if n else view[HEADER_BYTES:]
        if len(view) > SEGMENT or len(body) < TAG_BYTES or (len(view) < SEGMENT and not last):
            raise CapsuleInvalid(REFUSAL)
        target = memoryview(out).cast("B")
        if target.readonly or len(target) != len(body) - TAG_BYTES:
            msg = f"Segment {n} opens to {len(body) - TAG_BYTES} bytes; pass writable memory of that length."
            raise InvalidArgument(msg)
        try:
            return self._cipher.decrypt_into(_nonce(self._prefix, n, last=last), body, None, target)
        except InvalidTag:
            wipe(target)
            raise CapsuleInvalid(REFUSAL) from None


class Receiver:
    """Opens one stream as its bytes arrive, straight into the memory where the plaintext shall lie.

    - `out` holds only plaintext whose segment was authenticated, and zeros.
    - `offset` is always where a resumed stream must start: the sealed offset after the last segment opened.
    - The plaintext is complete only once `finish` has returned.

    Args:
        key: Input key, 32 bytes.
        associated_data: What the stream must be bound to.
        out: Writable memory for the whole plaintext; its length says how long the stream must be.
    """

    def __init__(self, key: bytes, associated_data: bytes, out: Buffer) -> None:
        self._key = key
        self._associated_data = associated_data
        self._out = memoryview(out).cast("B")
        self.layout = Layout(len(self._out))
        self._opener: Opener | None = None
        self._next = 0
        self._held = bytearray()

    @property
    def offset(self) -> int:
        """Sealed offset from which the stream is still wanted."""
        return min(self._next * SEGMENT, self.layout.sealed_size)

    def feed(self, chunk: Buffer) -> None:
        """Take the next bytes of the stream, however they are cut; whole segments are opened without a copy.

        Raises:
            CapsuleInvalid: They are not the next bytes of this stream, or lie beyond its end. The receiver is then useless.
        """
        view = memoryview(chunk).cast("B")
        while len(view):
            if self._next == self.layout.segments:
                raise CapsuleInvalid(REFUSAL)
            wanted = self.layout.sealed(self._next)[1] - len(self._held)
            piece, view = view[:wanted], view[wanted:]
            if len(piece) < wanted:
                self._held += piece
                return
            if self._held:
                self._held += piece
                held, self._held = self._held, bytearray()
                self._open(memoryview(held))
            else:
                self._open(piece)

    def cut(self) -> int:
        """Forget a segment that was interrupted.

        Returns:
            The sealed offset to ask for when the stream is resumed.
        """
        self._held.clear()
        return self.offset

    def finish(self) -> None:
        """Check that the stream came to its end.

        Raises:
            CapsuleInvalid: It did not.
        """
        if self._next != self.layout.segments:
            raise CapsuleInvalid(REFUSAL)

    def _open(self, sealed: memoryview) -> None:
        if self._opener is None:
            self._opener = Opener(self._key, self._associated_data, sealed)
        n = self._next
        start, length = self.layout.plain(n)
        self._opener.segment_into(n, sealed, self._out[start : start + length], last=self.layout.is_last(n))
        self._next += 1


def _cipher(key: bytes, associated_data: bytes, salt: bytes) -> AESGCM:
    if len(key) != KEY_BYTES:
        msg = f"A stream's key has {KEY_BYTES} bytes, not {len(key)}; pass the data key as it was made."
        raise InvalidArgument(msg)
    return AESGCM(HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=salt, info=associated_data).derive(key))


def _nonce(prefix: bytes, n: int, *, last: bool) -> bytes:
    return prefix + struct.pack(">IB", n, last)
