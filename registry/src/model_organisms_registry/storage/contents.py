"""Prompts, answers and reasons, each encrypted under a key of whom or what it is about; the ledger commits to them.

Destroying a session's, a person's or an organism's key erases what was said in it or of it, and leaves every proof valid.
"""

from __future__ import annotations

import os
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from model_organisms.errors import AlreadyExists, ModelOrganismsError, VerificationFailed
from model_organisms.formats.entry import NONCE_SIZE, commitment

from model_organisms_registry.storage.catalog import sandbox as rows
from model_organisms_registry.storage.catalog.sandbox import Content
from model_organisms_registry.storage.keys import KeyState

if TYPE_CHECKING:
    from collections.abc import Iterator

    from model_organisms_registry.storage.database import Connection, Database
    from model_organisms_registry.storage.sealed import SealedStore


class Contents:
    """What was said, sealed.

    Args:
        sealed: The store.
    """

    def __init__(self, sealed: SealedStore) -> None:
        """Keep it."""
        self._sealed = sealed

    def keep(self, owner: str, payload: bytes) -> Content:
        """Seal a payload; `index` then ties it to a transaction, and the ledger entry carries `commit`.

        Args:
            owner: The session, user or organism whose key it is sealed under.
            payload: What is sealed.
        """
        nonce = os.urandom(NONCE_SIZE)
        commit = commitment(nonce, payload)
        key_id = key_of(owner)
        with suppress(AlreadyExists):  # its earlier contents are under it
            self._sealed.keys.create(key_id)
        path = f"contents/{owner}/{commit}"
        self._sealed.put_sealed(path, [nonce, payload], key_id=key_id, aad=commit.encode())
        return Content(commit, owner, path, key_id)

    @contextmanager
    def keeping(self, database: Database, owner: str, payload: bytes) -> Iterator[Content]:
        """Seal a payload for the transaction in this block, and delete it again where that did not come to be."""
        content = self.keep(owner, payload)
        try:
            yield content
        except BaseException:
            self.drop(database, content)
            raise

    def drop(self, database: Database, content: Content) -> None:
        """Delete a payload whose transaction is over, unless that came to be: it may be committed, and not acknowledged."""
        with suppress(ModelOrganismsError), database.read() as tx:
            if rows.content(tx, content.commit) is None:
                self._sealed.delete(content.blob)

    def index(self, tx: Connection, content: Content) -> None:
        """Say where the content behind a commitment lies."""
        rows.add_content(tx, content.commit, content.owner, content.blob, content.key_id)

    def read(self, content: Content) -> bytes:
        """Open a payload, and hold it against its commitment."""
        blob = self._sealed.open_sealed(content.blob, aad=content.commit.encode())
        plain = bytes(memoryview(blob.into_memory())[: blob.layout.plain_size])
        if commitment(plain[:NONCE_SIZE], plain[NONCE_SIZE:]) != content.commit:
            raise VerificationFailed("Stored content is not what the ledger commits to.", commit=content.commit)
        return plain[NONCE_SIZE:]

    def erased(self, content: Content) -> bool:
        """Whether its key was destroyed, so that nobody opens it any more.

        Raises:
            Unavailable: Who keeps the key cannot be reached.
        """
        return self._sealed.keys.state(content.key_id) is KeyState.DESTROYED


def key_of(owner: str) -> str:
    """Name the key of a session, a person or an organism: two parts, of which the first has no hyphen."""
    return owner.replace("/", "-")
