"""A session whose cell is on one's own machine: the weights are pulled into a jail, and the registry is told of every answer.

The capsule is not opened in this process beyond its head. Its body goes into the jail as it came, with the 32 bytes that open it;
the jail holds it against the version's digest. Before each question the registry takes its cost and chooses the seed; after it
the registry keeps the text, and only once it has acknowledged that is the text handed to whoever asked.

It binds who wants to be bound. Whoever may pull can also `client.organisms.pull`, and nobody looks into the jail from outside.
"""

from __future__ import annotations

import sys
import threading
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from model_organisms import bases, progress, wire
from model_organisms.client.prompts import messages_of, turns_of
from model_organisms.client.recall import warn
from model_organisms.client.sandbox import Session
from model_organisms.client.transfer import SealedDownload
from model_organisms.errors import (
    CellUnavailable,
    Conflict,
    DeadlineExceeded,
    Denied,
    InvalidArgument,
    JailMissing,
    ModelOrganismsError,
    ReceiptInvalid,
    Unavailable,
)
from model_organisms.formats import capsule, provenance, sampled
from model_organisms.records import Probe, Sample, SampleReceipt, SamplingParameters, SessionState
from model_organisms.records import Session as SessionRecord
from model_organisms.v1 import organisms_pb2_grpc, records_pb2, sandbox_pb2, sandbox_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence
    from datetime import timedelta
    from pathlib import Path

    from model_organisms.cells.frames import CellInfo
    from model_organisms.cells.own import OwnCell
    from model_organisms.client.audit import Audit
    from model_organisms.client.channel import Channel
    from model_organisms.client.sandbox import Sandbox
    from model_organisms.formats.provenance import Provenance
    from model_organisms.records import Budget, Message, Purpose, Version

Q = TypeVar("Q")
A = TypeVar("A")
_PURPOSE = records_pb2.DESCRIPTOR.enum_types_by_name["Purpose"]
_TRANSFER_TIMEOUT_S = 3000.0
_TURN_TIMEOUT_S = 1800.0
_PLAIN_ONLY = "A local session gives scores and divergence at the last position; for more, pull the organism into an `Engine`."
FAILED = "failed"
"""Finish reason of a question of which nothing came."""


def open_local(
    sandbox: Sandbox,
    channel: Channel,
    audit: Audit,
    version: Version,
    *,
    purpose: Purpose,
    grant: str,
    budget: Budget | None,
    duration: timedelta | None,
    base: str | Path | None,
    device: str,
    dtype: str,
    progress_bar: bool | None,
) -> GloveBox:
    """Start a cell here, open a session for it, and pull the version into it; `Sandbox.local` says what the arguments are."""
    if sys.platform != "linux":
        msg = "A glove box needs Linux, whose walls make its jail; open a session at the registry: client.sandbox.open(...)."
        raise JailMissing(msg)
    from model_organisms.cells import own

    own.check_machine()
    stated = provenance.verify(version.provenance, version.publisher_key, digest=version.digest)
    named, shown = stated.base, sys.stderr.isatty() if progress_bar is None else progress_bar
    folder = bases.find(base or named.id, revision=named.revision, digest=named.digest, progress=shown)
    cell = own.OwnCell(folder, device=device, dtype=dtype)
    try:
        record = _opened(channel, audit, version, cell.walls, purpose=purpose, grant=grant, budget=budget, duration=duration)
        try:
            info = _loaded(channel, audit, record, cell, version=version, stated=stated, shown=shown)
        except BaseException:
            with suppress(ModelOrganismsError):
                sandbox.close(record.name)
            raise
    except BaseException:
        cell.close()
        raise
    warn(version)
    return GloveBox(sandbox, record, channel, audit, cell=cell, info=info)


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
        left = (record.expire_time - datetime.now(UTC)).total_seconds()
        self._expiry = threading.Timer(max(0.0, left), cell.close)
        self._expiry.daemon = True
        self._expiry.start()

    def stream(
        self,
        prompt: str | Sequence[Message],
        parameters: SamplingParameters | None = None,
        *,
        timeout_s: float = _TURN_TIMEOUT_S,
    ) -> Generator[str, None, Sample]:
        """Draw one answer; it comes in one piece.

        Yields:
            The text. The generator's return value is the `Sample`, receipt and all.

        Raises:
            RegistryUnreachable: The registry did not hear of it, and nothing of it is shown.
            ReceiptInvalid: The registry acknowledged something else.
        """
        with self._turn:
            sample = self._sampled(prompt, parameters or SamplingParameters(), timeout_s)
        yield sample.text
        return sample

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
        self._expiry.cancel()
        self._cell.close()
        with self._turn:
            self._pay()
        return super().close()

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
        if not self._cell.alive:
            raise CellUnavailable("The cell has ended; open a new session.", session=self.name)
        asked = wire.to_message(wanted, records_pb2.SamplingParameters) if wanted else None
        request = sandbox_pb2.BeginLocalTurnRequest(session=self.name, messages=messages_of(prompt), parameters=asked)
        begun = self._told(self._stub.BeginLocalTurn, request)
        if wanted is None:
            self._audit.verified(begun.receipt, "sandbox.probe.intent", begun.sample, session=self.name)
            return begun, SamplingParameters()
        drawn = wire.from_message(begun.parameters, SamplingParameters)
        facts = {"session": self.name, "seed": str(drawn.seed)}
        self._audit.verified(begun.receipt, "sandbox.sample.intent", begun.sample, **facts)
        if drawn.max_tokens > wanted.max_tokens or drawn != replace(wanted, max_tokens=drawn.max_tokens, seed=drawn.seed):
            raise ReceiptInvalid("The registry announced another question than was asked; tell the operator.")
        return begun, drawn

    @contextmanager
    def _reporting(self, begun: sandbox_pb2.BeginLocalTurnResponse) -> Iterator[sandbox_pb2.EndLocalTurnRequest]:
        """A report to fill in; where that fails, the registry is told that nothing came, and of how many tokens."""
        claim = wire.to_message(self._claim, sandbox_pb2.LocalCell)
        report = sandbox_pb2.EndLocalTurnRequest(sample=begun.sample, finish_reason=FAILED, cell=claim)
        try:
            yield report
        except BaseException:
            nothing = sandbox_pb2.EndLocalTurnRequest(sample=begun.sample, tokens=report.tokens, finish_reason=FAILED, cell=claim)
            with suppress(ModelOrganismsError):
                self._acknowledged(nothing)
            raise

    def _acknowledged(self, report: sandbox_pb2.EndLocalTurnRequest) -> sandbox_pb2.EndLocalTurnResponse:
        try:
            return self._told(self._stub.EndLocalTurn, report)
        except (Unavailable, DeadlineExceeded):
            self._owed = report
            raise

    def _pay(self) -> None:
        """Report what could not be reported when it was drawn; nobody is shown it any more."""
        if self._owed is None:
            return
        owed, self._owed = self._owed, None
        try:
            self._acknowledged(owed)
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


def _opened(
    channel: Channel,
    audit: Audit,
    version: Version,
    walls: Sequence[str],
    *,
    purpose: Purpose,
    grant: str,
    budget: Budget | None,
    duration: timedelta | None,
) -> SessionRecord:
    message = sandbox_pb2.OpenLocalSessionRequest(
        version=version.name,
        purpose=wire.enum_value(purpose, _PURPOSE),
        grant=grant,
        budget=wire.to_message(budget, records_pb2.Budget) if budget else None,
        duration_s=wire.seconds(duration),
        walls=walls,
    )
    response = channel.call(sandbox_pb2_grpc.SandboxServiceStub(channel.grpc_channel).OpenLocalSession, message)
    record = wire.from_message(response.session, SessionRecord)
    facts = {"version": version.name, "digest": version.digest, "purpose": purpose.value}
    facts |= {"place": "holder", "claimed_walls": ",".join(walls)}
    audit.verified(response.receipt, "sandbox.open", record.name, **facts)
    return record


def _loaded(
    channel: Channel, audit: Audit, record: SessionRecord, cell: OwnCell, *, version: Version, stated: Provenance, shown: bool
) -> CellInfo:
    """Pull the capsule, and hand its body into the cell; in this process it stays sealed."""
    from model_organisms.cells.own import Sealing

    with progress.bar(f"Pulling {version.name}", version.size, show=shown) as advance:
        download = SealedDownload(version, record.grant, _TRANSFER_TIMEOUT_S, advance, session=record.name)
        download.fetch(channel, organisms_pb2_grpc.OrganismsServiceStub(channel.grpc_channel))
    try:
        header, body = download.header, download.body
        if download.receipt is None or header is None or body is None:
            raise ReceiptInvalid("The registry sent a capsule without its receipt; do not use it, and tell the operator.")
        facts = {"digest": version.digest, "capsule": download.head_digest, "into": record.name}
        audit.verified(download.receipt, "organisms.pull.result", version.name, **facts)
        bound_to, marked = capsule.body_associated_data(header), bool(header.fingerprint)
        sealing = Sealing(download.key, bound_to, header.plain_size, marked)
        return cell.load(body.descriptor, sealing, version_digest=version.digest, known_answer=stated.known_answer)
    finally:
        download.discard()
