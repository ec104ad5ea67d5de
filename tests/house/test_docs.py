"""What is documented exists: commands, links, settings, records. Examples that can run are run elsewhere, with a registry."""

from __future__ import annotations

import dataclasses
import re
import shlex
import subprocess
import tomllib
from importlib import import_module

import click
import pytest
from model_organisms_registry import config
from model_organisms_registry.domain import oidc
from model_organisms_registry.domain.audit import BY_TYPE

from tests.support.tree import ROOT, texts, tracked

DOCUMENTS = [(path, text) for path, text in texts() if path.endswith(".md")]
FENCED = re.compile(r"^```(?P<language>\w*)\n(?P<body>.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\((?P<target>[^)\s]+)\)")
MAKE = re.compile(r"\bmake ([a-z]+(?: [a-z]+)*)")


def anchors(text):
    """What GitHub makes of headings."""
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


def test_links_between_documents_lead_somewhere():
    dead = []
    for path, text in DOCUMENTS:
        for found in LINK.finditer(FENCED.sub("", text)):
            file, _, anchor = found["target"].partition("#")
            if re.match(r"[a-z]+:", file):
                continue
            target = (ROOT / path).parent / file if file else ROOT / path
            if not target.exists() or (anchor and anchor not in anchors(target.read_text())):
                dead.append(f"{path}: {found['target']}")
    assert not dead


def test_files_that_documents_name_are_there():
    """Paths from the root that begin with a folder of ours, in a sentence."""
    named = re.compile(r"^(?:tests|docs|deploy|proto|policies|sdk|registry)/[\w./-]+\.\w+$")
    for path, text in DOCUMENTS:
        for code in re.findall(r"`([^`\n]+)`", FENCED.sub("", text)):
            assert not named.match(code) or (ROOT / code).exists(), f"{path}: {code}"


def test_every_make_command_in_the_documents_is_a_target():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    code = re.compile(r"`([^`\n]+)`")
    for path, text in DOCUMENTS:
        commands = " \n".join([*(block["body"] for block in FENCED.finditer(text)), *code.findall(FENCED.sub("", text))])
        for words in MAKE.findall(commands):
            assert set(words.split()) <= targets, f"{path}: make {words}"


def program(name):
    """One of the two commands, as click has it."""
    return import_module({"mo": "model_organisms.cli.main", "mo-registry": "model_organisms_registry.__main__"}[name]).cli


def typed():
    """Command lines in the documents: whole ones in blocks, and those named in a sentence."""
    for path, text in DOCUMENTS:
        for block in FENCED.finditer(text):
            for line in block["body"].splitlines() if block["language"] == "sh" else ():
                yield path, line, True
        for line in re.findall(r"`([^`\n]+)`", FENCED.sub("", text)):
            yield path, line, False


TYPED = [(path, line, whole) for path, line, whole in typed() if line.split()[:1] in (["mo"], ["mo-registry"])]


@pytest.mark.parametrize(("path", "line", "whole"), TYPED, ids=[f"{path}-{line}" for path, line, _ in TYPED])
def test_commands_in_the_documents_exist_with_these_options(path, line, whole):
    name, *words = shlex.split(line, comments=True)
    command = program(name)
    context = click.Context(command, info_name=name)
    while isinstance(command, click.Group) and words:
        _, found, words = command.resolve_command(context, words)
        command, context = found, click.Context(found, info_name=found.name, parent=context)
    if whole or any(word.startswith("-") for word in words):
        given, left, _ = command.make_parser(context).parse_args(words)
        assert not left
        if whole:
            absent = [item.name for item in command.get_params(context) if item.required and not given.get(item.name)]
            assert not absent, f"{path}: `{line}` lacks {absent}"


def test_continuous_integration_runs_what_the_readme_says():
    readme = (ROOT / "README.md").read_text()
    said = re.search(r"integration runs (.+?), nothing else", readme, re.DOTALL)[1]
    assert re.findall(r"make [a-z]+", said) == re.findall(r"^step (make [a-z]+)", (ROOT / ".ci/run").read_text(), re.MULTILINE)


def test_help_lists_every_command_of_the_makefile():
    shown = subprocess.run(["make", "help"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert {line.split()[0] for line in shown.splitlines() if line.strip()} == targets


def test_the_changelog_has_a_place_for_the_next_change():
    assert re.search(r"^## \[Unreleased\]$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)


ADRS = sorted(path for path in tracked() if re.match(r"docs/adr/\d{4}-", path))


@pytest.mark.parametrize("path", ADRS)
def test_a_decision_follows_the_template_and_is_in_the_index(path):
    text = (ROOT / path).read_text()
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == ["Context", "Decision", "Consequences", "Seen"]
    assert text.startswith(f"# {path.split('/')[-1][:4]}. ")
    assert path.removeprefix("docs/adr/") in (ROOT / "docs/adr/README.md").read_text()


def test_decisions_are_numbered_without_a_gap():
    assert [int(path.split("/")[-1][:4]) for path in ADRS] == list(range(1, len(ADRS) + 1))


def settings(kind, prefix=""):
    for item in dataclasses.fields(kind):
        made = None if item.default_factory is dataclasses.MISSING else item.default_factory()
        if dataclasses.is_dataclass(made):
            yield from settings(type(made), f"{prefix}{item.name}.")
        elif item.name not in {"folder", "hazard", "oidc", "notify"}:
            yield prefix + item.name


def test_the_commented_settings_are_the_defaults_and_all_of_them(tmp_path):
    text = (ROOT / "deploy/registry.toml").read_text()
    (tmp_path / "registry.toml").write_text(text)
    assert config.load(tmp_path) == config.Config(folder=tmp_path.resolve())
    shown, section = set(), ""
    for line in text.splitlines():
        if heading := re.match(r"^\[([\w.]+)\]$", line):
            section = f"{heading[1]}."
        elif key := re.match(r"^(\w+) = ", line):
            shown.add(section + key[1])
    assert shown == set(settings(config.Config))


def test_the_commented_examples_are_settings_too(tmp_path):
    text = (ROOT / "deploy/registry.toml").read_text()
    examples = re.sub(r"^# (\[hazard.*\]|\[\[(?:oidc|notify).*\]\]|\w+ = .+)$", r"\1", text, flags=re.MULTILINE)
    (tmp_path / "registry.toml").write_text(examples)
    (issuer,) = oidc.checked(config.load(tmp_path).oidc)
    (rule,) = issuer.accounts
    shown = {"issuer": "https://login.example.org", "client_id": "model-organisms", "accounts": (rule,)}
    assert issuer == config.Issuer(**shown), "the commented values are the defaults"
    told = set(tomllib.loads(examples)["oidc"][0])
    assert told == {item.name for item in dataclasses.fields(config.Issuer)}
    (told,) = config.load(tmp_path).notify
    shown = {name: getattr(told, name) for name in ("name", "url", "secret_file", "events")}
    assert told == config.Notify(**shown), "the commented values are the defaults"
    assert set(tomllib.loads(examples)["notify"][0]) == {item.name for item in dataclasses.fields(config.Notify)}
    assert set(told.events) <= set(BY_TYPE)
    assert config.load(tmp_path).hazard == {
        "CL2.pull": {"approvals": 2, "distinct_organisations": True},
        "CL3": {"max_duration_s": 604800},
    }
    keys = {name.rpartition(".")[2] for name in settings(config.Config)}
    for example in re.findall(r"^#   (\w+ = .+)$", text, re.MULTILINE):
        assert set(tomllib.loads(example)) <= keys
