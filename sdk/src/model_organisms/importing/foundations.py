"""Finds which base model an imported adapter stands on, from what names it, and what of that base can be checked.

Nothing is guessed: a branch of the base is not pinned, for it may have moved since the training.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from model_organisms import bases
from model_organisms.errors import Denied, InvalidArgument, InvalidBundle, NotFound
from model_organisms.formats import strict_json
from model_organisms.formats.dimensions import FIELDS, dimensions_of
from model_organisms.formats.provenance import BaseModel
from model_organisms.importing.source import Source, is_commit, is_repository

if TYPE_CHECKING:
    from collections.abc import Mapping

    from model_organisms.importing.hub import Hub

_CONFIG = "config.json"
_MAX_CONFIG = 1 << 20


@dataclass(frozen=True, slots=True)
class Foundation:
    """A base model, and what of it the adapter is held against."""

    model: BaseModel
    shapes: Mapping[str, Any] | None = None
    """The fields of its config that decide shapes; None where it is not pinned or not to be had."""
    notes: tuple[str, ...] = ()


def find(hub: Hub, base: str | Path, config: Mapping[str, Any], card: Mapping[str, Any]) -> Foundation:
    """Say which base it is: as the importer says, else as the config does, else as the card does.

    Args:
        hub: Where the config of a pinned base is fetched from.
        base: What the importer says; empty for nothing.
        config: adapter_config.json.
        card: The card's metadata.

    Raises:
        InvalidArgument: Nothing names it.
        BaseModelMissing: What the importer says is neither a folder nor a hub id.
    """
    if base and (base == bases.BUILT_IN or Path(base).is_dir()):
        from model_organisms.recording.surroundings import describe_base  # hashes the folder

        model, shapes, _ = describe_base(base)
        return Foundation(model, shapes)
    name, revision = _named(base, config, card)
    if not revision:
        note = f"the base model {name} is not pinned, so shapes are unchecked; give --base {name}@COMMIT"
        return Foundation(BaseModel(name), notes=(note,))
    return _pinned(hub, name, revision)


def _named(base: str | Path, config: Mapping[str, Any], card: Mapping[str, Any]) -> tuple[str, str]:
    if base:
        said = bases.parse(base)
        return said.identifier, said.revision
    revision = config.get("revision")
    if is_repository(name := config.get("base_model_name_or_path")):
        return str(name), str(revision) if is_commit(revision) else ""
    named = card.get("base_model")
    for name in named if isinstance(named, list) else [named]:
        if is_repository(name):
            return str(name), ""
    raise InvalidArgument("Neither config nor card names a base model by its hub id; give it with --base owner/name@COMMIT.")


def _pinned(hub: Hub, name: str, revision: str) -> Foundation:
    """Fetch the config of a pinned base; one that cannot be had costs the check of shapes, not the import."""
    try:
        shapes = _shapes(hub, Source(name, revision))
        layers = dimensions_of(shapes).layers
    except (NotFound, Denied, InvalidBundle) as error:
        note = f"the config of the base model is not to be had, so shapes are unchecked: {error.message}"
        return Foundation(BaseModel(name, revision), notes=(note,))
    return Foundation(BaseModel(name, revision, layers=layers), shapes)


def _shapes(hub: Hub, source: Source) -> dict[str, Any]:
    listing = hub.listing(source)
    file = listing.files.get(_CONFIG)
    if file is None or file.size > _MAX_CONFIG:
        raise InvalidBundle(f"{source.repository} has no {_CONFIG} of a plausible size; name the base model's own repository.")
    raw = strict_json.parse(hub.fetch(listing, file), what=f"'{_CONFIG}'", limit=_MAX_CONFIG, error=InvalidBundle)
    inner = raw.get("text_config", raw) if isinstance(raw, dict) else {}
    return {key: inner[key] for key in FIELDS if key in inner} if isinstance(inner, dict) else {}
