"""What may be asked of hidden states and distributions, what each number costs, and how it is cut down before it leaves.

- Every number that leaves is counted, token ids included, before the work; what did not come is given back.
- Numbers are rounded, and the same question gives the same numbers: asking again averages nothing out, and costs again.
- What a cell sends is taken only in the shape that was asked for.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from model_organisms import names
from model_organisms.errors import CellUnavailable, InvalidArgument
from model_organisms.formats.sampled import PROBE_DIGITS, PROBE_TOP
from model_organisms.records import Budget, Measure, Reading

if TYPE_CHECKING:
    from collections.abc import Sequence

    from model_organisms.records import Inquiry, SamplingParameters, Steer, TokenScore

MOST_POSITIONS = 64
MOST_LAYERS = 128
MOST_COMPARED = 32
MOST_STEERS = 8
MOST_STRENGTH = 1e6
MOST_SCALE = 1000.0
MOST_PROMPTS = 64
"""Conversations on each side of a contrast."""
MOST_TEXT = 64
"""Bytes of a token's text that leave beside its number, uncounted: what a cell calls a token may be a page."""
MOST_DIGITS = 6
"""Significant digits of any number but a hidden state's: one with sixteen, from a cell that lies, is as much as a text."""
MOST_VALUES = 32_768
"""Numbers of one answer: it must fit a message."""
SENT = -1
"""Layer of a direction that was sent."""
_OF_LAYERS = frozenset({Measure.NORMS, Measure.PROJECTIONS, Measure.COSINES, Measure.ACTIVATIONS})
_OF_DIRECTIONS = frozenset({Measure.PROJECTIONS, Measure.COSINES})
_DECIMAL = frozenset({Measure.LOGPROBS, Measure.KL, Measure.COSINES})


@dataclass(frozen=True, slots=True)
class Answer:
    """Numbers as they may leave."""

    positions: tuple[tuple[TokenScore, ...], ...] = ()
    kl: tuple[float, ...] = ()
    readings: tuple[Reading, ...] = ()

    @property
    def values(self) -> int:
        """How many numbers it has."""
        scored = sum(2 * len(position) for position in self.positions)
        return scored + len(self.kl) + sum(len(reading.values) for reading in self.readings)


def check_inquiry(inquiry: Inquiry, session: str) -> Inquiry:
    """Return an inquiry that means something and speaks of this session only. Which layers there are, the cell knows.

    Raises:
        InvalidArgument: It does not.
    """
    if not 1 <= inquiry.positions <= MOST_POSITIONS:
        raise InvalidArgument(f"A probe looks at 1 to {MOST_POSITIONS} positions.", field="positions")
    asked = set(inquiry.measures)
    if not asked or len(asked) < len(inquiry.measures):
        raise InvalidArgument("Say what to measure, each once.", field="measures")
    if len(inquiry.layers) > MOST_LAYERS or len(set(inquiry.layers)) < len(inquiry.layers):
        raise InvalidArgument(f"Name at most {MOST_LAYERS} layers, each once.", field="layers")
    if asked & _OF_LAYERS and not inquiry.layers:
        raise InvalidArgument("Say after which layers; the first is 0.", field="layers")
    if asked & _OF_DIRECTIONS and not inquiry.directions:
        raise InvalidArgument("Say along which directions; make one first.", field="directions")
    check_directions(inquiry.directions, session)
    check_changes(inquiry.steer, inquiry.scale, session)
    return inquiry


def check_directions(directions: Sequence[str], session: str) -> None:
    """Refuse directions of another session, before anybody looks whether they are there.

    Raises:
        InvalidArgument: Too many, one twice, or not of this session.
    """
    if len(directions) > MOST_COMPARED or len(set(directions)) < len(directions):
        raise InvalidArgument(f"Name at most {MOST_COMPARED} directions, each once.", field="directions")
    for name in directions:
        if names.check("direction", name).rsplit("/directions/", 1)[0] != session:
            raise InvalidArgument("A direction is of the session that made it; make it in this one.", field="directions")


def check_changes(steers: Sequence[Steer], scale: float | None, session: str) -> None:
    """Refuse steering and doses out of bounds.

    Raises:
        InvalidArgument: One is, or does nothing, or names a direction of another session.
    """
    if len(steers) > MOST_STEERS:
        raise InvalidArgument(f"A request is steered at most {MOST_STEERS} times; leave some out.", field="steer")
    check_directions(sorted({steer.direction for steer in steers}), session)
    for steer in steers:
        if steer.layer < 0 or not abs(steer.strength) <= MOST_STRENGTH:  # also what is no number
            msg = f"Steering names a layer from 0 on, and a strength from -{MOST_STRENGTH:g} to {MOST_STRENGTH:g}."
            raise InvalidArgument(msg, field="steer")
        if not steer.strength and not steer.ablate:
            raise InvalidArgument("Steering adds something or takes a direction out; give a strength, or ablate.", field="steer")
    if scale is not None and not 0 <= scale <= MOST_SCALE:
        raise InvalidArgument(f"A dose is 0 to {MOST_SCALE:g}; 1 is as published.", field="scale")


def changes(parameters: SamplingParameters) -> bool:
    """Whether a sample is of an organism that is changed while it speaks; that takes the rung `probe`."""
    return bool(parameters.steer) or parameters.scale is not None


def inquiry_cost(inquiry: Inquiry, *, hidden: int) -> Budget:
    """What an inquiry costs: every number it releases, token ids included.

    Args:
        inquiry: Checked.
        hidden: Numbers in a hidden state.

    Raises:
        InvalidArgument: More than one answer may have.
    """
    count = _count(inquiry, hidden)
    if count > MOST_VALUES:
        raise InvalidArgument(f"This would be {count:,} numbers, and an answer has at most {MOST_VALUES:,}; ask for fewer.")
    return Budget(probe_values=count)


def direction_cost(compared: int) -> Budget:
    """What a direction costs: its length, and each cosine."""
    return Budget(probe_values=1 + compared)


def cut_down(inquiry: Inquiry, answer: Answer, *, hidden: int) -> Answer:
    """Round what a cell has sent, and take it only in the shape that was asked for.

    Args:
        inquiry: What was asked.
        answer: What came.
        hidden: Numbers in a hidden state.

    Raises:
        CellUnavailable: It is of another shape.
        InvalidArgument: Some are not numbers: the change was too strong.
    """
    tops = inquiry.positions if Measure.LOGPROBS in inquiry.measures else 0
    ends = inquiry.positions if Measure.KL in inquiry.measures else 0
    came = [(reading.measure, reading.layer, reading.direction, len(reading.values)) for reading in answer.readings]
    shape = len(answer.positions) == tops and len(answer.kl) == ends and came == _shape(inquiry, hidden)
    if not shape or any(len(position) > PROBE_TOP for position in answer.positions):
        raise CellUnavailable("The cell gave what was not asked for; open a new session.")
    return Answer(
        tuple(tuple(map(_told, position)) for position in answer.positions),
        tuple(rounded(value, Measure.KL) for value in answer.kl),
        tuple(replace(r, values=tuple(rounded(value, r.measure) for value in r.values)) for r in answer.readings),
    )


def rounded(value: float, measure: Measure) -> float:
    """Round one number for release.

    Raises:
        InvalidArgument: It is none.
    """
    if not math.isfinite(value):
        raise InvalidArgument("The organism's numbers overflow; steer it less, or give a smaller dose.", field="steer")
    if measure is Measure.ACTIVATIONS:
        return value  # who may have these may have the weights
    if measure in _DECIMAL:
        return float(f"{round(value, PROBE_DIGITS):.{MOST_DIGITS}g}") + 0.0  # never -0.0
    return float(f"{value:.{PROBE_DIGITS - 1}e}") + 0.0


def _told(score: TokenScore) -> TokenScore:
    text = score.text.encode()[:MOST_TEXT].decode(errors="ignore")
    return replace(score, text=text, logprob=rounded(score.logprob, Measure.LOGPROBS))


def _count(inquiry: Inquiry, hidden: int) -> int:
    scored = 2 * PROBE_TOP * inquiry.positions if Measure.LOGPROBS in inquiry.measures else 0
    ends = inquiry.positions if Measure.KL in inquiry.measures else 0
    return scored + ends + sum(size for *_, size in _shape(inquiry, hidden))


def _shape(inquiry: Inquiry, hidden: int) -> list[tuple[Measure, int, str, int]]:
    """What readings an answer has: measure, layer, direction, and how many numbers."""
    made: list[tuple[Measure, int, str, int]] = []
    for measure in (measure for measure in inquiry.measures if measure in _OF_LAYERS):
        size = inquiry.positions * (hidden if measure is Measure.ACTIVATIONS else 1)
        along = inquiry.directions if measure in _OF_DIRECTIONS else ("",)
        made += [(measure, layer, direction, size) for layer in inquiry.layers for direction in along]
    return made
