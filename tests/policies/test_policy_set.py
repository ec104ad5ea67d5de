"""A folder of policies is read whole or refused, a deployment may only tighten it, and what cannot be evaluated is denied."""

from __future__ import annotations

import json
import re
import shutil

import cedarpy
import pytest
from model_organisms.errors import ConfigurationInvalid
from model_organisms_registry.domain.permits import Action
from model_organisms_registry.gate.cedar import FAULT, NEVER, SCHEMA, SHIPPED, PolicySet, shipped_folder

SOUND = PolicySet.read()
LOCAL = '@id("local-no-pulls") @advice("This registry lends no weights; sample instead.")\n'
FORBID = f'{LOCAL}forbid (principal, action == Action::"pull", resource);\n'


@pytest.fixture
def folder(tmp_path):
    copy = tmp_path / "policies"
    shutil.copytree(shipped_folder(), copy, ignore=shutil.ignore_patterns("cases"))
    return copy


def pull(**changes):
    """A pull that the shipped set allows."""
    context = {
        "ledger": True,
        "grantee": True,
        "jail": True,
        "witness": True,
        "grant": {"rung": 4, "level": 4, "expired": False, "revoked": False},
    }
    me = {
        "uid": {"type": "User", "id": "users/ada"},
        "attrs": {"organisation": {"__entity": {"type": "Organisation", "id": "organisations/o"}}, "active": True},
        "parents": [{"type": "Role", "id": "researcher"}],
    }
    pat = {"__entity": {"type": "User", "id": "users/pat"}}
    it = {
        "uid": {"type": "Version", "id": "organisms/x/versions/1"},
        "attrs": {"level": 1, "owner": pat, "authors": [pat], "hidden": False, "published": True, "quarantined": False},
        "parents": [],
    }
    request = {
        "principal": {"type": "User", "id": "users/ada"},
        "action": {"type": "Action", "id": "pull"},
        "resource": {"type": "Version", "id": "organisms/x/versions/1"},
        "context": context,
    }
    return request | changes, [me, it]


def test_the_shipped_set_is_valid_under_its_schema_and_every_forbid_speaks():
    text = "\n".join((shipped_folder() / name).read_text() for name in SHIPPED)
    assert cedarpy.validate_policies(text, (shipped_folder() / SCHEMA).read_text()).validation_passed
    assert all(name.startswith("never-") and forbid.advice.endswith(".") for name, forbid in SOUND.forbids.items())
    assert list(SOUND.order)[: len(SOUND.forbids)] == list(SOUND.forbids)


def test_the_schema_and_the_registry_name_the_same_actions():
    lines = [line for line in (shipped_folder() / SCHEMA).read_text().splitlines() if line.startswith("action")]
    named = {name for line in lines for name in re.findall(r'"(\w+)"', re.split(r" in | appliesTo", line)[0])}
    assert named - {"use"} == {str(action) for action in Action}


def test_a_sound_pull_is_allowed_and_the_digest_is_the_folders(folder):
    request, entities = pull()
    assert SOUND.decide(request, json.dumps(entities)).reasons == ("access-pull",)
    assert PolicySet.read(folder).digest == SOUND.digest
    (folder / "organisms.cedar").write_text((folder / "organisms.cedar").read_text() + "\n")
    assert PolicySet.read(folder).digest != SOUND.digest


def without(context, *path):
    changed = json.loads(json.dumps(context))
    here = changed
    for key in path[:-1]:
        here = here[key]
    del here[path[-1]]
    return changed


@pytest.mark.parametrize("path", [("ledger",), ("jail",), ("grant",), ("grant", "revoked"), ("grant", "rung")], ids="-".join)
def test_a_missing_fact_is_a_denial(path):
    request, entities = pull()
    request["context"] = without(request["context"], *path)
    decision = SOUND.decide(request, json.dumps(entities))
    assert (decision.allowed, decision.reasons) == (False, (FAULT,))
    assert decision.errors


def test_without_the_schema_the_same_calls_would_be_allowed():
    """Why the schema is always passed: Cedar skips a forbid that errors, and knows no groups of actions."""
    text = "\n".join(SOUND.texts.values())
    request, entities = pull()
    unknown = request | {"context": without(request["context"], "ledger")}
    request["context"]["grant"]["revoked"] = True
    for asked, errs in ((unknown, True), (request, False)):
        bare = cedarpy.is_authorized(asked, text, json.dumps(entities))
        assert bare.allowed
        assert bool(bare.diagnostics.errors) == errs
        assert not SOUND.decide(asked, json.dumps(entities)).allowed


@pytest.mark.parametrize(
    "change",
    [
        {"action": {"type": "Action", "id": "use"}},
        {"action": {"type": "Action", "id": "steal"}},
        {"resource": {"type": "Ledger", "id": "organisms/x/versions/1"}},
        {"resource": {"type": "Version", "id": "organisms/unknown/versions/1"}},
        {"principal": {"type": "User", "id": "users/unknown"}},
        {"principal": {"type": "Version", "id": "users/ada"}},
        {"principal": 'User::"users/ada" || true'},
        {"context": None},
        {"context": {}},
        {"context": "not json"},
        {"context": {"ledger": "true"}},
        {"resource": None},
    ],
)
def test_a_call_that_does_not_fit_the_schema_is_a_denial(change):
    request, entities = pull(**change)
    assert not SOUND.decide(request, json.dumps(entities)).allowed


@pytest.mark.parametrize(
    "spoil",
    [
        lambda me, _: [me],
        lambda _, it: [it],
        lambda *_: [],
        lambda me, it: [me, it, it | {"attrs": it["attrs"] | {"level": 1}}, it | {"attrs": it["attrs"] | {"level": 4}}],
        lambda me, it: [me, it | {"attrs": it["attrs"] | {"level": "1"}}],
        lambda me, it: [me, it | {"attrs": it["attrs"] | {"level": 1.5}}],
        lambda me, it: [me, it | {"attrs": it["attrs"] | {"extra": 1}}],
        lambda me, it: [me, it | {"attrs": {}}],
        lambda me, it: [me | {"attrs": me["attrs"] | {"active": 1}}, it],
        lambda me, it: [me | {"parents": [{"type": "Role", "id": "root"}]}, it],
        lambda me, it: [me | {"parents": [{"type": "User", "id": "users/root"}]}, it],
    ],
)
def test_entities_that_do_not_fit_the_schema_are_a_denial(spoil):
    request, entities = pull()
    decision = SOUND.decide(request, json.dumps(spoil(*entities)))
    assert not decision.allowed
    assert FAULT in decision.reasons or decision.reasons == ()


@pytest.mark.parametrize("entities", ["", "[", "null", "{}", "[1]"])
def test_entities_that_are_not_entities_are_a_denial(entities):
    assert not SOUND.decide(pull()[0], entities).allowed


def test_a_deployment_tightens_in_a_file_of_its_own(folder):
    (folder / "local.cedar").write_text(FORBID)
    stricter = PolicySet.read(folder)
    request, entities = pull()
    assert stricter.decide(request, json.dumps(entities)).reasons == ("local-no-pulls",)
    assert stricter.decide(request, json.dumps(entities), whole=True).reasons == ("local-no-pulls",)
    assert stricter.forbids["local-no-pulls"].refusal.reason == "DENIED"
    assert stricter.digest != SOUND.digest


@pytest.mark.parametrize(
    "scope",
    [
        "action",
        'action in [Action::"pull", Action::"sample"]',
        'action in Action::"use"',
        'action in [Action::"use"]',
        'action == Action::"pull"',
    ],
)
def test_a_forbid_binds_whatever_form_its_scope_has(folder, scope):
    (folder / "local.cedar").write_text(f"{LOCAL}forbid (principal, {scope}, resource);\n")
    request, entities = pull()
    assert not PolicySet.read(folder).decide(request, json.dumps(entities)).allowed


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("local.cedar", '@id("local-all")\npermit (principal, action, resource);\n'),
        ("local.cedar", FORBID * 2),
        ("local.cedar", FORBID.replace('@id("local-no-pulls") ', "")),
        ("local.cedar", FORBID.replace("local-no-pulls", "never-suspended")),
        ("local.cedar", FORBID.replace("local-no-pulls", FAULT)),
        ("local.cedar", FORBID.replace("@advice", "@note")),
        ("local.cedar", FORBID.replace("@advice", '@refusal("INTERNAL") @advice')),
        ("local.cedar", FORBID.replace("@advice", '@refusal("NO_SUCH_REASON") @advice')),
        ("local.cedar", FORBID.replace("pull", "pul")),
        ("local.cedar", FORBID.replace("resource);", "resource) when { context.ledgr };")),
        ("local.cedar", FORBID.replace("principal,", "principal == ?principal,")),
        ("local.cedar", "forbid (principal"),
        ("local.cedar", b"\xff\xfe"),
        ("local.cedar", b" " * ((1 << 20) + 1)),
        ("organisms.cedar", 'permit (principal, action == Action::"list", resource);\n'),
        (NEVER, "// empty\n"),
        (NEVER, '@id("never-x") @advice("No.")\nforbid (principal, action, resource);\n'),
        (SCHEMA, "entity User;\n"),
    ],
)
def test_what_would_loosen_or_cannot_be_read_is_refused(folder, name, text):
    (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigurationInvalid):
        PolicySet.read(folder)


@pytest.mark.parametrize("name", [SCHEMA, *SHIPPED])
def test_a_missing_file_is_refused(folder, name):
    (folder / name).unlink()
    with pytest.raises(ConfigurationInvalid, match=name):
        PolicySet.read(folder)


def test_the_sample_of_entities_fits_the_schema():
    schema = cedarpy.Schema.from_str((shipped_folder() / SCHEMA).read_text())
    sample = (shipped_folder() / "entities.json").read_text()
    assert len(cedarpy.Entities.from_json_str(sample, schema)) > len(json.loads(sample))
