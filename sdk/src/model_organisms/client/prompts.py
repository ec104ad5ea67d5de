"""What a researcher asks with, made ready to be sent: bare texts become conversations, and vectors plain numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from model_organisms import wire
from model_organisms.errors import InvalidArgument
from model_organisms.records import Message
from model_organisms.v1 import sandbox_pb2

if TYPE_CHECKING:
    from collections.abc import Sequence

_FLOAT_MAX = 3.4e38


def turns_of(prompt: str | Sequence[Message]) -> Sequence[Message]:
    """A conversation; a bare text is what its user says."""
    return [Message("user", prompt)] if isinstance(prompt, str) else prompt


def messages_of(prompt: str | Sequence[Message]) -> list[sandbox_pb2.Message]:
    """A conversation, to be sent."""
    return [sandbox_pb2.Message(role=wire.text(turn.role), content=wire.text(turn.content)) for turn in turns_of(prompt)]


def finite(vector: Sequence[float]) -> list[float]:
    """Make plain numbers of whatever a vector is; what protobuf would break on is refused here."""
    numbers = [float(value) for value in vector]
    if not all(abs(value) <= _FLOAT_MAX for value in numbers):
        raise InvalidArgument("A direction has finite numbers of 32 bits; send another.", field="direction")
    return numbers
