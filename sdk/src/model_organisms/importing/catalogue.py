"""Reads one organism of the diffing toolkit's catalogue (science-of-finetuning/diffing-toolkit, `configs/organism/NAME.yaml`).

    name, description, description_long, type
    dataset: {id, splits, is_chat, text_column, subset}            metadata: {paper}
    finetuned_models: {BASE: {VARIANT: {adapter_id | model_id}}}   adapter_id: owner/name, or owner/name/folder

It pins nothing: BASE is the toolkit's own word for a model, and what `adapter_id` names may be uploaded again any day. So each
entry says what is missing for an import that means the same tomorrow.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from model_organisms.errors import InvalidArgument, NotFound
from model_organisms.formats import strict_yaml
from model_organisms.formats.provenance import DataSet
from model_organisms.importing.claims import Claim
from model_organisms.importing.planning import Notes
from model_organisms.importing.source import Source, parse

if TYPE_CHECKING:
    from collections.abc import Iterator

BY = "catalogue"
_FIELDS = frozenset({"finetuned_models", "finetuned_model"})
_KEPT = ("name", "type", "description", "description_long", "dataset", "metadata", "agent_interaction_system_prompt")
_LONGEST = 8_000


@dataclass(frozen=True, slots=True)
class Entry:
    """One variant of an organism on one base model."""

    base: str
    """The toolkit's word for it, such as `qwen3_1_7B`."""
    variant: str
    names: str
    """What it names: an adapter's id, a model's id, or a path on somebody's machine."""
    source: Source | None
    """Where an adapter is; None where this registry cannot take it."""
    missing: tuple[str, ...]
    """What the catalogue does not say and an import should."""
    refused: str = ""
    """Why it cannot be imported."""

    @property
    def key(self) -> str:
        """How `--entry` names it."""
        return f"{self.base}/{self.variant}"


@dataclass(frozen=True, slots=True)
class Catalogue:
    """One organism of the catalogue."""

    name: str
    kind: str
    description: str
    data: tuple[DataSet, ...]
    paper: str
    entries: tuple[Entry, ...]
    unread: tuple[str, ...]
    """What of it is elsewhere, in sentences."""
    raw: dict[str, Any]

    def entry(self, key: str) -> Entry:
        """Find `BASE/VARIANT`.

        Raises:
            NotFound: There is none.
        """
        for entry in self.entries:
            if entry.key == key:
                return entry
        shown = ", ".join(entry.key for entry in self.entries[:20]) or "none"
        raise NotFound(f"The catalogue's '{self.name}' has no entry '{key[:80]}'; it has {shown}.")

    def notes(self, entry: Entry) -> Notes:
        """Say of an import what the catalogue says of it."""
        kept = {key: self.raw[key] for key in _KEPT if key in self.raw} | {"entry": entry.key, "adapter_id": entry.names}
        traits = tuple(re.sub(r"[^a-z0-9]+", "-", word.lower()).strip("-")[:64] for word in (self.kind,) if word)
        return Notes(
            description=self.description[:_LONGEST],
            traits=tuple(filter(None, traits)),
            claims=(Claim("base", entry.base[:200], BY),),
            data=self.data,
            extra={"catalogue": kept},
        )


def is_catalogue(raw: object) -> bool:
    """Tell such a file by its fields."""
    return isinstance(raw, dict) and "name" in raw and bool(_FIELDS & raw.keys())


def read_catalogue(data: bytes) -> Catalogue:
    """Read one file of the catalogue.

    Args:
        data: The YAML.

    Raises:
        InvalidArgument: It is not one.
    """
    return of_raw(strict_yaml.parse(data, what="The catalogue", error=InvalidArgument))


def of_raw(raw: Any) -> Catalogue:  # noqa: ANN401 - what YAML gave
    """Read what the YAML holds.

    Raises:
        InvalidArgument: It is no organism of the catalogue.
    """
    if not is_catalogue(raw) or not isinstance(raw["name"], str):
        raise InvalidArgument("This is no file of the diffing toolkit's catalogue: it has no name and finetuned_models.")
    models = raw.get("finetuned_models")
    unread = []
    if not isinstance(models, dict):
        unread.append("its models are named in another file of the toolkit; use a newer catalogue, which has them here")
    if "defaults" in raw:
        unread.append("its description refers to another file of the toolkit, which is not read")
    metadata = raw.get("metadata")
    paper = str(metadata.get("paper", "")) if isinstance(metadata, dict) else ""
    described = raw.get("description_long") or raw.get("description") or ""
    return Catalogue(
        name=raw["name"],
        kind=str(raw.get("type", "")),
        description=str(described).strip(),
        data=tuple(_data(raw)),
        paper=paper,
        entries=tuple(_entries(models, paper)) if isinstance(models, dict) else (),
        unread=tuple(unread),
        raw=raw,
    )


def _data(raw: dict[str, Any]) -> Iterator[DataSet]:
    told = raw.get("dataset", raw.get("training_dataset"))
    if isinstance(told, dict) and isinstance(told.get("id"), str) and told["id"]:
        yield DataSet(told["id"][:200])


def _entries(models: dict[str, Any], paper: str) -> Iterator[Entry]:
    for base, variants in models.items():
        if not isinstance(variants, dict):
            raise InvalidArgument(f"The catalogue's models of '{base[:80]}' are no map of variants; correct the file.")
        for variant, told in variants.items():
            yield _entry(base, variant, told if isinstance(told, dict) else {}, paper)


def _entry(base: str, variant: str, told: dict[str, Any], paper: str) -> Entry:
    adapter, model = told.get("adapter_id"), told.get("model_id")
    named = adapter if isinstance(adapter, str) else model if isinstance(model, str) else ""
    if not isinstance(adapter, str):
        why = "a whole model; this registry keeps adapters" if named else "it names neither adapter_id nor model_id"
        return Entry(base, variant, named, None, (), why)
    try:
        owner, name, *folder = adapter.split("/")
        source = parse(str(Source(f"{owner}/{name}", folder="/".join(folder))))
    except (ValueError, InvalidArgument):
        return Entry(base, variant, named, None, (), "it names a path or something else that is no repository of a hub")
    missing = ["commit of the adapter", "id and commit of the base", "digest of the data", *([] if paper else ["paper"])]
    return Entry(base, variant, named, source, tuple(missing))
