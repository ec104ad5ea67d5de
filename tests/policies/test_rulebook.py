"""`mo-registry policy check` and `diff`: what is unsound is told, and so is every decision that would change."""

from __future__ import annotations

import json
import shutil

import pytest
from click.testing import CliRunner
from model_organisms_registry.__main__ import cli
from model_organisms_registry.gate.cedar import PolicySet, shipped_folder

NO_PULLS = """
@id("local-no-pulls")
@advice("This registry lends no weights; ask for sample or probe.")
forbid (principal, action == Action::"pull", resource);
"""


@pytest.fixture
def folder(tmp_path):
    copy = tmp_path / "policies"
    shutil.copytree(shipped_folder(), copy, ignore=shutil.ignore_patterns("cases"))
    return copy


def policy(command, folder, *words):
    done = CliRunner().invoke(cli, ["policy", command, str(folder), "--folder", str(folder.parent / "none"), *words])
    assert done.exception is None or isinstance(done.exception, SystemExit)
    assert "held against the policies that come with the program" in done.stderr
    return done.exit_code, done.stdout


def as_json(command, folder):
    status, shown = policy(command, folder, "--json")
    return status, json.loads(shown)


def test_a_stricter_set_is_sound_and_its_effect_is_told(folder):
    (folder / "local.cedar").write_text(NO_PULLS)
    status, found = as_json("check", folder)
    difference = found["difference"]
    assert (status, found["sound"], found["findings"]) == (0, True, [])
    assert (found["digest"], difference["before"]) == (PolicySet.read(folder).digest, PolicySet.read().digest)
    assert (difference["added"], difference["removed"], difference["changed"]) == (["local-no-pulls"], [], [])
    (shift,) = difference["shifts"]
    assert (shift["action"], shift["kind"], shift["allowed"], shift["calls"] > 50) == ("pull", "Version", False, True)
    assert (shift["before"], shift["after"]) == (["access-pull"], ["local-no-pulls"])


def test_a_looser_set_is_told_of_and_its_refused_case_is_a_finding(folder):
    access = folder / "access.cedar"
    only = 'principal in Role::"{}", action == Action::"manageUsers"'
    access.write_text(access.read_text().replace(only.format("admin"), only.format("reviewer")))
    status, found = as_json("check", folder)
    assert (status, found["sound"]) == (1, False)
    assert any(finding.startswith("deny/manage-users-reviewer is allowed by") for finding in found["findings"])
    status, shown = policy("diff", folder)
    assert status == 1
    assert "changed access-manage-users" in shown
    assert "ALLOWED, was denied: manageUsers on User" in shown


def test_the_shipped_set_changes_nothing_and_layout_is_no_change(folder):
    text = (folder / "audit.cedar").read_text()
    (folder / "audit.cedar").write_text("// Ours.\n" + text.replace("\npermit (principal,", "\npermit\n(\nprincipal,"))
    status, difference = as_json("diff", folder)
    assert (status, difference["changed"], difference["shifts"], difference["loosens"]) == (0, [], [], False)
    assert difference["before"] != difference["after"]


def test_a_policy_that_cannot_be_evaluated_is_found_before_it_stands(folder):
    (folder / "local.cedar").write_text(NO_PULLS.replace(");", ") when { resource.level * 9223372036854775807 > 1 };"))
    status, found = as_json("check", folder)
    assert (status, found["sound"]) == (1, False)
    assert "cannot be evaluated" in found["findings"][-1]


def test_what_is_no_set_is_a_finding_in_words(folder):
    (folder / "local.cedar").write_text("permit (principal, action, resource);")
    status, shown = policy("check", folder)
    assert (status, shown.splitlines()[-1]) == (1, "1 findings; it must not stand")
    assert "A policy in local.cedar has no @id" in shown
    assert CliRunner().invoke(cli, ["policy", "check", str(folder / "none")]).exit_code == 2


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"why": 1}', '{"principal": {"id": 1}, "resource": []}'])
def test_a_file_that_is_no_case_is_a_finding(folder, text):
    (folder / "cases/deny").mkdir(parents=True)
    (folder / "cases/deny/odd.json").write_text(text)
    status, shown = policy("check", folder)
    assert (status, "odd.json" in shown) == (1, True)
