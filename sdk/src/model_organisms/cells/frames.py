"""What a registry and its cells say to each other: plain values, and their printer and parser.

The only module of `cells/` that knows protobuf; `channel.py` moves the bytes. Both ends use it, and each believes nothing of
the other.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from google.protobuf.message import DecodeError

from model_organisms.errors import CellUnavailable
from model_organisms.records import Message, SamplingParameters, TokenScore
from model_organisms.v1 import cell_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


CANCELLED = "cancelled"
"""Finish reason of a sample that was told to stop."""


@dataclass(frozen=True, slots=True)
class Hello:
    """What the cell's attack on its own walls found."""

    standing: tuple[str, ...]
    missing: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Ready:
    """Libraries are imported, and the base model is in memory."""

    engine: str


@dataclass(frozen=True, slots=True)
class CellInfo:
    """What was loaded, for receipts."""

    base_digest: str
    tokenizer_digest: str
    template_digest: str
    adapter_digests: tuple[str, ...]
    modules_applied: int
    engine: str
    known_answer_checked: bool = False


@dataclass(frozen=True, slots=True)
class Piece:
    """Some text, in order; the last of a call has a finish reason."""

    text: str
    tokens: int
    """Tokens drawn since the piece before."""
    finish_reason: str = ""


@dataclass(frozen=True, slots=True)
class Numbers:
    """Answers a probe: best tokens by position, and KL(organism || base) at the last, nats."""

    positions: tuple[tuple[TokenScore, ...], ...]
    kl_to_base: float


@dataclass(frozen=True, slots=True)
class Failed:
    """A call that did not succeed, by the reason of an error of the tree."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Sealing:
    """What opens a capsule's body; the cell is where that is done."""

    body_key: bytes = field(repr=False)
    bound_to: bytes
    plain_size: int
    marked: bool


@dataclass(frozen=True, slots=True)
class Load:
    """Put the bundle, whose descriptor comes with this frame, on the base model."""

    version_digest: str
    known_answer: str = ""
    """JSON; empty where none was stored."""
    slot: int = 0
    """Number by which calls name the organism."""
    sealing: Sealing | None = None
    """Where the bundle comes as the body of a capsule: what opens it."""


@dataclass(frozen=True, slots=True)
class Unload:
    """End the calls of an organism, and wipe it."""

    slot: int


@dataclass(frozen=True, slots=True)
class Unloaded:
    """It is out of the cell's memory, and each of its calls has had its last frame."""


@dataclass(frozen=True, slots=True)
class Ping:
    """Say that you are there."""


@dataclass(frozen=True, slots=True)
class Pong:
    """Answers a ping, under its number."""


@dataclass(frozen=True, slots=True)
class Draw:
    """Draw text."""

    messages: tuple[Message, ...]
    parameters: SamplingParameters
    slot: int = 0


@dataclass(frozen=True, slots=True)
class Ask:
    """Give numbers of the next-token distribution."""

    messages: tuple[Message, ...]
    positions: int = 1
    slot: int = 0


@dataclass(frozen=True, slots=True)
class Cancel:
    """Stop the call of this frame's number."""


Body = Hello | Ready | CellInfo | Piece | Numbers | Failed | Unloaded | Pong | Load | Draw | Ask | Cancel | Unload | Ping


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame: a body, and the call it belongs to."""

    body: Body
    call: int = 0


def encode(frame: Frame) -> bytes:
    """Print a frame, its length not included."""
    name, write = _WRITERS[type(frame.body)]
    return pb.CellFrame(call=frame.call, **{name: write(frame.body)}).SerializeToString()


def decode(payload: bytes) -> Frame:
    """Parse a frame.

    Raises:
        CellUnavailable: It is not one.
    """
    try:
        message = pb.CellFrame.FromString(payload)
    except DecodeError as error:
        raise CellUnavailable("The cell sent something that is not a frame; open a new session.") from error
    name = message.WhichOneof("body")
    if name is None:
        raise CellUnavailable("The cell sent an empty frame; open a new session.")
    return Frame(_READERS[name](getattr(message, name)), message.call)


def _messages(turns: Iterable[Message]) -> list[pb.CellMessage]:
    return [pb.CellMessage(role=turn.role, content=turn.content) for turn in turns]


def _turns(messages: Iterable[pb.CellMessage]) -> tuple[Message, ...]:
    return tuple(Message(message.role, message.content) for message in messages)


def _print_draw(draw: Draw) -> pb.CellSample:
    asked = draw.parameters
    return pb.CellSample(
        messages=_messages(draw.messages),
        max_tokens=asked.max_tokens,
        temperature=asked.temperature,
        top_p=asked.top_p,
        top_k=asked.top_k,
        stop=asked.stop,
        seed=asked.seed or 0,
        slot=draw.slot,
    )


def _parse_draw(sample: pb.CellSample) -> Draw:
    parameters = SamplingParameters(
        max_tokens=sample.max_tokens,
        temperature=sample.temperature,
        top_p=sample.top_p,
        top_k=sample.top_k,
        stop=tuple(sample.stop),
        seed=sample.seed,
    )
    return Draw(_turns(sample.messages), parameters, sample.slot)


def _print_numbers(numbers: Numbers) -> pb.CellNumbers:
    positions = [
        pb.CellPosition(scores=[pb.CellTokenScore(token_id=s.token_id, text=s.text, logprob=s.logprob) for s in scores])
        for scores in numbers.positions
    ]
    return pb.CellNumbers(positions=positions, kl_to_base=numbers.kl_to_base)


def _parse_numbers(numbers: pb.CellNumbers) -> Numbers:
    return Numbers(
        tuple(tuple(TokenScore(s.token_id, s.text, s.logprob) for s in position.scores) for position in numbers.positions),
        numbers.kl_to_base,
    )


def _print_info(info: CellInfo) -> pb.CellLoaded:
    return pb.CellLoaded(
        base_digest=info.base_digest,
        tokenizer_digest=info.tokenizer_digest,
        template_digest=info.template_digest,
        adapter_digests=info.adapter_digests,
        modules_applied=info.modules_applied,
        engine=info.engine,
        known_answer_checked=info.known_answer_checked,
    )


def _parse_info(loaded: pb.CellLoaded) -> CellInfo:
    return CellInfo(
        base_digest=loaded.base_digest,
        tokenizer_digest=loaded.tokenizer_digest,
        template_digest=loaded.template_digest,
        adapter_digests=tuple(loaded.adapter_digests),
        modules_applied=loaded.modules_applied,
        engine=loaded.engine,
        known_answer_checked=loaded.known_answer_checked,
    )


def _print_load(load: Load) -> pb.CellLoad:
    message = pb.CellLoad(version_digest=load.version_digest, known_answer=load.known_answer, slot=load.slot)
    if (sealing := load.sealing) is not None:
        message.sealing.body_key, message.sealing.bound_to = sealing.body_key, sealing.bound_to
        message.sealing.plain_size, message.sealing.marked = sealing.plain_size, sealing.marked
    return message


def _parse_load(load: pb.CellLoad) -> Load:
    told = load.sealing
    sealing = Sealing(told.body_key, told.bound_to, told.plain_size, told.marked) if load.HasField("sealing") else None
    return Load(load.version_digest, load.known_answer, load.slot, sealing)


_WRITERS: dict[type[Body], tuple[str, Callable[[Any], Any]]] = {
    Hello: ("hello", lambda b: pb.CellHello(standing=b.standing, missing=b.missing)),
    Ready: ("ready", lambda b: pb.CellReady(engine=b.engine)),
    CellInfo: ("loaded", _print_info),
    Piece: ("piece", lambda b: pb.CellPiece(text=b.text, tokens=b.tokens, finish_reason=b.finish_reason)),
    Numbers: ("numbers", _print_numbers),
    Failed: ("failed", lambda b: pb.CellFailed(reason=b.reason, message=b.message)),
    Load: ("load", _print_load),
    Draw: ("sample", _print_draw),
    Ask: ("probe", lambda b: pb.CellProbe(messages=_messages(b.messages), positions=b.positions, slot=b.slot)),
    Cancel: ("cancel", lambda _: pb.CellCancel()),
    Unload: ("unload", lambda b: pb.CellUnload(slot=b.slot)),
    Unloaded: ("unloaded", lambda _: pb.CellUnloaded()),
    Ping: ("ping", lambda _: pb.CellPing()),
    Pong: ("pong", lambda _: pb.CellPong()),
}
_READERS: dict[str, Callable[[Any], Body]] = {
    "hello": lambda m: Hello(tuple(m.standing), dict(m.missing)),
    "ready": lambda m: Ready(m.engine),
    "loaded": _parse_info,
    "piece": lambda m: Piece(m.text, m.tokens, m.finish_reason),
    "numbers": _parse_numbers,
    "failed": lambda m: Failed(m.reason, m.message),
    "load": _parse_load,
    "sample": _parse_draw,
    "probe": lambda m: Ask(_turns(m.messages), m.positions, m.slot),
    "cancel": lambda _: Cancel(),
    "unload": lambda m: Unload(m.slot),
    "unloaded": lambda _: Unloaded(),
    "ping": lambda _: Ping(),
    "pong": lambda _: Pong(),
}
