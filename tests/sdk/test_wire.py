from datetime import UTC, datetime, timedelta
from types import UnionType

import pytest
from google.rpc import error_details_pb2, status_pb2
from hypothesis import given
from hypothesis import strategies as st
from model_organisms import errors, records, wire
from model_organisms.v1 import access_pb2, errors_pb2, games_pb2, motions_pb2, organisms_pb2, recall_pb2, records_pb2, sandbox_pb2

PAIRS = [
    (records.User, records_pb2.User),
    (records.Organism, organisms_pb2.Organism),
    (records.Version, organisms_pb2.Version),
    (records.Erratum, organisms_pb2.Erratum),
    (records.Attestation, organisms_pb2.Attestation),
    (records.Budget, records_pb2.Budget),
    (records.Approval, access_pb2.Approval),
    (records.Request, access_pb2.AccessRequest),
    (records.Grant, access_pb2.Grant),
    (records.Explanation, access_pb2.Explanation),
    (records.PolicyStatus, access_pb2.PolicyStatus),
    (records.Stated, access_pb2.Stated),
    (records.Match, access_pb2.Match),
    (records.Reason, access_pb2.Reason),
    (records.Condition, records_pb2.Condition),
    (records.Clock, access_pb2.Clock),
    (records.Past, access_pb2.Past),
    (records.Session, sandbox_pb2.Session),
    (records.SamplingParameters, records_pb2.SamplingParameters),
    (records.SampleReceipt, records_pb2.SampleReceipt),
    (records.Message, sandbox_pb2.Message),
    (records.Utterance, sandbox_pb2.Utterance),
    (records.Receipt, records_pb2.Receipt),
    (records.Signature, motions_pb2.Signature),
    (records.Motion, motions_pb2.Motion),
    (records.Game, games_pb2.Game),
    (records.PlayerTools, games_pb2.PlayerTools),
    (records.Guess, games_pb2.Guess),
    (records.Reveal, games_pb2.Reveal),
    (records.Holding, recall_pb2.Holding),
    (records.Notice, recall_pb2.Notice),
]

TIMES = st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30), timezones=st.just(UTC))  # noqa: DTZ001 - hypothesis adds the zone
COUNTS = st.integers(0, 2**31 - 1)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
st.register_type_strategy(datetime, TIMES)
st.register_type_strategy(int, COUNTS)
st.register_type_strategy(str, TEXTS)
st.register_type_strategy(float, st.floats(allow_nan=False))


def _records(kind):
    from typing import get_type_hints

    hints = get_type_hints(kind, localns={"datetime": datetime})
    return st.builds(kind, **{name: _values(hint) for name, hint in hints.items()})


def _values(hint):
    from dataclasses import is_dataclass
    from typing import get_args, get_origin

    if get_origin(hint) is tuple:
        return st.lists(_values(get_args(hint)[0]), max_size=3).map(tuple)
    if get_origin(hint) is UnionType:
        return st.one_of(*(_values(part) for part in get_args(hint)))
    return _records(hint) if is_dataclass(hint) else st.from_type(hint)


@pytest.mark.parametrize(("record", "message"), PAIRS, ids=lambda kind: kind.__name__)
@given(data=st.data())
def test_what_is_written_is_read_back(record, message, data):
    value = data.draw(_records(record))
    sent = wire.to_message(value, message)
    assert wire.from_message(message.FromString(sent.SerializeToString()), record) == value


@pytest.mark.parametrize(("record", "message"), PAIRS, ids=lambda kind: kind.__name__)
def test_record_and_message_name_the_same_fields(record, message):
    from dataclasses import fields

    assert {field.name for field in fields(record)} == set(message.DESCRIPTOR.fields_by_name)


def test_an_unknown_level_reads_as_the_worst():
    assert wire.from_message(organisms_pb2.Organism(level=77), records.Organism).level is records.Level.CL4


def test_an_unknown_condition_reads_as_one_that_refuses():
    read = wire.from_message(records_pb2.Condition(modifier=77), records.Condition)
    assert read.modifier is records.Modifier.UNSPECIFIED


def test_an_unset_enum_is_refused_where_it_has_no_meaning():
    with pytest.raises(errors.InvalidArgument, match="Purpose"):
        wire.from_message(access_pb2.Grant(rung=1), records.Grant)


def test_a_time_beyond_the_calendar_is_refused():
    from google.protobuf.timestamp_pb2 import Timestamp

    with pytest.raises(errors.InvalidArgument):
        wire.time(Timestamp(seconds=2**62))


@given(TIMES)
def test_times_survive_to_the_microsecond(when):
    assert wire.time(wire.timestamp(when)) == when
    assert wire.time(wire.timestamp(when)).utcoffset() == timedelta(0)


@pytest.mark.parametrize("kind", list(errors.BY_REASON.values()), ids=lambda kind: kind.__name__)
def test_every_error_comes_back_as_its_own_class(kind):
    data = wire.to_status(kind("Do this.", path="x")).SerializeToString()
    back = wire.from_status(data, code="UNKNOWN", message="")
    assert type(back) is kind
    assert (back.message, back.details) == ("Do this.", {"path": "x"})


def test_a_failure_without_our_status_is_the_nearest_error():
    assert type(wire.from_status(b"\xff", code="UNAVAILABLE", message="no route")) is errors.RegistryUnreachable
    assert type(wire.from_status(b"", code="OUT_OF_RANGE", message="?")) is errors.Internal


@pytest.mark.parametrize("name", ["message", "self", "details", "args", ""])
def test_a_lying_registrys_details_may_have_any_name(name):
    info = error_details_pb2.ErrorInfo(reason="DENIED", domain=errors.DOMAIN, metadata={name: "x"})
    status = status_pb2.Status(message="No.")
    status.details.add().Pack(info)
    back = wire.from_status(status.SerializeToString(), code="UNKNOWN", message="")
    assert (type(back), back.message, back.details) == (errors.Denied, "No.", {name: "x"})


def test_a_lying_registrys_broken_details_are_the_nearest_error():
    status = status_pb2.Status(message="No.")
    status.details.add(type_url="type.googleapis.com/google.rpc.ErrorInfo", value=b"\xff")
    assert type(wire.from_status(status.SerializeToString(), code="NOT_FOUND", message="?")) is errors.NotFound


def test_reasons_of_the_protocol_are_the_reasons_of_the_tree():
    listed = {name.removeprefix("ERROR_REASON_") for name in errors_pb2.ErrorReason.keys()}  # noqa: SIM118 - an enum wrapper
    assert listed - {"UNSPECIFIED"} == set(errors.BY_REASON) - {"UNKNOWN"}


def test_the_absent_budget_is_not_the_empty_budget():
    assert wire.budget(access_pb2.CreateAccessRequestRequest(), "budget") is None
    assert wire.budget(access_pb2.CreateAccessRequestRequest(budget=records_pb2.Budget()), "budget") == records.Budget()


def test_half_of_a_character_is_refused_in_words_and_the_rest_is_sent_as_it_is():
    assert wire.text("é🧬 ok") == "é🧬 ok"
    with pytest.raises(errors.InvalidArgument, match="position 2") as caught:
        wire.text("ab\ud800")
    assert caught.value.details["position"] == "2"
