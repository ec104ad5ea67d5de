"""What is said to change a denial does, and nothing less does: held against the oracle."""

from __future__ import annotations

from collections import Counter

from model_organisms.records import Role, Rung
from model_organisms_registry.domain.permits import Action
from model_organisms_registry.gate.cedar import PolicySet
from model_organisms_registry.gate.entities import RUNG_OF
from model_organisms_registry.gate.remedies import Lack, Whose, find

from tests.policies.document import decided
from tests.policies.oracle import may

SHIPPED = PolicySet.read()
EACH = 10
"""So many denied calls of each action are explained, evenly taken from the table."""
RELATIONS = {"owner", "proposer", "publisher", "author", "requester", "user", "oneself", "master", "player"}


def denied():
    return [row for row, decision in decided() if not decision.allowed and row.facts["active"] and row.facts["ledger"]]


def chosen():
    every = denied()
    for action in Action:
        found = [row for row in every if row.action is action]
        yield from found[:: max(1, len(found) // EACH)]


def remedies(row):
    return find(row.request(), row.entities(), rung=RUNG_OF.get(row.action), allows=SHIPPED.allows)


def changed(row, lacks, callers):
    """The facts of a call with what is said to be lacking."""
    facts = dict(row.facts)
    facts |= {lack.value: True for lack in lacks if lack.value in facts}
    if Lack.PUBLISHED in lacks and "state" in facts:
        facts["state"] = "published"
    if Lack.GRANT in lacks and row.action in RUNG_OF:
        facts |= {"grant_rung": RUNG_OF[row.action], "grant_level": 4, "expired": False, "revoked": False}
    for who in callers:
        if isinstance(who, Role):
            facts["roles"] = facts["roles"] | {who}
        else:
            mine = ("owner", "proposer", "requester", "user") if who is Whose.OWN else RELATIONS
            facts |= {name: who is Whose.OWN for name in mine if name in facts}
    return facts


def test_what_is_lacking_suffices_and_each_of_it_is_needed():
    told = Counter()
    for row in chosen():
        found = remedies(row)
        told[str(row.action), found is None] += 1
        if found is None:
            continue
        for way in found.callers or ((),):
            assert may(row.action, row.kind, changed(row, found.lacks, way)), (row.as_text(), found)
        first = (*found.callers, ())[0]
        for lack in found.lacks:
            fewer = tuple(other for other in found.lacks if other is not lack)
            assert not may(row.action, row.kind, changed(row, fewer, first)), (row.as_text(), found)
        if found.callers:
            assert not may(row.action, row.kind, changed(row, tuple(Lack), ())), (row.as_text(), found)
    assert {action for action, nothing in told if not nothing} >= {str(action) for action in set(Action) - {Action.LIST}}


def test_nothing_helps_against_what_must_never_be():
    for row in denied():
        if row.action is Action.PULL and row.facts["level"] in (4, "unknown"):
            assert remedies(row) is None
            assert row.facts["grant_rung"] <= Rung.PULL
            break
    else:
        raise AssertionError("no such call in the table")


def test_an_account_that_does_not_stand_is_lacking_nothing_else():
    row = next(row for row, _ in decided() if not row.facts["active"] and row.facts["ledger"])
    assert remedies(row) is None
