"""How a bundle becomes a version: announce, receive, inspect, admit. The registry believes nothing a client computed.

Pieces are sealed as they arrive, so an upload survives a cut and a restart. Nothing of a version exists before the transaction
that adds it with its ledger entry; a crash before that leaves pieces, which the publisher resumes or time removes.
"""

from __future__ import annotations

import base64
import hashlib
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import count
from typing import TYPE_CHECKING

from model_organisms.errors import AlreadyExists, Conflict, InvalidArgument, InvalidBundle, NotFound, UploadConflict
from model_organisms.formats import adapter, manifest, provenance
from model_organisms.formats.buffers import anonymous, wipe

from model_organisms_registry.domain import organisms as rules
from model_organisms_registry.domain.audit import Event, entry
from model_organisms_registry.domain.permits import Action
from model_organisms_registry.gate import entities
from model_organisms_registry.storage.bundles import Stored
from model_organisms_registry.storage.catalog import organisms as rows
from model_organisms_registry.storage.catalog import uploads as upload_rows
from model_organisms_registry.storage.catalog.uploads import Upload
from model_organisms_registry.workflows import finding
from model_organisms_registry.workflows.changes import seq

if TYPE_CHECKING:
    from collections.abc import Iterable

    from model_organisms.records import AdapterFacts, Entry, Receipt, Version

    from model_organisms_registry.config import Limits
    from model_organisms_registry.domain.permits import Call, Permit
    from model_organisms_registry.gate.gate import Gate
    from model_organisms_registry.storage.bundles import Bundles, Uploads
    from model_organisms_registry.workflows.changes import Changes


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
        limits: Bounds of the service.
    """

    def __init__(self, changes: Changes, gate: Gate, bundles: Bundles, uploads: Uploads, *, limits: Limits) -> None:
        """Keep what the steps need."""
        self._changes = changes
        self._gate = gate
        self._bundles = bundles
        self._uploads = uploads
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
        expires = call.time + timedelta(hours=self._limits.upload_hours)
        upload = Upload("", call.user.name, organism, listed, envelope, call.time, expires)
        upload = replace(upload, name=self._begin(upload))
        with self._changes.database.write() as tx:
            try:
                upload = upload_rows.upload(tx, upload.name)
            except NotFound:
                upload_rows.add_upload(tx, upload)
        return Staged(upload, self._uploads.received(upload.name), size)

    def staged(self, call: Call, name: str) -> Staged:
        """One's own upload, and how much of it has arrived.

        Raises:
            NotFound: There is none, or it is another's.
        """
        with self._changes.database.read() as tx:
            upload = upload_rows.upload(tx, name)
        if upload.user != call.user.name:
            raise NotFound.named(name)
        size = sum(file.size for file in manifest.parse(upload.manifest).files)
        return Staged(upload, self._uploads.received(name), size)

    def receive(self, call: Call, name: str, pieces: Iterable[tuple[int, bytes]]) -> None:
        """Keep pieces as they arrive.

        Raises:
            UploadConflict: A piece does not begin where the last one ended.
            InvalidBundle: More arrives than was announced.
        """
        staged = self.staged(call, name)
        at = staged.received
        for offset, data in pieces:
            if not data:
                continue
            if offset != at:
                raise UploadConflict(
                    f"The upload has {at} bytes, this piece begins at {offset}; go on from {at}.", received=str(at)
                )
            if at + len(data) > staged.size:
                raise InvalidBundle(f"More bytes arrive than the {staged.size:,} announced; announce the bundle you send.")
            self._uploads.add(name, offset, data)
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
        except InvalidArgument:
            self._refuse(name)
            raise
        finally:
            wipe(memory)
        self._uploads.forget(name)
        return version, receipt

    def _begin(self, upload: Upload) -> str:
        """Name an upload and make its key. One that was refused or has lapsed is over, and another attempt takes its place."""
        for attempt in count():
            name = _upload_name(upload, attempt)
            with suppress(Conflict):
                self._uploads.begin(name)
                return name
        raise AssertionError  # there is always another attempt

    def _refuse(self, name: str) -> None:
        """Keep nothing of an upload that cannot become a version."""
        self._uploads.forget(name)
        with self._changes.database.write() as tx, suppress(NotFound):
            upload_rows.delete_upload(tx, name)

    def _admit(self, call: Call, upload: Upload, packed: memoryview) -> tuple[Version, Receipt]:
        """Inspect again, seal under the version's own key, and add the version with its entry."""
        listed, files = manifest.unpack(packed)
        stated = provenance.verify(upload.provenance, call.user.identity_key, digest=listed.digest)
        facts = adapter.inspect(files, stated.base_config)
        provenance.compare(stated, facts)
        self._bundles.keep(Stored(upload.organism, listed.digest, listed.packed_size), packed)
        with self._changes.open() as change:
            organism, grants = finding.organism(change.tx, self._gate, call, Action.PUBLISH, upload.organism)
            permit = self._gate.permit(call, Action.PUBLISH, entities.organism(organism), grants=grants)
            upload_rows.delete_upload(change.tx, upload.name)
            number = rows.next_number(change.tx, organism.name)
            version = rules.admit(
                organism,
                number=number,
                publisher=call.user,
                manifest=listed,
                facts=facts,
                envelope=upload.provenance,
                largest=self._limits.bundle_bytes,
                now=call.time,
            )
            rows.add_version(change.tx, version)
            change.enter(_entry(call, permit, version, upload, facts))
        with self._changes.database.write() as tx:
            rows.set_ledger_index(tx, version.name, change.receipt.index)
            version = rows.version(tx, version.name)
        return version, change.receipt


def _entry(call: Call, permit: Permit, version: Version, upload: Upload, facts: tuple[AdapterFacts, ...]) -> Entry:
    said = {
        "digest": version.digest,
        "level": version.level.name,
        "size": str(version.size),
        "provenance": hashlib.sha256(version.provenance).hexdigest(),
        "parameters": str(sum(fact.parameters for fact in facts)),
        "marks": str(len(version.marks)),
        "upload": upload.name,
    }
    return entry(Event.PUBLISH, call, seq=seq(), subject=version.name, permit=permit, facts=said)


def _upload_name(upload: Upload, attempt: int) -> str:
    """The same announcement has the same name, so that it is resumed and not begun again."""
    parts = (upload.user.encode(), upload.organism.encode(), upload.manifest, upload.provenance, str(attempt).encode())
    digest = hashlib.sha256(b"\0".join(parts)).digest()
    return f"uploads/{base64.b32encode(digest)[:26].decode().lower()}"
