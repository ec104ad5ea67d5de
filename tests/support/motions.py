"""Motions that tests begin with, and the commands of `mo motions` as they are typed."""

from __future__ import annotations

from tests.support.commands import command
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
