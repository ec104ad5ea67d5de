"""YAML of strangers: what JSON has and nothing else, in bounded time."""

from __future__ import annotations

import json
import re
import time

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from model_organisms.errors import InvalidArgument
from model_organisms.formats import strict_json, strict_yaml


def read(data, **how):
    return strict_yaml.parse(data, what="It", error=InvalidArgument, **how)


def test_values_are_those_of_json_and_keys_are_as_written():
    text = b"a: 1\nb: [x, 2.5, null, true]\n8k: {1.50: y}\nwhen: 2025-06-13\nnull: z\n'<<': w\nlong: |\n  two\n  lines\n"
    assert read(text) == {
        "a": 1, "b": ["x", 2.5, None, True], "8k": {"1.50": "y"}, "when": "2025-06-13", "null": "z", "<<": "w",
        "long": "two\nlines\n",
    }  # fmt: skip


def test_words_are_those_of_yaml_1_1():
    assert read(b"- ~\n-\n- Null\n- NULL\n- 'null'") == [None, None, None, None, "null"]
    assert read(b"[true, Yes, ON, FALSE, no, off, nO, y]") == [True, True, True, False, False, False, "nO", "y"]


def test_numbers_are_those_that_every_reader_takes_for_one_and_the_rest_is_text():
    assert read(b"[0, -7, +7, 1.5, .5, 5., -1.0e+3, 9007199254740991]") == [0, -7, 7, 1.5, 0.5, 5.0, -1000.0, 2**53 - 1]
    texts = ["010", "0x1F", "0b1", "0o7", "1_000", "1e5", "1:40", "1:40.5", "2024-13-45", "2024-01-01 10:00:00", "-.5", "="]
    assert read("\n".join(f"- {text}" for text in texts).encode()) == texts


def test_base_60_takes_no_time_at_any_length():
    for text in (b"1:" * 400 + b"1.5", b"1:" * 120_000 + b"1"):
        begun = time.monotonic()
        assert read(text) == text.decode()
        assert time.monotonic() - begun < 5


REFUSED = {
    b"a: &x 1\nb: *x": "line 2 refers to another place",
    b"a: 1\nb: {c: 1,\n c: 2}": "line 3 has the key 'c' a second time",
    b"a: 1\n'a': 2": "line 2 has the key 'a' a second time",
    b"\na: !!python/object/apply:os.system [ls]": "line 2 has a tag",
    **{
        b"a:\n  - " + tagged: "line 2 has a tag"
        for tagged in (
            *(b"!!set {b, c}", b"!!binary aGk=", b"!!omap [x: 1]", b"!!pairs [x: 1]", b"!!null x", b"!!int ''", b"!!bool x"),
            *(b"!!timestamp x", b"!!float x", b"!!int _", b"!!int 0b", b"!!seq x", b"!!map x", b"!!str x", b"! x", b"!local x"),
        )
    },
    b"? [a]\n: b": "line 1 has a key that is a list",
    b"? {a: 1}\n: b": "line 1 has a key that is a list",
    b"- x\n- &k a: 1": "line 2 has a key that is a list, a map or a reference",
    b"<<: {a: 1}": "line 1 merges",
    b"a: .nan": "line 1 has a number",
    b"a: -.Inf": "line 1 has a number",
    b"a: 99999999999999999999": "line 1 has a number",
    b"a: " + b"9" * 5_000: "line 1 has a number",
    b"a: 1.0e+999": "line 1 has a number",
    b'a: "\\ud800"': "line 1 has half of a surrogate pair",
    b'"\\ud800": a': "line 1 has half of a surrogate pair",
    b"a: [": "line 1 is not YAML",
    b"a: 1\n\xff": "line 2 is not UTF-8",
    b"a\nb\x00": "line 2 has a character",
    b'- a\n- "\\UFFFFFFFF"': "line 1 or one after it",
    b"%YAML 1." + b"1" * 5_000 + b"\n--- a": "line 1 or one after it",
    b"--- a\n--- b": "line 2 begins a second document",
    b"[" * 17 + b"]" * 17: "nests deeper than 16",
    b"[" * 100_000: "nests deeper than 16",
    b"- " * 100_000: "nests deeper than 16",
    b"{" * 100_000: "has a key that is",
    b"a: " * 50: "is not YAML",
    b"".join(b"k%d: 1\n" % number for number in range(20_000)): "has value number 20,001",
    b"#" * (1 << 19): "more than 262,144 bytes",
}


@pytest.mark.parametrize(("text", "why"), REFUSED.items(), ids=range(len(REFUSED)))
def test_what_json_has_not_is_refused_soon_and_says_where(text, why):
    begun = time.monotonic()
    with pytest.raises(InvalidArgument, match="^It .*" + re.escape(why)) as refused:
        read(text)
    assert time.monotonic() - begun < 10
    assert len(refused.value.message) < 300


def test_references_are_read_where_a_reader_asks_for_them():
    text = b"a: &x [1, &y two]\nb: *x\nc: {d: *y}"
    assert read(text, references=True) == {"a": [1, "two"], "b": [1, "two"], "c": {"d": "two"}}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"a: &x [1, *x]", "does not stand, whole, before it"),
        (b"a: *x\nb: &x 1", "does not stand, whole, before it"),
        (b"a: &x 1\nb: &x 2", "line 2 has a name"),
        (b"a: &x b\n*x : 1", "line 2 has a key that is"),
        (b"- &a [[[[[[[[[x]]]]]]]]]\n- [[[[[[[*a]]]]]]]", "line 2 nests deeper than 16"),
    ],
)
def test_references_that_two_readers_may_follow_in_two_ways_are_refused(text, why):
    with pytest.raises(InvalidArgument, match=why):
        read(text, references=True)


def test_references_are_bounded_in_what_they_unfold_to_in_values_and_in_characters():
    assert read(b"- &a [[[[[[[[x]]]]]]]]\n- [[[[[[[*a]]]]]]]", references=True)
    lines = [b"a0: &a0 [x, x, x, x, x, x, x, x]"]
    lines += [b"a%d: &a%d [%s]" % (n, n, b", ".join([b"*a%d" % (n - 1)] * 8)) for n in range(1, 12)]
    key = [*lines[:9], b"? [*a8]\n: 1"]
    text = b"- &a " + b"x" * 100_000 + b"\n- *a" * 25
    for data in (b"\n".join(lines), b"\n".join(key), text):
        with pytest.raises(InvalidArgument, match="unfolds the whole to more than"):
            read(data, references=True)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"])),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.from_regex(r"[a-z][a-z0-9_]{0,8}", fullmatch=True), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(JSON)
def test_what_a_yaml_writer_prints_of_json_is_read_again(value):
    assert read(yaml.dump(value, Dumper=_Plain, allow_unicode=True, sort_keys=False).encode()) == value


class _Plain(yaml.SafeDumper):
    def ignore_aliases(self, _data):
        return True


PIECES = [
    *("a", "b: ", "- ", "? ", ": ", "[", "]", "{", "}", ", ", "\n", "\n  ", "&x ", "*x", "!!int ", "! ", "!<", "<<: ", "---\n"),
    *("...\n", "%YAML 1.1\n", "|\n", ">2-\n", "'", '"', "\\u", "\\UFFFFFFFF", "1", ":1", "9" * 30, ".", "e+", ".inf", "~", "#"),
    *("\t", "\0", "\ufeff", "\u2028"),
]  # fmt: skip


@settings(deadline=2_000)
@given(st.binary(max_size=200) | st.lists(st.sampled_from(PIECES), max_size=60).map("".join).map(str.encode), st.booleans())
def test_any_bytes_are_a_value_of_json_or_an_error_soon(data, references):
    try:
        value = read(data, references=references)
    except InvalidArgument:
        return
    assert json.loads(strict_json.canonical(value)) == value
