"""What a session asks of its organism, and what comes of it, but for text: plain values, and their printer and parser.

It belongs to `frames.py`, which has the rest and is where others take these from.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from model_organisms.errors import CellUnavailable
from model_organisms.records import Inquiry, Measure, Message, NewDirection, Reading, SamplingParameters, Steer, TokenScore
from model_organisms.v1 import cell_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


@dataclass(frozen=True, slots=True)
class Draw:
    """Draw text."""

    messages: tuple[Message, ...]
    parameters: SamplingParameters
    slot: int = 0


@dataclass(frozen=True, slots=True)
class Ask:
    """Give numbers of the next-token distribution and of hidden states."""

    messages: tuple[Message, ...]
    inquiry: Inquiry = field(default_factory=Inquiry)
    slot: int = 0


@dataclass(frozen=True, slots=True)
class Direct:
    """Keep a direction."""

    sought: NewDirection
    slot: int = 0


@dataclass(frozen=True, slots=True)
class Numbers:
    """Answers a probe: best tokens and KL(organism || base) by position, nats, and what was read of hidden states."""

    positions: tuple[tuple[TokenScore, ...], ...] = ()
    kl: tuple[float, ...] = ()
    readings: tuple[Reading, ...] = ()


@dataclass(frozen=True, slots=True)
class Directed:
    """A direction is kept."""

    norm: float
    cosines: tuple[float, ...]
    sha256: str


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
        steer=_steers(asked.steer),
        scale=asked.scale,
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
        steer=_pushes(sample.steer),
        scale=sample.scale if sample.HasField("scale") else None,
    )
    return Draw(_turns(sample.messages), parameters, sample.slot)


def _print_numbers(numbers: Numbers) -> pb.CellNumbers:
    positions = [
        pb.CellPosition(scores=[pb.CellTokenScore(token_id=s.token_id, text=s.text, logprob=s.logprob) for s in scores])
        for scores in numbers.positions
    ]
    readings = [
        pb.CellReading(measure=r.measure, layer=r.layer, direction=r.direction, values=r.values) for r in numbers.readings
    ]
    return pb.CellNumbers(positions=positions, kl=numbers.kl, readings=readings)


def _parse_numbers(numbers: pb.CellNumbers) -> Numbers:
    return Numbers(
        tuple(tuple(TokenScore(s.token_id, s.text, s.logprob) for s in position.scores) for position in numbers.positions),
        tuple(numbers.kl),
        tuple(Reading(_measure(r.measure), r.layer, r.direction, tuple(r.values)) for r in numbers.readings),
    )


def _steers(steers: Iterable[Steer]) -> list[pb.CellSteer]:
    return [pb.CellSteer(direction=s.direction, layer=s.layer, strength=s.strength, ablate=s.ablate) for s in steers]


def _pushes(steers: Iterable[pb.CellSteer]) -> tuple[Steer, ...]:
    return tuple(Steer(s.direction, s.layer, s.strength, s.ablate) for s in steers)


def _measure(name: str) -> Measure:
    try:
        return Measure(name)
    except ValueError as error:
        raise CellUnavailable("The cell spoke of a measure that is none; open a new session.") from error


def _print_ask(ask: Ask) -> pb.CellProbe:
    asked = ask.inquiry
    return pb.CellProbe(
        messages=_messages(ask.messages),
        positions=asked.positions,
        slot=ask.slot,
        measures=asked.measures,
        layers=asked.layers,
        directions=asked.directions,
        steer=_steers(asked.steer),
        scale=asked.scale,
    )


def _parse_ask(probe: pb.CellProbe) -> Ask:
    inquiry = Inquiry(
        probe.positions,
        tuple(map(_measure, probe.measures)),
        tuple(probe.layers),
        tuple(probe.directions),
        _pushes(probe.steer),
        probe.scale if probe.HasField("scale") else None,
    )
    return Ask(_turns(probe.messages), inquiry, probe.slot)


def _print_direct(direct: Direct) -> pb.CellDirect:
    sought = direct.sought
    return pb.CellDirect(
        name=sought.name,
        vector=sought.vector,
        positive=[pb.CellPrompt(messages=_messages(prompt)) for prompt in sought.positive],
        negative=[pb.CellPrompt(messages=_messages(prompt)) for prompt in sought.negative],
        layer=sought.layer,
        compared=sought.compared,
        slot=direct.slot,
    )


def _parse_direct(direct: pb.CellDirect) -> Direct:
    positive, negative = (tuple(_turns(prompt.messages) for prompt in side) for side in (direct.positive, direct.negative))
    sought = NewDirection(direct.vector, positive, negative, direct.layer, tuple(direct.compared), direct.name)
    return Direct(sought, direct.slot)


WRITERS: dict[type[Any], tuple[str, Callable[[Any], Any]]] = {
    Draw: ("sample", _print_draw),
    Ask: ("probe", _print_ask),
    Direct: ("direct", _print_direct),
    Numbers: ("numbers", _print_numbers),
    Directed: ("directed", lambda b: pb.CellDirected(norm=b.norm, cosines=b.cosines, sha256=b.sha256)),
}
"""Class to field of a frame, and printer."""
READERS: dict[str, Callable[[Any], Any]] = {
    "sample": _parse_draw,
    "probe": _parse_ask,
    "direct": _parse_direct,
    "numbers": _parse_numbers,
    "directed": lambda m: Directed(m.norm, tuple(m.cosines), m.sha256),
}
"""Field of a frame to parser."""
