from __future__ import annotations

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from model_organisms.errors import RefusedConfig
from model_organisms.formats import strict_json

NUMBERS = (st.integers() | st.floats()).filter(strict_json.safe_number)
TEXT = st.text(st.characters(codec="utf-8"), max_size=20)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)


def parse(data, limit=1 << 20):
    return strict_json.parse(data, what="The file", limit=limit, error=RefusedConfig)


@given(VALUES)
def test_what_is_printed_is_read_back(value):
    printed = strict_json.canonical(value)
    read = parse(printed)
    assert read == value
    assert strict_json.canonical(read) == printed
    assert json.loads(printed) == value


SUM = "f8f17faab95c024891d173fa43442b0e52007736a1f36715ac721ab22deeefc5"


def test_a_digest_is_of_the_canonical_bytes():
    """Against what sha256sum says of `{"a":null,"b":[1,"é"]}`, in UTF-8."""
    assert strict_json.digest({"b": [1.0, "\u00e9"], "a": None}) == SUM
    assert strict_json.digest({"a": None, "b": [1, "\u00e9"]}) == SUM
    with pytest.raises(ValueError, match="inf"):
        strict_json.digest([float("inf")])


HOSTILE = {
    "empty": b"",
    "byte order mark": b"\xef\xbb\xbf{}",
    "not UTF-8": b'{"a":"\xff"}',
    "UTF-16": '{"a":1}'.encode("utf-16"),
    "duplicate key": b'{"a":1,"b":2,"a":1}',
    "duplicate key, written in two ways": b'{"a":1,"\\u0061":1}',
    "nested duplicate": b'[{"x":{"a":1,"a":2}}]',
    "NaN": b'{"a":NaN}',
    "infinity": b"[-Infinity]",
    "float beyond a double": b"[1e999]",
    "long float": b"[0." + b"1" * 100 + b"]",
    "huge integer": b"[" + b"9" * 5000 + b"]",
    "integer beyond 64 bits": b"[1234567890123456789]",
    "half a surrogate pair": b'["\\ud800"]',
    "half a surrogate pair as a key": b'{"\\udfff":1}',
    "control character in a string": b'["a\x00b"]',
    "trailing bytes": b"{}{}",
    "comment": b"{} // yes",
    "nested 17 deep": b"[" * 17 + b"]" * 17,
    "nested 500,000 deep": b"[" * 500_000,
    "nested objects": b'{"a":' * 200_000,
    "unterminated string": b'["aaaa',
    "unterminated string of escapes": b'["' + b'\\"' * 500_000,
    "beyond the limit": b" " * ((1 << 20) + 1),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_json_is_refused_at_once(name):
    begun = time.perf_counter()
    with pytest.raises(RefusedConfig, match="The file"):
        parse(HOSTILE[name])
    assert time.perf_counter() - begun < 2


def test_brackets_inside_strings_do_not_nest():
    assert parse(b'["' + b"[" * 1000 + b'\\"{{"]') == ["[" * 1000 + '"{{']


def test_the_message_does_not_carry_control_characters():
    with pytest.raises(RefusedConfig) as caught:
        parse(b'{"\\u001b[2J":1,"\\u001b[2J":2}')
    assert caught.value.message.isprintable()


@pytest.mark.parametrize(
    ("value", "safe"),
    [
        (1, True),
        (0.5, True),
        (True, False),
        (2**53, False),
        (2e16, False),
        (float("nan"), False),
        (float("inf"), False),
        ("1", False),
    ],
)
def test_safe_numbers_are_those_that_can_be_printed(value, safe):
    assert strict_json.safe_number(value) == safe
