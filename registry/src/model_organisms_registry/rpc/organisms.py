"""Organisms and versions on the wire: messages in, messages out; the steps are in `workflows/`."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from model_organisms import wire
from model_organisms.errors import InvalidArgument
from model_organisms.records import Condition, Level, Purpose
from model_organisms.v1 import organisms_pb2, records_pb2

from model_organisms_registry.storage.catalog.search import OrganismFilter

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from model_organisms.records import Attestation, Organism, Receipt, Version

    from model_organisms_registry.domain.permits import Call
    from model_organisms_registry.workflows.organisms import Organisms
    from model_organisms_registry.workflows.publishing import Publishing, Staged
    from model_organisms_registry.workflows.pulling import Pulling
    from model_organisms_registry.workflows.recall import Recall
    from model_organisms_registry.workflows.shares import Shares
    from model_organisms_registry.workflows.standing import Standing

_LEVEL = records_pb2.DESCRIPTOR.enum_types_by_name["Level"]
_PURPOSE = records_pb2.DESCRIPTOR.enum_types_by_name["Purpose"]


class OrganismsRooms:
    """`OrganismsService`."""

    def __init__(
        self,
        organisms: Organisms,
        publishing: Publishing,
        pulling: Pulling,
        *,
        recall: Recall,
        standing: Standing,
        pulls: Shares,
    ) -> None:
        """Keep the workflows, and how many pulls one person may have under way."""
        self._pulls = pulls
        self._organisms = organisms
        self._publishing = publishing
        self._pulling = pulling
        self._recall = recall
        self._standing = standing

    def create_organism(self, call: Call, request: organisms_pb2.CreateOrganismRequest) -> organisms_pb2.CreateOrganismResponse:
        """Name a new line of models."""
        asked = request.organism
        organism, receipt = self._organisms.create(
            call,
            f"organisms/{request.organism_id}",
            level=_level(asked.level) if asked.level else None,
            base_model=asked.base_model,
            display_name=asked.display_name,
            description=asked.description,
            traits=tuple(asked.traits),
            hidden=asked.hidden,
            purposes=_purposes(asked.purposes),
            conditions=_conditions(asked.conditions),
        )
        return organisms_pb2.CreateOrganismResponse(organism=_organism(organism), receipt=_receipt(receipt))

    def get_organism(self, call: Call, request: organisms_pb2.GetOrganismRequest) -> organisms_pb2.GetOrganismResponse:
        """Read an organism."""
        return organisms_pb2.GetOrganismResponse(organism=_organism(self._organisms.get(call, request.name)))

    def list_organisms(self, call: Call, request: organisms_pb2.ListOrganismsRequest) -> organisms_pb2.ListOrganismsResponse:
        """List organisms the caller may know of."""
        asked = request.filter
        wanted = OrganismFilter(
            levels=tuple(_level(level) for level in asked.levels),
            owner=asked.owner,
            base_model=asked.base_model,
            trait=asked.trait,
            text=asked.text,
        )
        page = self._organisms.list(call, wanted, page_size=request.page_size, page_token=request.page_token)
        return organisms_pb2.ListOrganismsResponse(
            organisms=[_organism(item) for item in page.items], next_page_token=page.next_page_token
        )

    def set_conditions(self, call: Call, request: organisms_pb2.SetConditionsRequest) -> organisms_pb2.SetConditionsResponse:
        """Set what the owner asks of users."""
        organism, receipt = self._organisms.set_conditions(
            call, request.name, purposes=_purposes(request.purposes), asked=_conditions(request.conditions)
        )
        return organisms_pb2.SetConditionsResponse(organism=_organism(organism), receipt=_receipt(receipt))

    def set_level(self, call: Call, request: organisms_pb2.SetLevelRequest) -> organisms_pb2.SetLevelResponse:
        """Raise the level."""
        organism, receipt = self._organisms.set_level(call, request.name, _level(request.level), reason=request.reason)
        return organisms_pb2.SetLevelResponse(organism=_organism(organism), receipt=_receipt(receipt))

    def create_upload(self, call: Call, request: organisms_pb2.CreateUploadRequest) -> organisms_pb2.CreateUploadResponse:
        """Announce a bundle."""
        staged = self._publishing.announce(call, request.parent, request.manifest, request.provenance)
        return organisms_pb2.CreateUploadResponse(upload=_upload(staged))

    def get_upload(self, call: Call, request: organisms_pb2.GetUploadRequest) -> organisms_pb2.GetUploadResponse:
        """Tell how much of an upload has arrived."""
        return organisms_pb2.GetUploadResponse(upload=_upload(self._publishing.staged(call, request.name)))

    def publish_version(
        self, call: Call, requests: Iterator[organisms_pb2.PublishVersionRequest]
    ) -> organisms_pb2.PublishVersionResponse:
        """Take the bytes of an upload, and publish when all are there."""
        first = next(requests, None)
        if first is None:
            raise InvalidArgument("The stream is empty; send the upload's name and its bytes.")
        self._publishing.receive(call, first.upload, _pieces(first, requests))
        version, receipt = self._publishing.publish(call, first.upload)
        return organisms_pb2.PublishVersionResponse(version=_version(version), receipt=_receipt(receipt))

    def get_version(self, call: Call, request: organisms_pb2.GetVersionRequest) -> organisms_pb2.GetVersionResponse:
        """Read a version."""
        return organisms_pb2.GetVersionResponse(version=_version(self._organisms.version(call, request.name)))

    def list_versions(self, call: Call, request: organisms_pb2.ListVersionsRequest) -> organisms_pb2.ListVersionsResponse:
        """List the versions of an organism."""
        page = self._organisms.versions(call, request.parent, page_size=request.page_size, page_token=request.page_token)
        return organisms_pb2.ListVersionsResponse(
            versions=[_version(item) for item in page.items], next_page_token=page.next_page_token
        )

    def pull_version(self, call: Call, request: organisms_pb2.PullVersionRequest) -> Iterator[organisms_pb2.PullVersionResponse]:
        """Stream a capsule."""
        with self._pulls.held(call.user.name):
            delivery = self._pulling.pull(
                call, request.name, grant=request.grant, pull=request.pull, offset=request.offset, session=request.session
            )
            receipt = _receipt(delivery.receipt) if delivery.receipt else None
            head = organisms_pb2.PullHead(pull=delivery.pull, size=delivery.size, grant=delivery.grant, receipt=receipt)
            yield organisms_pb2.PullVersionResponse(head=head)
            chunks = self._standing.guard(call, request.name, delivery.grant, delivery.chunks, marked=delivery.marked)
            for data in chunks:
                yield organisms_pb2.PullVersionResponse(data=data)

    def withdraw_version(
        self, call: Call, request: organisms_pb2.WithdrawVersionRequest
    ) -> organisms_pb2.WithdrawVersionResponse:
        """Withdraw a version."""
        version, receipt = self._recall.withdraw(call, request.name, reason=request.reason)
        return organisms_pb2.WithdrawVersionResponse(version=_version(version), receipt=_receipt(receipt))

    def quarantine_version(
        self, call: Call, request: organisms_pb2.QuarantineVersionRequest
    ) -> organisms_pb2.QuarantineVersionResponse:
        """Set a version aside."""
        version, receipt = self._recall.quarantine(call, request.name, reason=request.reason)
        return organisms_pb2.QuarantineVersionResponse(version=_version(version), receipt=_receipt(receipt))

    def release_version(self, call: Call, request: organisms_pb2.ReleaseVersionRequest) -> organisms_pb2.ReleaseVersionResponse:
        """Put a quarantined version back."""
        version, receipt = self._recall.release(call, request.name, reason=request.reason)
        return organisms_pb2.ReleaseVersionResponse(version=_version(version), receipt=_receipt(receipt))

    def add_erratum(self, call: Call, request: organisms_pb2.AddErratumRequest) -> organisms_pb2.AddErratumResponse:
        """Add an erratum."""
        version, receipt = self._recall.erratum(call, request.name, request.envelope)
        return organisms_pb2.AddErratumResponse(version=_version(version), receipt=_receipt(receipt))

    def attest_version(self, call: Call, request: organisms_pb2.AttestVersionRequest) -> organisms_pb2.AttestVersionResponse:
        """Add a signed statement."""
        attestation, receipt = self._organisms.attest(call, request.name, request.envelope)
        return organisms_pb2.AttestVersionResponse(attestation=_attestation(attestation), receipt=_receipt(receipt))

    def list_attestations(
        self, call: Call, request: organisms_pb2.ListAttestationsRequest
    ) -> organisms_pb2.ListAttestationsResponse:
        """List what is attested of a version."""
        page = self._organisms.attestations(call, request.parent, page_size=request.page_size, page_token=request.page_token)
        return organisms_pb2.ListAttestationsResponse(
            attestations=[_attestation(item) for item in page.items], next_page_token=page.next_page_token
        )


def _pieces(
    first: organisms_pb2.PublishVersionRequest, rest: Iterator[organisms_pb2.PublishVersionRequest]
) -> Iterator[tuple[int, bytes]]:
    """Offsets and bytes of a stream that must stay with one upload."""
    yield first.offset, first.data
    for message in rest:
        if message.upload != first.upload:
            raise InvalidArgument("One stream sends one upload; open another stream for the other.", upload=first.upload)
        yield message.offset, message.data


def _level(number: int) -> Level:
    level: Level = wire.enum_member(number, _LEVEL, Level)
    return level


def _purposes(numbers: Iterable[int]) -> tuple[Purpose, ...]:
    return tuple(wire.enum_member(number, _PURPOSE, Purpose) for number in numbers)


def _conditions(messages: Iterable[records_pb2.Condition]) -> tuple[Condition, ...]:
    return tuple(wire.from_message(message, Condition) for message in messages)


@lru_cache(maxsize=1024)
def _organism(organism: Organism) -> organisms_pb2.Organism:
    """Write an organism; the same one gives the same message, which goes into responses by copy and is never changed."""
    return wire.to_message(organism, organisms_pb2.Organism)


def _version(version: Version) -> organisms_pb2.Version:
    return wire.to_message(version, organisms_pb2.Version)


def _attestation(attestation: Attestation) -> organisms_pb2.Attestation:
    return wire.to_message(attestation, organisms_pb2.Attestation)


def _receipt(receipt: Receipt) -> records_pb2.Receipt:
    return wire.to_message(receipt, records_pb2.Receipt)


def _upload(staged: Staged) -> organisms_pb2.Upload:
    return organisms_pb2.Upload(
        name=staged.upload.name,
        organism=staged.upload.organism,
        received=staged.received,
        size=staged.size,
        expire_time=wire.timestamp(staged.upload.expire_time),
    )
