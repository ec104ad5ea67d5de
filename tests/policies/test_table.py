"""The decision table: some twenty thousand abstract calls, each held against an oracle written from the prose."""

from __future__ import annotations

from collections import Counter, defaultdict
from functools import cache

import pytest
from model_organisms_registry.domain.permits import Action
from model_organisms_registry.gate.cedar import PolicySet
from model_organisms_registry.gate.table import BY_LOT, rows

from tests.policies.document import decided
from tests.policies.oracle import NEEDED, RULES, may
from tests.policies.shears import without

SHIPPED = PolicySet.read()
ALONE = 20
"""Calls that a single policy decides, tried again without it."""


@pytest.mark.parametrize("action", [str(action) for action in Action])
def test_every_call_is_decided_as_the_prose_says(action):
    seen = Counter()
    for row, decision in decided():
        if row.action == action:
            assert decision.errors == (), row
            assert decision.allowed == may(action, row.kind, row.facts), (decision.reasons, row.as_text())
            seen[decision.allowed] += 1
    assert seen[True] > 2
    assert seen[False] > 2


def test_the_table_is_large_has_every_action_and_is_the_same_each_time():
    assert len(rows()) > 15_000
    assert {row.action for row in rows()} == set(Action)
    assert set(RULES) == {str(action) for action in Action}
    rows.cache_clear()
    assert rows() == tuple(row for row, _ in decided())


def test_no_call_stands_in_the_table_twice():
    assert len({(row.action, row.kind, tuple(row.facts.values())) for row in rows()}) == len(rows())


def test_a_decision_over_all_policies_is_the_one_over_those_of_the_action():
    for row, decision in decided()[:: BY_LOT // 20]:
        assert SHIPPED.decide(row.request(), row.entities(), whole=True) == decision


@cache
def decided_alone():
    """Calls that one policy decides by itself, by its id."""
    found = defaultdict(list)
    for row, decision in decided():
        if len(decision.reasons) == 1:
            found[decision.reasons[0]].append(row)
    return found


@pytest.mark.parametrize("identifier", SHIPPED.order)
def test_each_policy_decides_a_call_that_is_decided_otherwise_without_it(identifier):
    left = without(identifier)
    tried = decided_alone()[identifier][:ALONE]
    changed = [left.decide(row.request(), row.entities()).allowed for row in tried]
    assert (True in changed) if identifier in SHIPPED.forbids else (False in changed)


def test_no_role_alone_brings_anything_closer_than_describe():
    for row, decision in decided():
        if row.action in NEEDED and row.facts["grant_rung"] == 0:
            assert not decision.allowed
