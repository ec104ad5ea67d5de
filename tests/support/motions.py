"""Motions that tests begin with, and the commands about motions, keys and certificates as they are typed."""

from __future__ import annotations

from model_organisms.client.client import login

from tests.support.commands import NUMBERS, command
from tests.support.stories import published


def moved(world, who="ravi"):
    """A motion of somebody to lower a toy from CL2."""
    version, _files = published(world, level="CL2")
    organism = version.name.split("/versions")[0]
    return world.person(who).motions.propose("lower-level", organism, {"from": "CL2", "to": "CL1"}, reason="It is a toy.").name


@command("motions propose")
def motions_propose(stage):
    version, _files = published(stage.world, level="CL3")
    organism = version.name.split("/versions")[0]
    return "ravi", ["lower-level", organism, "--fact", "from=CL3", "--fact", "to=CL2", "--reason", "It is a toy."], organism


@command("motions list")
def motions_list(stage):
    return "aud", ["--state", "open", "--kind", "lower-level"], moved(stage.world)


@command("motions show")
def motions_show(stage):
    name = moved(stage.world)
    return "ravi", [name], name


@command("motions second")
def motions_second(stage):
    return "rena", [moved(stage.world), "--reason", "So it is.", "--yes"], "carried"


@command("motions reject")
def motions_reject(stage):
    return "rena", [moved(stage.world), "--reason", "It does more than it says.", "--yes"], "It does more than it says."


@command("motions withdraw")
def motions_withdraw(stage):
    return "ravi", [moved(stage.world)], "withdrawn"


@command("keys show")
def keys_show(stage):
    return "rosa", [], stage.world.person("rosa").identity.thumbprint


@command("keys passphrase")
def keys_passphrase(_):
    return "rosa", ["--remove"], "users/rosa"


@command("keys rotate")
def keys_rotate(stage):
    name = f"rolf-{next(NUMBERS)}"
    return stage.folder / f"{name}.json", [], enrolled(stage, name)


def enrolled(stage, name):
    invitation = stage.world.admin.users.invite(name, organisation="lab", roles=["researcher"])
    with login(invitation.ticket, stage.folder / f"{name}.json") as client:
        return client.identity.user


@command("users deny-certificate")
def users_deny_certificate(_):
    thumbprint = f"{next(NUMBERS):064x}"
    return "admin", [thumbprint, "--reason", "A lost laptop."], thumbprint
