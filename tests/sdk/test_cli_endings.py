"""How commands of `mo` end that fail: status, a sentence that says what to do, and the same in JSON; never on standard output."""

from __future__ import annotations

import json
import secrets
import socket
import subprocess
from dataclasses import replace

import pytest
from model_organisms import errors
from model_organisms.client import keys
from model_organisms.formats import checkpoint
from model_organisms.formats.note import parse_skey

from tests.support.serving import SERVE
from tests.support.stories import WHY, published
from tests.support.terminal import Terminal, typed


def both(world, who, *words):
    """Type a line that fails, in words and in JSON; nothing goes to standard output."""
    identity = ("--identity", world.folder / f"{who}.json")
    status, out, err = typed(*identity, *words)
    assert out == ""
    assert err.startswith(("mo: ", "Usage: "))
    again, out, machine = typed(*identity, *words, "--json")
    assert (again, out) == (status, "")
    told = json.loads(machine)
    assert set(told) == {"error", "message", "details"}
    assert told["message"] in err
    return status, told


@pytest.mark.parametrize(
    ("words", "error", "advice"),
    [
        (["organisms", "show", "organisms/never-was"], errors.NotFound, "you can see"),
        (["organisms", "show", "Not A Name"], errors.InvalidName, "write organisms/"),
        (["organisms", "create", "x", "--level", "CL1", "--base-model", "y"], errors.Denied, "ask an admin for the role"),
        (["audit", "receipt", "0"], errors.Denied, "ask an auditor"),
        (["pull", "organisms/toy-absent/versions/1"], errors.NotFound, "organisms/toy-absent"),
    ],
)
def test_a_refusal_ends_with_1_and_says_what_to_do(world, words, error, advice):
    status, told = both(world, "rosa", *words)
    assert (status, told["error"]) == (1, error.reason)
    assert advice in told["message"]


def test_without_an_identity_a_command_ends_with_1_and_names_mo_login(tmp_path):
    status, out, err = typed("--identity", tmp_path / "nobody.json", "whoami")
    assert (status, out) == (1, "")
    assert "mo login" in err


@pytest.mark.parametrize(
    "words",
    [
        ["organisms", "create", "x", "--base-model", "y"],
        ["organisms", "create", "x", "--base-model", "y", "--level", "CL9"],
        ["access", "request", "--rung", "sample", "--purpose", "replication"],
        ["access", "request", "organisms/x/versions/1", "--rung", "sample", "--purpose", "fun"],
        ["audit", "receipt", "first"],
        ["no-such-command"],
        ["whoami", "--no-such-option"],
    ],
)
def test_a_line_typed_wrong_ends_with_2(world, words):
    status, told = both(world, "rosa", *words)
    assert (status, told["error"]) == (2, "USAGE")


def test_a_registry_that_is_not_there_ends_with_3(world):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, and nobody listens
        moved = replace(world.person("rosa").identity, registry=f"127.0.0.1:{taken.getsockname()[1]}")
        keys.write(moved, world.folder / "moved.json")
        status, told = both(world, "moved", "--timeout", "3", "whoami")
    assert (status, told["error"]) == (3, errors.RegistryUnreachable.reason)


def test_a_history_that_was_rewritten_ends_with_4(world):
    """Rosa has seen a longer ledger than the registry shows, signed by the registry's own key."""
    keys.write(world.person("rosa").identity, world.folder / "seer.json")
    secret = parse_skey(next((world.folder / "keys/ledger").glob("key*")).read_text().strip())
    seen = checkpoint.signed("registry.test", 10**6, secrets.token_bytes(32), secret)
    (world.folder / "seer.checkpoint").write_bytes(seen.note)
    status, told = both(world, "seer", "audit", "checkpoint")
    assert (status, errors.BY_REASON[told["error"]].__mro__[1]) == (4, errors.VerificationFailed)


def test_the_program_itself_ends_as_it_says(world):
    """Once through the installed command, a pipe and the environment."""
    program = SERVE[0].removesuffix("-registry")

    def run(identity, *words):
        given = {keys.ENVIRONMENT: str(world.folder / identity)}
        return subprocess.run([program, *words], env=given, capture_output=True, text=True, check=False, timeout=60)

    assert json.loads(run("rosa.json", "whoami", "--json").stdout)["user"]["name"] == "users/rosa"
    failed = run("nobody.json", "organisms", "list")
    assert (failed.returncode, failed.stdout) == (1, "")


@pytest.mark.parametrize("answer", ["approve", "reject"])
def test_a_signature_is_asked_for_over_what_is_shown_and_never_without_a_terminal(world, answer):
    version, _files = published(world, level="CL2")
    request = world.person("rosa").access.request(version.name, "sample", purpose="replication", justification=WHY)
    line = ("access", answer, request.name, "--reason", "Signed with open eyes.")
    assert both(world, "ravi", *line)[0] == 2
    assert both(world, "ravi", *line, "--revision", "2")[1]["error"] == "CONFLICT"
    at = ("--identity", world.folder / "ravi.json")
    status, out, err = typed(*at, *line, stdin=Terminal("n\n"))
    assert (status, out) == (130, "")
    for shown in (request.name, WHY, "replication", str(request.budget.tokens), version.digest, "Revision"):
        assert shown in err
    assert world.person("rosa").access.get(request.name).approvals == ()
    status, out, err = typed(*at, *line, stdin=Terminal("y\n"))
    assert (status, "Signed with open eyes." in out) == (0, True)


def test_the_ticket_may_come_by_standard_input_and_an_identity_is_not_overwritten(world, tmp_path):
    ticket = world.admin.users.invite("by-input", organisation="lab", roles=["researcher"]).ticket
    path = tmp_path / "by-input.json"
    assert typed("--identity", path, "login", "-", stdin=f"{ticket}\n")[0] == 0
    assert keys.read(path).user == "users/by-input"
    before = path.read_bytes()
    status, out, err = typed("--identity", path, "login", "mo1.whatever")
    assert (status, out) == (2, "")
    assert "--force" in err
    assert path.read_bytes() == before
