"""Sessions on the wire: messages in, messages out; the steps are in `workflows/sandbox.py`."""

from __future__ import annotations

import struct
from datetime import timedelta
from typing import TYPE_CHECKING

from model_organisms import wire
from model_organisms.records import Inquiry, Message, NewDirection, Purpose, Sample, SamplingParameters, SessionState
from model_organisms.v1 import records_pb2, sandbox_pb2

from model_organisms_registry.domain.glovebox import Claimed, Report
from model_organisms_registry.workflows.probing import Probing

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from model_organisms.records import Receipt, SampleReceipt, Session

    from model_organisms_registry.domain.permits import Call
    from model_organisms_registry.workflows.glovebox import Gloveboxes
    from model_organisms_registry.workflows.sampling import Sampling
    from model_organisms_registry.workflows.sandbox import Sandbox
    from model_organisms_registry.workflows.shares import Shares
    from model_organisms_registry.workflows.watching import Watching

_PURPOSE = records_pb2.DESCRIPTOR.enum_types_by_name["Purpose"]
_STATE = sandbox_pb2.DESCRIPTOR.enum_types_by_name["SessionState"]


class SandboxRooms:
    """`SandboxService`."""

    def __init__(
        self,
        sandbox: Sandbox,
        sampling: Sampling,
        watching: Watching,
        *,
        gloveboxes: Gloveboxes,
        cells: Shares,
        views: Shares,
    ) -> None:
        """Keep the workflows, and how many sessions one person may be opening, and watching, at once."""
        self._watching = watching
        self._gloveboxes = gloveboxes
        self._views = views
        self._cells = cells
        self._sandbox = sandbox
        self._sampling = sampling
        self._probing = Probing(sampling)

    def open_session(self, call: Call, request: sandbox_pb2.OpenSessionRequest) -> sandbox_pb2.OpenSessionResponse:
        """Open a session."""
        with self._cells.held(call.user.name):
            session, receipt = self._sandbox.open(
                call,
                request.version,
                purpose=wire.enum_member(request.purpose, _PURPOSE, Purpose),
                grant=request.grant,
                budget=wire.budget(request, "budget"),
                duration=timedelta(seconds=request.duration_s) if request.duration_s else None,
            )
        return sandbox_pb2.OpenSessionResponse(session=_session(session), receipt=_receipt(receipt))

    def get_session(self, call: Call, request: sandbox_pb2.GetSessionRequest) -> sandbox_pb2.GetSessionResponse:
        """Read a session."""
        return sandbox_pb2.GetSessionResponse(session=_session(self._sandbox.get(call, request.name)))

    def list_sessions(self, call: Call, request: sandbox_pb2.ListSessionsRequest) -> sandbox_pb2.ListSessionsResponse:
        """List sessions the caller may see."""
        page = self._sandbox.list(
            call,
            user=request.user,
            state=wire.enum_member(request.state, _STATE, SessionState) if request.state else None,
            page_size=request.page_size,
            page_token=request.page_token,
        )
        return sandbox_pb2.ListSessionsResponse(
            sessions=[_session(item) for item in page.items], next_page_token=page.next_page_token
        )

    def sample(self, call: Call, request: sandbox_pb2.SampleRequest) -> Iterator[sandbox_pb2.SampleResponse]:
        """Draw text, released piece by piece."""
        parameters = wire.from_message(request.parameters, SamplingParameters)
        messages = _messages(request.messages)
        for part in self._sampling.sample(call, request.session, messages, parameters, whole=request.whole):
            if isinstance(part, str):
                yield sandbox_pb2.SampleResponse(text=part)
            else:
                sample, receipt = part
                yield sandbox_pb2.SampleResponse(done=_done(sample, receipt))

    def probe(self, call: Call, request: sandbox_pb2.ProbeRequest) -> sandbox_pb2.ProbeResponse:
        """Release rounded numbers."""
        inquiry = wire.from_message(request.inquiry, Inquiry) if request.HasField("inquiry") else Inquiry()
        return wire.to_probe(*self._probing.probe(call, request.session, _messages(request.messages), inquiry))

    def make_direction(self, call: Call, request: sandbox_pb2.MakeDirectionRequest) -> sandbox_pb2.MakeDirectionResponse:
        """Make a direction that stays in the cell."""
        contrast = request.contrast
        asked = NewDirection(
            vector=struct.pack(f"<{len(request.vector.values)}f", *request.vector.values),
            positive=_prompts(contrast.positive),
            negative=_prompts(contrast.negative),
            layer=contrast.layer,
            compared=tuple(request.compared),
        )
        made, receipt = self._probing.direction(call, request.session, asked)
        return sandbox_pb2.MakeDirectionResponse(
            name=made.name,
            layer=made.layer,
            norm=made.norm,
            cosines=made.cosines,
            sha256=made.sha256,
            sample_receipt=_sample_receipt(made.receipt),
            receipt=_receipt(receipt),
        )

    def watch_session(self, call: Call, request: sandbox_pb2.WatchSessionRequest) -> Iterator[sandbox_pb2.WatchSessionResponse]:
        """Read a session out."""
        with self._views.held(call.user.name):
            for told in self._watching.watch(
                call, request.name, follow=request.follow, only_new=request.only_new, after=request.after
            ):
                yield sandbox_pb2.WatchSessionResponse(utterance=wire.to_message(told, sandbox_pb2.Utterance))

    def open_local_session(
        self, call: Call, request: sandbox_pb2.OpenLocalSessionRequest
    ) -> sandbox_pb2.OpenLocalSessionResponse:
        """Open a session for a cell at its holder's."""
        session, receipt = self._gloveboxes.open(
            call,
            request.version,
            purpose=wire.enum_member(request.purpose, _PURPOSE, Purpose),
            grant=request.grant,
            budget=wire.budget(request, "budget"),
            duration=timedelta(seconds=request.duration_s) if request.duration_s else None,
            walls=tuple(request.walls),
        )
        return sandbox_pb2.OpenLocalSessionResponse(session=_session(session), receipt=_receipt(receipt))

    def begin_local_turn(self, call: Call, request: sandbox_pb2.BeginLocalTurnRequest) -> sandbox_pb2.BeginLocalTurnResponse:
        """Announce a question to a cell at its holder's."""
        sampling = request.HasField("parameters")
        parameters = wire.from_message(request.parameters, SamplingParameters) if sampling else None
        turn, receipt = self._gloveboxes.begin(call, request.session, _messages(request.messages), parameters)
        return sandbox_pb2.BeginLocalTurnResponse(
            sample=turn.name,
            parameters=wire.to_message(turn.parameters, records_pb2.SamplingParameters) if sampling else None,
            output_bytes=turn.taken.output_bytes,
            receipt=_receipt(receipt),
        )

    def end_local_turn(self, call: Call, request: sandbox_pb2.EndLocalTurnRequest) -> sandbox_pb2.EndLocalTurnResponse:
        """Take a report."""
        report = Report(
            cell=wire.from_message(request.cell, Claimed),
            finish_reason=request.finish_reason,
            text=request.text,
            tokens=request.tokens,
            positions=wire.from_positions(request.positions),
            kl_to_base=request.kl_to_base,
        )
        sample_receipt, receipt = self._gloveboxes.end(call, request.sample, report, call.time)
        return sandbox_pb2.EndLocalTurnResponse(
            finish_reason=request.finish_reason, sample_receipt=_sample_receipt(sample_receipt), receipt=_receipt(receipt)
        )

    def close_session(self, call: Call, request: sandbox_pb2.CloseSessionRequest) -> sandbox_pb2.CloseSessionResponse:
        """End one's own session."""
        session, receipt = self._sandbox.close(call, request.name)
        return sandbox_pb2.CloseSessionResponse(session=_session(session), receipt=_receipt(receipt))

    def kill_session(self, call: Call, request: sandbox_pb2.KillSessionRequest) -> sandbox_pb2.KillSessionResponse:
        """End somebody's session at once."""
        session, receipt = self._sandbox.kill(call, request.name, reason=request.reason)
        return sandbox_pb2.KillSessionResponse(session=_session(session), receipt=_receipt(receipt))


def _messages(messages: Iterable[sandbox_pb2.Message]) -> tuple[Message, ...]:
    return tuple(wire.from_message(message, Message) for message in messages)


def _prompts(sides: Iterable[sandbox_pb2.Conversation]) -> tuple[tuple[Message, ...], ...]:
    return tuple(_messages(prompt.messages) for prompt in sides)


def _done(sample: Sample, receipt: Receipt) -> sandbox_pb2.SampleDone:
    return sandbox_pb2.SampleDone(
        finish_reason=sample.finish_reason,
        sample_receipt=_sample_receipt(sample.receipt),
        receipt=_receipt(receipt),
    )


def _session(session: Session) -> sandbox_pb2.Session:
    return wire.to_message(session, sandbox_pb2.Session)


def _sample_receipt(receipt: SampleReceipt) -> records_pb2.SampleReceipt:
    return wire.to_message(receipt, records_pb2.SampleReceipt)


def _receipt(receipt: Receipt) -> records_pb2.Receipt:
    return wire.to_message(receipt, records_pb2.Receipt)
