"""Keeps plaintext that must never lie on a disk: sealed streams in blobs, under data keys that `keyring.py` wraps.

    PATH         the stream, as `formats/streaming.py` prints it, bound to the caller's associated data
    PATH.key     its data key, wrapped: canonical JSON {kek, wrapped}; blobs may also share one (`key_path`)

The key is written first. A crash in between leaves a key without a blob, which the next attempt uses; so a blob is always under
the key beside it, whichever of two attempts wrote which.
"""

from __future__ import annotations

import base64
import os
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from model_organisms.errors import AlreadyExists, CapsuleInvalid, Conflict, NotFound, VerificationFailed
from model_organisms.formats import strict_json
from model_organisms.formats.buffers import anonymous
from model_organisms.formats.streaming import SEGMENT, Layout, Receiver, Sealer

from model_organisms_registry.storage.keyring import Wrapped, parsed
from model_organisms_registry.storage.keys import ID, KEY_BYTES

if TYPE_CHECKING:
    import mmap
    from collections.abc import Iterable, Iterator

    from typing_extensions import Buffer

    from model_organisms_registry.storage.blobs import Blobs
    from model_organisms_registry.storage.keyring import Keyring

_KEY = ".key"
_MAX_KEY_RECORD = 4096
_WINDOW = 4
"""Segments read in one go: enough to keep a bucket busy, few enough to stay in the cache on their way."""


@dataclass(frozen=True, slots=True)
class SealedBlob:
    """A stored stream and the key that opens it, ready to be opened here or handed on as it is."""

    path: str
    layout: Layout
    data_key: bytes = field(repr=False)
    aad: bytes
    """What the stream is bound to."""
    _blobs: Blobs = field(repr=False)

    def into_memory(self) -> mmap.mmap:
        """Open all of it into anonymous memory; the caller wipes that.

        Raises:
            VerificationFailed: It is not what was stored.
        """
        memory = anonymous(self.layout.plain_size)
        self.into(memoryview(memory)[: self.layout.plain_size])
        return memory

    def into(self, out: Buffer) -> None:
        """Open all of it into memory of the caller's, `layout.plain_size` bytes.

        Raises:
            VerificationFailed: It is not what was stored.
        """
        receiver = Receiver(self.data_key, self.aad, out)
        try:
            for window in self._windows(0):
                receiver.feed(window)
            receiver.finish()
        except CapsuleInvalid:
            raise _broken(self.path) from None

    def segments(self, start: int = 0) -> Iterator[memoryview]:
        """Give the stream as it is stored, unopened, from a segment on: `layout.sealed(n)` says where each begins."""
        for window in self._windows(start):
            for offset in range(0, len(window), SEGMENT):
                yield window[offset : offset + SEGMENT]

    def _windows(self, start: int) -> Iterator[memoryview]:
        end = self.layout.sealed_size
        for offset in range(start * SEGMENT, end, _WINDOW * SEGMENT):
            length = min(_WINDOW * SEGMENT, end - offset)
            window = self._blobs.get_range(self.path, offset, length)
            if len(window) != length:
                raise _broken(self.path)
            yield memoryview(window)


class SealedStore:
    """Sealed blobs.

    Args:
        blobs: Where the streams and the wrapped keys lie.
        keys: Who wraps.
    """

    def __init__(self, blobs: Blobs, keys: Keyring) -> None:
        self.blobs = blobs
        self.keys = keys

    def put_sealed(self, path: str, chunks: Iterable[Buffer], *, key_id: str, aad: bytes, key_path: str = "") -> int:
        """Seal a plaintext as it arrives, and store it; the key-encryption key must exist.

        Args:
            path: Where.
            chunks: The plaintext, cut anyhow.
            key_id: The key-encryption key that its life hangs on.
            aad: What it is bound to; nothing else will open it.
            key_path: Where the wrapped data key lies, for blobs that share one; beside the blob where empty.

        Returns:
            Bytes stored.

        Raises:
            AlreadyExists: There is a blob at `path`.
            Conflict: The key record is there, under another key-encryption key.
            NotFound: The key-encryption key is not there, or was destroyed.
        """
        data_key = self._ensure_data_key(key_path or path + _KEY, key_id)
        return self.blobs.put(path, Sealer(data_key, aad).from_chunks(chunks))

    def open_sealed(self, path: str, *, aad: bytes, key_path: str = "") -> SealedBlob:
        """Find a blob and unwrap its key. Nothing of it is opened yet.

        Raises:
            NotFound: There is no such blob, or its key was destroyed.
            VerificationFailed: Its key record is not what was stored.
        """
        try:
            layout = Layout.of_sealed(self.blobs.size(path))
        except CapsuleInvalid:
            raise _broken(path) from None
        record_at = key_path or path + _KEY
        data_key = self.keys.unwrap(self.record(record_at), record_at.encode())
        return SealedBlob(path, layout, data_key, aad, self.blobs)

    def exists(self, path: str) -> bool:
        """Tell whether there is a blob at `path`, whether or not its key still is."""
        return self.blobs.exists(path)

    def list(self, prefix: str) -> list[str]:
        """List the blobs under a prefix, key records left out."""
        return [path for path in self.blobs.list(prefix) if not path.endswith(_KEY)]

    def delete(self, path: str) -> None:
        """Delete a blob and the key record beside it; nothing happens where there is none."""
        self.blobs.delete(path)
        self.blobs.delete(path + _KEY)

    def records(self) -> tuple[str, ...]:
        """List where key records lie."""
        return tuple(path for path in self.blobs.list() if path.endswith(_KEY))

    def record(self, key_path: str) -> Wrapped:
        """Read a key record.

        Raises:
            NotFound: There is none.
            VerificationFailed: It is not what was stored.
        """
        found = strict_json.parse(
            self.blobs.get(key_path), what=f"The key record {key_path}", limit=_MAX_KEY_RECORD, error=VerificationFailed
        )
        match found:
            case {"kek": str(kek), "wrapped": str(text)} if ID.fullmatch(kek):
                with suppress(ValueError):
                    return Wrapped(kek, base64.b64decode(text, validate=True))
        raise _broken(key_path)

    def rewrap(self, key_path: str, fresh: str) -> None:
        """Put a data key under another rotation of its key: the stream stays as it is. A crash leaves the old record or the new.

        Raises:
            NotFound: The key that it is under was destroyed, or is missing.
            VerificationFailed: The record is not what was stored.
        """
        data_key = self.keys.unwrap(self.record(key_path), key_path.encode())
        self.blobs.replace(key_path, _printed(self.keys.wrap_under(fresh, data_key, key_path.encode())))

    def _ensure_data_key(self, key_path: str, key_id: str) -> bytes:
        for _ in range(2):
            try:
                record = self.record(key_path)
            except NotFound:
                pass  # it is made below; that the key-encryption key is gone is said by unwrapping and wrapping alone
            else:
                if parsed(record.kek)[0] != key_id:
                    under = f"The key record {key_path} is under {record.kek}, not {key_id}"
                    raise Conflict(f"{under}; delete it and its blob, then store again.", path=key_path)
                return self.keys.unwrap(record, key_path.encode())
            data_key = os.urandom(KEY_BYTES)
            try:
                self.blobs.put(key_path, _printed(self.keys.wrap(key_id, data_key, key_path.encode())))
            except AlreadyExists:  # another attempt came first: use its key
                continue
            return data_key
        msg = f"The key record {key_path} comes and goes; let one caller at a time store and delete there, then try again."
        raise Conflict(msg, path=key_path)


def key_record(path: str) -> str:
    """Where the wrapped data key of a blob lies that has its own."""
    return path + _KEY


def _printed(wrapped: Wrapped) -> bytes:
    return strict_json.canonical({"kek": wrapped.kek, "wrapped": base64.b64encode(wrapped.data).decode()})


def _broken(path: str) -> VerificationFailed:
    return VerificationFailed(f"What is stored at {path} is not what was put there; restore it from a backup.", path=path)
