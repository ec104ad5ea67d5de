"""Plans an import, in memory: files, facts beside claims, provenance. What is then published, `publishing.py` does.

A plan is made even where nothing could be published, so that a person sees why; then it has a `refusal`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from model_organisms.errors import InvalidBundle, InvalidProvenance, ModelOrganismsError
from model_organisms.formats import adapter, content, imported, strict_json
from model_organisms.formats.config import MAX_CONFIG
from model_organisms.formats.paths import CONFIG, WEIGHTS, kind_of, shown_path
from model_organisms.formats.provenance import DataSet, Method, Provenance, TrainingLog
from model_organisms.formats.tensors import read_tensors
from model_organisms.importing import claims as said
from model_organisms.importing import curves, foundations
from model_organisms.importing import source as sources
from model_organisms.importing.arranging import Part, arrange
from model_organisms.importing.hub import Hub
from model_organisms.progress import bar
from model_organisms.records import FileKind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from model_organisms.importing.arranging import Arrangement
    from model_organisms.importing.claims import Claim, Comparison, Found
    from model_organisms.importing.foundations import Foundation
    from model_organisms.importing.hub import Listing
    from model_organisms.importing.source import Source

MAX_BYTES = 8 << 30
"""Most bytes that an import takes where nobody says otherwise; they lie in memory."""


@dataclass(frozen=True, slots=True)
class Notes:
    """What a catalogue or a taxonomy says of an organism; all of it claims."""

    description: str = ""
    traits: tuple[str, ...] = ()
    claims: tuple[Claim, ...] = ()
    data: tuple[DataSet, ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Kept in the provenance, under `imported`."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What an import would publish.

    Invariants: `source` names a commit; every file has the digest that the hub lists; without a refusal, `files` are a bundle
    and `provenance` claims nothing of them that they contradict.
    """

    source: Source
    files: Mapping[str, memoryview]
    left_out: Mapping[str, str]
    """Path at the source: why."""
    found: Found
    comparisons: tuple[Comparison, ...]
    provenance: Provenance
    notes: tuple[str, ...]
    """What a reader should know, in sentences."""
    description: str = ""
    traits: tuple[str, ...] = ()
    refusal: ModelOrganismsError | None = None

    @property
    def differing(self) -> tuple[Comparison, ...]:
        """The claims that what was found contradicts."""
        return tuple(row for row in self.comparisons if not row.agrees)


def plan(
    where: str | Source,
    *,
    base: str | Path = "",
    claims: Mapping[str, str] | None = None,
    notes: Notes | None = None,
    without: Iterable[Part | str] = (),
    max_bytes: int = MAX_BYTES,
    endpoint: str = "",
    progress_bar: bool = False,
) -> Plan:
    """Fetch an adapter from a model hub into memory, and say what it is.

    1. The hub lists the files at one commit. 2. Names and sizes are judged before anything is fetched. 3. Each file is held
    against its digest. 4. What the bytes say is computed. 5. What is claimed is held against it, row by row.

    Args:
        where: `hf://owner/name@commit`; with a branch, or none, its commit of now is taken and kept.
        base: The base model, where the config does not name it well: `owner/name@commit`, a folder, or the built-in one.
        claims: What a paper says of it, such as `{"layers": "24"}`; recorded beside what is found.
        notes: What a catalogue or a taxonomy says of it.
        without: What to leave out: `checkpoints`, `tokenizer`.
        max_bytes: Most bytes to take.
        endpoint: The hub; by default HF_ENDPOINT's, or huggingface.co.
        progress_bar: Show progress on a terminal.

    Returns:
        The plan; its `refusal` says why it could not be published, where the files can be read but do not fit together.

    Raises:
        InvalidArgument: The source or a claim is written wrong, or nothing names the base model.
        NotFound: There is no such repository, revision or file.
        Denied: The hub gates it.
        Unavailable: The hub does not answer.
        DigestMismatch: What it sends is not what it lists.
        InvalidBundle: There is no adapter, or more of it than is taken.
        UnsafeFile: A name climbs out, or there are pickles only.
        MalformedTensors: The weights are no safetensors of an adapter.
    """
    notes = notes or Notes()
    spoken = said.given(claims or {})
    hub = Hub(endpoint)
    listing = hub.listing(sources.parse(where) if isinstance(where, str) else where)
    arranged = arrange(listing.files, folder=listing.source.folder, without=[Part(part) for part in without])
    _check_sizes(listing, arranged, max_bytes)
    files, log, remarks = _fetched(hub, listing, arranged, progress_bar=progress_bar)
    config = strict_json.parse(files[CONFIG], what=f"'{CONFIG}'", limit=MAX_CONFIG, error=InvalidBundle)
    config = config if isinstance(config, dict) else {}
    table = read_tensors(files[WEIGHTS])
    foundation = foundations.find(hub, base, config, listing.card)
    found = said.measure(table, config, base=foundation.model.id)
    every = (*said.of_config(config), *said.of_name(listing.source.repository), *said.of_card(listing.card, listing.tags))
    comparisons = said.compare((*every, *notes.claims, *spoken), found)
    left_out = dict(arranged.left_out) | _unreadable_cards(files, arranged)
    refusal = _refusal(files, foundation.shapes)
    return Plan(
        source=listing.source,
        files=files,
        left_out=left_out,
        found=found,
        comparisons=comparisons,
        provenance=_provenance(
            listing,
            arranged,
            found,
            foundation=foundation,
            log=log,
            notes=notes,
            comparisons=comparisons,
            files=files,
        ),
        notes=(*_told(listing, arranged), *foundation.notes, *remarks),
        description=notes.description,
        traits=notes.traits,
        refusal=refusal,
    )


def _check_sizes(listing: Listing, arranged: Arrangement, max_bytes: int) -> None:
    """Judge what the list says before anything is fetched."""
    for place, path in arranged.taken.items():
        size, most = listing.files[path].size, content.LIMITS[kind_of(place)]
        if size > most:
            msg = f"'{shown_path(path)}' has {size:,} bytes; a file of its kind has at most {most:,}. Ask its owner about it."
            raise InvalidBundle(msg, path=shown_path(path))
    total = sum(listing.files[path].size for path in set(arranged.taken.values()))
    if total > max_bytes:
        msg = f"The import has {total:,} bytes and at most {max_bytes:,} are taken; leave out checkpoints, or allow more."
        raise InvalidBundle(msg)


def _fetched(
    hub: Hub, listing: Listing, arranged: Arrangement, *, progress_bar: bool
) -> tuple[dict[str, memoryview], TrainingLog, list[str]]:
    """Fetch each file once, also where two places take it; and the curves, which are no part of the bundle."""
    wanted = sorted(set(arranged.taken.values()))
    remarks: list[str] = []
    with bar("Importing", sum(listing.files[path].size for path in wanted), show=progress_bar) as advance:
        bytes_of = {path: hub.fetch(listing, listing.files[path], advance=advance) for path in wanted}
    log = TrainingLog()
    if arranged.state:
        log = _curves(hub, listing, arranged.state, remarks.append)
    return {place: bytes_of[path] for place, path in arranged.taken.items()}, log, remarks


def _curves(hub: Hub, listing: Listing, path: str, remark: Callable[[str], None]) -> TrainingLog:
    """Curves are worth having and worth no failure."""
    if listing.files[path].size > curves.MAX_STATE:
        remark("the training's curves are too long to be read, and left out")
        return TrainingLog()
    try:
        log = curves.read(hub.fetch(listing, listing.files[path]))
    except InvalidProvenance as error:
        remark(f"the training's curves are left out: {error.message}")
        return TrainingLog()
    remark(f"curves of {len(log.steps):,} steps come from '{shown_path(path)}', as its writer had them")
    return log


def _unreadable_cards(files: dict[str, memoryview], arranged: Arrangement) -> dict[str, str]:
    """Drop a card that no bundle may hold, such as one with marks that hide text; the adapter is worth having without."""
    dropped = {}
    for place in [place for place in files if kind_of(place) in {FileKind.CARD, FileKind.DATA_CARD}]:
        try:
            content.check_content(place, files[place], kind_of(place))
        except InvalidBundle as error:
            del files[place]
            dropped[arranged.taken[place]] = error.message
    return dropped


def _refusal(files: Mapping[str, memoryview], shapes: Mapping[str, Any] | None) -> ModelOrganismsError | None:
    """Inspect as the registry will."""
    try:
        adapter.inspect(files, shapes)
    except InvalidBundle as error:
        return error
    return None


def _told(listing: Listing, arranged: Arrangement) -> list[str]:
    notes = []
    if listing.asked != listing.commit:
        branch = f"'{listing.asked}'" if listing.asked else "the default branch"
        notes.append(f"{branch} was at this commit when it was read; it may move, the commit does not")
    if listing.called != listing.source.repository:
        notes.append(f"the hub calls {listing.source.repository} now {listing.called}: it was renamed, or moved to another owner")
    if arranged.lent:
        notes.append(f"checkpoints without a config of their own get the adapter's: {len(arranged.lent)}")
    return notes


def _provenance(
    listing: Listing,
    arranged: Arrangement,
    found: Found,
    *,
    foundation: Foundation,
    log: TrainingLog,
    notes: Notes,
    comparisons: tuple[Comparison, ...],
    files: Mapping[str, memoryview],
) -> Provenance:
    """State what the bytes say; what the source says of them stands under `imported`."""
    named = listing.card.get("datasets")
    cards = tuple(DataSet(name[:200]) for name in named if isinstance(name, str)) if isinstance(named, list) else ()
    licence = listing.card.get("license")
    parents = [row.claimed for row in comparisons if row.name == "base" and row.by == said.CARD_SAYS and not row.agrees]
    kept: dict[str, Any] = {
        "source": str(listing.source),
        "asked": listing.asked,
        "called": listing.called,
        "changed": listing.changed,
        "licence": licence[:200] if isinstance(licence, str) else "",
        "parents": parents,
        "claims": [
            {"name": row.name, "found": row.found, "claimed": row.claimed, "by": row.by, "agrees": row.agrees}
            for row in comparisons
        ],
        "files": {place: path for place, path in arranged.taken.items() if place in files and place != path},
        **notes.extra,
    }
    extra: dict[str, Any] = {imported.KEY: kept} | ({"base_config": dict(foundation.shapes)} if foundation.shapes else {})
    method = Method(
        rank=found.rank,
        alpha=found.alpha or 0.0,
        rslora=found.rslora,
        target_modules=found.target_modules,
        layers=found.layers,
        objective=notes.description[:2000],
    )
    return Provenance(base=foundation.model, method=method, data=notes.data or cards, log=log, extra=extra)


def with_earlier(plan_: Plan, earlier: Iterable[str]) -> Plan:
    """Say which other commits of the same repository are published already: it was uploaded again under one name."""
    kept = {**plan_.provenance.extra[imported.KEY], "earlier": sorted(earlier)}
    return replace(plan_, provenance=replace(plan_.provenance, extra={**plan_.provenance.extra, imported.KEY: kept}))
