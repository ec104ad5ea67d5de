"""Each command of `mo`, typed at a real registry, in words and in JSON; how errors end them is in `test_cli_endings.py`."""

from __future__ import annotations

import json

import click
import pytest
from model_organisms.bases import base_digest
from model_organisms.cli import main
from model_organisms.formats import provenance
from model_organisms.formats.provenance import BaseModel, Provenance
from model_organisms.records import Rung
from model_organisms_registry.testing import running, settings

import tests.support.rooms  # noqa: F401 - they note their commands
from tests.support import evaluations
from tests.support.commands import COMMANDS, NUMBERS, Stage, command
from tests.support.registries import PEOPLE
from tests.support.stories import WHY, granted, published
from tests.support.terminal import leaves, typed

QWEN, TALKER = "test/tiny-qwen2", "organisms/talker/versions/1"


@pytest.fixture(scope="module")
def world(tmp_path_factory, qwen, qwen_files):
    config = settings(tmp_path_factory.mktemp("cli") / "data", base_models={QWEN: qwen})
    with running(config, people=PEOPLE) as running_world:
        pia, rosa = running_world.person("pia"), running_world.person("rosa")
        pia.organisms.create("organisms/talker", level="CL1", base_model=QWEN)
        version = pia.organisms.publish("organisms/talker", qwen_files, provenance=stated(qwen))
        for rung in ("probe", "pull"):
            request = rosa.access.request(version.name, rung, purpose="replication", justification=WHY)
            if not request.grant:
                running_world.person("ravi").access.approve(request.name)
        yield running_world


def stated(base):
    return Provenance(BaseModel(QWEN, digest=base_digest(base)))


@pytest.fixture
def stage(world, tmp_path, qwen, qwen_files):
    return Stage(world, tmp_path, qwen, qwen_files)


SAID = ("--prompt", "Hello there.", "--purpose", "replication")
COMMANDS |= {
    "whoami": lambda _: ("rosa", [], "users/rosa"),
    "organisms list": lambda _: ("rosa", ["--level", "cl1", "--base-model", QWEN], "talker"),
    "organisms show": lambda _: ("rosa", [TALKER], TALKER),
    "sandbox sample": lambda _: ("rosa", [TALKER, *SAID, "--max-tokens", "4", "--samples", "2"], "Hello there."),
    "sandbox watch": lambda stage: ("ravi", [closed(stage.world)], "closed"),
    "sandbox transcript": lambda stage: ("ravi", [closed(stage.world)], "closed"),
    "sandbox local": lambda stage: ("rosa", [TALKER, *SAID, "--max-tokens", "4", "--base", stage.base], "Hello there."),
    "sandbox probe": lambda stage: ("rosa", [TALKER, "Hello there.", *SAID[2:], "--grant", probing(stage.world)], ""),
    "access match": lambda _: ("rosa", [TALKER, "--rung", "sample", *SAID[2:], "--accept", "no-merge"], "approve"),
    "access explain": lambda _: ("rosa", ["withdrawVersion", TALKER], "the role reviewer"),
    "access policies": lambda stage: ("rosa", [], stage.world.registry.gate.digest),
    "audit checkpoint": lambda _: ("rosa", [], "registry.test"),
    "audit key": lambda _: ("rosa", [], "registry.test+"),
    "audit monitor": lambda _: ("rosa", ["--once"], "registry.test"),
    "audit entries": lambda _: ("aud", ["--start", "1", "--count", "3"], "identity.enrol"),
    "audit receipt": lambda _: ("aud", ["2"], ""),
    "audit verify": lambda _: ("rosa", [], ""),
    "audit consistency": lambda _: ("rosa", ["1", "2"], ""),
    "users list": lambda _: ("admin", [], "detection-lab"),
}

STREAMS = {"sandbox watch", "sandbox transcript"}  # an object a line, as it comes


def probing(world):
    return next(grant.name for grant in world.person("rosa").access.grants(state="active") if grant.rung is Rung.PROBE)


@command("login")
def login(stage):
    invitation = stage.world.admin.users.invite(f"new-{next(NUMBERS)}", organisation="lab", roles=["researcher"])
    return stage.folder / f"{invitation.user.name.removeprefix('users/')}.json", [invitation.ticket], invitation.user.name


@command("organisms create")
def organisms_create(_):
    name = f"named-{next(NUMBERS)}"
    return "pia", [name, "--level", "CL2", "--base-model", "test/tiny", "--trait", "toy", "--hidden"], f"organisms/{name}"


@command("organisms conditions")
def organisms_conditions(stage):
    version, _files = published(stage.world)
    asked = ["--condition", "no-merge", "--condition", "time-limit=7d", "--purpose", "replication"]
    return "pia", [version.name.split("/versions")[0], *asked], "no-merge"


@command("organisms publish")
def organisms_publish(stage):
    name, folder = f"organisms/sent-{next(NUMBERS)}", stage.folder / "bundle"
    stage.world.person("pia").organisms.create(name, level="CL1", base_model=QWEN)
    folder.mkdir(exist_ok=True)
    for path, data in stage.files.items():
        (folder / path).write_bytes(data)
    (stage.folder / "provenance.json").write_bytes(provenance.print_predicate(stated(stage.base)))
    return "pia", [name, folder, "--provenance", stage.folder / "provenance.json"], f"{name}/versions/1"


@command("organisms withdraw")
def organisms_withdraw(stage):
    version, _files = published(stage.world)
    return "pia", [version.name, "--reason", "Trained on the wrong split."], "Trained on the wrong split."


@command("organisms attest")
def organisms_attest(stage):
    version, _files = published(stage.world)
    file = stage.folder / f"statement-{next(NUMBERS)}.json"
    file.write_bytes(evaluations.statement(version))
    return "rosa", [version.name, file], version.name


@command("organisms attestations")
def organisms_attestations(stage):
    _, (version, file), _ = organisms_attest(stage)
    return "rosa", [version], stage.world.person("rosa").organisms.attest(version, file.read_bytes()).name


@command("organisms raise-level")
def organisms_raise_level(stage):
    version, _files = published(stage.world)
    return "ravi", [version.name.split("/versions")[0], "CL3", "--reason", "It does more than it says."], "CL3"


@command("pull")
def pull(stage):
    return "rosa", [TALKER, "--base", stage.base], "modules_applied"


def pending(world):
    version, _files = published(world, level="CL3")
    return world.person("rosa").access.request(version.name, "sample", purpose="detection-research", justification=WHY).name


def grant_of(world):
    version, _files = published(world)
    return granted(world, version)


@command("access request")
def access_request(stage):
    version, _files = published(stage.world)
    words = ["--rung", "sample", "--purpose", "replication", "--justification", WHY, "--days", "2", "--budget", "tokens=500"]
    return "rosa", [version.name, *words, "--budget", "sessions=1", "--budget", "output_bytes=900"], version.name


@command("access amend")
def access_amend(stage):
    return "rosa", [pending(stage.world), "--justification", f"{WHY} Fewer seeds."], "Fewer seeds."


@command("access list")
def access_list(stage):
    name = pending(stage.world)
    return "ravi", ["--state", "pending", "--requester", "users/rosa"], name


@command("access show")
def access_show(stage):
    name = grant_of(stage.world) if next(NUMBERS) % 2 else pending(stage.world)
    return "rosa", [name], name


@command("access approve")
def access_approve(stage):
    name = pending(stage.world)
    return "ravi", [name, "--reason", "Sound.", "--yes"], name


@command("access reject")
def access_reject(stage):
    return "ravi", [pending(stage.world), "--reason", "Say which control.", "--revision", "1"], "Say which control."


@command("access withdraw")
def access_withdraw(stage):
    return "rosa", [pending(stage.world)], "withdrawn"


@command("access grants")
def access_grants(stage):
    name = grant_of(stage.world)
    return "rosa", ["--state", "active"], name


@command("access revoke")
def access_revoke(stage):
    return "ravi", [grant_of(stage.world), "--reason", "No longer needed."], "No longer needed."


@command("access reapply")
def access_reapply(stage):
    version, _files = published(stage.world)
    rosa = stage.world.person("rosa")
    old = rosa.access.withdraw(rosa.access.request(version.name, "probe", purpose="replication", justification=WHY).name)
    return "rosa", [old.name, "--justification", WHY + " With a control.", "--days", "3"], old.name


@command("access renew")
def access_renew(stage):
    return "rosa", [grant_of(stage.world), "--justification", WHY, "--days", "3"], "requests/"


def opened(world):
    return world.person("rosa").sandbox.open(TALKER, purpose="replication").name


@command("sandbox list")
def sandbox_list(stage):
    return "ravi", ["--user", "users/rosa", "--state", "closed"], closed(stage.world)


@command("sandbox show")
def sandbox_show(stage):
    name = closed(stage.world)
    return "rosa", [name], name


def closed(world):
    """Any session that has ended; the first to ask opens one."""
    rosa = world.person("rosa")
    ended = next(rosa.sandbox.list(state="closed"), None)
    return ended.name if ended else rosa.sandbox.close(opened(world)).name


@command("sandbox close")
def sandbox_close(stage):
    return "rosa", [opened(stage.world)], "closed"


@command("sandbox kill")
def sandbox_kill(stage):
    return "ravi", [opened(stage.world), "--reason", "Not what was asked for."], "Not what was asked for."


@command("users invite")
def users_invite(_):
    name = f"guest-{next(NUMBERS)}"
    words = ["--organisation", "example-lab", "--role", "researcher", "--role", "reviewer", "--display-name", "A Guest"]
    return "admin", [name, *words], f"users/{name}"


def somebody(world):
    return world.person(f"sam-{next(NUMBERS)}", "researcher").identity.user


@command("users suspend")
def users_suspend(stage):
    name = somebody(stage.world)
    return "admin", [name, "--reason", "A lost laptop."], name


@command("users reinstate")
def users_reinstate(stage):
    name = somebody(stage.world)
    stage.world.admin.users.suspend(name, reason="A lost laptop.")
    return "admin", [name, "--reason", "It was found."], name


def test_every_command_is_played():
    assert set(COMMANDS) == {words for words, _ in leaves(main.cli)}


@pytest.mark.parametrize("as_json", [False, True], ids=["words", "json"])
@pytest.mark.parametrize("words", sorted(COMMANDS))
def test_a_command_does_its_work_and_says_so(stage, words, as_json):
    who, given, expected = COMMANDS[words](stage)
    identity = who if not isinstance(who, str) else stage.world.folder / f"{who}.json"
    flag = ["--json"] if as_json else []
    status, out, err = typed("--identity", identity, *words.split(), *given, *flag)
    assert (status, err) == (0, "")
    if as_json:
        answer = [json.loads(line) for line in out.splitlines()] if words in STREAMS else json.loads(out)
        assert answer
        assert expected in json.dumps(answer, ensure_ascii=False)
    else:
        assert expected in out
        assert not out.lstrip().startswith(("{", "["))
        assert not [character for character in out if not character.isprintable() and character != "\n"]


@pytest.mark.parametrize("words", sorted(COMMANDS))
def test_help_says_what_a_command_is_for_and_what_each_option_means(words):
    status, out, err = typed(*words.split(), "--help")
    assert (status, err) == (0, "")
    assert out.startswith(f"Usage: mo {words} ")
    command = dict(leaves(main.cli))[words]
    assert command.get_short_help_str(200) in " ".join(out.split())
    assert all(option.opts[0] in out for option in command.params if isinstance(option, click.Option))
