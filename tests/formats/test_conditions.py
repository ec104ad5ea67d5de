"""Conditions as text: one way to write each, and nothing else is one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from model_organisms.errors import InvalidArgument
from model_organisms.formats.conditions import LONGEST_S, check, digest, parse_condition, print_condition
from model_organisms.records import Condition, Modifier

from tests.support.conditions import conditions


@given(conditions())
def test_a_condition_is_read_back(condition):
    assert check(condition) == condition
    assert parse_condition(print_condition(condition)) == condition


@given(st.text(max_size=40) | st.sampled_from(Modifier).flatmap(lambda kind: st.text(max_size=8).map(lambda more: kind + more)))
def test_whatever_is_read_was_written_so(text):
    try:
        condition = parse_condition(text)
    except InvalidArgument:
        return
    assert print_condition(condition) == text


@pytest.mark.parametrize(
    "condition",
    [
        Condition(Modifier.UNSPECIFIED),
        Condition("no-fun"),
        Condition(Modifier.NO_MERGE, 1),
        Condition(Modifier.NO_MERGE, name="x"),
        Condition(Modifier.TIME_LIMIT),
        Condition(Modifier.TIME_LIMIT, -1),
        Condition(Modifier.TIME_LIMIT, LONGEST_S + 1),
        Condition(Modifier.PUBLISH_DELAY, 60, "x"),
        Condition(Modifier.PROJECT),
        Condition(Modifier.PROJECT, name="Probe 2026"),
        Condition(Modifier.PROJECT, name="x" * 64),
        Condition(Modifier.PROJECT, 60, "probe"),
        Condition(Modifier.INSTITUTION, name="example-lab"),
        Condition(Modifier.INSTITUTION, name="users/ada"),
    ],
)
def test_a_condition_with_another_value_than_it_has_is_not_understood(condition):
    with pytest.raises(InvalidArgument):
        check(condition)


def test_a_digest_tells_any_two_lists_apart():
    merge, tune = Condition(Modifier.NO_MERGE), Condition(Modifier.NO_FINETUNE)
    lists = [(), (merge,), (tune,), (merge, tune), (tune, merge)]
    assert len({digest(one) for one in lists} | {digest(one, ["teaching"]) for one in lists}) == 10
