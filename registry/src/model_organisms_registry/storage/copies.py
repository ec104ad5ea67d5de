"""Bodies of capsules: a version as it is stored, or a copy that is marked and sealed anew for one pull. No head, no ledger.

A marked copy can be made again, byte for byte, for as long as its version's key and the marking secret exist: so a cut pull goes
on with the same bytes, though nothing of the copy is kept.

What reckons marks brings numpy, so it is imported by the first one: a registry starts without it.
"""

from __future__ import annotations

import hmac
import os
import threading
import weakref
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from model_organisms.errors import AlreadyExists, NotFound, Unavailable
from model_organisms.formats.buffers import anonymous
from model_organisms.formats.capsule import body_secrets
from model_organisms.formats.streaming import Layout, Sealer

from model_organisms_registry.storage.keys import KEY_BYTES

if TYPE_CHECKING:
    import mmap
    from collections.abc import Callable, Iterator

    from typing_extensions import Buffer

    from model_organisms_registry.storage.sealed import SealedBlob, SealedStore

_PATH = "marking/secret"
_KEY_ID = "marking"
_AAD = b"model-organisms/marking-secret/v1"


@dataclass(frozen=True, slots=True)
class Copy:
    """The body of one capsule."""

    key: bytes = field(repr=False)
    """Opens it."""
    layout: Layout
    segments: Callable[[int], Iterator[Buffer]]
    """The stream from a segment on."""


class Copies:
    """Makes bodies.

    Args:
        sealed: Keeps the secret that marks are derived from: 32 bytes for marks, 32 for the bodies they go into.
        memory: Bytes of marked copies that may be leaving at once; each lies whole in memory until it has left.
    """

    def __init__(self, sealed: SealedStore, *, memory: int) -> None:
        """Keep both; the secret is made when it is first needed."""
        self._sealed = sealed
        self._memory = memory
        self._taken = 0
        self._lock = threading.Lock()
        self._secrets: bytes = b""

    def mark_key(self, pull: str) -> bytes:
        """Derive the key of one pull's mark: to find out whose copy leaked."""
        from model_organisms.formats.fingerprint import mark_key

        return mark_key(self._secret()[:KEY_BYTES], pull)

    def commitment(self, pull: str) -> str:
        """Commit to the mark of one pull, hex: for the ledger, before the copy exists."""
        from model_organisms.formats.fingerprint import commitment

        return commitment(self.mark_key(pull), pull)

    def room(self, size: int) -> mmap.mmap:
        """Take memory for a marked copy; it is given back when nothing refers to it any more.

        Raises:
            Unavailable: As much as this registry may hold is leaving already.
        """
        with self._lock:
            if self._taken and self._taken + size > self._memory:
                raise Unavailable("Too many marked copies are being made at the moment; pull again in a minute.")
            self._taken += size
        memory = anonymous(size)
        weakref.finalize(memory, self._give, size)
        return memory

    def stored(self, body: SealedBlob) -> Copy:
        """Hand a version on as it is stored."""
        return Copy(body.data_key, body.layout, body.segments)

    def marked(self, body: SealedBlob, pull: str, memory: mmap.mmap) -> Copy:
        """Mark a version for one pull.

        Args:
            body: The version.
            pull: The pull's name; the same one gives the same bytes.
            memory: What `room` gave for it.

        Raises:
            VerificationFailed: What is stored is not what was put there.
        """
        from model_organisms.formats.marking import mark_packed

        plain = memoryview(memory)[: body.layout.plain_size]
        body.into(plain)
        changed = mark_packed(plain, key=self.mark_key(pull))
        secrets = body_secrets(hmac.digest(self._secret()[KEY_BYTES:], pull.encode(), "sha256"), plaintext_id=changed)
        sealer = Sealer(secrets.key, body.aad + pull.encode(), salt=secrets.salt, nonce_prefix=secrets.nonce_prefix)
        return Copy(secrets.key, body.layout, lambda start: sealer.from_memory(plain, start=start))

    def _give(self, size: int) -> None:
        with self._lock:
            self._taken -= size

    def _secret(self) -> bytes:
        if not self._secrets:
            try:
                self._secrets = self._read()
            except NotFound:
                with suppress(AlreadyExists):  # another registry of the same database was first
                    self._sealed.keys.create(_KEY_ID)
                with suppress(AlreadyExists):
                    self._sealed.put_sealed(_PATH, [os.urandom(2 * KEY_BYTES)], key_id=_KEY_ID, aad=_AAD)
                self._secrets = self._read()
        return self._secrets

    def _read(self) -> bytes:
        blob = self._sealed.open_sealed(_PATH, aad=_AAD)
        return bytes(memoryview(blob.into_memory())[: 2 * KEY_BYTES])
