"""Bundles and uploads at rest, each under its own key; plaintext is handed out under a permit only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from model_organisms import names
from model_organisms.errors import AlreadyExists, Conflict, Denied, NotFound, UploadConflict
from model_organisms.formats import manifest

from model_organisms_registry.domain.organisms import destroyed
from model_organisms_registry.domain.permits import Action
from model_organisms_registry.storage.keys import KeyState

if TYPE_CHECKING:
    from model_organisms.records import Version

    from model_organisms_registry.domain.permits import Permit
    from model_organisms_registry.storage.sealed import SealedBlob, SealedStore

_OFFSET_DIGITS = 16
_READERS = (Action.OPEN_SESSION, Action.RERUN, Action.PULL)


@dataclass(frozen=True, slots=True)
class Stored:
    """Which packed bundle: its organism, its digest, and how many bytes it has."""

    organism: str
    digest: str
    size: int

    @classmethod
    def of(cls, version: Version) -> Stored:
        """Which one a published version has."""
        return cls(names.organism_of(version.name), version.digest, manifest.of_files(version.files).packed_size)

    @property
    def path(self) -> str:
        """Where it lies."""
        return f"versions/{names.short(self.organism)}/{self.digest}"

    @property
    def key_id(self) -> str:
        """The key that wraps its data key: one for each version, so that one version can be destroyed."""
        return f"version-{names.short(self.organism)}-{self.digest[:32]}"


class Bundles:
    """Packed bundles, sealed.

    Args:
        sealed: The store.
    """

    def __init__(self, sealed: SealedStore) -> None:
        """Keep it."""
        self._sealed = sealed

    def keep(self, stored: Stored, packed: memoryview) -> None:
        """Seal a packed bundle under a key of its own; what an interrupted attempt left is removed first."""
        if self._sealed.keys.state(stored.key_id) is not KeyState.LIVE:
            self._sealed.keys.create(stored.key_id)
        elif self._sealed.exists(stored.path):
            self._sealed.delete(stored.path)
        self._sealed.put_sealed(stored.path, [packed], key_id=stored.key_id, aad=bytes.fromhex(stored.digest))

    def open(self, permit: Permit, stored: Stored) -> SealedBlob:
        """Unwrap the key of a stored bundle: to open it here, or to hand the stream on with its key wrapped anew.

        Raises:
            Denied: The permit is not for using a version.
            Destroyed: Its key was destroyed, whatever the catalog says: this registry may have been put back from an older copy.
        """
        if permit.action not in _READERS:
            msg = f"A permit for {permit.action} opens no bundle; ask the gate for what you need."
            raise Denied(msg, action=permit.action)
        try:
            return self._sealed.open_sealed(stored.path, aad=bytes.fromhex(stored.digest))
        except NotFound:
            if self._sealed.keys.state(stored.key_id) is KeyState.DESTROYED:
                raise destroyed(permit.resource) from None
            raise

    def destroy(self, stored: Stored) -> bool:
        """Destroy the key of a stored bundle, with all its rotations, for good.

        Returns:
            Whether it was there until now.

        Raises:
            Unavailable: Who keeps it cannot be reached.
        """
        if self._sealed.keys.state(stored.key_id) is KeyState.DESTROYED:
            return False
        self._sealed.keys.destroy(stored.key_id)
        return True


class Uploads:
    """Pieces of bundles that are still arriving, sealed under a key for each upload.

    Args:
        sealed: The store.
    """

    def __init__(self, sealed: SealedStore) -> None:
        """Keep it."""
        self._sealed = sealed

    def begin(self, upload: str) -> bool:
        """Make the key of an upload, unless it is there.

        Returns:
            Whether pieces can be kept: never again of an upload that was forgotten.
        """
        try:
            self._sealed.keys.create(_upload_key(upload))
        except AlreadyExists:
            return True
        except Conflict:
            return False
        return True

    def names(self) -> list[str]:
        """List the uploads of which there are pieces."""
        return sorted({path.rpartition("/")[0] for path in self._sealed.list("uploads")})

    def received(self, upload: str) -> int:
        """Bytes that have arrived without a gap."""
        at = 0
        for offset, size, _ in self._pieces(upload):
            if offset != at:
                break
            at += size
        return at

    def count(self, upload: str) -> int:
        """Pieces that have arrived."""
        return len(self._pieces(upload))

    def add(self, upload: str, offset: int, data: bytes) -> None:
        """Keep the next piece.

        Raises:
            UploadConflict: Another stream has sent that offset.
        """
        path = f"{upload}/{offset:0{_OFFSET_DIGITS}d}-{len(data)}"
        try:
            self._sealed.put_sealed(path, [data], key_id=_upload_key(upload), aad=path.encode())
        except AlreadyExists as error:
            raise UploadConflict("This piece is there already; ask how much has arrived and go on from there.") from error

    def collect(self, upload: str, *, into: memoryview) -> None:
        """Open all pieces into memory, in order.

        Raises:
            NotFound: They do not fill it.
        """
        at = 0
        for offset, size, path in self._pieces(upload):
            if offset != at or at + size > len(into):
                break
            self._sealed.open_sealed(path, aad=path.encode()).into(into[at : at + size])
            at += size
        if at != len(into):
            raise NotFound("Pieces of the upload are missing; go on from what has arrived.", received=str(at))

    def forget(self, upload: str) -> None:
        """Destroy the key of an upload, then remove its pieces."""
        if self._sealed.keys.state(_upload_key(upload)) is KeyState.LIVE:
            self._sealed.keys.destroy(_upload_key(upload))
        for path in self._sealed.list(upload):
            self._sealed.delete(path)

    def _pieces(self, upload: str) -> list[tuple[int, int, str]]:
        found = []
        for path in self._sealed.list(upload):
            offset, _, size = path.rsplit("/", 1)[-1].partition("-")
            found.append((int(offset), int(size), path))
        return sorted(found)


def _upload_key(upload: str) -> str:
    return f"upload-{names.short(upload)}"
