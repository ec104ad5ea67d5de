"""Why a call is denied and what would change that, asked over a real server and typed at both programs."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner
from model_organisms import errors
from model_organisms_registry.__main__ import cli
from model_organisms_registry.domain.permits import Action
from model_organisms_registry.gate.table import SHAPES

from tests.support.stories import WHY, published
from tests.support.terminal import typed


def test_a_pull_lacks_a_grant_and_then_an_approval(world):
    version, _ = published(world, level="CL3")
    rosa = world.person("rosa")
    told = rosa.access.explain("pull", version.name)
    assert (told.allowed, told.reason, told.policies[0]) == (False, "GRANT_REQUIRED", "never-pull-without-grant")
    assert told.changes == ("a grant of rung pull at CL3, which takes 2 approvals from reviewers of different organisations",)
    asked = rosa.access.request(version.name, "pull", purpose="replication", justification=WHY, need=WHY)
    (change,) = rosa.access.explain("pull", version.name).changes
    assert change.endswith(f"; {asked.name} for it has 0 of 2")
    ravi = world.person("ravi")
    ravi.access.approve(asked, reason="Sound.")
    (change,) = rosa.access.explain("pull", version.name).changes
    assert change.endswith(f"{asked.name} for it has 1 of 2")
    assert "ravi" not in change
    world.person("rena").access.approve(asked, reason="Contained.")
    told = rosa.access.explain("pull", version.name)
    assert (told.allowed, told.reason, told.message, told.changes) == (True, "", "", ())


def test_an_explanation_leaves_no_entry_and_needs_no_grant(world):
    version, _ = published(world, level="CL2")
    rosa = world.person("rosa")
    before = rosa.audit.checkpoint().size
    for action in ("sample", "probe", "openSession"):
        (change,) = rosa.access.explain(action, version.name).changes
        assert change.startswith(f"a grant of rung {'probe' if action == 'probe' else 'sample'} at CL2")
    assert rosa.audit.checkpoint().size == before


def test_a_role_and_a_part_that_are_lacking_are_named_without_names(world):
    version, _ = published(world)
    rosa, ravi, pia = (world.person(name) for name in ("rosa", "ravi", "pia"))
    asked = rosa.access.request(version.name, "probe", purpose="replication", justification=WHY)
    assert rosa.access.explain("killSession", asked.name.replace("requests", "sessions")).reason == "NOT_FOUND"
    told = pia.access.explain("setLevel", version.name.rpartition("/versions/")[0])
    assert (told.reason, told.policies, told.changes) == ("DENIED", (), ("the role reviewer",))
    assert ravi.access.explain("amendRequest", asked.name).changes == ("the role researcher and its being yours",)
    assert "users/" not in str(told.changes)
    owner = pia.access.explain("review", asked.name)
    assert owner.policies == ("never-approve-as-owner", "never-approve-as-author")
    assert owner.changes == ("the role reviewer and another person, who has no part in it",)


def test_a_withdrawn_version_and_what_nothing_changes_are_said_so(world):
    version, _ = published(world, level="CL4")
    rosa = world.person("rosa")
    told = rosa.access.explain("request", version.name, rung="pull")
    assert (told.policies, told.changes) == (("never-ask-pull-cl4",), ())
    assert "ask for sample or probe" in told.message
    world.person("ravi").organisms.withdraw(version.name, reason="It was wrong.")
    told = rosa.access.explain("request", version.name, rung="sample")
    assert (told.reason, told.changes) == ("WITHDRAWN", ("a version that is published; this one is withdrawn",))


def test_every_action_can_be_asked_about_but_a_motion_that_has_no_name_yet(world):
    rosa = world.person("rosa")
    nobody = "0" * 26
    names = {"registry": "registry", "ledger": "ledger", "user": "users/nobody", "organism": "organisms/none"}
    names |= {"version": "organisms/none/versions/1"}
    for action in set(Action) - {Action.PROPOSE_MOTION}:
        kind = next(iter(SHAPES[action])).lower()
        told = rosa.access.explain(str(action), names.get(kind, f"{kind}s/{nobody}"))
        assert told.action == action
        assert told.allowed or told.reason
    with pytest.raises(errors.InvalidArgument, match="name one of"):
        rosa.access.explain("proposeMotion", f"motions/{nobody}")


@pytest.mark.parametrize(
    ("action", "resource"),
    [
        ("steal", "registry"),
        ("pull", "registry"),
        ("pull", "organisms/x"),
        ("list", "ledger"),
        ("pull", "organisms/X/versions/1"),
    ],
)
def test_a_question_that_makes_no_sense_is_refused(world, action, resource):
    with pytest.raises(errors.InvalidArgument, match="name one"):
        world.person("rosa").access.explain(action, resource)


def test_a_denied_call_carries_the_policy_that_denied_it(world):
    version, _ = published(world, level="CL2")
    rosa = world.person("rosa")
    with pytest.raises(errors.GrantRequired) as caught:
        rosa.organisms.pull(version.name)
    assert caught.value.details["policy"] == "never-pull-without-grant"
    with pytest.raises(errors.NotFound) as hidden:
        rosa.organisms.get("organisms/nothing-of-that-name")
    assert "policy" not in hidden.value.details


def test_both_programs_explain(world):
    version, _ = published(world, level="CL2")
    world.person("rosa")
    mo = ("--identity", world.folder / "rosa.json")
    status, out, _ = typed(*mo, "access", "explain", "pull", version.name)
    assert (status, "denied" in out, "never-pull-without-grant" in out) == (0, True, True)
    assert "a grant of rung pull at CL2, which takes 1 approval" in out
    words = ["policy", "explain", "rosa", "pull", version.name, "--folder", str(world.folder)]
    shown = CliRunner().invoke(cli, words).stdout
    assert shown.startswith("denied by never-pull-without-grant")
    assert "lacking: a grant of rung pull at CL2" in shown
    told = json.loads(CliRunner().invoke(cli, [*words, "--json"]).stdout)
    assert json.loads(typed(*mo, "--json", "access", "explain", "pull", version.name)[1]) == told
    words = ["policy", "explain", "rosa", "openSession", version.name, "--without", "jail", "--folder", str(world.folder)]
    assert "lacking: every wall of the sandbox stands" in CliRunner().invoke(cli, words).stdout
