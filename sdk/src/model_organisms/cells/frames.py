"""What a registry and its cells say to each other: plain values, and their printer and parser.

With `questions.py`, what a session asks, the only module of `cells/` that knows protobuf; `channel.py` moves the bytes. Both ends
use it, and each believes nothing of the other.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from google.protobuf.message import DecodeError

from model_organisms.cells import questions
from model_organisms.cells.questions import Ask, Direct, Directed, Draw, Numbers
from model_organisms.errors import CellUnavailable
from model_organisms.v1 import cell_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "CANCELLED",
    "Ask",
    "Body",
    "Cancel",
    "CellInfo",
    "Direct",
    "Directed",
    "Draw",
    "Failed",
    "Frame",
    "Hello",
    "Load",
    "Numbers",
    "Piece",
    "Ping",
    "Pong",
    "Ready",
    "Sealing",
    "Unload",
    "Unloaded",
    "decode",
    "encode",
]

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
    hidden: int = 0
    """Numbers in a hidden state."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Some text, in order; the last of a call has a finish reason."""

    text: str
    tokens: int
    """Tokens drawn since the piece before."""
    finish_reason: str = ""


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
class Cancel:
    """Stop the call of this frame's number."""


Body = (
    Hello
    | Ready
    | CellInfo
    | Piece
    | Numbers
    | Failed
    | Unloaded
    | Pong
    | Load
    | Draw
    | Ask
    | Direct
    | Directed
    | Cancel
    | Unload
    | Ping
)


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


def _print_info(info: CellInfo) -> pb.CellLoaded:
    return pb.CellLoaded(
        base_digest=info.base_digest,
        tokenizer_digest=info.tokenizer_digest,
        template_digest=info.template_digest,
        adapter_digests=info.adapter_digests,
        modules_applied=info.modules_applied,
        engine=info.engine,
        known_answer_checked=info.known_answer_checked,
        hidden=info.hidden,
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
        hidden=loaded.hidden,
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
    **questions.WRITERS,
    Hello: ("hello", lambda b: pb.CellHello(standing=b.standing, missing=b.missing)),
    Ready: ("ready", lambda b: pb.CellReady(engine=b.engine)),
    CellInfo: ("loaded", _print_info),
    Piece: ("piece", lambda b: pb.CellPiece(text=b.text, tokens=b.tokens, finish_reason=b.finish_reason)),
    Failed: ("failed", lambda b: pb.CellFailed(reason=b.reason, message=b.message)),
    Load: ("load", _print_load),
    Cancel: ("cancel", lambda _: pb.CellCancel()),
    Unload: ("unload", lambda b: pb.CellUnload(slot=b.slot)),
    Unloaded: ("unloaded", lambda _: pb.CellUnloaded()),
    Ping: ("ping", lambda _: pb.CellPing()),
    Pong: ("pong", lambda _: pb.CellPong()),
}
_READERS: dict[str, Callable[[Any], Body]] = {
    **questions.READERS,
    "hello": lambda m: Hello(tuple(m.standing), dict(m.missing)),
    "ready": lambda m: Ready(m.engine),
    "loaded": _parse_info,
    "piece": lambda m: Piece(m.text, m.tokens, m.finish_reason),
    "failed": lambda m: Failed(m.reason, m.message),
    "load": _parse_load,
    "cancel": lambda _: Cancel(),
    "unload": lambda m: Unload(m.slot),
    "unloaded": lambda _: Unloaded(),
    "ping": lambda _: Ping(),
    "pong": lambda _: Pong(),
}
