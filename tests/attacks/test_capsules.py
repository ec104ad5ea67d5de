"""What somebody between registry and recipient, or a recipient of another capsule, can do to one: nothing but make it useless."""

from __future__ import annotations

import sys
from dataclasses import replace
from datetime import timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st
from model_organisms.errors import CapsuleInvalid, InvalidArgument
from model_organisms.formats import capsule, dsse
from model_organisms.formats.capsule import INFO, MAX_HEADER, PAYLOAD_TYPE, seal_head
from model_organisms.formats.sealing_keys import check_sealing_public, seal_key, sealing_public
from model_organisms.formats.streaming import REFUSAL, SEGMENT
from model_organisms.records import Level

from tests.support.capsules import HEADER, NOW, OPAQUE, PUBLIC, RELEASE, make_capsule, open_capsule

PLAIN = bytes(range(256)) * (3 * SEGMENT // 256)
CAPSULE = make_capsule(PLAIN)
SMALL = make_capsule(b"small")
OTHER_OPAQUE = OPAQUE[:-1] + "g"
# RFC 7748 and the curve's twist: every u-coordinate of order 1, 2, 4 or 8, and the unreduced writings of the first ones.
PRIME = 2**255 - 19
ORDER_8 = (
    325606250916557431795983626356110631294008115727848805560023387167927233504,
    39382357235489614581723060781553021112529911719440698176882885853963445705823,
)
LOW_ORDER = [u.to_bytes(32, "little") for u in (0, 1, *ORDER_8, PRIME - 1, PRIME, PRIME + 1)]


def refused(data, **changes) -> None:
    with pytest.raises(CapsuleInvalid) as caught:
        open_capsule(data, **changes)
    assert caught.value.message == REFUSAL  # one message, whatever was wrong
    assert caught.value.details == {}
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_the_untouched_capsule_opens():
    assert open_capsule(CAPSULE.head + CAPSULE.body)[1] == PLAIN


def flipped(bit: int) -> bytes:
    head = bytearray(SMALL.head)
    head[bit // 8] ^= 1 << bit % 8
    return bytes(head) + SMALL.body


def test_a_flipped_bit_in_any_byte_of_the_head_is_refused():
    for byte in range(len(SMALL.head)):
        refused(flipped(byte * 8 + byte % 8))


@settings(max_examples=200, deadline=None)
@given(bit=st.integers(0, len(SMALL.head) * 8 - 1))
def test_no_flipped_bit_of_the_head_is_taken(bit):
    refused(flipped(bit))


@settings(max_examples=100, deadline=None)
@given(length=st.integers(0, len(SMALL.head + SMALL.body) - 1))
def test_every_truncation_is_refused(length):
    refused((SMALL.head + SMALL.body)[:length])


def segments() -> list[bytes]:
    return [CAPSULE.body[start : start + SEGMENT] for start in range(0, len(CAPSULE.body), SEGMENT)]


@pytest.mark.parametrize(
    "order",
    [(0, 2, 1, 3), (1, 0, 2, 3), (0, 1, 3), (0, 1, 2), (0,), (0, 1, 1, 2, 3), (0, 1, 1, 3), (0, 1, 2, 3, 3), (3,), ()],
)
def test_segments_swapped_dropped_or_doubled_are_refused(order):
    parts = segments()
    assert len(parts) == 4
    refused(CAPSULE.head + b"".join(parts[n] for n in order))


def test_segments_of_another_capsule_are_refused():
    theirs = make_capsule(PLAIN, body_key=b"\x04" * 32)
    again = make_capsule(PLAIN)  # same key, other salt
    for other in (theirs, again):
        refused(CAPSULE.head + CAPSULE.body[:SEGMENT] + other.body[SEGMENT:])
    refused(CAPSULE.head + theirs.body)


@pytest.mark.parametrize("tail", [b"\0", bytes(16), b"x" * SEGMENT])
def test_trailing_bytes_are_refused(tail):
    refused(SMALL.head + SMALL.body + tail)
    refused(CAPSULE.head + CAPSULE.body + tail)


def test_a_foreign_header_is_refused():
    length = int.from_bytes(SMALL.head[8:12], "big")
    other = make_capsule(b"other", pull=f"pulls/{OTHER_OPAQUE}")
    assert int.from_bytes(other.head[8:12], "big") == length
    end = 12 + length + 64
    refused(other.head[:end] + SMALL.head[end:] + SMALL.body, pull=f"pulls/{OTHER_OPAQUE}")  # ours under their header
    refused(SMALL.head[:end] + other.head[end:] + other.body)  # theirs under our header


def test_a_marked_body_does_not_pass_for_another_pulls():
    other = make_capsule(b"small", pull=f"pulls/{OTHER_OPAQUE}")
    refused(SMALL.head + other.body)


def test_another_recipient_cannot_open_it():
    refused(SMALL.head + SMALL.body, recipient_private=b"\x09" * 32)


def test_a_capsule_sealed_to_us_but_labelled_for_another_is_refused():
    seed = b"\x09" * 32
    theirs = make_capsule(b"small", public=sealing_public(seed))
    refused(theirs.head + theirs.body)
    assert open_capsule(theirs.head + theirs.body, recipient_private=seed)[1] == b"small"


def test_another_registry_cannot_issue_one():
    forged = make_capsule(b"small", release=Ed25519PrivateKey.generate())
    refused(forged.head + forged.body)


@pytest.mark.parametrize(
    "expectation",
    [
        {"origin": "other.example/ledger"},
        {"version_digest": "ac" * 32},
        {"grant": f"grants/{OTHER_OPAQUE}"},
        {"pull": f"pulls/{OTHER_OPAQUE}"},
        {"level": Level.CL3},
        {"max_plain_size": 4},
    ],
)
def test_a_capsule_that_is_not_what_was_asked_for_is_refused(expectation):
    refused(SMALL.head + SMALL.body, **expectation)


def test_a_higher_level_than_expected_opens_and_a_lower_does_not():
    raised = make_capsule(b"small", level=Level.CL3)
    assert open_capsule(raised.head + raised.body)[0].level == Level.CL3
    lowered = make_capsule(b"small", level=Level.CL1)
    refused(lowered.head + lowered.body)


@pytest.mark.parametrize("late", [timedelta(hours=1), timedelta(days=9), -timedelta(minutes=6)])
def test_out_of_its_time_it_is_refused(late):
    refused(SMALL.head + SMALL.body, now=NOW + late)


@pytest.mark.parametrize("late", [timedelta(0), timedelta(minutes=59), -timedelta(minutes=5)])
def test_within_its_time_it_opens(late):
    assert open_capsule(SMALL.head + SMALL.body, now=NOW + late)[1] == b"small"


def called_while_refusing(data, **changes) -> set[str]:
    seen = set()
    sys.setprofile(lambda frame, event, _: seen.add(frame.f_code.co_name) if event == "call" else None)
    try:
        refused(data, **changes)
    finally:
        sys.setprofile(None)
    return seen


def test_nothing_is_decapsulated_before_the_header_is_checked():
    unsigned = bytearray(SMALL.head + SMALL.body)
    unsigned[40] ^= 1
    for data, changes in (
        (bytes(unsigned), {}),
        (SMALL.head + SMALL.body, {"now": NOW + timedelta(days=1)}),
        (SMALL.head + SMALL.body, {"grant": f"grants/{OTHER_OPAQUE}"}),
        (SMALL.head + SMALL.body, {"max_plain_size": 4}),
    ):
        seen = called_while_refusing(data, **changes)
        assert "open_head" in seen
        assert "open_key" not in seen
    assert "open_key" in called_while_refusing(SMALL.head[:-1] + bytes([SMALL.head[-1] ^ 1]) + SMALL.body)


@pytest.mark.parametrize("point", LOW_ORDER, ids=lambda point: point[:4].hex())
def test_low_order_points_are_refused_in_a_capsule_and_as_a_key(point):
    end = 12 + int.from_bytes(SMALL.head[8:12], "big") + 64
    head = SMALL.head[: end + 1088] + point + SMALL.head[end + 1120 :]
    refused(head + SMALL.body)
    with pytest.raises(InvalidArgument):
        check_sealing_public(PUBLIC[:-32] + point)
    with pytest.raises(InvalidArgument):
        seal_head(HEADER, bytes(32), recipient_public=PUBLIC[:-32] + point, release_key=RELEASE)


def signed(printed: bytes) -> bytes:
    """Frame any header with the true release key: what a registry with a bug could issue."""
    signature = RELEASE.sign(dsse.pae(printed, PAYLOAD_TYPE))
    before = SMALL.head[:8] + len(printed).to_bytes(4, "big") + printed + signature
    end = 12 + int.from_bytes(SMALL.head[8:12], "big") + 64
    return before + SMALL.head[end:] + SMALL.body


PRINTED = SMALL.head[12 : 12 + int.from_bytes(SMALL.head[8:12], "big")]


@pytest.mark.parametrize(
    "printed",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b"\xff",
        PRINTED[:-1],
        PRINTED + b" ",
        b" " + PRINTED,
        PRINTED.replace(b'"CL2"', b'"CL4"'),
        PRINTED.replace(b'"CL2"', b'"CL9"'),
        PRINTED.replace(b'"CL2"', b"2"),
        PRINTED.replace(b'"plain_size":5', b'"plain_size":5.0'),
        PRINTED.replace(b'"plain_size":5', b'"plain_size":true'),
        PRINTED.replace(b'"plain_size":5', b'"plain_size":-5'),
        PRINTED.replace(b'"plain_size":5', b'"plain_size":99999999999999999'),
        PRINTED.replace(b"2026-03-01T12:00:00Z", b"2026-03-01T12:00:00+00:00"),
        PRINTED.replace(b"2026-03-01T12:00:00Z", b"2026-03-01 12:00:00"),
        PRINTED.replace(b'"grant"', b'"level":"CL1","grant"'),
        PRINTED[:-1] + b',"zzz":1}',
        PRINTED.ljust(MAX_HEADER + 1),
    ],
)
def test_a_malformed_header_is_refused_even_when_signed(printed):
    assert printed != PRINTED
    refused(signed(printed))


def test_a_header_announced_too_large_is_refused_before_it_is_read():
    for length in (MAX_HEADER + 1, 1 << 31, (1 << 32) - 1):
        refused(SMALL.head[:8] + length.to_bytes(4, "big") + SMALL.head[12:] + SMALL.body)


def test_a_body_announced_too_large_takes_no_memory():
    header = replace(HEADER, plain_size=1 << 40)
    head = seal_head(header, bytes(32), recipient_public=PUBLIC, release_key=RELEASE)
    refused(head + SMALL.body)


def test_a_key_that_was_not_committed_to_is_refused():
    """Two keys can be found under which one AES-GCM body opens; the commitment in the signed header leaves one."""
    end = 12 + int.from_bytes(SMALL.head[8:12], "big") + 64
    info = capsule._info(SMALL.head[:end])
    assert info.startswith(INFO)
    refused(SMALL.head[:end] + seal_key(b"\x05" * 32, PUBLIC, info=info) + SMALL.body)
    assert open_capsule(SMALL.head[:end] + seal_key(b"\x03" * 32, PUBLIC, info=info) + SMALL.body)[1] == b"small"
