"""Copies, the attestations that they are destroyed, and notices: what `client.access` has for those who hold something."""

from __future__ import annotations

import hashlib
import secrets
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from model_organisms import names, wire
from model_organisms.errors import Conflict
from model_organisms.formats import dsse, statements
from model_organisms.formats.destruction import Destruction, print_destruction
from model_organisms.records import Holding, HoldingState, Notice
from model_organisms.v1 import recall_pb2, recall_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import Iterator

    from model_organisms.client.audit import Audit
    from model_organisms.client.channel import Channel


class Holdings:
    """What the caller holds, and was told; `Access` is one."""

    def __init__(self, channel: Channel, audit: Audit) -> None:
        """Keep the connection and who checks receipts."""
        self._channel = channel
        self._audit = audit
        self._recall = recall_pb2_grpc.RecallServiceStub(channel.grpc_channel)

    def holdings(self, *, user: str = "", grant: str = "", outstanding: bool = False) -> Iterator[Holding]:
        """List copies that were pulled: the caller's own, or for reviewers, auditors and admins everybody's.

        Args:
            user: Only this user's.
            grant: Only those under this grant.
            outstanding: Only those that may no longer be held and are not attested to be destroyed.
        """
        return listed(
            self._channel, self._recall, recall_pb2.ListHoldingsRequest(user=user, grant=grant, outstanding=outstanding)
        )

    def outstanding(self, *, user: str = "") -> Iterator[Holding]:
        """List copies whose destruction is to be attested, late or not yet."""
        return self.holdings(user=user, outstanding=True)

    def attest_destroyed(self, grant: str, *, how: str, version: str = "") -> tuple[Holding, ...]:
        """Sign, with the caller's own key, that their copies under a grant are destroyed, and hand that in.

        Destroy them first: files, caches, backups, and models that were loaded from them.

        Args:
            grant: The grant they were pulled under.
            how: How it was done, for those who ask later.
            version: Only the copies of this version; all where absent.

        Returns:
            The copies under the grant, as they stand now.

        Raises:
            Conflict: Nothing is left to attest.
        """
        left = [
            held
            for held in self.holdings(user=self._channel.identity.user, grant=names.check("grant", grant))
            if held.state is not HoldingState.DESTROYED and version in {"", held.version.name}
        ]
        if not left:
            raise Conflict("Nothing is left to attest under this grant; `mo access outstanding` lists what is.", grant=grant)
        after: tuple[Holding, ...] = ()
        for ref in dict.fromkeys(held.version for held in left):
            stated = Destruction(
                grant=grant,
                version=ref,
                pulls=tuple(sorted(held.pull for held in left if held.version == ref)),
                how=wire.text(how),
                time=datetime.now(UTC).replace(microsecond=0),
                nonce=secrets.token_hex(16),
            )
            envelope = dsse.sign(print_destruction(stated), statements.PAYLOAD_TYPE, self._channel.identity.signer)
            request = recall_pb2.AttestDestructionRequest(grant=grant, envelope=envelope)
            response = self._channel.call(self._recall.AttestDestruction, request)
            said = {"version": ref.name, "digest": ref.digest, "envelope": hashlib.sha256(envelope).hexdigest()}
            self._audit.verified(response.receipt, "access.destroyed", grant, **said)
            after = tuple(wire.from_message(item, Holding) for item in response.holdings)
        return after

    def notices(self, *, unread: bool = False) -> Iterator[Notice]:
        """List what the caller was told of versions they hold or may use: withdrawals, quarantines, raised levels, errata.

        Args:
            unread: Only what they have not said to have read.
        """
        token = ""
        while True:
            request = recall_pb2.ListNoticesRequest(unread=unread, page_token=token)
            response = self._channel.call(self._recall.ListNotices, request, repeatable=True)
            yield from (wire.from_message(item, Notice) for item in response.notices)
            if not (token := response.next_page_token):
                return

    def read_notices(self, newest: str) -> int:
        """Say that the caller has read their notices, up to one; the ledger keeps that.

        Args:
            newest: Name of the newest that was read.

        Returns:
            How many were unread.
        """
        request = recall_pb2.ReadNoticesRequest(newest=names.check("notice", newest))
        response = self._channel.call(self._recall.ReadNotices, request)
        self._audit.verified(response.receipt, "access.notice.read", self._channel.identity.user, newest=newest)
        return response.count


def listed(
    channel: Channel, stub: recall_pb2_grpc.RecallServiceStub, request: recall_pb2.ListHoldingsRequest
) -> Iterator[Holding]:
    """List copies to the end."""
    while True:
        response = channel.call(stub.ListHoldings, request, repeatable=True)
        yield from (wire.from_message(item, Holding) for item in response.holdings)
        if not response.next_page_token:
            return
        request.page_token = response.next_page_token
