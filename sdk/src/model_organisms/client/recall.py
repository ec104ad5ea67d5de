"""Taking versions out of service and putting them back: what `client.organisms` has for those who answer for one."""

from __future__ import annotations

import hashlib
import secrets
import warnings
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from model_organisms import names, wire
from model_organisms.client.holding import listed
from model_organisms.formats import dsse, statements
from model_organisms.formats.erratum import Correction, print_correction
from model_organisms.records import Version, VersionRef
from model_organisms.v1 import organisms_pb2, organisms_pb2_grpc, recall_pb2, recall_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import Iterator

    from model_organisms.client.audit import Audit
    from model_organisms.client.channel import Channel
    from model_organisms.records import Holding
    from model_organisms.v1 import records_pb2


class ErratumWarning(UserWarning):
    """What was pulled has something wrong with it; the message says what."""


def corrected(version: Version) -> list[str]:
    """Say what is wrong with a version, and what puts it right, a line for each erratum."""
    right = (f"; {erratum.successor} puts it right" if erratum.successor else "" for erratum in version.errata)
    return [f"{version.name}: {erratum.text}{see}" for erratum, see in zip(version.errata, right, strict=True)]


def warn(version: Version) -> None:
    """Warn of each erratum of a version that was pulled."""
    for text in corrected(version):
        warnings.warn(text, ErratumWarning, stacklevel=3)


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

    def erratum(self, version: str, *, text: str, successor: str = "") -> Version:
        """Say, signed with the caller's own key, what is wrong with a version; for its owner and reviewers.

        The version stays as it is, and is served on. The erratum is shown with it, and whoever pulls it is warned.

        Args:
            version: Which.
            text: What is wrong.
            successor: The version of the same organism that puts it right, where there is one.

        Returns:
            The version, with all its errata.
        """
        wrong, right = self._ref(version), self._ref(successor) if successor else None
        stated = Correction(wrong, wire.text(text), datetime.now(UTC).replace(microsecond=0), secrets.token_hex(16), right)
        envelope = dsse.sign(print_correction(stated), statements.PAYLOAD_TYPE, self._channel.identity.signer)
        request = organisms_pb2.AddErratumRequest(name=wrong.name, envelope=envelope)
        response = self._channel.call(self._stub.AddErratum, request)
        said = {"digest": wrong.digest, "envelope": hashlib.sha256(envelope).hexdigest()}
        self._audit.verified(response.receipt, "organisms.erratum", wrong.name, **said)
        return wire.from_message(response.version, Version)

    def _ref(self, version: str) -> VersionRef:
        request = organisms_pb2.GetVersionRequest(name=names.check("version", version))
        read = self._channel.call(self._stub.GetVersion, request, repeatable=True).version
        return VersionRef(read.name, read.digest)

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
