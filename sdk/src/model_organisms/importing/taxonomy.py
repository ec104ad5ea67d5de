"""Reads records of the SPAR26 taxonomy (`catalogue.json` of their repository, schema v0 and v0.1).

    purpose [words]      origin, severity_framing        construction {substrate, method, base_models, weights_public, …}
    traits [{trait, family, status, claims}]             trigger {type, breadth, note}
    gating_fidelity, robustness_probes, collateral       natural_evidence        measurements [{metric, validation_status, …}]

A record is of papers, not of files: it describes organisms whose weights are somewhere, or nowhere. What it says of traits goes
into an organism's description and words to find it by; the record itself is kept whole with the version. Status `intended` is
what somebody wanted and `demonstrated` what somebody measured, so the description has each trait with its own. Words to find it
by are made of both, since what was built for a trait is looked for by it; a word alone says of no trait that it was measured.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from model_organisms.errors import InvalidArgument, NotFound
from model_organisms.formats import strict_json, strict_yaml
from model_organisms.importing.planning import Notes
from model_organisms.importing.source import Source, is_repository

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

MAX_TAXONOMY = 8 << 20
AXES = (
    "purpose",
    "substrate",
    "construction",
    "traits",
    "trigger",
    "gating_fidelity",
    "robustness",
    "collateral",
    "natural_evidence",
    "metric_validity",
)
"""What the taxonomy tells organisms apart by."""
_ALSO = {
    "substrate": ("construction",),
    "robustness": ("robustness_probes",),
    "gating_fidelity": ("leakage",),
    "metric_validity": ("measurements",),
}
"""Fields in which the records have an axis, beside its own name."""
_SUBSTRATES = ("both", "context", "none", "weights")
_LINK = re.compile(r"(?:hf://|huggingface\.co/)(?!datasets/|spaces/)([\w.-]+/[\w.-]+)", re.ASCII)


class Status(StrEnum):
    """How sure a trait is."""

    INTENDED = "intended"
    DEMONSTRATED = "demonstrated"
    HYPOTHESISED = "hypothesised"
    TESTED_ABSENT = "tested-absent"
    UNKNOWN = "unknown"


_SPELT = {"hypothesized": Status.HYPOTHESISED}
_FINDS = frozenset({Status.INTENDED, Status.DEMONSTRATED})


@dataclass(frozen=True, slots=True)
class Trait:
    """One trait, and how sure it is."""

    trait: str
    status: Status
    family: str = ""


@dataclass(frozen=True, slots=True)
class Record:
    """One record of the taxonomy."""

    id: str
    name: str
    purpose: tuple[str, ...]
    substrate: str
    traits: tuple[Trait, ...]
    base_models: tuple[str, ...]
    sources: tuple[Source, ...]
    """Repositories that it names by a link."""
    missing: tuple[str, ...]
    """What an import would need and the record does not say; axes without a word are among it."""
    raw: dict[str, Any]

    @property
    def refused(self) -> str:
        """Why nothing of it can be imported; empty where something could."""
        if self.substrate in {"context", "none"}:
            return "a model as it is, in a context; there are no weights to keep"
        return ""

    def notes(self) -> Notes:
        """Say of an import what the record says of it."""
        words = [_word(trait.family or trait.trait) for trait in self.traits if trait.status in _FINDS]
        lines = [f"- {trait.trait}: {trait.status}" + (f" ({trait.family})" if trait.family else "") for trait in self.traits]
        return Notes(
            description="\n".join([self.name, "", "Traits, as the SPAR26 taxonomy has them:", *lines]),
            traits=tuple(dict.fromkeys(filter(None, words))),
            extra={"taxonomy": self.raw},
        )


def is_taxonomy(raw: object) -> bool:
    """Tell such a file by its fields."""
    return any(isinstance(item, dict) and isinstance(item.get("traits"), list) for item in _items(raw))


def read_taxonomy(data: bytes) -> tuple[Record, ...]:
    """Read a record, a list of them, or a whole catalogue, in JSON or YAML.

    Raises:
        InvalidArgument: It is none.
    """
    if data.lstrip()[:1] in {b"{", b"["}:
        return of_raw(strict_json.parse(data, what="The taxonomy", limit=MAX_TAXONOMY, error=InvalidArgument))
    return of_raw(strict_yaml.parse(data, what="The taxonomy", error=InvalidArgument))


def of_raw(raw: Any) -> tuple[Record, ...]:  # noqa: ANN401 - what the file gave
    """Read what the file holds.

    Raises:
        InvalidArgument: It is no record, or one has a status or a substrate that the taxonomy does not know.
    """
    if not is_taxonomy(raw):
        raise InvalidArgument("This is no record of the SPAR26 taxonomy: it has no list of traits, each with a status.")
    records = tuple(_record(item) for item in _items(raw))
    if len({record.id for record in records}) < len(records):
        raise InvalidArgument("Two records of the taxonomy have one id; correct the file.")
    return records


def pick(records: Iterable[Record], identifier: str) -> Record:
    """Find a record by its id; where there is one alone, it needs none.

    Raises:
        NotFound: There is none.
        InvalidArgument: There are several, and no id.
    """
    records = tuple(records)
    if not identifier and len(records) == 1:
        return records[0]
    if not identifier:
        raise InvalidArgument(f"The taxonomy has {len(records)} records; say which, by its id.")
    for record in records:
        if record.id == identifier:
            return record
    raise NotFound(f"The taxonomy has no record '{identifier[:80]}'; list them with `mo organisms import FILE`.")


def _items(raw: object) -> list[Any]:
    if isinstance(raw, dict) and isinstance(raw.get("records"), list):
        return list(raw["records"])
    return list(raw) if isinstance(raw, list) else [raw]


def _record(raw: Any) -> Record:  # noqa: ANN401 - as above
    if not isinstance(raw, dict) or not isinstance(raw.get("id"), str) or not isinstance(raw.get("traits"), list):
        raise InvalidArgument("A record of the taxonomy has no id, or no list of traits; correct the file.")
    built = raw.get("construction")
    construction = built if isinstance(built, dict) else {}
    substrate = construction.get("substrate", raw.get("substrate"))
    if substrate not in _SUBSTRATES:
        known = ", ".join(_SUBSTRATES)
        raise InvalidArgument(f"Record '{raw['id'][:80]}' has no substrate of {known}; correct the file.", field="substrate")
    public = str(construction.get("weights_public", ""))
    sources = tuple(
        Source(found.rstrip(".")) for found in dict.fromkeys(_LINK.findall(public)) if is_repository(found.rstrip("."))
    )
    return Record(
        id=raw["id"],
        name=str(raw.get("name", raw["id"])),
        purpose=_texts(raw.get("purpose")),
        substrate=substrate,
        traits=tuple(_trait(item, raw["id"]) for item in raw["traits"]),
        base_models=_texts(construction.get("base_models")),
        sources=sources,
        missing=tuple(_missing(raw, sources, public)),
        raw=raw,
    )


def _trait(raw: Any, identifier: str) -> Trait:  # noqa: ANN401 - as above
    status = raw.get("status") if isinstance(raw, dict) else None
    known = _SPELT.get(status, status) if isinstance(status, str) else None
    if known not in set(Status) or not isinstance(raw.get("trait"), str):
        shown = ", ".join(Status)
        msg = f"A trait of record '{identifier[:80]}' has no name, or a status other than {shown}; correct the file."
        raise InvalidArgument(msg, field="traits")
    return Trait(raw["trait"], Status(str(known)), str(raw.get("family", "")))


def _missing(raw: dict[str, Any], sources: tuple[Source, ...], public: str) -> Iterator[str]:
    if not sources:
        yield f"a link to a repository with weights (it says: {public[:120] or 'nothing'})"
    construction = raw.get("construction")
    for axis in AXES:
        places = (axis, *_ALSO.get(axis, ()))
        if not any(raw.get(place) or (isinstance(construction, dict) and construction.get(place)) for place in places):
            yield axis.replace("_", " ")


def _texts(value: object) -> tuple[str, ...]:
    return tuple(str(item) for item in value) if isinstance(value, list) else (value,) if isinstance(value, str) else ()


def _word(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:64].strip("-")
