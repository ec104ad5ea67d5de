"""Records and errors to protobuf and back; nobody else translates.

A record and its message have the same field names (a house test holds them to it), so the translation is read once from the
two definitions and kept as a plan: one encoder and one decoder a field. What does not fit that rule is written out below it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum
from functools import cache
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, cast, get_args, get_origin, get_type_hints

from google.protobuf import any_pb2, timestamp_pb2
from google.protobuf.message import DecodeError, Message
from google.rpc import code_pb2, error_details_pb2, status_pb2

from model_organisms import errors, records
from model_organisms.v1 import records_pb2, sandbox_pb2

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable

M = TypeVar("M", bound=Message)
R = TypeVar("R")

_Codec = Callable[[Any], Any]
_Field = tuple[str, _Codec | None, _Codec, int | None]
"""Its name, how it is written (nothing: as it is), how it is read, and the value that is left out."""
# The stubs describe protobuf's pure-Python descriptors and the compiled ones as unrelated types.
Descriptor: TypeAlias = Any
EnumDescriptor: TypeAlias = Any
FieldDescriptor: TypeAlias = Any
_SAFEST: dict[type[Enum], Enum] = {records.Level: records.Level.CL4, records.Modifier: records.Modifier.UNSPECIFIED}
"""How that is read which only a newer program knows."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_METADATA_LIMIT = 512


def seconds(duration: timedelta | None) -> int:
    """Print a duration as requests have it: whole seconds, rounded up; 0 leaves it to the registry.

    Raises:
        InvalidArgument: It is none.
    """
    if duration is None:
        return 0
    if duration.total_seconds() <= 0:
        raise errors.InvalidArgument(f"A session cannot last {duration}; give a duration above zero, or none.", field="duration")
    return math.ceil(duration.total_seconds())


def text(said: str) -> str:
    """Return a text that can be sent.

    Raises:
        InvalidArgument: It has half of a character in it, which no encoding carries.
    """
    try:
        said.encode()
    except UnicodeEncodeError as error:
        msg = f"The text has half of a character (a lone surrogate) at position {error.start}; take it out, and send it again."
        raise errors.InvalidArgument(msg, position=str(error.start)) from None
    return said


def to_message(record: object, message: type[M]) -> M:
    """Write a record as a message of the given class.

    Args:
        record: A dataclass of `records.py`.
        message: The generated class with the same field names.

    Returns:
        The message.
    """
    return message(**dict(_encoded(record, message.DESCRIPTOR)))


def from_message(message: Message, record: type[R]) -> R:
    """Read a message as a record of the given class.

    Args:
        message: What came over the wire.
        record: A dataclass of `records.py` with the same field names.

    Returns:
        The record. An absent sub-message reads as its empty form.

    Raises:
        InvalidArgument: An enum value or a time that has no meaning here.
    """
    plan = _plan(cast("Hashable", record), message.DESCRIPTOR)
    return record(**{name: decode(message) for name, _, decode, _ in plan})


def budget(message: Message, field: str) -> records.Budget | None:
    """Read an optional budget: None where the sender left it out."""
    return from_message(getattr(message, field), records.Budget) if message.HasField(field) else None


def enum_value(member: Enum, descriptor: EnumDescriptor) -> Any:  # noqa: ANN401 - each generated enum has its own integer type
    """Number of an enum member on the wire."""
    return descriptor.values_by_name[_prefix(descriptor) + member.name].number


def enum_member(number: int, descriptor: EnumDescriptor, kind: type[Enum]) -> Any:  # noqa: ANN401 - the member of `kind`
    """Enum member of a number on the wire; an unknown level reads as CL4, an unknown condition as one that refuses."""
    value = descriptor.values_by_number.get(number)
    name = value.name.removeprefix(_prefix(descriptor)) if value else ""
    if name in kind.__members__:
        return kind[name]
    if kind in _SAFEST:
        return _SAFEST[kind]
    msg = f"{number} is not a {descriptor.name} this version knows; set the field."
    raise errors.InvalidArgument(msg, field=descriptor.name)


def timestamp(time: datetime) -> timestamp_pb2.Timestamp:
    """Write a time, to the microsecond."""
    micros = (time - _EPOCH) // timedelta(microseconds=1)
    return timestamp_pb2.Timestamp(seconds=micros // 1_000_000, nanos=micros % 1_000_000 * 1000)


def time(message: timestamp_pb2.Timestamp) -> datetime:
    """Read a time, to the microsecond.

    Raises:
        InvalidArgument: It lies outside the years 1 to 9999.
    """
    try:
        return _EPOCH + timedelta(seconds=message.seconds, microseconds=message.nanos // 1000)
    except OverflowError as overflow:
        msg = "A time lies outside the years 1 to 9999; send seconds since 1970."
        raise errors.InvalidArgument(msg) from overflow


def to_positions(positions: Iterable[Iterable[records.TokenScore]]) -> list[sandbox_pb2.TokenScores]:
    """Write score tables; protobuf has no list of lists."""
    return [
        sandbox_pb2.TokenScores(scores=[to_message(score, sandbox_pb2.TokenScore) for score in position])
        for position in positions
    ]


def to_probe(probe: records.Probe, proof: records.Receipt) -> sandbox_pb2.ProbeResponse:
    """Write a probe's answer; protobuf has no list of lists."""
    return sandbox_pb2.ProbeResponse(
        positions=to_positions(probe.positions),
        kl_to_base=probe.kl_to_base,
        kl=probe.kl,
        readings=[to_message(reading, sandbox_pb2.Reading) for reading in probe.readings],
        sample_receipt=to_message(probe.receipt, records_pb2.SampleReceipt),
        receipt=to_message(proof, records_pb2.Receipt),
    )


def from_positions(positions: Iterable[sandbox_pb2.TokenScores]) -> tuple[tuple[records.TokenScore, ...], ...]:
    """Read score tables."""
    return tuple(tuple(from_message(score, records.TokenScore) for score in position.scores) for position in positions)


def from_probe(message: sandbox_pb2.ProbeResponse) -> records.Probe:
    """Read a probe's answer."""
    return records.Probe(
        positions=from_positions(message.positions),
        kl_to_base=message.kl_to_base if message.HasField("kl_to_base") else None,
        kl=tuple(message.kl),
        readings=tuple(from_message(reading, records.Reading) for reading in message.readings),
        receipt=from_message(message.sample_receipt, records.SampleReceipt),
    )


def from_direction(message: sandbox_pb2.MakeDirectionResponse) -> records.Direction:
    """Read what is known of a direction that was made."""
    return records.Direction(
        name=message.name,
        layer=message.layer,
        norm=message.norm,
        cosines=tuple(message.cosines),
        sha256=message.sha256,
        receipt=from_message(message.sample_receipt, records.SampleReceipt),
    )


def to_status(error: errors.ModelOrganismsError) -> status_pb2.Status:
    """Write an error as `google.rpc.Status` with one `ErrorInfo`.

    Args:
        error: Any error of the tree.

    Returns:
        The status; its code is the class's, its message the human sentence.
    """
    info = error_details_pb2.ErrorInfo(
        reason=error.reason,
        domain=errors.DOMAIN,
        metadata={key: value[:_METADATA_LIMIT] for key, value in error.details.items()},
    )
    packed = any_pb2.Any()
    packed.Pack(info)
    return status_pb2.Status(code=code_pb2.Code.Value(error.status), message=error.message, details=[packed])


def from_status(data: bytes, *, code: str, message: str) -> errors.ModelOrganismsError:
    """Read an error back from a status, or make the nearest one where there is none.

    Args:
        data: Serialised `google.rpc.Status`; may be empty.
        code: Name of the call's status code, for calls that failed before our door.
        message: The transport's own sentence, likewise.

    Returns:
        The error, to be raised by the caller.
    """
    with suppress(DecodeError):
        status = status_pb2.Status.FromString(data)
        for detail in status.details:
            info = error_details_pb2.ErrorInfo()
            if detail.Unpack(info) and info.domain == errors.DOMAIN and info.reason in errors.BY_REASON:
                return errors.BY_REASON[info.reason](status.message, **dict(info.metadata))
    nearest, advice = _BY_CODE.get(code, (errors.Internal, "tell the operator of the registry"))
    shown = "".join(character if character.isprintable() else "?" for character in message[:_MESSAGE_LIMIT])
    return nearest(f"The call ended with {code} ({shown}); {advice}.")


_MESSAGE_LIMIT = 300
_BY_CODE: dict[str, tuple[type[errors.ModelOrganismsError], str]] = {
    "UNAVAILABLE": (errors.RegistryUnreachable, "check the address, and that the registry runs"),
    "DEADLINE_EXCEEDED": (errors.DeadlineExceeded, "look whether it was done, then try again with a longer timeout"),
    "UNAUTHENTICATED": (errors.Unauthenticated, "run `mo login` again"),
    "PERMISSION_DENIED": (errors.Denied, "ask the operator of the registry"),
    "NOT_FOUND": (errors.NotFound, "check the address and the name"),
    "INVALID_ARGUMENT": (errors.InvalidArgument, "correct the request"),
    "RESOURCE_EXHAUSTED": (errors.Unavailable, "try again later, and ask for less at a time"),
    "CANCELLED": (errors.Unavailable, "try again"),
    "UNIMPLEMENTED": (errors.Unavailable, "the registry does not know this call, so update the older of the two"),
    "ABORTED": (errors.Conflict, "read it again, then repeat the change"),
}


def _encoded(record: object, descriptor: Descriptor) -> list[tuple[str, Any]]:
    return [
        (name, encode(value) if encode else value)
        for name, encode, _, absent in _plan(cast("Hashable", type(record)), descriptor)
        if (value := getattr(record, name)) is not None and value != absent
    ]


@cache
def _plan(record: Any, descriptor: Descriptor) -> tuple[_Field, ...]:  # noqa: ANN401 - a dataclass
    hints = get_type_hints(record, localns={"datetime": datetime})
    return tuple(_field(field.name, hints[field.name], descriptor.fields_by_name[field.name]) for field in fields(record))


def _field(name: str, hint: Any, descriptor: FieldDescriptor) -> _Field:  # noqa: ANN401 - a type hint
    kind, optional = _without_none(hint)
    if get_origin(kind) in (tuple, frozenset):
        container, item = get_origin(kind), get_args(kind)[0]
        encode, decode = _value(item, descriptor)
        return name, _writer_of_many(encode), _reader_of_many(name, container, decode), None
    encode, decode = _value(kind, descriptor)
    if optional or (kind is int and descriptor.has_presence):
        absent = None if optional else -1
        return name, encode, lambda message: decode(getattr(message, name)) if message.HasField(name) else absent, absent
    return name, encode, lambda message: decode(getattr(message, name)), None


def _writer_of_many(encode: _Codec | None) -> _Codec | None:
    return None if encode is None else lambda values: [encode(value) for value in values]


def _reader_of_many(name: str, container: type, decode: _Codec) -> _Codec:
    return lambda message: container(map(decode, getattr(message, name)))


def _value(kind: Any, descriptor: FieldDescriptor) -> tuple[_Codec | None, _Codec]:  # noqa: ANN401 - a type
    """How a value is written, nothing where it is written as it is, and how it is read."""
    if kind is datetime:
        return timestamp, time
    if isinstance(kind, type) and issubclass(kind, Enum):
        enum = descriptor.enum_type
        # Looked up once: listings do this a thousand times a second.
        numbers = {member: enum_value(member, enum) for member in kind}
        members = {number: member for member, number in numbers.items()}
        return numbers.__getitem__, lambda number: members.get(number) or enum_member(number, enum, kind)
    if isinstance(kind, type) and is_dataclass(kind):
        sub = descriptor.message_type
        message = sub._concrete_class  # noqa: SLF001 - protobuf's only way from a descriptor to its class
        return lambda record: to_message(record, message), lambda value: from_message(value, kind)
    return None, kind


def _without_none(hint: Any) -> tuple[Any, bool]:  # noqa: ANN401 - a type hint
    if isinstance(hint, UnionType):
        return next(part for part in get_args(hint) if part is not NoneType), True
    return hint, False


@cache
def _prefix(descriptor: EnumDescriptor) -> str:
    name = "".join(f"_{letter}" if letter.isupper() else letter for letter in descriptor.name)
    return f"{name.strip('_').upper()}_"
