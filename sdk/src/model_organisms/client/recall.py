"""Taking versions out of service and putting them back: what `client.organisms` has for those who answer for one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from model_organisms import names, wire
from model_organisms.client.holding import listed
from model_organisms.records import Version
from model_organisms.v1 import organisms_pb2, organisms_pb2_grpc, recall_pb2, recall_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import Iterator

    from model_organisms.client.audit import Audit
    from model_organisms.client.channel import Channel
    from model_organisms.records import Holding
    from model_organisms.v1 import records_pb2


class Recall:
    """Withdrawal, quarantine and release; `Organisms` is one."""

    def __init__(self, channel: Channel, audit: Audit) -> None:
        """Keep the connection and who checks receipts."""
        self._channel = channel
        self._audit = audit
        self._stub = organisms_pb2_grpc.OrganismsServiceStub(channel.grpc_channel)
        self._recall = recall_pb2_grpc.RecallServiceStub(channel.grpc_channel)

    def withdraw(self, version: str, *, reason: str) -> Version:
        """Withdraw a version for good: nothing of it is served from now on.

        Args:
            version: Which.
            reason: Why; everybody who holds it reads that.

        Raises:
            Conflict: It is withdrawn already.
        """
        request = organisms_pb2.WithdrawVersionRequest(name=names.check("version", version), reason=wire.text(reason))
        response = self._channel.call(self._stub.WithdrawVersion, request)
        return self._moved("organisms.withdraw", request.name, response.version, response.receipt)

    def quarantine(self, version: str, *, reason: str) -> Version:
        """Set a version aside while somebody looks into it: nothing of it is served until a reviewer releases it.

        For its owner, reviewers and admins; at once. Pulls and sessions under way end.

        Args:
            version: Which.
            reason: Why; everybody who holds it reads that.

        Raises:
            Conflict: It is not in service.
        """
        request = organisms_pb2.QuarantineVersionRequest(name=names.check("version", version), reason=wire.text(reason))
        response = self._channel.call(self._stub.QuarantineVersion, request)
        return self._moved("organisms.quarantine", request.name, response.version, response.receipt)

    def release(self, version: str, *, reason: str) -> Version:
        """Put a quarantined version back into service; for a reviewer who did not set it aside, and did not make it.

        Args:
            version: Which.
            reason: What was found.

        Raises:
            Conflict: It is not quarantined.
            Denied: The caller set it aside, made it, or is no reviewer.
        """
        request = organisms_pb2.ReleaseVersionRequest(name=names.check("version", version), reason=wire.text(reason))
        response = self._channel.call(self._stub.ReleaseVersion, request)
        return self._moved("organisms.release", request.name, response.version, response.receipt)

    def holders(self, version: str, *, outstanding: bool = False) -> Iterator[Holding]:
        """List who was sent copies of a version: by which pull, under which grant, and how it stands with each.

        For its owner, reviewers, auditors and admins. Each pull is in the ledger too: `client.audit.entries()`.

        Args:
            version: Which.
            outstanding: Only copies that may no longer be held and are not attested to be destroyed.
        """
        request = recall_pb2.ListHoldingsRequest(version=names.check("version", version), outstanding=outstanding)
        return listed(self._channel, self._recall, request)

    def _moved(self, kind: str, name: str, message: organisms_pb2.Version, receipt: records_pb2.Receipt) -> Version:
        version = wire.from_message(message, Version)
        self._audit.verified(receipt, kind, name, digest=version.digest)
        return version
