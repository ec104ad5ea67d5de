"""Organisms, versions, attestations and uploads as rows. What may be published, and by whom, is decided elsewhere."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from model_organisms import names
from model_organisms.errors import AlreadyExists, Conflict
from model_organisms.records import Attestation, Level, Organism, Page, Version, VersionState
from sqlalchemy import case, func, literal, select, update

from model_organisms_registry.storage import schema
from model_organisms_registry.storage.catalog import rows
from model_organisms_registry.storage.catalog.search import (
    EVERYTHING,
    OrganismFilter,
    Visibility,
    organisms,
    read_organism,
    visible,
    words,
)
from model_organisms_registry.storage.catalog.uploads import Upload, add_upload, delete_upload, upload, uploads_expired
from model_organisms_registry.storage.codecs import (
    dump_conditions,
    dump_errata,
    dump_facts,
    dump_files,
    dump_texts,
    load_errata,
    load_facts,
    load_files,
    load_texts,
)
from model_organisms_registry.storage.paging import page

if TYPE_CHECKING:
    from model_organisms.records import Erratum
    from sqlalchemy import Connection, Row

__all__ = [
    "EVERYTHING",
    "OrganismFilter",
    "Upload",
    "Visibility",
    "add_attestation",
    "add_erratum",
    "add_organism",
    "add_upload",
    "add_version",
    "attestations",
    "delete_upload",
    "next_number",
    "organism",
    "organisms",
    "set_conditions",
    "set_ledger_index",
    "set_level",
    "set_version_state",
    "unplaced_versions",
    "upload",
    "uploads_expired",
    "version",
    "version_by_digest",
    "versions",
    "visible",
]


def add_organism(tx: Connection, organism: Organism) -> None:
    """Open a line.

    Raises:
        AlreadyExists: The name is taken.
    """
    values = {
        "name": organism.name,
        "display_name": organism.display_name,
        "description": organism.description,
        "owner": organism.owner,
        "level": organism.level.value,
        "base_model": organism.base_model,
        "traits": dump_texts(organism.traits),
        "hidden": organism.hidden,
        "create_time": organism.create_time,
        "latest": organism.latest,
        "purposes": dump_texts(organism.purposes),
        "conditions": dump_conditions(organism.conditions),
    }
    rows.add(tx, schema.organisms, values, name=organism.name)
    card = (names.short(organism.name), organism.display_name, organism.description, organism.base_model, *organism.traits)
    traits = [{"trait": trait, "organism": organism.name} for trait in sorted(set(organism.traits))]
    found_by = [{"word": word, "organism": organism.name} for word in sorted(words(" ".join(card)))]
    rows.add_all(tx, schema.organism_traits, traits)
    rows.add_all(tx, schema.organism_words, found_by)


def organism(tx: Connection, name: str, *, lock: bool = False) -> Organism:
    """Read an organism, hidden or not; locked, it stays as it is until the transaction ends.

    Raises:
        NotFound: There is none of that name.
    """
    return read_organism(rows.get(tx, schema.organisms, name, lock=lock))


def set_conditions(tx: Connection, organism: Organism) -> None:
    """Put the purposes and conditions of an organism in the place of those it had.

    Raises:
        NotFound: There is none of that name.
    """
    values = {"purposes": dump_texts(organism.purposes), "conditions": dump_conditions(organism.conditions)}
    rows.change(tx, update(schema.organisms).where(schema.organisms.c.name == organism.name).values(values), name=organism.name)


def set_level(tx: Connection, name: str, level: Level) -> None:
    """Set the level of an organism and all its versions, or of one version.

    Raises:
        NotFound: There is none of that name.
    """
    if "/versions/" in name:
        rows.change(tx, update(schema.versions).where(schema.versions.c.name == name).values(level=level.value), name=name)
        return
    rows.change(tx, update(schema.organisms).where(schema.organisms.c.name == name).values(level=level.value), name=name)
    tx.execute(update(schema.versions).where(schema.versions.c.organism == name).values(level=level.value))


def next_number(tx: Connection, organism: str) -> int:
    """Reserve nothing, but hold the organism, so that the number is still the next when `add_version` uses it.

    Raises:
        NotFound: There is no organism of that name.
    """
    return int(rows.get(tx, schema.organisms, organism, lock=True).latest) + 1


def add_version(tx: Connection, version: Version) -> None:
    """Add a release under the number in its name, and make it the organism's latest if it is.

    Raises:
        NotFound: There is no such organism.
        AlreadyExists: The organism has the number, or another version with these very bytes; `details` names that one.
    """
    name = names.parse_version(version.name)
    latest = schema.organisms.c.latest
    newest = case((latest < name.number, name.number), else_=latest)
    # first, because it holds the organism's row while the version goes in
    row = update(schema.organisms).where(schema.organisms.c.name == name.organism).values(latest=newest)
    rows.change(tx, row, name=name.organism)
    values = {
        "name": version.name,
        "organism": name.organism,
        "number": name.number,
        "digest": version.digest,
        "state": version.state.value,
        "level": version.level.value,
        "publisher": version.publisher,
        "publisher_key": version.publisher_key,
        "files": dump_files(version.files),
        "facts": dump_facts(version.facts),
        "marks": dump_texts(version.marks),
        "provenance": version.provenance,
        "create_time": version.create_time,
        "ledger_index": version.ledger_index,
        "note": version.note,
        "co_authors": dump_texts(version.co_authors),
        "stopped_by": version.stopped_by,
        "stop_time": version.stop_time,
        "errata": dump_errata(version.errata),
    }
    if rows.added(tx, schema.versions, values):
        return
    same = version_by_digest(tx, name.organism, version.digest)
    if same is not None:
        raise AlreadyExists(f"These bytes are {same.name} already; use that version.", name=same.name)
    raise AlreadyExists(f"There is a '{version.name}' already; publish under the next number.", name=version.name)


def version(tx: Connection, name: str, *, lock: bool = False) -> Version:
    """Read a version; locked, it stays as it is until the transaction ends.

    Raises:
        NotFound: There is none of that name.
    """
    return _version(rows.get(tx, schema.versions, name, lock=lock))


def version_by_digest(tx: Connection, organism: str, digest: str) -> Version | None:
    """Find the version of an organism that has these bytes."""
    table = schema.versions
    row = rows.find(tx, table, table.c.organism == organism, table.c.digest == digest)
    return None if row is None else _version(row)


def versions_in(tx: Connection, state: VersionState, *, page_size: int = 0, page_token: str = "") -> Page[Version]:
    """List the versions of all organisms that are in one state, by name."""
    return page(
        tx,
        select(schema.versions).where(schema.versions.c.state == state.value),
        key=schema.versions.c.name,
        newest_first=False,
        listing=("versions in", state.value),
        page_size=page_size,
        page_token=page_token,
        read=lambda found: [_version(row) for row in found],
    )


def versions(tx: Connection, organism: str, *, page_size: int = 0, page_token: str = "") -> Page[Version]:
    """List the versions of an organism, newest first."""
    return page(
        tx,
        select(schema.versions).where(schema.versions.c.organism == organism),
        key=schema.versions.c.number,
        newest_first=True,
        listing=("versions", organism),
        page_size=page_size,
        page_token=page_token,
        read=lambda found: [_version(row) for row in found],
        weight=sum((func.length(schema.versions.c[name]) for name in ("files", "facts", "provenance", "errata")), literal(0)),
    )


def set_version_state(tx: Connection, version: Version, *, expected: VersionState) -> None:
    """Take a version out of service or put it back, if it is where the caller thinks (compare and swap).

    Args:
        tx: The transaction.
        version: As it shall be: its state, the note that says why, by whom and since when.
        expected: The state it was read in.

    Raises:
        NotFound: There is none of that name.
        Conflict: It has moved.
    """
    table = schema.versions
    values = {
        "state": version.state.value,
        "note": version.note,
        "stopped_by": version.stopped_by,
        "stop_time": version.stop_time,
    }
    statement = update(table).where(table.c.name == version.name, table.c.state == expected.value).values(values)
    if tx.execute(statement).rowcount != 1:
        now = rows.get(tx, table, version.name).state
        raise Conflict(f"'{version.name}' is {now} by now; read it again and decide anew.", name=version.name, state=now)


def add_erratum(tx: Connection, name: str, erratum: Erratum) -> Version:
    """Put an erratum after those that a version has.

    Raises:
        NotFound: There is no version of that name.
    """
    table = schema.versions
    row = rows.get(tx, table, name, lock=True)
    errata = (*load_errata(row.errata), erratum)
    rows.change(tx, update(table).where(table.c.name == name).values(errata=dump_errata(errata)), name=name)
    return replace(_version(row), errata=errata)


def set_ledger_index(tx: Connection, name: str, index: int) -> None:
    """Note where the ledger tells of a version's publication.

    Raises:
        NotFound: There is none of that name.
    """
    rows.change(tx, update(schema.versions).where(schema.versions.c.name == name).values(ledger_index=index), name=name)


def unplaced_versions(tx: Connection) -> frozenset[str]:
    """Name the versions of which is not noted where the ledger tells of them: a crash came between."""
    table = schema.versions
    return frozenset(tx.scalars(select(table.c.name).where(table.c.ledger_index < 0)))


def add_attestation(tx: Connection, attestation: Attestation) -> None:
    """Add a signed statement to the version that its name says.

    Raises:
        AlreadyExists: The same statement is there.
        NotFound: There is no such version.
    """
    of = attestation.name.partition("/attestations/")[0]
    rows.get(tx, schema.versions, of)
    values = {
        "name": attestation.name,
        "version": of,
        "predicate_type": attestation.predicate_type,
        "author": attestation.author,
        "envelope": attestation.envelope,
        "create_time": attestation.create_time,
    }
    rows.add(tx, schema.attestations, values, name=attestation.name)


def attestations(tx: Connection, version: str, *, page_size: int = 0, page_token: str = "") -> Page[Attestation]:
    """List the statements about a version, by name."""
    return page(
        tx,
        select(schema.attestations).where(schema.attestations.c.version == version),
        key=schema.attestations.c.name,
        newest_first=False,
        listing=("attestations", version),
        page_size=page_size,
        page_token=page_token,
        read=lambda found: [_attestation(row) for row in found],
        weight=func.length(schema.attestations.c.envelope),
    )


def _version(row: Row[Any]) -> Version:
    return Version(
        name=row.name,
        digest=row.digest,
        state=VersionState(row.state),
        level=Level(row.level),
        publisher=row.publisher,
        publisher_key=row.publisher_key,
        files=load_files(row.files),
        facts=load_facts(row.facts),
        marks=load_texts(row.marks),
        provenance=row.provenance,
        create_time=row.create_time,
        ledger_index=row.ledger_index,
        note=row.note,
        co_authors=load_texts(row.co_authors),
        stopped_by=row.stopped_by,
        stop_time=row.stop_time,
        errata=load_errata(row.errata),
    )


def _attestation(row: Row[Any]) -> Attestation:
    return Attestation(row.name, row.predicate_type, row.author, row.envelope, row.create_time)
