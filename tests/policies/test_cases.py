"""Every case of policies/cases is decided as it says and by whom it says, and no policy can be deleted unnoticed."""

from __future__ import annotations

import json
from functools import cache

import pytest
from model_organisms_registry.domain.permits import Action
from model_organisms_registry.gate.cedar import shipped_folder

from tests.policies.shears import whole, without

FOLDER = shipped_folder()
CASES = {path.relative_to(FOLDER / "cases").with_suffix("").as_posix(): path for path in sorted(FOLDER.glob("cases/*/*.json"))}


@cache
def case(name):
    return json.loads(CASES[name].read_text())


def posed(name):
    """A case as Cedar's request and entities; nothing of the gate's own building is used."""
    stated = case(name)
    who, what = stated["principal"], stated["resource"]
    entity = {
        "uid": {"type": "User", "id": who["id"]},
        "attrs": {"organisation": {"__entity": {"type": "Organisation", "id": who["organisation"]}}, "active": who["active"]},
        "parents": [{"type": "Role", "id": role} for role in who["roles"]],
    }
    entities = [entity]
    if what["id"] != who["id"]:
        attributes = what.get("attrs", entity["attrs"])
        entities.append({"uid": {"type": what["type"], "id": what["id"]}, "attrs": attributes, "parents": []})
    request = {
        "principal": {"type": "User", "id": who["id"]},
        "action": {"type": "Action", "id": stated["action"]},
        "resource": {"type": what["type"], "id": what["id"]},
        "context": stated["context"],
    }
    return request, json.dumps(entities)


@pytest.mark.parametrize("name", CASES)
def test_a_case_is_decided_as_it_says(name):
    decision = whole().decide(*posed(name))
    assert decision.errors == ()
    assert decision.allowed == name.startswith("allow/")
    assert sorted(decision.reasons) == sorted(case(name)["decided_by"])


@pytest.mark.parametrize("name", CASES)
def test_a_case_says_why_in_a_sentence_and_nothing_else(name):
    stated = case(name)
    assert set(stated) == {"why", "principal", "action", "resource", "context", "decided_by"}
    assert stated["why"].endswith(".")


@pytest.mark.parametrize("identifier", whole().forbids)
def test_deleting_a_forbid_lets_somebody_in(identifier):
    touched = [name for name in CASES if identifier in case(name)["decided_by"]]
    assert any(without(identifier).decide(*posed(name)).allowed for name in touched)


@pytest.mark.parametrize("identifier", [name for name in whole().order if name not in whole().forbids])
def test_deleting_a_permit_keeps_somebody_out(identifier):
    touched = [name for name in CASES if identifier in case(name)["decided_by"]]
    assert any(not without(identifier).decide(*posed(name)).allowed for name in touched)


def test_there_is_a_case_for_every_action():
    assert {case(name)["action"] for name in CASES if name.startswith("allow")} == {str(action) for action in Action}
