"""Sessions: sampling and probing an organism where its weights are, inside budgets, with a receipt for every answer."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Self

from model_organisms import names, wire
from model_organisms.client.prompts import finite, messages_of, sample_request
from model_organisms.client.watching import followed
from model_organisms.errors import ModelOrganismsError, ReceiptInvalid
from model_organisms.formats import sampled
from model_organisms.records import (
    Budget,
    Direction,
    Inquiry,
    Measure,
    Message,
    Purpose,
    Sample,
    SampleReceipt,
    SamplingParameters,
    SessionState,
    Utterance,
)
from model_organisms.records import Session as SessionRecord
from model_organisms.v1 import records_pb2, sandbox_pb2, sandbox_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence
    from datetime import timedelta
    from pathlib import Path
    from types import TracebackType

    from model_organisms.client.audit import Audit
    from model_organisms.client.channel import Channel
    from model_organisms.client.glovebox import GloveBox
    from model_organisms.client.organisms import Organisms
    from model_organisms.records import Probe, Steer

_PURPOSE = records_pb2.DESCRIPTOR.enum_types_by_name["Purpose"]
_STATE = sandbox_pb2.DESCRIPTOR.enum_types_by_name["SessionState"]
_OPEN_TIMEOUT_S = 300.0
_SAMPLE_TIMEOUT_S = 1800.0


class Sandbox:
    """Opens sessions, and for reviewers lists and stops them."""

    def __init__(self, channel: Channel, audit: Audit, organisms: Organisms) -> None:
        """Keep the connection, who checks receipts, and who finds versions."""
        self._organisms = organisms
        self._channel = channel
        self._audit = audit
        self._stub = sandbox_pb2_grpc.SandboxServiceStub(channel.grpc_channel)

    def open(
        self,
        version: str,
        *,
        purpose: Purpose | str,
        grant: str = "",
        budget: Budget | None = None,
        duration: timedelta | None = None,
        timeout_s: float = _OPEN_TIMEOUT_S,
    ) -> Session:
        """Open a session; use it in a `with` block, which closes it.

        Args:
            version: What to sample.
            purpose: The purpose of the grant.
            grant: The grant to open it under; where there are several, the registry takes one that covers.
            budget: What the session may spend; what the grant has left where absent.
            duration: How long it may last.
            timeout_s: How long to wait for a cell to load the model, in seconds.

        Returns:
            The open session.

        Raises:
            GrantRequired: No grant covers sampling it.
            JailMissing: The registry's sandbox lacks a wall, and the level needs them all.
            CellUnavailable: No cell is free, or none came up.
        """
        message = sandbox_pb2.OpenSessionRequest(
            version=version,
            purpose=wire.enum_value(Purpose(purpose), _PURPOSE),
            grant=grant,
            budget=wire.to_message(budget, records_pb2.Budget) if budget else None,
            duration_s=wire.seconds(duration),
        )
        response = self._channel.call(self._stub.OpenSession, message, timeout_s=timeout_s)
        record = wire.from_message(response.session, SessionRecord)
        facts = {"version": version, "digest": record.version.digest, "purpose": Purpose(purpose).value}
        self._audit.verified(response.receipt, "sandbox.open", record.name, **facts)
        return Session(self, record, self._channel, self._audit)

    def local(
        self,
        version: str,
        *,
        purpose: Purpose | str,
        grant: str = "",
        budget: Budget | None = None,
        duration: timedelta | None = None,
        base: str | Path | None = None,
        device: str = "auto",
        dtype: str = "",
        progress_bar: bool | None = None,
    ) -> GloveBox:
        """Open a session whose cell is on this machine, under a grant to pull; it is used as one at the registry.

        The weights are plain only inside the jail. The registry keeps prompt, text and counts of every answer.

        Args:
            version: What to sample; a bare organism gives its newest version.
            purpose: The purpose of the grant.
            grant: The grant to open it under; where there are several, the registry takes one that covers.
            budget: What the session may spend; what the grant has left where absent.
            duration: How long it may last.
            base: Folder of the base model, or its hub id; where absent, the one the provenance names, from the hub's cache.
            device: `cpu`, `cuda`, or `auto`.
            dtype: `float32`, `bfloat16`, `float16`; by default what suits the device.
            progress_bar: Show progress; by default where standard error is a terminal.

        Returns:
            The open session.

        Raises:
            GrantRequired: No grant covers pulling it.
            BudgetExhausted: The grant has no pull or no session left.
            ConfigurationInvalid: The device or the dtype is none of this machine's.
            JailMissing: This machine cannot build the jail; the message says what to install.
            BaseModelMissing: The base model is not there.
            LoadingFailed: The version does not go on the base model, or does not answer as it did when published.
        """
        from model_organisms.client.opening import open_local

        wanted = self._organisms.version(version)
        return open_local(
            self,
            self._channel,
            self._audit,
            wanted,
            purpose=Purpose(purpose),
            grant=grant,
            budget=budget,
            duration=duration,
            base=base,
            device=device,
            dtype=dtype,
            progress_bar=progress_bar,
        )

    def get(self, name: str) -> SessionRecord:
        """Read a session, with what it has spent."""
        response = self._channel.call(self._stub.GetSession, sandbox_pb2.GetSessionRequest(name=name), repeatable=True)
        return wire.from_message(response.session, SessionRecord)

    def list(self, *, user: str = "", state: SessionState | str | None = None) -> Iterator[SessionRecord]:
        """List sessions the caller may see: their own, or all for reviewers."""
        wanted: Any = wire.enum_value(SessionState(state), _STATE) if state else 0
        token = ""
        while True:
            message = sandbox_pb2.ListSessionsRequest(user=names.user(user) if user else "", state=wanted, page_token=token)
            response = self._channel.call(self._stub.ListSessions, message, repeatable=True)
            yield from (wire.from_message(item, SessionRecord) for item in response.sessions)
            if not (token := response.next_page_token):
                return

    def watch(self, name: str, *, only_new: bool = False, timeout_s: float | None = None) -> Iterator[Utterance]:
        """Read what is said in somebody's session while it is said, until it has ended; for reviewers and admins.

        Each look is an entry in the ledger, and lasts half an hour at most; then the next goes on where it ended. Leaving the
        iterator ends it.

        Args:
            name: The session.
            only_new: Leave out what was said before.
            timeout_s: How long to watch, in seconds; where absent, until the session has ended.

        Yields:
            Prompts, windows of text as they are released, and how each question ended. All of it is untrusted: escape it where
            you show it.

        Raises:
            Denied: You do not oversee.
            Unavailable: You took nothing for too long, or watch too many sessions.
        """
        return followed(self._told, lambda: self.get(name), name, only_new=only_new, timeout_s=timeout_s)

    def transcript(self, name: str, *, timeout_s: float = _SAMPLE_TIMEOUT_S) -> Iterator[Utterance]:
        """Read what was said in somebody's session so far; for reviewers and admins, and an entry in the ledger like `watch`."""
        return self._told(sandbox_pb2.WatchSessionRequest(name=name), timeout_s)

    def _told(self, message: sandbox_pb2.WatchSessionRequest, timeout_s: float) -> Iterator[Utterance]:
        for response in self._channel.stream(self._stub.WatchSession, message, timeout_s=timeout_s):
            yield wire.from_message(response.utterance, Utterance)

    def close(self, name: str) -> SessionRecord:
        """End one's own session."""
        response = self._channel.call(self._stub.CloseSession, sandbox_pb2.CloseSessionRequest(name=name))
        self._audit.verified(response.receipt, "sandbox.end", name, state=SessionState.CLOSED.value)
        return wire.from_message(response.session, SessionRecord)

    def kill(self, name: str, *, reason: str) -> SessionRecord:
        """End somebody's session at once; its user reads the reason."""
        message = sandbox_pb2.KillSessionRequest(name=name, reason=wire.text(reason))
        response = self._channel.call(self._stub.KillSession, message)
        self._audit.verified(response.receipt, "sandbox.end", name, state=SessionState.KILLED.value)
        return wire.from_message(response.session, SessionRecord)


class Session:
    """An open session. Text from it is output of a misaligned model: treat it as data, and escape it where it is shown."""

    def __init__(self, sandbox: Sandbox, record: SessionRecord, channel: Channel, audit: Audit) -> None:
        """Keep the session; it is open already."""
        self.record = record
        self._sandbox = sandbox
        self._channel = channel
        self._audit = audit
        self._stub = sandbox_pb2_grpc.SandboxServiceStub(channel.grpc_channel)

    @property
    def name(self) -> str:
        """Its resource name."""
        return self.record.name

    def sample(
        self,
        prompt: str | Sequence[Message],
        *,
        max_tokens: int = 128,
        temperature: float = 1.0,
        top_p: float = 1.0,
        top_k: int = 0,
        stop: Sequence[str] = (),
        steer: Sequence[Steer] = (),
        scale: float | None = None,
        timeout_s: float = _SAMPLE_TIMEOUT_S,
    ) -> Sample:
        """Draw one answer.

        Args:
            prompt: What a user says, or a conversation.
            max_tokens: Longest answer, in tokens.
            temperature: 0 takes the likeliest token each time.
            top_p: Share of probability kept.
            top_k: Tokens kept; 0 keeps all.
            stop: Texts that end the answer.
            steer: What is added to hidden states, or taken out, while it answers; needs the rung `probe`.
            scale: Dose of the organism: 0 is the bare base, 1 as published; needs the rung `probe`.
            timeout_s: Deadline, in seconds.

        Returns:
            The text and its receipt. The seed in the receipt was the server's to choose.

        Raises:
            BudgetExhausted: Nothing is left to spend.
            GrantRevoked: The grant was taken back meanwhile.
            CellUnavailable: The cell was lost; the session has ended.
        """
        parameters = SamplingParameters(max_tokens, temperature, top_p, top_k, tuple(stop), steer=tuple(steer), scale=scale)
        answer = self._answer(prompt, parameters, timeout_s=timeout_s, whole=True)
        while True:
            try:
                next(answer)
            except StopIteration as end:
                drawn: Sample = end.value
                return drawn

    def stream(
        self,
        prompt: str | Sequence[Message],
        parameters: SamplingParameters | None = None,
        *,
        timeout_s: float = _SAMPLE_TIMEOUT_S,
    ) -> Generator[str, None, Sample]:
        """Draw one answer, piece by piece as the registry releases it.

        Yields:
            Text. The generator's return value is the `Sample`, receipt and all.

        Raises:
            ReceiptInvalid: The text is not the text the receipt and the ledger commit to.
        """
        return (yield from self._answer(prompt, parameters or SamplingParameters(), timeout_s=timeout_s, whole=False))

    def _answer(
        self, prompt: str | Sequence[Message], parameters: SamplingParameters, *, timeout_s: float, whole: bool
    ) -> Generator[str, None, Sample]:
        request = sample_request(self.name, prompt, parameters, whole=whole)
        pieces: list[str] = []
        for response in self._channel.stream(self._stub.Sample, request, timeout_s=timeout_s):
            if response.HasField("done"):
                return self._finished("".join(pieces), response.done)
            pieces.append(response.text)
            yield response.text
        raise ReceiptInvalid("The answer ended without its receipt; do not use it, and sample again.")

    def probe(
        self,
        prompt: str | Sequence[Message],
        *,
        positions: int = 1,
        measures: Sequence[Measure | str] = (Measure.LOGPROBS, Measure.KL),
        layers: Sequence[int] = (),
        directions: Sequence[Direction | str | Sequence[float]] = (),
        steer: Sequence[Steer] = (),
        scale: float | None = None,
        timeout_s: float = _SAMPLE_TIMEOUT_S,
    ) -> Probe:
        """Read rounded numbers at the end of a prompt: next-token scores, divergence from the base, and what hidden states say.

        Every number is counted in the budget's `probe_values`, token ids included.

        Args:
            prompt: What a user says, or a conversation.
            positions: How many positions, counted back from the last, where the organism is to speak.
            measures: What to read: `logprobs`, `kl`, `norms`, `projections`, `cosines`; `activations` needs the rung `pull`.
            layers: After which layers hidden states are read, from 0.
            directions: Along which; a vector, shape [hidden], is sent first (`direction`), which costs a number of its own.
            steer: What is done to the organism meanwhile; the base it is compared with is left alone.
            scale: Dose of the organism.
            timeout_s: Deadline, in seconds.

        Returns:
            The numbers, by position, the earliest first, and their receipt.

        Raises:
            GrantRequired: The grant gives sampling only, or no activations.
            ReceiptInvalid: The numbers are not those the receipt and the ledger commit to.
            BudgetExhausted: It would release more numbers than are left.
            InvalidArgument: A layer or a direction that is not there, or more than one answer may have.
        """
        inquiry = Inquiry(
            positions,
            tuple(Measure(measure) for measure in measures),
            tuple(layers),
            tuple(self._named(direction) for direction in directions),
            tuple(steer),
            scale,
        )
        request = sandbox_pb2.ProbeRequest(
            session=self.name, messages=messages_of(prompt), inquiry=wire.to_message(inquiry, sandbox_pb2.Inquiry)
        )
        response = self._channel.call(self._stub.Probe, request, timeout_s=timeout_s)
        probe = wire.from_probe(response)
        text = sampled.probe_text(probe.positions, probe.kl_to_base, kl=probe.kl, readings=probe.readings)
        self._held(text, probe.receipt, response.receipt, "sandbox.probe.result", outcome="released")
        return probe

    def activations(
        self,
        prompt: str | Sequence[Message],
        layers: Sequence[int],
        positions: int = 1,
        *,
        steer: Sequence[Steer] = (),
        scale: float | None = None,
        timeout_s: float = _SAMPLE_TIMEOUT_S,
    ) -> dict[int, tuple[tuple[float, ...], ...]]:
        """Read hidden states themselves, unrounded; needs a grant to pull, for one of them may be an adapter's whole direction.

        Args:
            prompt: What a user says, or a conversation.
            layers: After which layers, from 0.
            positions: How many positions, counted back from the last.
            steer: As for `probe`.
            scale: As for `probe`.
            timeout_s: Deadline, in seconds.

        Returns:
            By layer: shape [positions, hidden], the earliest position first.

        Raises:
            GrantRequired: The grant gives no pulling.
            Denied: The organism is of CL4, whose weights nobody gets.
            BudgetExhausted: It would release more numbers than are left.
        """
        asked: dict[str, Any] = {"positions": positions, "layers": layers, "steer": steer, "scale": scale, "timeout_s": timeout_s}
        probe = self.probe(prompt, measures=[Measure.ACTIVATIONS], **asked)
        rows = {}
        for reading in probe.readings:
            size = len(reading.values) // positions
            rows[reading.layer] = tuple(reading.values[at * size : (at + 1) * size] for at in range(positions))
        return rows

    def direction(
        self,
        positive: Sequence[str | Sequence[Message]] = (),
        negative: Sequence[str | Sequence[Message]] = (),
        layer: int = 0,
        *,
        vector: Sequence[float] = (),
        compared: Sequence[Direction | str] = (),
        timeout_s: float = _SAMPLE_TIMEOUT_S,
    ) -> Direction:
        """Make a direction that the session keeps, for probes and steering; the vector stays in the cell.

        It is the difference of two means of hidden states at the last position of each prompt, or a vector that is sent, made
        length 1. It goes with the session.

        Args:
            positive: Prompts, or conversations.
            negative: Those whose mean is taken off.
            layer: After which layer they are read, from 0.
            vector: Instead of prompts: shape [hidden].
            compared: Directions of this session whose cosines with it are wanted.
            timeout_s: Deadline, in seconds.

        Returns:
            Its name, its length before it was made 1, and the cosines, rounded; each counted in `probe_values`.

        Raises:
            GrantRequired: The grant gives sampling only.
            InvalidArgument: A vector of another size, of no length, or with numbers that are none; or a layer that is not there.
            BudgetExhausted: It would release more numbers than are left.
        """
        request = sandbox_pb2.MakeDirectionRequest(session=self.name, compared=[self._named(one) for one in compared])
        if len(vector):
            request.vector.values.extend(finite(vector))
        else:
            request.contrast.layer = layer
            request.contrast.positive.extend(sandbox_pb2.Conversation(messages=messages_of(prompt)) for prompt in positive)
            request.contrast.negative.extend(sandbox_pb2.Conversation(messages=messages_of(prompt)) for prompt in negative)
        response = self._channel.call(self._stub.MakeDirection, request, timeout_s=timeout_s)
        made = wire.from_direction(response)
        text = sampled.direction_text(made.name, layer=made.layer, norm=made.norm, cosines=made.cosines, sha256=made.sha256)
        self._held(text, made.receipt, response.receipt, "sandbox.probe.result", outcome="released")
        return made

    def _named(self, direction: Direction | str | Sequence[float]) -> str:
        if isinstance(direction, str):
            return direction
        return direction.name if isinstance(direction, Direction) else self.direction(vector=direction).name

    def close(self) -> SessionRecord:
        """End the session."""
        self.record = self._sandbox.close(self.name)
        return self.record

    def __enter__(self) -> Self:
        """Use the session."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """End the session; one that ended meanwhile is left as it is, and an error on the way out is not hidden."""
        try:
            self.close()
        except ModelOrganismsError:
            if error is None and self._sandbox.get(self.name).state is SessionState.OPEN:
                raise

    def _finished(self, text: str, done: sandbox_pb2.SampleDone) -> Sample:
        receipt = wire.from_message(done.sample_receipt, SampleReceipt)
        self._held(text, receipt, done.receipt, "sandbox.sample.result", outcome=done.finish_reason)
        return Sample(text, done.finish_reason, receipt)

    def _held(self, text: str, receipt: SampleReceipt, proof: records_pb2.Receipt, kind: str, *, outcome: str) -> None:
        """Hold what was released against its receipt, and the receipt against the ledger's entry."""
        digest = hashlib.sha256(text.encode()).hexdigest()
        facts = {"session": self.name, "outcome": outcome, "output": digest, "receipt": sampled.receipt_digest(receipt)}
        proved = self._audit.verified(proof, kind, receipt.sample, **facts)
        said = (receipt.output_sha256, receipt.ledger_index, receipt.session, receipt.version, receipt.version_digest)
        if said != (digest, proved.index, self.name, self.record.version.name, self.record.version.digest):
            raise ReceiptInvalid("This is not what its receipt commits to; do not use it, and tell the operator.")
