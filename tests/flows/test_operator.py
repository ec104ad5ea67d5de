"""`mo-registry`, typed by an operator: made once, served once, checked, copied, and told in time what is wrong."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace

import click
import pytest
from model_organisms_registry.__main__ import cli
from model_organisms_registry.founding import found
from model_organisms_registry.testing import settings

from tests.support.serving import SERVE
from tests.support.terminal import leaves


def operate(*words):
    return subprocess.run([SERVE[0], *(str(word) for word in words)], capture_output=True, text=True, check=False, timeout=60)


OPERATIONS = dict(leaves(cli))


@pytest.mark.parametrize("words", sorted(OPERATIONS))
def test_an_operators_command_has_help(words):
    done = operate(*words.split(), "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"Usage: mo-registry {words} ")
    for option in (parameter for parameter in OPERATIONS[words].params if isinstance(parameter, click.Option)):
        assert option.opts[0] in done.stdout


def test_a_registry_is_made_once(tmp_path):
    words = ("init", "--folder", tmp_path / "data", "--origin", "made.test")
    made = operate(*words, "--json")
    assert json.loads(made.stdout)["ticket"].startswith("mo1.")
    again = operate(*words)
    assert (again.returncode, again.stdout) == (2, "")
    assert "name another folder" in again.stderr
    shown = operate("init", "--folder", tmp_path / "other").stdout
    assert "mo login mo1." in shown
    assert "mo-registry serve --folder" in shown


def test_fsck_and_backup_of_a_running_registry(world, tmp_path):
    checked = operate("fsck", "--folder", world.folder)
    assert (checked.returncode, checked.stdout.splitlines()[-1]) == (0, "clean")
    report = json.loads(operate("fsck", "--folder", world.folder, "--json").stdout)
    assert (report["clean"], report["findings"]) == (True, [])
    copied = operate("backup", "--folder", world.folder, tmp_path / "copy")
    assert copied.returncode == 0
    told = json.loads(operate("backup", "--folder", world.folder, tmp_path / "second", "--json").stdout)
    assert (told["folder"], told["not_copied"]) == (str(tmp_path / "second"), [])
    restored = operate("restore", tmp_path / "copy", "--folder", tmp_path / "new")
    assert restored.returncode == 0
    assert restored.stdout.splitlines()[-1].startswith("Read deploy/runbook.md before you serve this copy")
    told = json.loads(operate("restore", tmp_path / "second", "--folder", tmp_path / "newer", "--json").stdout)
    assert (told["clean"], "forks the ledger" in told["warning"]) == (True, True)
    entry = max((tmp_path / "new/blobs/ledger/tile/entries").rglob("*"), key=lambda path: path.is_file() and path.stat().st_size)
    damaged = bytearray(entry.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    entry.write_bytes(damaged)
    wrong = operate("fsck", "--folder", tmp_path / "new")
    assert wrong.returncode == 1
    assert "WRONG" in wrong.stdout


@pytest.mark.parametrize("words", [["serve"], ["fsck"], ["backup", "elsewhere"]])
def test_a_folder_without_a_registry_is_told_of(tmp_path, words):
    done = operate(words[0], "--folder", tmp_path / "none", *words[1:])
    assert (done.returncode, done.stdout) == (2, "")
    assert "mo-registry init" in done.stderr


def test_one_folder_is_served_once(world):
    second = operate("serve", "--folder", world.folder)
    assert (second.returncode, second.stdout) == (2, "")
    assert "Another registry writes this ledger; stop it" in second.stderr
    assert world.person("rosa").users.me().name == "users/rosa"


def test_a_port_that_is_taken_is_told_of(world, tmp_path):
    config = replace(settings(tmp_path / "data"), listen=world.registry.config.listen)
    found(config, now=world.registry._clock())
    second = operate("serve", "--folder", config.folder)
    assert second.returncode == 2
    assert "Name other ports" in second.stderr


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("erase", "foo"), "'foo' is not the name of a session; write sessions/"),
        (("erase", "sessions/01j9zq3v8r5m2k7x4c6b0d1e2f"), "There is no 'sessions/01j9zq3v8r5m2k7x4c6b0d1e2f' in this registry"),
        (("policy", "explain", "nobody", "request"), "There is no 'users/nobody' in this registry"),
        (("rewrap", "--all"), "Stop the registry first"),
    ],
    ids=lambda given: given[0] if isinstance(given, tuple) else "",
)
def test_an_operator_is_told_what_is_wrong_in_their_own_words(world, words, says):
    done = operate(*words, "--folder", world.folder)
    assert (done.returncode, done.stdout) == (2, "")
    assert says in done.stderr
    assert "ask its owner" not in done.stderr


def test_a_witness_is_made_and_shown_a_ledger_for_programs(world, tmp_path):
    folder = ("--folder", tmp_path / "witness", "--json")
    made = json.loads(operate("witness", "init", *folder, "--name", "w.test").stdout)
    assert made["key"].startswith("w.test+")
    watched = json.loads(operate("witness", "add", world.registry.storage.log.vkey, *folder).stdout)
    assert watched == {"origin": world.registry.config.origin, "watched": True}
