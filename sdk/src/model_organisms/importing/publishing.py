"""Publishes what was planned: makes the organism where there is none, looks for earlier imports, and sends the bundle."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from model_organisms import names
from model_organisms.errors import Conflict, InvalidArgument, ModelOrganismsError, NotFound
from model_organisms.formats import imported, provenance
from model_organisms.importing import source as sources
from model_organisms.importing.planning import with_earlier
from model_organisms.records import Level

if TYPE_CHECKING:
    from collections.abc import Sequence

    from model_organisms.client.client import Client
    from model_organisms.importing.planning import Plan
    from model_organisms.records import Organism, Version

_ID = 63
_DESCRIPTION = 10_000
_TRAITS = 32


def suggested(repository: str) -> str:
    """Make an organism's id of a repository's name. It says what the repository says: for blind study, choose another.

    Args:
        repository: `owner/name`.
    """
    plain = re.sub(r"[^a-z0-9]+", "-", repository.rsplit("/", maxsplit=1)[-1].lower()).strip("-")
    return plain[:_ID].strip("-")


def publish(
    client: Client,
    plan: Plan,
    organism: str = "",
    *,
    level: Level | str | None = None,
    hidden: bool = False,
    traits: Sequence[str] = (),
    progress_bar: bool | None = None,
) -> Version:
    """Publish a plan as the next version of an organism, which is created where there is none.

    Args:
        client: Who publishes.
        plan: What `plan` gave.
        organism: Its name; by default made of the repository's.
        level: Its containment level; needed where it is created, for nobody guesses one.
        hidden: Whether it is created hidden.
        traits: Words to find it by, beside those of the plan, where it is created.
        progress_bar: As for `client.organisms.publish`.

    Raises:
        InvalidBundle: The plan has a refusal; that is raised.
        InvalidArgument: There is no such organism yet, and no level.
        Conflict: There is one, at another level.
        AlreadyExists: These very bytes are published.
    """
    if plan.refusal is not None:
        raise plan.refusal
    name = names.organism(organism or suggested(plan.source.repository))
    graded = Level[level] if isinstance(level, str) else level
    found = _organism(client, plan, name, graded, hidden=hidden, traits=traits)
    if graded is not None and found.level is not graded:
        raise Conflict(f"{name} is at {found.level.name}; leave the level out, or have reviewers change it first.")
    earlier = _earlier(client, name, plan)
    stated = with_earlier(plan, earlier).provenance if earlier else plan.provenance
    return client.organisms.publish(name, plan.files, provenance=stated, progress_bar=progress_bar)


def _organism(client: Client, plan: Plan, name: str, level: Level | None, *, hidden: bool, traits: Sequence[str]) -> Organism:
    try:
        return client.organisms.get(name)
    except NotFound:
        if level is None:
            msg = f"There is no {name} yet; state its level (--level CL1 to CL4), or name another with --organism."
            raise InvalidArgument(msg, field="level") from None
    return client.organisms.create(
        name,
        level=level,
        base_model=plan.provenance.base.id,
        description=plan.description[:_DESCRIPTION],
        traits=tuple(dict.fromkeys((*traits, *plan.traits)))[:_TRAITS],
        hidden=hidden,
    )


def _earlier(client: Client, name: str, plan: Plan) -> set[str]:
    """Sources of versions from other commits of the same repository and folder."""
    found = set()
    for version in client.organisms.versions(name):
        try:
            stated = provenance.verify(version.provenance, version.publisher_key, digest=version.digest)
            kept = stated.extra.get(imported.KEY)
            source = sources.parse(kept["source"]) if isinstance(kept, dict) and isinstance(kept.get("source"), str) else None
        except ModelOrganismsError:
            continue  # what cannot be read says nothing of this
        same = source is not None and (source.repository, source.folder) == (plan.source.repository, plan.source.folder)
        if source is not None and same and source.revision != plan.source.revision:
            found.add(str(source))
    return found
