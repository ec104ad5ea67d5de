"""YAML of strangers: what JSON has and nothing else, in bounded time."""

from __future__ import annotations

import json
import time

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from model_organisms.errors import InvalidArgument
from model_organisms.formats import strict_json
from model_organisms.importing import strict_yaml


def read(data):
    return strict_yaml.parse(data, what="It", error=InvalidArgument)


def test_values_are_those_of_json_and_keys_are_as_written():
    text = b"a: 1\nb: [x, 2.5, null, true]\n8k: {1.50: y}\nwhen: 2025-06-13\nnull: z\n<<: w\nlong: |\n  two\n  lines\n"
    assert read(text) == {
        "a": 1, "b": ["x", 2.5, None, True], "8k": {"1.50": "y"}, "when": "2025-06-13", "null": "z", "<<": "w",
        "long": "two\nlines\n",
    }  # fmt: skip


@pytest.mark.parametrize(
    "text",
    [
        b"a: &x 1\nb: *x", b"a: 1\na: 2", b"a: !!python/object/apply:os.system [ls]", b"a: !!set {b, c}", b"a: !!binary aGk=",
        b"a: .nan", b"a: .inf", b"a: 99999999999999999999", b"? [a]\n: b", b"a: [", b"\xff", b"a\x00b", b"--- a\n--- b",
        b"a: !local x",
        b"[" * 17 + b"]" * 17, b"[" * 100_000, b"- " * 100_000, b"a: " * 50, b"x" * (1 << 19),
    ],
)  # fmt: skip
def test_what_json_has_not_is_refused_soon(text):
    begun = time.monotonic()
    with pytest.raises(InvalidArgument):
        read(text)
    assert time.monotonic() - begun < 10


def test_references_that_unfold_are_refused_before_anything_is_built():
    lines = [b"a0: &a0 [x, x, x, x, x, x, x, x]"]
    lines += [b"a%d: &a%d [%s]" % (n, n, b", ".join([b"*a%d" % (n - 1)] * 8)) for n in range(1, 12)]
    with pytest.raises(InvalidArgument, match="refers back"):
        read(b"\n".join(lines))


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


@given(st.binary(max_size=200))
def test_any_bytes_are_a_value_of_json_or_an_error(data):
    try:
        value = read(data)
    except InvalidArgument:
        return
    assert json.loads(strict_json.canonical(value)) == value
