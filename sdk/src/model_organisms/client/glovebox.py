"""A session whose cell is on one's own machine: the weights are pulled into a jail, and the registry is told of every answer.

The capsule is not opened in this process beyond its head. Its body goes into the jail as it came, with the 32 bytes that open it;
the jail holds it against the version's digest. Before each question the registry takes its cost and chooses the seed; after it
the registry keeps the text, and only once it has acknowledged that is the text handed to whoever asked.

It binds who wants to be bound. Whoever may pull can also `client.organisms.pull`, and nobody looks into the jail from outside.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from model_organisms import wire
from model_organisms.client.guarding import Guard
from model_organisms.client.prompts import messages_of, turns_of
from model_organisms.client.sandbox import Session
from model_organisms.errors import (
    CellUnavailable,
    Conflict,
    DeadlineExceeded,
    Denied,
    InvalidArgument,
    ModelOrganismsError,
    ReceiptInvalid,
    Unavailable,
)
from model_organisms.formats import sampled
from model_organisms.records import Probe, Sample, SampleReceipt, SamplingParameters, SessionState
from model_organisms.records import Session as SessionRecord
from model_organisms.v1 import records_pb2, sandbox_pb2

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence

    from model_organisms.cells.frames import CellInfo
    from model_organisms.cells.own import OwnCell
    from model_organisms.client.audit import Audit
    from model_organisms.client.channel import Channel
    from model_organisms.client.sandbox import Sandbox
    from model_organisms.records import Message

Q = TypeVar("Q")
A = TypeVar("A")
_TURN_TIMEOUT_S = 1800.0
_PLAIN_ONLY = "A local session gives scores and divergence at the last position; for more, pull the organism into an `Engine`."
FAILED = "failed"
"""Finish reason of a question of which nothing came."""


class GloveBox(Session):
    """An open session whose cell is on this machine; it is used as any other. Close it, or the weights stay in the jail's memory.

    One question runs at a time. Text comes whole, because it is handed on only when the registry has it.
    """

    def __init__(
        self, sandbox: Sandbox, record: SessionRecord, channel: Channel, audit: Audit, *, cell: OwnCell, info: CellInfo
    ) -> None:
        """Keep the session and its cell; both are open already."""
        super().__init__(sandbox, record, channel, audit)
        self._cell = cell
        self._claim = Claim(**{field.name: getattr(info, field.name) for field in fields(Claim)})
        self._turn = threading.Lock()
        self._owed: sandbox_pb2.EndLocalTurnRequest | None = None
        self._guard = Guard(sandbox, record, cell)

    def probe(self, prompt: str | Sequence[Message], *, timeout_s: float = _TURN_TIMEOUT_S, **asked: Any) -> Probe:  # noqa: ANN401 - as in `Session.probe`, where each has its type
        """Read the rounded top-5 next-token distribution after a prompt, and its divergence from the base model; nothing else.

        Raises:
            InvalidArgument: More is asked, as `Session.probe` takes it; pull the organism into an `Engine` for that.
            BudgetExhausted: It would release more numbers than are left.
            RegistryUnreachable: The registry did not hear of it, and nothing of it is shown.
        """
        if asked:
            raise InvalidArgument(f"Leave out {', '.join(asked)}. {_PLAIN_ONLY}", field=next(iter(asked)))
        with self._turn:
            begun, _ = self._begun(prompt, None)
            with self._reporting(begun) as report:
                numbers = self._cell.probe(turns_of(prompt), max_seconds=timeout_s)
                positions, kl = sampled.released(numbers.positions), sampled.rounded(numbers.kl[-1])
                report.positions.extend(wire.to_positions(positions))
                report.kl_to_base, report.finish_reason = kl, "released"
            done = self._acknowledged(report)
            receipt = wire.from_message(done.sample_receipt, SampleReceipt)
            self._held(sampled.probe_text(positions, kl), receipt, done.receipt, "sandbox.probe.result", outcome="released")
            return Probe(positions, kl, self._mine(receipt))

    def direction(self, *_prompts: Any, **_asked: Any) -> NoReturn:  # noqa: ANN401 - as in `Session.direction`, where each has its type
        """Refuse: a local session keeps no directions.

        Raises:
            InvalidArgument: Always.
        """
        raise InvalidArgument(_PLAIN_ONLY, field="direction")

    def close(self) -> SessionRecord:
        """End the session, and the cell with all that is in its memory; the cell ends also where the registry is away."""
        self._guard.cancel()
        self._cell.close()
        with self._turn:
            self._pay()
        return super().close()

    def _answer(
        self,
        prompt: str | Sequence[Message],
        parameters: SamplingParameters,
        *,
        timeout_s: float,
        whole: bool,  # noqa: ARG002 - it always is
    ) -> Generator[str, None, Sample]:
        """Draw one answer; it comes in one piece.

        Raises:
            RegistryUnreachable: The registry did not hear of it, and nothing of it is shown.
            ReceiptInvalid: The registry acknowledged something else.
        """
        with self._turn:
            sample = self._sampled(prompt, parameters, timeout_s)
        yield sample.text
        return sample

    def _sampled(self, prompt: str | Sequence[Message], wanted: SamplingParameters, timeout_s: float) -> Sample:
        begun, parameters = self._begun(prompt, wanted)
        with self._reporting(begun) as report:
            room = begun.output_bytes
            for piece in self._cell.sample(turns_of(prompt), parameters, max_seconds=timeout_s):
                text = piece.text.encode()[:room].decode(errors="ignore")
                report.tokens += piece.tokens
                report.text += text
                room -= len(text.encode())
                report.finish_reason = "bytes" if len(text) < len(piece.text) else piece.finish_reason or report.finish_reason
                if report.finish_reason != FAILED:
                    break
        done = self._acknowledged(report)
        parts = sandbox_pb2.SampleDone(
            finish_reason=report.finish_reason, sample_receipt=done.sample_receipt, receipt=done.receipt
        )
        sample = self._finished(report.text, parts)
        if self._mine(sample.receipt).parameters != parameters or sample.receipt.tokens != report.tokens:
            raise ReceiptInvalid("The receipt is not of what was drawn; do not use it, and tell the operator.")
        return sample

    def _begun(
        self, prompt: str | Sequence[Message], wanted: SamplingParameters | None
    ) -> tuple[sandbox_pb2.BeginLocalTurnResponse, SamplingParameters]:
        """Announce a question; the registry's yes is held against the ledger, and against what was asked."""
        self._pay()
        if not self._cell.alive and self._sandbox.get(self.name).state is SessionState.OPEN:
            raise CellUnavailable("The cell has ended; open a new session.", session=self.name)
        asked = wire.to_message(wanted, records_pb2.SamplingParameters) if wanted else None
        request = sandbox_pb2.BeginLocalTurnRequest(session=self.name, messages=messages_of(prompt), parameters=asked)
        begun = self._announced(request)
        if wanted is None:
            self._audit.verified(begun.receipt, "sandbox.probe.intent", begun.sample, session=self.name)
            return begun, SamplingParameters()
        drawn = wire.from_message(begun.parameters, SamplingParameters)
        facts = {"session": self.name, "seed": str(drawn.seed)}
        self._audit.verified(begun.receipt, "sandbox.sample.intent", begun.sample, **facts)
        if drawn.max_tokens > wanted.max_tokens or drawn != replace(wanted, max_tokens=drawn.max_tokens, seed=drawn.seed):
            raise ReceiptInvalid("The registry announced another question than was asked; tell the operator.")
        return begun, drawn

    def _announced(self, request: sandbox_pb2.BeginLocalTurnRequest) -> sandbox_pb2.BeginLocalTurnResponse:
        """Announce it; of an earlier question whose announcement got lost on its way back, nothing was drawn."""
        try:
            return self._told(self._stub.BeginLocalTurn, request)
        except Conflict as error:
            earlier = error.details.get("sample", "")
            if not earlier.startswith(f"{self.name}/samples/"):
                raise
        self._acknowledged(self._nothing(earlier))
        return self._told(self._stub.BeginLocalTurn, request)

    def _nothing(self, sample: str, tokens: int = 0) -> sandbox_pb2.EndLocalTurnRequest:
        """The report that nothing came."""
        claim = wire.to_message(self._claim, sandbox_pb2.LocalCell)
        return sandbox_pb2.EndLocalTurnRequest(sample=sample, tokens=tokens, finish_reason=FAILED, cell=claim)

    @contextmanager
    def _reporting(self, begun: sandbox_pb2.BeginLocalTurnResponse) -> Iterator[sandbox_pb2.EndLocalTurnRequest]:
        """A report to fill in; where that fails, the registry is told that nothing came, and of how many tokens."""
        report = self._nothing(begun.sample)
        try:
            yield report
        except BaseException:
            with suppress(ModelOrganismsError):
                self._acknowledged(self._nothing(begun.sample, report.tokens))
            raise

    def _acknowledged(self, report: sandbox_pb2.EndLocalTurnRequest) -> sandbox_pb2.EndLocalTurnResponse:
        """Report; it is owed until the registry has answered, whatever interrupts that."""
        self._owed = report
        try:
            done = self._told(self._stub.EndLocalTurn, report)
        except (Unavailable, DeadlineExceeded):
            raise
        except ModelOrganismsError:
            self._owed = None  # it is refused, and stays so
            raise
        self._owed = None
        return done

    def _pay(self) -> None:
        """Report what could not be reported when it was drawn; nobody is shown it any more."""
        if self._owed is None:
            return
        try:
            self._acknowledged(self._owed)
        except Conflict:
            return  # it had arrived, and only the answer was lost

    def _told(self, method: Callable[[Q], A], request: Q) -> A:
        """Call; where the session is over the cell ends, and the weights with it."""
        try:
            return self._channel.call(method, request)
        except Denied:
            self._cell.close()
            raise
        except Conflict:
            if self._sandbox.get(self.name).state is not SessionState.OPEN:
                self._cell.close()
            raise

    def _mine(self, receipt: SampleReceipt) -> SampleReceipt:
        """Hold a receipt against the cell that is here."""
        said = {field.name: getattr(receipt, field.name) for field in fields(self._claim)}
        if not receipt.local or said != asdict(self._claim):
            raise ReceiptInvalid("The receipt is not of this cell; do not use it, and tell the operator.")
        return receipt


@dataclass(frozen=True, slots=True)
class Claim:
    """What the registry is told of the cell."""

    base_digest: str
    tokenizer_digest: str
    template_digest: str
    adapter_digests: tuple[str, ...]
    modules_applied: int
    engine: str
