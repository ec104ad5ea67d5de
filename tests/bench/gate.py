"""M13: one decision of the gate, a permit as every call takes it, beside Cedar called bare on the same question."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING

import cedarpy
from model_organisms.errors import GrantRevoked
from model_organisms.records import GrantState, Rung
from model_organisms_registry.domain.permits import Action
from model_organisms_registry.gate import Conditions, Gate, PolicySet, entities
from model_organisms_registry.gate.cedar import SCHEMA, SHIPPED, shipped_folder
from model_organisms_registry.gate.question import Question

from tests.bench.measure import OURS, Goal, Row, interleaved, seconds
from tests.domain.cast import call, grant, organism, version

if TYPE_CHECKING:
    from collections.abc import Callable

    from model_organisms.records import Entry

BARE, PARSED_AGAIN = "Cedar, parsed once", "Cedar, parsed each time"
UP = Conditions(ledger=True, jail=True, witness=True)


def decisions(*, quick: bool) -> list[Row]:
    """M13: the question with most facts, whether a grant allows a pull."""
    refusals: list[Entry] = []
    policies = PolicySet.read()
    gate = Gate(policies, record_denial=refusals.append, conditions=lambda: UP)
    who, resource, held = call(), entities.version(version(), organism()), [grant(rung=Rung.PULL)]
    revoked = [grant(rung=Rung.PULL, state=GrantState.REVOKED)]
    schema, text = _shipped(SCHEMA), "\n".join(_shipped(name) for name in SHIPPED)
    parsed, parsed_schema = cedarpy.PolicySet.from_str(text), cedarpy.Schema.from_str(schema)
    asked = Question(policies, who, Action.PULL, resource, held, conditions=UP)
    request, facts = asked.request(), asked.entities()
    allowed = cedarpy.is_authorized(request, parsed, facts, parsed_schema).allowed
    sides = {
        OURS: _typical(lambda: gate.permit(who, Action.PULL, resource, grants=held), 200),
        BARE: _typical(lambda: cedarpy.is_authorized(request, parsed, facts, parsed_schema), 200),
        PARSED_AGAIN: _typical(lambda: cedarpy.is_authorized(request, text, facts, schema), 10),
    }
    found = interleaved(sides, 5 if quick else 15)
    permit = gate.permit(who, Action.PULL, resource, grants=held)
    refused = False
    try:
        gate.permit(who, Action.PULL, resource, grants=revoked)
    except GrantRevoked:
        refused = len(refusals) == 1
    checks = {
        "permits as bare Cedar does": allowed and permit.grant == held[0].name,
        "refuses a revoked grant, recorded first": refused,
    }
    return [Row("M13", "one decision, p50", "µs", found, (Goal(200, at_most=True), Goal(1.64, BARE, at_most=True)), checks)]


def _typical(work: Callable[[], object], times: int) -> Callable[[], float]:
    return lambda: median(seconds(work) for _ in range(times)) * 1e6


def _shipped(name: str) -> str:
    return (shipped_folder() / name).read_text("utf-8")
