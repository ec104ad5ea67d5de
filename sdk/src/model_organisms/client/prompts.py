"""What a researcher asks with, made ready to be sent: bare texts become conversations, and vectors plain numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from model_organisms import wire
from model_organisms.errors import InvalidArgument
from model_organisms.records import Message
from model_organisms.v1 import records_pb2, sandbox_pb2

if TYPE_CHECKING:
    from collections.abc import Sequence

    from model_organisms.records import SamplingParameters

_FLOAT_MAX = 3.4e38


def turns_of(prompt: str | Sequence[Message]) -> Sequence[Message]:
    """A conversation; a bare text is what its user says."""
    return [Message("user", prompt)] if isinstance(prompt, str) else prompt


def messages_of(prompt: str | Sequence[Message]) -> list[sandbox_pb2.Message]:
    """A conversation, to be sent."""
    return [sandbox_pb2.Message(role=wire.text(turn.role), content=wire.text(turn.content)) for turn in turns_of(prompt)]


def sample_request(
    session: str, prompt: str | Sequence[Message], parameters: SamplingParameters, *, whole: bool
) -> sandbox_pb2.SampleRequest:
    """Ask for an answer; `whole` says that nobody looks at it while it grows."""
    drawn = wire.to_message(parameters, records_pb2.SamplingParameters)
    return sandbox_pb2.SampleRequest(session=session, messages=messages_of(prompt), parameters=drawn, whole=whole)


def finite(vector: Sequence[float]) -> list[float]:
    """Make plain numbers of whatever a vector is; what protobuf would break on is refused here."""
    numbers = [float(value) for value in vector]
    if not all(abs(value) <= _FLOAT_MAX for value in numbers):
        raise InvalidArgument("A direction has finite numbers of 32 bits; send another.", field="direction")
    return numbers
