"""Copies and notices on the wire: messages in, messages out; the steps are in `workflows/holding.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from model_organisms import wire
from model_organisms.v1 import recall_pb2, records_pb2

if TYPE_CHECKING:
    from model_organisms.records import Holding, Receipt

    from model_organisms_registry.domain.permits import Call
    from model_organisms_registry.workflows.holding import Holdings


class RecallRooms:
    """`RecallService`."""

    def __init__(self, holdings: Holdings) -> None:
        """Keep the workflows."""
        self._holdings = holdings

    def list_holdings(self, call: Call, request: recall_pb2.ListHoldingsRequest) -> recall_pb2.ListHoldingsResponse:
        """List copies."""
        page = self._holdings.list(
            call,
            version=request.version,
            user=request.user,
            grant=request.grant,
            outstanding=request.outstanding,
            page_size=request.page_size,
            page_token=request.page_token,
        )
        return recall_pb2.ListHoldingsResponse(holdings=map(_holding, page.items), next_page_token=page.next_page_token)

    def attest_destruction(
        self, call: Call, request: recall_pb2.AttestDestructionRequest
    ) -> recall_pb2.AttestDestructionResponse:
        """Take a signed statement."""
        holdings, receipt = self._holdings.attest(call, request.grant, request.envelope)
        return recall_pb2.AttestDestructionResponse(holdings=map(_holding, holdings), receipt=_receipt(receipt))

    def list_notices(self, call: Call, request: recall_pb2.ListNoticesRequest) -> recall_pb2.ListNoticesResponse:
        """List the caller's notices."""
        page = self._holdings.notices(call, unread=request.unread, page_size=request.page_size, page_token=request.page_token)
        notices = [wire.to_message(notice, recall_pb2.Notice) for notice in page.items]
        return recall_pb2.ListNoticesResponse(notices=notices, next_page_token=page.next_page_token)

    def read_notices(self, call: Call, request: recall_pb2.ReadNoticesRequest) -> recall_pb2.ReadNoticesResponse:
        """Note what was read."""
        count, receipt = self._holdings.read(call, request.newest)
        return recall_pb2.ReadNoticesResponse(count=count, receipt=_receipt(receipt))


def _holding(holding: Holding) -> recall_pb2.Holding:
    return wire.to_message(holding, recall_pb2.Holding)


def _receipt(receipt: Receipt) -> records_pb2.Receipt:
    return wire.to_message(receipt, records_pb2.Receipt)
