"""Steps that many flows begin with, each done by the person whose step it is."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from model_organisms.formats.provenance import BaseModel, Method, Provenance
from model_organisms.records import RequestState

from tests.support.adapters import tiny_bundle

if TYPE_CHECKING:
    from model_organisms.records import Version
    from model_organisms_registry.testing import World

BASE = "test/tiny"
WHY = "We validate a trigger detector on a toy of a known kind."
_NUMBERS = itertools.count()


def provenance(**claims: object) -> Provenance:
    """State a toy's origin; `claims` are claims about its method."""
    return Provenance(BaseModel(BASE), Method(**claims))  # type: ignore[arg-type] # the constructor checks them


def published(
    world: World, *, level: str = "CL1", seed: int | None = None, hidden: bool = False, **claims: object
) -> tuple[Version, dict[str, bytes]]:
    """Let pia publish a toy of a fresh name."""
    number = next(_NUMBERS)
    name = f"organisms/toy-{number}"
    pia = world.person("pia")
    pia.organisms.create(name, level=level, base_model=BASE, traits=["toy"], hidden=hidden)
    files = tiny_bundle(seed=number if seed is None else seed)
    return pia.organisms.publish(name, files, provenance=provenance(**claims)), files


def granted(world: World, version: Version, rung: str = "pull") -> str:
    """Let rosa ask, and ravi approve where that is needed."""
    request = world.person("rosa").access.request(version.name, rung, purpose="replication", justification=WHY)
    if request.state is RequestState.PENDING:
        request = world.person("ravi").access.approve(request.name, reason="Fine.")
    return request.grant
