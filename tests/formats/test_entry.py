"""Ledger entries: one way to write each, and nothing read that was not written so."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from datetime import UTC, datetime, timedelta, timezone

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st
from model_organisms.errors import InvalidArgument
from model_organisms.formats import entry
from model_organisms.records import Entry

PLAIN = Entry(seq=7, time=datetime(2026, 1, 31, 12, tzinfo=UTC), type="access.approve", actor="users/ada", subject="requests/x")
FULL = dataclasses.replace(
    PLAIN,
    decision="allow",
    key="00ff00ff00ff00ff",
    grant="grants/y",
    policies="ab" * 32,
    reasons=("access.approve", "audit.write"),
    commit="cd" * 32,
    intent=41,
    facts={"revision": "2", "given": "1"},
)
WORDS = st.text(st.characters(exclude_categories=("Cs", "Cc"))).filter(str.isprintable)
ENTRIES = st.builds(
    Entry,
    seq=st.integers(0, 2**63 - 1),
    time=st.datetimes(timezones=st.sampled_from([UTC, timezone(timedelta(hours=5, minutes=30))]), min_value=datetime(1, 1, 3)),  # noqa: DTZ001 - hypothesis wants it so
    type=st.from_regex(r"[a-z][a-z0-9_-]{0,9}(\.[a-z][a-z0-9_-]{0,9}){1,3}", fullmatch=True),
    actor=WORDS,
    subject=WORDS,
    decision=st.sampled_from(["", "allow", "deny"]),
    key=WORDS,
    grant=WORDS,
    policies=WORDS,
    reasons=st.lists(WORDS, max_size=3).map(tuple),
    commit=st.sampled_from(["", "0" * 64, "ab" * 32]),
    intent=st.integers(-1, 2**53 - 1),
    facts=st.dictionaries(st.from_regex(r"[a-z][a-z0-9_.-]{0,20}", fullmatch=True), WORDS, max_size=4),
)


@given(ENTRIES)
def test_an_entry_reads_back_and_is_rfc_8785(what):
    data = entry.encode(what)
    assert entry.parse(data) == what
    assert entry.encode(entry.parse(data)) == data
    assert rfc8785.dumps(json.loads(data)) == data


def test_the_bytes_are_these():
    assert entry.encode(PLAIN) == (
        b'{"actor":"users/ada","seq":"0000000000000007","subject":"requests/x",'
        b'"time":"2026-01-31T12:00:00.000000Z","type":"access.approve","v":1}'
    )
    assert entry.encode(FULL) == (
        b'{"actor":"users/ada","commit":"' + b"cd" * 32 + b'","decision":"allow","facts":{"given":"1","revision":"2"},'
        b'"grant":"grants/y","intent":41,"key":"00ff00ff00ff00ff","policies":"' + b"ab" * 32 + b'",'
        b'"reasons":["access.approve","audit.write"],"seq":"0000000000000007","subject":"requests/x",'
        b'"time":"2026-01-31T12:00:00.000000Z","type":"access.approve","v":1}'
    )


@pytest.mark.parametrize(
    "change",
    [
        {"seq": -1},
        {"seq": 2**63},
        {"time": datetime(2026, 1, 31)},  # noqa: DTZ001 - the point
        {"type": "approve"},
        {"type": "Access.approve"},
        {"type": "access.approve\n"},
        {"type": ""},
        {"decision": "maybe"},
        {"intent": -2},
        {"intent": 2**53},
        {"commit": "AB" * 32},
        {"commit": "ab"},
        {"actor": "users/\x1b[2J"},
        {"subject": "two\nlines"},
        {"subject": "\u202eright to left"},
        {"key": "\ud800"},
        {"grant": "x" * 513},
        {"policies": "\x7f"},
        {"reasons": ("fine", "not\x00fine")},
        {"facts": {"Upper": "x"}},
        {"facts": {"": "x"}},
        {"facts": {"x" * 65: "x"}},
        {"facts": {"x": "\u2028"}},
        {"facts": {f"f{at}": "x" * 500 for at in range(9)}},
        {"reasons": ("€" * 500,) * 3},
    ],
)
def test_what_no_entry_may_hold_is_refused_without_repeating_it(change):
    with pytest.raises(InvalidArgument) as refused:
        entry.encode(dataclasses.replace(FULL, **change))
    assert "\x1b" not in str(refused.value)


GOOD = entry.encode(FULL)


def edited(**fields):
    return rfc8785.dumps(json.loads(GOOD) | fields)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"[]",
        b"null",
        b"\xff",
        GOOD + b"\n",
        b" " + GOOD,
        GOOD.replace(b'":"', b'": "', 1),
        GOOD.replace(b"users/ada", b"users\\/ada"),
        GOOD.replace(b"users/ada", b"users/\\u0061da"),
        GOOD.replace(b'{"actor":"users/ada",', b'{"actor":"users/eve","actor":"users/ada",'),
        GOOD.replace(b'{"actor":"users/ada",', b"{") + b"",
        GOOD.replace(b'"v":1', b'"v":1.0'),
        GOOD.replace(b'"v":1', b'"v":true'),
        GOOD.replace(b'"intent":41', b'"intent":41.0'),
        GOOD.replace(b'"intent":41', b'"intent":true'),
        GOOD.replace(b'"intent":41', b'"intent":NaN'),
        GOOD.replace(b'"intent":41', b'"intent":' + b"9" * 5000),
        edited(v=2),
        edited(extra="x"),
        edited(seq=7),
        edited(seq="7"),
        edited(seq="8000000000000007"),
        edited(seq="000000000000000A"),
        edited(time="2026-01-31T12:00:00Z"),
        edited(time="2026-01-31T12:00:00.000000+00:00"),
        edited(time="2026-02-31T12:00:00.000000Z"),
        edited(time=0),
        edited(actor=None),
        edited(decision=""),
        edited(intent=-1),
        edited(reasons=[]),
        edited(reasons="access.approve"),
        edited(reasons=[1]),
        edited(facts={}),
        edited(facts=[]),
        edited(facts={"a": 1}),
        edited(facts={"a": {"b": "c"}}),
        b"[" * 4000,
        b'{"a":' * 800,
        GOOD + b" " * entry.MAX_SIZE,
    ],
)
def test_what_was_not_written_so_is_refused(data):
    with pytest.raises(InvalidArgument):
        entry.parse(data)


@given(st.integers(0, len(GOOD) - 1), st.binary(max_size=2))
def test_an_edited_entry_is_refused_or_reads_as_what_it_now_says(at, middle):
    data = GOOD[:at] + middle + GOOD[at + 1 :]
    try:
        read = entry.parse(data)
    except InvalidArgument:
        return
    assert entry.encode(read) == data


def test_the_limit_is_four_kibibytes_to_the_byte():
    facts = {f"f{at}": "x" * 512 for at in range(7)}
    spare = entry.MAX_SIZE - len(entry.encode(dataclasses.replace(PLAIN, facts=facts)))
    room = spare - len(',"g":""')
    assert len(entry.encode(dataclasses.replace(PLAIN, facts=facts | {"g": "x" * room}))) == entry.MAX_SIZE
    with pytest.raises(InvalidArgument, match="4096"):
        entry.encode(dataclasses.replace(PLAIN, facts=facts | {"g": "x" * (room + 1)}))


def test_a_commitment_is_to_nonce_and_payload():
    nonce = bytes(range(32))
    expected = hashlib.sha256(b"model-organisms/commit/v1\x00" + nonce + b"prompt").hexdigest()
    assert entry.commitment(nonce, b"prompt") == expected
    others = {
        entry.commitment(nonce, b""),
        entry.commitment(bytes(32), b"prompt"),
        entry.commitment(nonce, b"prompt\x00"),
        expected,
    }
    assert len(others) == 4
    for wrong in (b"", nonce[:-1], nonce + b"p"):
        with pytest.raises(InvalidArgument):
            entry.commitment(wrong, b"prompt")
