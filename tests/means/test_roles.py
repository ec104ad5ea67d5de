"""What an account may do on the day it is made, by its role alone: every role against every action, over the real gate."""

from __future__ import annotations

import pytest
from model_organisms.errors import ModelOrganismsError
from model_organisms.records import Level, MotionKind, Role, Rung
from model_organisms_registry.domain.permits import Action
from model_organisms_registry.gate import Conditions, Gate, PolicySet, entities

from tests.domain.cast import call, grant, opaque, organism, request, session, user, version
from tests.domain.test_games import opened
from tests.domain.test_motions import drawn

UP = Conditions(ledger=True, jail=True, witness=True)
GATE = Gate(PolicySet.read(), record_denial=lambda entry: entry, conditions=lambda: UP)
OPEN, USES = organism(level=Level.CL1), {Action.OPEN_SESSION, Action.OPEN_LOCAL_SESSION, Action.SAMPLE, Action.PROBE, Action.PULL}
OTHERS = {
    "registry": entities.registry(),
    "ledger": entities.ledger(),
    "account": entities.account("users/pat"),
    "organism": entities.organism(OPEN),
    "version": entities.version(version(OPEN), OPEN),
    "request": entities.request(request(), owners=["users/pat"], authors=["users/pat"]),
    "grant": entities.grant(grant(), owners=["users/pat"]),
    "session": entities.session(session(), OPEN, version(OPEN)),
    "game": entities.game(opened()),
} | {kind.value: entities.motion(drawn(kind, name=opaque("motions"), proposer="users/pat")) for kind in MotionKind}
"""Other people's things, at the level that asks for least."""

EVERYBODY = {"list registry", "describe organism", "describe version"}
OVERSEES = {"viewRequest request", "viewGrant grant", "viewSession session", "readLedger ledger", "viewGame game"}
OVERSEES |= {"viewHolders version", "viewUsers registry", "viewUsers account", *(f"viewMotion {kind}" for kind in MotionKind)}
STOPS = {"withdrawVersion version", "quarantineVersion version", "revokeGrant grant", "killSession session"}
STOPS |= {"watchSession session"}


def signs(*kinds):
    return {f"{action} {kind}" for action in ("proposeMotion", "secondMotion") for kind in kinds}


MAY = {
    Role.RESEARCHER: {"attest version", "request version"},
    Role.REVIEWER: OVERSEES
    | STOPS
    | signs("lower-level", "destroy-key", "open-game")
    | {"createGame registry", "viewTruth game"}
    | {"attest version", "setLevel organism", "releaseVersion version", "addErratum version", "review request"},
    Role.PUBLISHER: {"attest version", "createOrganism registry", "createGame registry"},
    Role.AUDITOR: OVERSEES,
    Role.ADMIN: OVERSEES
    | STOPS
    | signs("destroy-key", "adopt-policies", "replace-keys", "appoint")
    | {"manageUsers account", "denyCertificate registry"},
    Role.SERVICE: set(),
}


def allowed(role):
    """What a new account of this role may do to other people's things."""
    who, found = call(user("new", role, organisation="lab-n")), set()
    for action in Action:
        for what, resource in OTHERS.items():
            try:
                GATE.permit(who, action, resource, rung=Rung.SAMPLE if action is Action.REQUEST else None)
            except ModelOrganismsError:
                continue
            found.add(f"{action} {what}")
    return found


@pytest.mark.parametrize("role", Role)
def test_a_role_gives_what_it_says_and_nothing_more(role):
    assert allowed(role) == EVERYBODY | MAY[role]


@pytest.mark.parametrize("role", Role)
def test_no_role_brings_its_bearer_closer_than_describe(role):
    assert not [deed for deed in allowed(role) if deed.split()[0] in {str(action) for action in USES}]


def test_auditors_and_services_change_nothing():
    """They look, or not even that."""
    changing = {
        deed
        for deed in allowed(Role.AUDITOR) | allowed(Role.SERVICE)
        if not deed.startswith(("list", "describe", "view", "read"))
    }
    assert not changing
