"""How a bundle becomes a version: announce, receive, inspect, admit. The registry believes nothing a client computed.

Pieces are sealed as they arrive, so an upload survives a cut and a restart. Nothing of a version exists before the transaction
that adds it with its ledger entry; a crash before that leaves pieces, which the publisher resumes or time removes.
"""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any

from model_organisms.errors import (
    AlreadyExists,
    InvalidArgument,
    InvalidBundle,
    ModelOrganismsError,
    NotFound,
    Unavailable,
    UploadConflict,
)
from model_organisms.formats import manifest, provenance
from model_organisms.formats.buffers import anonymous, wipe
from model_organisms.formats.dimensions import dimensions_of

from model_organisms_registry.domain import organisms as rules
from model_organisms_registry.domain.audit import Event, entry
from model_organisms_registry.domain.permits import Action
from model_organisms_registry.gate import entities
from model_organisms_registry.storage.bundles import Stored
from model_organisms_registry.storage.catalog import organisms as rows
from model_organisms_registry.storage.catalog import uploads as upload_rows
from model_organisms_registry.storage.catalog.uploads import Upload
from model_organisms_registry.workflows import finding, standing
from model_organisms_registry.workflows.changes import seq

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime
    from pathlib import Path

    from model_organisms.formats.provenance import Provenance
    from model_organisms.records import Entry, Receipt, Version

    from model_organisms_registry.config import Limits
    from model_organisms_registry.domain.permits import Call, Permit
    from model_organisms_registry.gate.gate import Gate
    from model_organisms_registry.storage.bundles import Bundles, Uploads
    from model_organisms_registry.workflows.changes import Changes

SMALL_PIECE = 64 << 10
"""Bytes. A piece is a file until all are there, so an upload may not consist of smaller ones."""
_SPARE_PIECES = 64
"""Beyond that, and one for the end of each file: each cut leaves a small one."""


@dataclass(frozen=True, slots=True)
class Staged:
    """An upload, and how much of it has arrived."""

    upload: Upload
    received: int
    size: int


class Publishing:
    """Uploads and what becomes of them.

    Args:
        changes: Opens transactions.
        gate: Decides who may.
        bundles: Where versions are kept.
        uploads: Where pieces are kept.
        bases: Hub id of a base model to its folder here.
        limits: Bounds of the service.
    """

    def __init__(
        self, changes: Changes, gate: Gate, bundles: Bundles, uploads: Uploads, *, bases: Mapping[str, Path], limits: Limits
    ) -> None:
        """Keep what the steps need."""
        self._changes = changes
        self._gate = gate
        self._bundles = bundles
        self._uploads = uploads
        self._bases = bases
        self._limits = limits

    def announce(self, call: Call, organism: str, listed: bytes, envelope: bytes) -> Staged:
        """Begin an upload, or find the same one again.

        1. Permit. 2. The manifest is canonical, within bounds, and new here. 3. The provenance is signed by the caller, for it.
        """
        announced = manifest.parse(listed)
        size = sum(file.size for file in announced.files)
        if size > self._limits.bundle_bytes:
            raise InvalidBundle(f"The bundle has {size:,} bytes; this registry takes {self._limits.bundle_bytes:,}.")
        with self._changes.database.read() as tx:
            found, grants = finding.organism(tx, self._gate, call, Action.PUBLISH, organism)
            twin = rows.version_by_digest(tx, organism, announced.digest)
        self._gate.permit(call, Action.PUBLISH, entities.organism(found), grants=grants)
        if twin is not None:
            raise AlreadyExists(f"These very bytes are {twin.name} already.", name=twin.name)
        provenance.verify(envelope, call.user.identity_key, digest=announced.digest)
        upload = self._begin(call, organism, listed, envelope)
        return Staged(upload, self._uploads.received(upload.name), size)

    def staged(self, call: Call, name: str) -> Staged:
        """One's own upload, and how much of it has arrived.

        Raises:
            NotFound: There is none, or it is another's, or its time is over.
        """
        with self._changes.database.read() as tx:
            upload = upload_rows.upload(tx, name)
        if upload.user != call.user.name or upload.expire_time <= call.time:
            raise NotFound.named(name)
        return Staged(upload, self._uploads.received(name), _size(upload.manifest))

    def receive(self, call: Call, name: str, pieces: Iterable[tuple[int, bytes]]) -> None:
        """Keep pieces as they arrive.

        Raises:
            UploadConflict: A piece does not begin where the last one ended.
            InvalidBundle: More arrives than was announced.
            InvalidArgument: It comes in so many small pieces that each being a file would be felt.
        """
        staged = self.staged(call, name)
        at = staged.received
        files = len(manifest.parse(staged.upload.manifest).files)
        allowed = staged.size // SMALL_PIECE + files + _SPARE_PIECES - self._uploads.count(name)
        for offset, data in pieces:
            if not data:
                continue
            if offset != at:
                raise UploadConflict(
                    f"The upload has {at} bytes, this piece begins at {offset}; go on from {at}.", received=str(at)
                )
            if at + len(data) > staged.size:
                raise InvalidBundle(f"More bytes arrive than the {staged.size:,} announced; announce the bundle you send.")
            if not allowed:
                raise InvalidArgument("The upload came in too many small pieces; let it lapse, and send pieces of up to 1 MiB.")
            self._uploads.add(name, offset, data)
            allowed -= 1
            at += len(data)

    def publish(self, call: Call, name: str) -> tuple[Version, Receipt]:
        """Admit a complete upload as a version.

        Raises:
            UploadConflict: It is not complete.
            InvalidArgument: The bytes are no bundle, not those announced, or contradict the provenance; nothing of them is kept.
        """
        staged = self.staged(call, name)
        if staged.received < staged.size:
            raise UploadConflict(
                f"{staged.received:,} of {staged.size:,} bytes have arrived; send the rest.", received=str(staged.received)
            )
        listed = manifest.parse(staged.upload.manifest)
        memory = anonymous(listed.packed_size)
        try:
            view = memoryview(memory)[: listed.packed_size]
            front = len(listed.data).to_bytes(manifest.LENGTH_BYTES, "big") + listed.data
            view[: len(front)] = front
            self._uploads.collect(name, into=view[len(front) :])
            version, receipt = self._admit(call, staged.upload, view)
        except InvalidArgument as error:
            self._refuse(call, staged.upload, listed.digest, error)
            raise
        finally:
            wipe(memory)
        self._uploads.forget(name)
        return version, receipt

    def end_due(self, now: datetime) -> None:
        """Remove uploads whose time is over: key and pieces first, so that a crash leaves the row that says so."""
        with self._changes.database.read() as tx:
            expired = upload_rows.uploads_expired(tx, now)
        for upload in expired:
            self._uploads.forget(upload.name)
            with self._changes.database.write() as tx:
                upload_rows.delete_upload(tx, upload.name)

    def recover(self) -> None:
        """Remove pieces that a crash left of an upload that was over: their row went with the decision."""
        for name in self._uploads.names():
            with self._changes.database.read() as tx:
                kept = upload_rows.known(tx, name)
            if not kept:
                self._uploads.forget(name)
        self._place()

    def _place(self) -> None:
        """Note where the ledger tells of versions that a crash kept from being told it."""
        with self._changes.database.read() as tx:
            left = rows.unplaced_versions(tx)
        if not left:
            return
        found = self._changes.log.index_about(Event.PUBLISH.type, left)
        with self._changes.database.write() as tx:
            for name, index in found.items():
                rows.set_ledger_index(tx, name, index)

    def _begin(self, call: Call, organism: str, listed: bytes, envelope: bytes) -> Upload:
        """Find an upload or make it. One that was refused or has lapsed is over, and another attempt takes its place."""
        expires = call.time + timedelta(hours=self._limits.upload_hours)
        for attempt in count():
            name = _upload_name(call.user.name, organism, listed, envelope, attempt)
            self._room(call, name, listed)
            if not self._uploads.begin(name):
                continue
            with self._changes.database.write() as tx:
                try:
                    upload = upload_rows.upload(tx, name)
                except NotFound:
                    upload = Upload(name, call.user.name, organism, listed, envelope, call.time, expires)
                    upload_rows.add_upload(tx, upload)
            if call.time < upload.expire_time:
                return upload
        raise AssertionError  # there is always another attempt

    def _room(self, call: Call, name: str, listed: bytes) -> None:
        """Refuse one more upload to who has many under way, or announced many bytes by them."""
        with self._changes.database.read() as tx:
            others = upload_rows.uploads_of(tx, call.user.name, call.time)
        if any(other.name == name for other in others):
            return
        announced = sum(_size(data) for data in (listed, *(other.manifest for other in others)))
        limits = self._limits
        if len(others) >= limits.uploads_each or announced > max(limits.bundle_bytes, limits.staged_bytes_each):
            msg = (
                f"You have {len(others)} uploads under way, and would have {announced:,} bytes announced; this registry takes "
                f"{limits.uploads_each} and {limits.staged_bytes_each:,}. Publish the files of one again to go on with it, or "
                f"wait until they lapse, {limits.upload_hours:g} hours after they began."
            )
            raise Unavailable(msg, limit=str(limits.uploads_each))

    def _refuse(self, call: Call, upload: Upload, digest: str, error: InvalidArgument) -> None:
        """Write down that a bundle was refused, and keep nothing of it."""
        with self._changes.open() as change:
            upload_rows.delete_upload(change.tx, upload.name)
            facts = {"reason": error.reason, "digest": digest, "upload": upload.name}
            change.enter(entry(Event.REFUSE_UPLOAD, call, seq=seq(), subject=upload.organism, facts=facts))
        self._uploads.forget(upload.name)

    def _admit(self, call: Call, upload: Upload, packed: memoryview) -> tuple[Version, Receipt]:
        """Inspect again, seal under the version's own key, and add the version with its entry."""
        from model_organisms.formats import adapter  # which brings numpy: a registry starts without it

        listed, files = manifest.unpack(packed)
        stated = provenance.verify(upload.provenance, call.user.identity_key, digest=listed.digest)
        with self._changes.database.read() as tx:
            organism, _ = finding.organism(tx, self._gate, call, Action.PUBLISH, upload.organism)
        config, unchecked = self._base(organism.base_model, stated)
        admit = partial(
            rules.admit,
            publisher=call.user,
            manifest=listed,
            facts=adapter.inspect(files, config),
            envelope=upload.provenance,
            largest=self._limits.bundle_bytes,
            now=call.time,
            unchecked=unchecked,
        )
        admit(organism, number=organism.latest + 1)  # what is refused is not sealed first
        self._bundles.keep(Stored(upload.organism, listed.digest, listed.packed_size), packed)
        with self._changes.open() as change:
            standing.caller(change.tx, call)  # an upload takes its time
            organism, grants = finding.organism(change.tx, self._gate, call, Action.PUBLISH, upload.organism)
            permit = self._gate.permit(call, Action.PUBLISH, entities.organism(organism), grants=grants)
            upload_rows.delete_upload(change.tx, upload.name)
            version = admit(organism, number=rows.next_number(change.tx, organism.name))
            rows.add_version(change.tx, version)
            change.enter(_entry(call, permit, version, upload))
        with self._changes.database.write() as tx:
            rows.set_ledger_index(tx, version.name, change.receipt.index)
            version = rows.version(tx, version.name)
        return version, change.receipt

    def _base(self, base_model: str, stated: Provenance) -> tuple[dict[str, Any] | None, tuple[str, ...]]:
        """Find what the base model's layers must be, and say what that leaves unchecked.

        Raises:
            Unavailable: The operator named a folder, and its config.json cannot be used.
        """
        folder = self._bases.get(base_model)
        if folder is None:
            left = "as the provenance states them" if stated.base_config else "unchecked"
            return stated.base_config, (f"the base model is not on this registry: layers and widths are {left}",)
        try:
            config = json.loads((folder / "config.json").read_bytes())
            known = dimensions_of(config).known
        except (OSError, ValueError, AttributeError, ModelOrganismsError) as error:
            msg = f"This registry cannot use config.json of its base model {base_model}; tell its operator, then publish again."
            raise Unavailable(msg, base_model=base_model) from error
        return config, () if known else ("the base model's architecture is not known: widths are unchecked",)


def _entry(call: Call, permit: Permit, version: Version, upload: Upload) -> Entry:
    said = {
        "digest": version.digest,
        "level": version.level.name,
        "size": str(version.size),
        "provenance": hashlib.sha256(version.provenance).hexdigest(),
        "parameters": str(sum(fact.parameters for fact in version.facts)),
        "marks": str(len(version.marks)),
        "upload": upload.name,
    }
    return entry(Event.PUBLISH, call, seq=seq(), subject=version.name, permit=permit, facts=said)


def _size(listed: bytes) -> int:
    return sum(file.size for file in manifest.parse(listed).files)


def _upload_name(user: str, organism: str, listed: bytes, envelope: bytes, attempt: int) -> str:
    """The same announcement has the same name, so that it is resumed and not begun again."""
    digest = hashlib.sha256(b"\0".join((user.encode(), organism.encode(), listed, envelope, b"%d" % attempt))).digest()
    return f"uploads/{base64.b32encode(digest)[:26].decode().lower()}"
