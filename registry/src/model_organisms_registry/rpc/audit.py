"""The ledger on the wire: messages in, messages out; the steps are in `workflows/audit.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from model_organisms import wire
from model_organisms.v1 import audit_pb2, records_pb2

if TYPE_CHECKING:
    from model_organisms_registry.domain.permits import Call
    from model_organisms_registry.workflows.audit import Audit


class AuditRooms:
    """`AuditService`."""

    def __init__(self, audit: Audit) -> None:
        """Keep the workflows."""
        self._audit = audit

    def get_checkpoint(self, call: Call, _: audit_pb2.GetCheckpointRequest) -> audit_pb2.GetCheckpointResponse:
        """Serve the newest signed head."""
        head, cosigned = self._audit.checkpoint(call)
        return audit_pb2.GetCheckpointResponse(checkpoint=head.note, cosigned=cosigned)

    def list_entries(self, call: Call, request: audit_pb2.ListEntriesRequest) -> audit_pb2.ListEntriesResponse:
        """Serve entries in order."""
        shown, hashes = self._audit.entries(call, request.start, request.count)
        return audit_pb2.ListEntriesResponse(entries=shown, leaf_hashes=hashes)

    def get_receipt(self, call: Call, request: audit_pb2.GetReceiptRequest) -> audit_pb2.GetReceiptResponse:
        """Prove one entry."""
        receipt = self._audit.receipt(call, request.index)
        return audit_pb2.GetReceiptResponse(receipt=wire.to_message(receipt, records_pb2.Receipt))

    def get_consistency(self, call: Call, request: audit_pb2.GetConsistencyRequest) -> audit_pb2.GetConsistencyResponse:
        """Prove that one head extends another."""
        proof = self._audit.consistency(call, request.old_size, request.new_size)
        return audit_pb2.GetConsistencyResponse(proof=proof)
