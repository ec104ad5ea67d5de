"""Motions on the wire: messages in, messages out; the steps are in `workflows/motions.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from model_organisms import wire
from model_organisms.records import MotionKind, MotionState
from model_organisms.v1 import motions_pb2, records_pb2

if TYPE_CHECKING:
    from model_organisms.records import Motion, Receipt

    from model_organisms_registry.domain.permits import Call
    from model_organisms_registry.workflows.motions import Motions

_KIND = motions_pb2.DESCRIPTOR.enum_types_by_name["MotionKind"]
_STATE = motions_pb2.DESCRIPTOR.enum_types_by_name["MotionState"]


class MotionsRooms:
    """`MotionsService`."""

    def __init__(self, motions: Motions) -> None:
        """Keep the workflows."""
        self._motions = motions

    def propose_motion(self, call: Call, request: motions_pb2.ProposeMotionRequest) -> motions_pb2.ProposeMotionResponse:
        """Open a motion."""
        kind = wire.enum_member(request.kind, _KIND, MotionKind)
        motion, receipt = self._motions.propose(call, kind, request.subject, facts=dict(request.facts), envelope=request.envelope)
        return motions_pb2.ProposeMotionResponse(motion=_motion(motion), receipt=_receipt(receipt))

    def get_motion(self, call: Call, request: motions_pb2.GetMotionRequest) -> motions_pb2.GetMotionResponse:
        """Read a motion."""
        return motions_pb2.GetMotionResponse(motion=_motion(self._motions.get(call, request.name)))

    def list_motions(self, call: Call, request: motions_pb2.ListMotionsRequest) -> motions_pb2.ListMotionsResponse:
        """List motions the caller may see."""
        page = self._motions.list(
            call,
            state=wire.enum_member(request.state, _STATE, MotionState) if request.state else None,
            kind=wire.enum_member(request.kind, _KIND, MotionKind) if request.kind else None,
            page_size=request.page_size,
            page_token=request.page_token,
        )
        return motions_pb2.ListMotionsResponse(motions=map(_motion, page.items), next_page_token=page.next_page_token)

    def second_motion(self, call: Call, request: motions_pb2.SecondMotionRequest) -> motions_pb2.SecondMotionResponse:
        """Hand in a signed yes."""
        motion, receipt = self._motions.sign(call, request.name, request.envelope, approve=True)
        return motions_pb2.SecondMotionResponse(motion=_motion(motion), receipt=_receipt(receipt))

    def reject_motion(self, call: Call, request: motions_pb2.RejectMotionRequest) -> motions_pb2.RejectMotionResponse:
        """Hand in a signed no."""
        motion, receipt = self._motions.sign(call, request.name, request.envelope, approve=False)
        return motions_pb2.RejectMotionResponse(motion=_motion(motion), receipt=_receipt(receipt))

    def withdraw_motion(self, call: Call, request: motions_pb2.WithdrawMotionRequest) -> motions_pb2.WithdrawMotionResponse:
        """Take one's own motion back."""
        motion, receipt = self._motions.withdraw(call, request.name)
        return motions_pb2.WithdrawMotionResponse(motion=_motion(motion), receipt=_receipt(receipt))


def _motion(motion: Motion) -> motions_pb2.Motion:
    return wire.to_message(motion, motions_pb2.Motion)


def _receipt(receipt: Receipt) -> records_pb2.Receipt:
    return wire.to_message(receipt, records_pb2.Receipt)
