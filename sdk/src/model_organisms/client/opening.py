"""Opens a glove box: what can be checked here first, then the cell, then the session, and last the weights into the cell."""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import TYPE_CHECKING

from model_organisms import bases, progress, wire
from model_organisms.client.glovebox import GloveBox
from model_organisms.client.recall import warn
from model_organisms.client.transfer import SealedDownload
from model_organisms.errors import JailMissing, ModelOrganismsError, ReceiptInvalid
from model_organisms.formats import capsule, provenance
from model_organisms.records import Session as SessionRecord
from model_organisms.v1 import organisms_pb2_grpc, records_pb2, sandbox_pb2, sandbox_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import timedelta
    from pathlib import Path

    from model_organisms.cells.frames import CellInfo
    from model_organisms.cells.own import OwnCell
    from model_organisms.client.audit import Audit
    from model_organisms.client.channel import Channel
    from model_organisms.client.sandbox import Sandbox
    from model_organisms.formats.provenance import Provenance
    from model_organisms.records import Budget, Purpose, Version

_PURPOSE = records_pb2.DESCRIPTOR.enum_types_by_name["Purpose"]
_TRANSFER_TIMEOUT_S = 3000.0


def open_local(
    sandbox: Sandbox,
    channel: Channel,
    audit: Audit,
    version: Version,
    *,
    purpose: Purpose,
    grant: str,
    budget: Budget | None,
    duration: timedelta | None,
    base: str | Path | None,
    device: str,
    dtype: str,
    progress_bar: bool | None,
) -> GloveBox:
    """Start a cell here, open a session for it, and pull the version into it; `Sandbox.local` says what the arguments are."""
    if sys.platform != "linux":
        msg = "A glove box needs Linux, whose walls make its jail; open a session at the registry: client.sandbox.open(...)."
        raise JailMissing(msg)
    from model_organisms.cells import own

    own.check_machine(device, dtype)
    stated = provenance.verify(version.provenance, version.publisher_key, digest=version.digest)
    named, shown = stated.base, sys.stderr.isatty() if progress_bar is None else progress_bar
    folder = bases.find(base or named.id, revision=named.revision, digest=named.digest, progress=shown)
    cell = own.OwnCell(folder, device=device, dtype=dtype)
    try:
        record = _opened(channel, audit, version, cell.walls, purpose=purpose, grant=grant, budget=budget, duration=duration)
        try:
            info = _loaded(channel, audit, record, cell, version=version, stated=stated, shown=shown)
        except BaseException:
            with suppress(ModelOrganismsError):
                sandbox.close(record.name)
            raise
    except BaseException:
        cell.close()
        raise
    warn(version)
    return GloveBox(sandbox, record, channel, audit, cell=cell, info=info)


def _opened(
    channel: Channel,
    audit: Audit,
    version: Version,
    walls: Sequence[str],
    *,
    purpose: Purpose,
    grant: str,
    budget: Budget | None,
    duration: timedelta | None,
) -> SessionRecord:
    message = sandbox_pb2.OpenLocalSessionRequest(
        version=version.name,
        purpose=wire.enum_value(purpose, _PURPOSE),
        grant=grant,
        budget=wire.to_message(budget, records_pb2.Budget) if budget else None,
        duration_s=wire.seconds(duration),
        walls=walls,
    )
    response = channel.call(sandbox_pb2_grpc.SandboxServiceStub(channel.grpc_channel).OpenLocalSession, message)
    record = wire.from_message(response.session, SessionRecord)
    facts = {"version": version.name, "digest": version.digest, "purpose": purpose.value}
    facts |= {"place": "holder", "claimed_walls": ",".join(walls)}
    audit.verified(response.receipt, "sandbox.open", record.name, **facts)
    return record


def _loaded(
    channel: Channel, audit: Audit, record: SessionRecord, cell: OwnCell, *, version: Version, stated: Provenance, shown: bool
) -> CellInfo:
    """Pull the capsule, and hand its body into the cell; in this process it stays sealed."""
    from model_organisms.cells.own import Sealing

    with progress.bar(f"Pulling {version.name}", version.size, show=shown) as advance:
        download = SealedDownload(version, record.grant, _TRANSFER_TIMEOUT_S, advance, session=record.name)
        download.fetch(channel, organisms_pb2_grpc.OrganismsServiceStub(channel.grpc_channel))
    try:
        header, body = download.header, download.body
        if download.receipt is None or header is None or body is None:
            raise ReceiptInvalid("The registry sent a capsule without its receipt; do not use it, and tell the operator.")
        facts = {"digest": version.digest, "capsule": download.head_digest, "into": record.name}
        audit.verified(download.receipt, "organisms.pull.result", version.name, **facts)
        bound_to, marked = capsule.body_associated_data(header), bool(header.fingerprint)
        sealing = Sealing(download.key, bound_to, header.plain_size, marked)
        return cell.load(body.descriptor, sealing, version_digest=version.digest, known_answer=stated.known_answer)
    finally:
        download.discard()
