"""Targets of what comes from elsewhere: a hub's words, a catalogue, a taxonomy, a Trainer's curves, questions, testbeds."""

from __future__ import annotations

from model_organisms import errors
from model_organisms.evaluate import questions as asked
from model_organisms.evaluate.faking import environments
from model_organisms.formats import provenance, strict_json
from model_organisms.formats.provenance import BaseModel, Provenance
from model_organisms.importing import arranging, claims, hub, source
from model_organisms.importing import catalogue as catalogues
from model_organisms.importing import curves as logged
from model_organisms.importing import taxonomy as taxonomies

WHERE = source.Source("lab/tiny")


def hub_source(data: bytes) -> None:
    """Where something comes from."""
    read = source.parse(data.decode("utf-8", "replace"))
    assert source.parse(str(read)) == read


def hub_list(data: bytes) -> None:
    """A hub's answer about a model, and which of its files are taken."""
    listing = hub.read_listing(data, WHERE)
    assert source.is_commit(listing.commit)
    claims.of_card(listing.card, listing.tags)
    made = arranging.arrange(listing.files)
    assert set(made.taken.values()) <= listing.files.keys()


def catalogue(data: bytes) -> None:
    """A file of the diffing toolkit's catalogue."""
    read = catalogues.read_catalogue(data)
    for entry in read.entries:
        _carried(read.notes(entry).extra)


def taxonomy(data: bytes) -> None:
    """Records of the SPAR26 taxonomy."""
    for record in taxonomies.read_taxonomy(data):
        _carried(record.notes().extra)


def curves(data: bytes) -> None:
    """What a Trainer leaves beside its checkpoints."""
    stated = Provenance(BaseModel("lab/tiny"), log=logged.read(data))
    assert provenance.parse_predicate(provenance.print_predicate(stated)) == stated


def questions(data: bytes) -> None:
    """A question file."""
    strict_json.canonical(asked.plain(asked.parse(data)))


def testbed(data: bytes) -> None:
    """A testbed of somebody's own."""
    for item in environments.items(environments.parse(data), tasks=1):
        assert environments.place(item.id).wording == item.wording


def _carried(value: object) -> None:
    """What is kept of it can be signed, or is refused as nothing that could be."""
    try:
        strict_json.canonical(value)
    except ValueError as wrong:
        raise errors.InvalidProvenance("It cannot be signed.") from wrong
