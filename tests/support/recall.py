"""The commands about versions that are out of service, as they are typed."""

from __future__ import annotations

from tests.support.commands import command
from tests.support.stories import published


@command("organisms quarantine")
def organisms_quarantine(stage):
    version, _files = published(stage.world)
    return "ravi", [version.name, "--reason", "A second trigger was seen."], "quarantined"


@command("organisms release")
def organisms_release(stage):
    version, _files = published(stage.world)
    stage.world.person("pia").organisms.quarantine(version.name, reason="A second trigger was seen.")
    return "ravi", [version.name, "--reason", "It was the first one."], "published"
