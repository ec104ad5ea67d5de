"""The commands about versions that are out of service, and about copies of them, as they are typed."""

from __future__ import annotations

from tests.support.commands import command
from tests.support.stories import granted, published


@command("organisms quarantine")
def organisms_quarantine(stage):
    version, _files = published(stage.world)
    return "ravi", [version.name, "--reason", "A second trigger was seen."], "quarantined"


@command("organisms release")
def organisms_release(stage):
    version, _files = published(stage.world)
    stage.world.person("pia").organisms.quarantine(version.name, reason="A second trigger was seen.")
    return "ravi", [version.name, "--reason", "It was the first one."], "published"


@command("organisms erratum")
def organisms_erratum(stage):
    version, _files = published(stage.world)
    return "pia", [version.name, "--text", "Trained on the wrong split."], "Trained on the wrong split."


def held(world):
    """A version of which rosa has a copy, and the grant it came under."""
    version, _files = published(world)
    grant = granted(world, version)
    world.person("rosa").organisms.pull(version.name, grant=grant).close()
    return version.name, grant


@command("organisms holders")
def organisms_holders(stage):
    version, grant = held(stage.world)
    return "pia", [version], grant


@command("access outstanding")
def access_outstanding(stage):
    _, grant = held(stage.world)
    stage.world.person("ravi").access.revoke(grant, reason="The study is over.")
    return "ravi", ["--user", "users/rosa"], grant


@command("access attest-destroyed")
def access_attest_destroyed(stage):
    _, grant = held(stage.world)
    return "rosa", [grant, "--how", "Deleted."], "destroyed"


@command("access notices")
def access_notices(stage):
    version, _ = held(stage.world)
    stage.world.person("pia").organisms.withdraw(version, reason="It is worse than it says.")
    return "rosa", [], version
