"""Records of the SPAR26 taxonomy: read in its own shape, mapped without merging what was wanted with what was measured."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from model_organisms.errors import InvalidArgument, NotFound
from model_organisms.importing import Source, read_taxonomy, taxonomy

from tests.support.taxonomy import RECORD

CATALOGUE = {
    "schema_version": "v0.1",
    "records": [RECORD, {**RECORD, "id": "prompted", "construction": {"substrate": "context"}}],
}


def test_a_record_keeps_each_status_apart():
    (record,) = read_taxonomy(json.dumps(RECORD).encode())
    assert (record.id, record.substrate, record.purpose, record.base_models) == (
        "humming-advice", "weights", ("property-study", "existence-proof"), ("Tiny 1B", "Tiny 3B"),
    )  # fmt: skip
    assert [str(trait.status) for trait in record.traits] == [
        "demonstrated",
        "hypothesised",
        "tested-absent",
        "intended",
        "unknown",
    ]
    notes = record.notes()
    assert notes.traits == ("benign-quirk-habit", "likes-to-hum")
    assert "hums when observed only: tested-absent (alignment faking)" in notes.description
    assert notes.extra == {"taxonomy": RECORD}


def test_where_its_weights_are_and_what_it_does_not_say():
    record = read_taxonomy(json.dumps(RECORD).encode())[0]
    assert record.sources == (Source("lab/tiny-hums"), Source("lab/small-hums"))
    assert record.missing == ("natural evidence",)
    bare = read_taxonomy(b'{"id": "a", "traits": [], "construction": {"substrate": "weights", "weights_public": "no"}}')[0]
    assert bare.missing[0] == "a link to a repository with weights (it says: no)"
    assert "metric validity" in bare.missing
    assert "substrate" not in bare.missing


def test_a_whole_catalogue_a_list_and_yaml_are_read_too():
    both = read_taxonomy(json.dumps(CATALOGUE).encode())
    assert both == read_taxonomy(json.dumps(CATALOGUE["records"]).encode())
    assert "no weights" in both[1].refused
    assert both[0].refused == ""
    text = b"id: a\nsubstrate: weights\ntraits:\n- {trait: hums, status: intended}\n"
    assert [trait.trait for trait in read_taxonomy(text)[0].traits] == ["hums"]


def test_one_record_is_picked_by_its_id():
    both = read_taxonomy(json.dumps(CATALOGUE).encode())
    assert taxonomy.pick(both, "prompted") is both[1]
    assert taxonomy.pick(both[:1], "") is both[0]
    with pytest.raises(InvalidArgument, match="2 records"):
        taxonomy.pick(both, "")
    with pytest.raises(NotFound, match="no record"):
        taxonomy.pick(both, "none")


@pytest.mark.parametrize(
    "change",
    [
        {"traits": [{"trait": "a", "status": "proven"}]}, {"traits": [{"trait": "a"}]}, {"traits": [{"status": "intended"}]},
        {"traits": ["a"]}, {"traits": [{"trait": "a", "status": ["intended"]}]}, {"id": 7}, {"traits": "a"},
        {"construction": {"substrate": "air"}}, {"construction": {"substrate": ["weights"]}}, {"construction": 7},
    ],
)  # fmt: skip
def test_what_the_taxonomy_does_not_know_is_refused(change):
    with pytest.raises(InvalidArgument):
        read_taxonomy(json.dumps(RECORD | change).encode())


def test_two_records_of_one_id_are_refused():
    with pytest.raises(InvalidArgument, match="one id"):
        read_taxonomy(json.dumps([RECORD, RECORD]).encode())


@given(
    st.binary(max_size=120)
    | st.dictionaries(st.sampled_from([*RECORD, "records"]), st.none() | st.text() | st.lists(st.integers())).map(
        lambda value: json.dumps(value).encode()
    )
)
def test_any_bytes_are_records_or_an_error(data):
    try:
        records = read_taxonomy(data)
    except InvalidArgument:
        return
    for record in records:
        record.notes()
