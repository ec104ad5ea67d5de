"""The decision table, enumerated: thousands of abstract calls against the invariants of the threat model, written in Python."""

from __future__ import annotations

import json
from collections import Counter
from itertools import product

import pytest
from model_organisms.records import Role
from model_organisms_registry.gate.cedar import PolicySet

POLICIES = PolicySet.read()
YES_NO = (True, False)
ME, OTHER = "users/me", "users/other"
ROLE_SETS = [(), *((role.value,) for role in Role), ("researcher", "reviewer"), ("reviewer", "publisher"), ("admin", "reviewer")]
ROLE_SETS += [tuple(role.value for role in Role)]
CALLERS = [(("researcher",), True), (("researcher",), False), (("reviewer", "publisher", "admin"), True)]
USE = {"openSession": ("Version", 2), "sample": ("Session", 2), "probe": ("Session", 3), "pull": ("Version", 4)}


def person(name):
    return {"__entity": {"type": "User", "id": name}}


def decide(roles, action, kind, attributes, context, *, active=True):
    me = {
        "uid": {"type": "User", "id": ME},
        "attrs": {"organisation": {"__entity": {"type": "Organisation", "id": "organisations/o"}}, "active": active},
        "parents": [{"type": "Role", "id": role} for role in roles],
    }
    it = {"uid": {"type": kind, "id": "it"}, "attrs": attributes, "parents": []}
    request = {
        "principal": {"type": "User", "id": ME},
        "action": {"type": "Action", "id": action},
        "resource": {"type": kind, "id": "it"},
        "context": context,
    }
    entities = json.dumps([me, it])
    decision = POLICIES.decide(request, entities)
    assert decision.errors == ()
    return decision, lambda: POLICIES.decide(request, entities, whole=True)


def version(level, owner, hidden, published):
    return {"level": level, "owner": person(owner), "publisher": person(OTHER), "hidden": hidden, "published": published}


def using(action, level, *, mine=True, published=True, grant=(0, 0, False, False), ledger=True, jail=True, witness=True):
    """Facts of one use; `mine`: the caller owns the organism, or the session is theirs."""
    kind, _ = USE[action]
    rung, held_level, expired, revoked = grant
    context = {
        "ledger": ledger,
        "grantee": rung > 0,
        "jail": jail,
        "witness": witness,
        "grant": {"rung": rung, "level": held_level, "expired": expired, "revoked": revoked},
    }
    if kind == "Version":
        return kind, version(level, ME if mine else OTHER, False, published), context
    return kind, {"user": person(ME if mine else OTHER), "level": level, "published": published}, context


GRANTS = [(0, 0, False, False), (4, 4, False, False)]
GRANTS += [(rung, level, False, False) for rung in (1, 2, 3, 4) for level in (1, 2, 3)]
GRANTS += [(4, 4, True, False), (4, 4, False, True), (4, 4, True, True)]


@pytest.mark.parametrize("action", USE)
def test_nobody_uses_an_organism_against_the_invariants(action):
    kind, needed = USE[action]
    seen = Counter()
    for level, mine, published, grant, ledger, jail, witness in product(
        (1, 2, 3, 4), YES_NO, YES_NO, GRANTS, YES_NO, YES_NO, YES_NO
    ):
        for roles, active in CALLERS if jail and witness else CALLERS[:1]:
            facts = using(action, level, mine=mine, published=published, grant=grant, ledger=ledger, jail=jail, witness=witness)
            decision, again = decide(roles, action, *facts, active=active)
            rung, held_level, expired, revoked = grant
            may = (
                active
                and ledger
                and "researcher" in roles
                and (mine or kind == "Version")
                and published
                and rung >= needed
                and held_level >= level
                and not expired
                and not revoked
                and not (action == "pull" and level == 4)
                and (action == "pull" or level == 1 or jail)
                and (action == "pull" or level < 4 or witness)
            )
            assert decision.allowed == may, (action, level, mine, published, grant, ledger, jail, witness, roles, active)
            if seen.total() % 7 == 0:
                assert again() == decision
            seen[decision.allowed] += 1
    assert seen.total() > 3000
    assert seen[True] > 10


def test_nobody_decides_on_what_they_have_an_interest_in():
    seen = Counter()
    for roles, level, rung, asks, owns, made, ledger in product(ROLE_SETS, (1, 2, 3, 4), (2, 3, 4), *[YES_NO] * 4):
        attributes = {
            "requester": person(ME if asks else OTHER),
            "level": level,
            "rung": rung,
            "owners": [person(ME if owns else OTHER)],
            "authors": [person(OTHER), *([person(ME)] if made else [])],
        }
        decision, again = decide(roles, "review", "Request", attributes, {"ledger": ledger})
        may = "reviewer" in roles and ledger and not asks and not owns and not made and not (level == 4 and rung == 4)
        assert decision.allowed == may, (roles, level, rung, asks, owns, made, ledger)
        assert again() == decision
        seen[decision.allowed] += 1
    assert seen.total() > 2000


def test_asking_and_attesting_need_sight_and_a_published_version():
    for roles, level, rung, mine, hidden, published, grantee in product(ROLE_SETS, (1, 4), (2, 4), *[YES_NO] * 4):
        facts = ("Version", version(level, ME if mine else OTHER, hidden, published))
        sees = not hidden or mine or grantee or "reviewer" in roles
        asked, _ = decide(roles, "request", *facts, {"ledger": True, "grantee": grantee, "rung": rung})
        assert asked.allowed == ("researcher" in roles and sees and published and (level, rung) != (4, 4))
        attested, _ = decide(roles, "attest", *facts, {"ledger": True, "grantee": grantee})
        assert attested.allowed == (bool({"researcher", "reviewer", "publisher"} & set(roles)) and sees and published)
        described, _ = decide(roles, "describe", *facts, {"ledger": True, "grantee": grantee})
        assert described.allowed == sees


def plain_actions():
    """Every action that needs no more than a role or a relation, with who may."""
    request = {"requester": person(ME), "level": 1, "rung": 2, "owners": [person(OTHER)], "authors": []}
    theirs = request | {"requester": person(OTHER)}
    session = {"user": person(ME), "level": 4, "published": False}
    line = {"level": 1, "owner": person(ME), "hidden": False}
    always, seeing = {"ledger": True}, {"ledger": True, "grantee": False}
    every = {role.value for role in Role}
    overseers = {"reviewer", "auditor", "admin"}
    yield "list", "Registry", {}, always, {*every, None}
    yield "createOrganism", "Registry", {}, always, {"publisher"}
    yield "publish", "Organism", line, seeing, {"publisher"}
    yield "publish", "Organism", line | {"owner": person(OTHER)}, seeing, set()
    yield "setConditions", "Organism", line, seeing, {*every, None}
    yield "setConditions", "Organism", line | {"owner": person(OTHER)}, seeing, set()
    yield "withdrawVersion", "Version", version(1, OTHER, False, True), seeing, {"reviewer", "admin"}
    yield "withdrawVersion", "Version", version(1, ME, False, True), seeing, {*every, None}
    yield "setLevel", "Organism", line, seeing | {"lowering": False}, {"reviewer"}
    yield "setLevel", "Organism", line, seeing | {"lowering": True}, set()
    yield "setLevel", "Organism", line | {"owner": person(OTHER)}, seeing | {"lowering": True}, {"reviewer"}
    yield "amendRequest", "Request", request, always, {"researcher"}
    yield "amendRequest", "Request", theirs, always, set()
    yield "withdrawRequest", "Request", request, always, {*every, None}
    yield "withdrawRequest", "Request", theirs, always, set()
    yield "viewRequest", "Request", request, always, {*every, None}
    yield "viewRequest", "Request", theirs, always, overseers
    yield "viewGrant", "Grant", {"user": person(OTHER), "owners": []}, always, overseers
    yield "viewGrant", "Grant", {"user": person(OTHER), "owners": [person(ME)]}, always, {*every, None}
    yield "revokeGrant", "Grant", {"user": person(OTHER), "owners": []}, always, {"reviewer", "admin"}
    yield "revokeGrant", "Grant", {"user": person(ME), "owners": []}, always, {*every, None}
    yield "viewSession", "Session", session, always, {*every, None}
    yield "viewSession", "Session", session | {"user": person(OTHER)}, always, overseers
    yield "closeSession", "Session", session, always, {*every, None}
    yield "closeSession", "Session", session | {"user": person(OTHER)}, always, set()
    yield "killSession", "Session", session, always, {"reviewer", "admin"}
    yield "readLedger", "Ledger", {}, always | {"own": True}, {*every, None}
    yield "readLedger", "Ledger", {}, always | {"own": False}, overseers
    yield "viewUsers", "Registry", {}, always, overseers


@pytest.mark.parametrize("stated", list(plain_actions()), ids=lambda stated: stated[0])
def test_roles_and_relations_open_what_they_should_and_nothing_else(stated):
    action, kind, attributes, context, allowed = stated
    for roles, active, ledger in product(ROLE_SETS, YES_NO, YES_NO):
        decision, again = decide(roles, action, kind, attributes, context | {"ledger": ledger}, active=active)
        role_fits = bool(allowed & set(roles)) or None in allowed
        assert decision.allowed == (active and ledger and role_fits), (action, roles, active, ledger)
        assert again() == decision


def test_no_role_alone_brings_anything_closer_than_describe():
    for roles, (action, (kind, _)), level in product(ROLE_SETS, USE.items(), (1, 2, 3, 4)):
        facts = using(action, level)
        assert not decide(roles, action, kind, *facts[1:])[0].allowed
