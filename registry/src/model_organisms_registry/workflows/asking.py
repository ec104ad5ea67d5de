"""A question to a session's organism before anybody answers it: what it needs, costs, and how the ledger speaks of it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

from model_organisms.errors import InvalidArgument
from model_organisms.formats import sampled
from model_organisms.records import Budget, Inquiry, Measure, Rung, SamplingParameters, Tool

from model_organisms_registry.domain import probing, tools
from model_organisms_registry.domain import sandbox as rules
from model_organisms_registry.domain.permits import Action

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from model_organisms.records import Message, NewDirection, Steer

_EMPTY = SamplingParameters(max_tokens=1)
_RUNG = {Action.SAMPLE: Rung.SAMPLE, Action.PROBE: Rung.PROBE, Action.PULL: Rung.PULL}


@dataclass(frozen=True, slots=True)
class Question:
    """One question."""

    needs: tuple[Action, ...]
    """What the gate must permit: the first on the session is how the question is written down, the last is what it amounts to."""
    said: bytes
    """What the intent commits to, and is kept sealed."""
    parameters: SamplingParameters
    cost: Callable[[Budget, int], Budget]
    """What to set aside, of what is left, for hidden states of so many numbers."""
    facts: dict[str, str] = field(default_factory=dict)
    """What the intent's entry says besides."""
    tools: frozenset[Tool] = frozenset()
    """What it takes of a player, in a game."""
    beyond: bool = True
    """It takes what no game gives; whatever does not, says so."""

    @property
    def probing(self) -> bool:
        """Whether numbers are asked for."""
        return self.needs[0] is Action.PROBE

    @property
    def rung(self) -> Rung:
        """How closely it comes."""
        return _RUNG[self.needs[-1]]


def sample(session: str, messages: Sequence[Message], parameters: SamplingParameters) -> Question:
    """Ask for text; of an organism that is steered or dosed meanwhile, it needs what a probe needs.

    Raises:
        InvalidArgument: Messages or parameters out of bounds.
    """
    rules.check_parameters(parameters)
    rules.check_messages(messages)
    probing.check_changes(parameters.steer, parameters.scale, session)
    changed = probing.changes(parameters)
    return Question(
        (Action.SAMPLE, Action.PROBE) if changed else (Action.SAMPLE,),
        _turns(messages),
        parameters,
        lambda left, _: rules.sample_cost(parameters, left),
        _changes(parameters.steer, parameters.scale),
        _tools(Tool.SAMPLE, messages),
        beyond=changed,
    )


def probe(session: str, messages: Sequence[Message], inquiry: Inquiry) -> Question:
    """Ask for numbers; for hidden states themselves it needs what a pull needs.

    Raises:
        InvalidArgument: Messages or inquiry out of bounds.
    """
    rules.check_messages(messages)
    probing.check_inquiry(inquiry, session)
    raw = Measure.ACTIVATIONS in inquiry.measures
    changed = probing.changes(parameters := _parameters(inquiry.steer, inquiry.scale))
    said = _turns(messages) if inquiry == Inquiry() else _json({"messages": _plain(messages), "inquiry": asdict(inquiry)})
    return Question(
        (Action.PROBE, Action.PULL) if raw else (Action.PROBE,),
        said,
        parameters,
        lambda left, hidden: rules.affordable(probing.inquiry_cost(inquiry, hidden=hidden), left),
        {"asked": ",".join(inquiry.measures)} | _changes(inquiry.steer, inquiry.scale),
        _tools(Tool.PROBE, messages),
        beyond=changed or bool(inquiry.directions) or not tools.MEASURES.issuperset(inquiry.measures),
    )


def direction(session: str, asked: NewDirection) -> Question:
    """Ask for a direction: a vector that was sent, or the difference of two means.

    Raises:
        InvalidArgument: It is neither, or out of bounds.
    """
    probing.check_directions(asked.compared, session)
    facts = {"asked": "direction"}
    if asked.vector:
        digest = hashlib.sha256(asked.vector).hexdigest()
        facts["direction"] = digest
        said = _json({"vector_sha256": digest, "compared": asked.compared})
    else:
        sides = {"positive": asked.positive, "negative": asked.negative}
        for side in sides.values():
            if not 1 <= len(side) <= probing.MOST_PROMPTS:
                raise InvalidArgument(f"Give 1 to {probing.MOST_PROMPTS} prompts on each side.", field="contrast")
        rules.check_messages([message for side in sides.values() for prompt in side for message in prompt], many=True)
        turns = {name: [_plain(prompt) for prompt in side] for name, side in sides.items()}
        said = _json(turns | {"layer": asked.layer, "compared": asked.compared})
    cost = probing.direction_cost(len(asked.compared))
    return Question((Action.PROBE,), said, _EMPTY, lambda left, _: rules.affordable(cost, left), facts)


def _tools(tool: Tool, messages: Sequence[Message]) -> frozenset[Tool]:
    return frozenset({tool, Tool.SYSTEM} if any(message.role == "system" for message in messages) else {tool})


def _parameters(steer: tuple[Steer, ...], scale: float | None) -> SamplingParameters:
    return SamplingParameters(max_tokens=1, steer=steer, scale=scale)


def _changes(steer: Sequence[Steer], scale: float | None) -> dict[str, str]:
    told = {"steer": sampled.steering_text(steer)} if steer else {}
    return told | ({"scale": f"{scale:g}"} if scale is not None else {})


def _plain(messages: Sequence[Message]) -> list[dict[str, str]]:
    return [asdict(message) for message in messages]


def _turns(messages: Sequence[Message]) -> bytes:
    return _json(_plain(messages))


def _json(value: object) -> bytes:
    return json.dumps(value, sort_keys=True).encode()
