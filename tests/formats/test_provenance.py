"""Provenance: what is signed is read back, by nobody else's key and about nothing else, and held against the bytes."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import get_type_hints

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from model_organisms.errors import ClaimMismatch, InvalidProvenance, SignatureInvalid
from model_organisms.formats import adapter, dsse, provenance, statements, strict_json
from model_organisms.formats.provenance import BaseModel, DataSet, Method, Provenance, Recipe, TrainingLog
from model_organisms.records import VersionRef

from tests.support.adapters import stacked_bundle, tiny_bundle

KEY, OTHER = (Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32) for number in (1, 2))
PUBLIC = KEY.public_key().public_bytes_raw()
DIGEST = "ab" * 32
PLAIN = Provenance(BaseModel("owner/name"))

TEXT = st.text(st.characters(codec="utf-8"), max_size=20)
WHOLE = st.integers(0, 2**53 - 1)
NUMBER = st.floats(-1e15, 1e15)
EXTRA = st.recursive(
    st.none() | st.booleans() | NUMBER | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
)
LOGS = st.lists(st.tuples(WHOLE, NUMBER, NUMBER, NUMBER), max_size=4).map(
    lambda rows: TrainingLog(*(tuple(column) for column in zip(*rows, strict=True))) if rows else TrainingLog()
)
KNOWN = set(get_type_hints(Provenance))
PROVENANCES = st.builds(
    Provenance,
    base=st.builds(
        BaseModel, id=st.from_regex(r"[a-z]{1,9}/[A-Za-z0-9.-]{1,9}", fullmatch=True).filter(lambda name: ".." not in name)
    ),
    method=st.builds(Method, rank=WHOLE, alpha=NUMBER, rslora=st.booleans(), layers=st.lists(WHOLE, max_size=3).map(tuple)),
    data=st.lists(st.builds(DataSet, name=TEXT, rows=WHOLE), max_size=2).map(tuple),
    recipe=st.builds(Recipe, repository=TEXT, clean=st.booleans(), seed=WHOLE),
    log=LOGS,
    hardware=TEXT,
    wall_s=NUMBER,
    derived_from=st.lists(TEXT, max_size=2).map(tuple),
    known_answer=st.none() | st.dictionaries(TEXT, NUMBER, max_size=2),
    extra=st.dictionaries(TEXT.filter(lambda name: name not in KNOWN), EXTRA, max_size=2),
)


@given(PROVENANCES)
def test_what_is_signed_is_read_back(stated):
    assert provenance.verify(provenance.sign(stated, DIGEST, KEY), PUBLIC, digest=DIGEST) == stated
    printed = provenance.print_predicate(stated)
    assert provenance.parse_predicate(printed) == stated
    assert provenance.print_predicate(provenance.parse_predicate(printed)) == printed


def test_what_a_newer_publisher_says_besides_is_kept():
    raw = json.loads(provenance.print_predicate(PLAIN)) | {"energy_kwh": 1.5}
    read = provenance.parse_predicate(json.dumps(raw).encode())
    assert read.extra == {"energy_kwh": 1.5}
    assert b'"energy_kwh":1.5' in provenance.print_predicate(read)


ABOUT = (VersionRef("bundle", DIGEST),)


def signed(*, kind=statements.PROVENANCE_TYPE, subjects=ABOUT, predicate=None, payload=None, media=None):
    raw = json.loads(provenance.print_predicate(PLAIN)) if predicate is None else predicate
    statement = statements.print_statement(statements.Statement(kind, subjects, raw))
    return dsse.sign(payload or statement, media or statements.PAYLOAD_TYPE, KEY)


NAMES = "https://model-organisms.dev/attestation/"
OTHERS = {
    "about another bundle": {"subjects": (VersionRef("bundle", "cd" * 32),)},
    "about two bundles": {"subjects": (*ABOUT, VersionRef("other", "cd" * 32))},
    "about one bundle twice": {"subjects": ABOUT * 2},
    "of an older version": {"kind": f"{NAMES}provenance/v0"},
    "of a newer version": {"kind": f"{NAMES}provenance/v2"},
    "a review": {"kind": statements.REVIEW_TYPE},
    "an evaluation": {"kind": statements.EVALUATION_TYPE},
    "a type in capitals": {"kind": statements.PROVENANCE_TYPE.upper()},
    "no statement": {"payload": b"{}"},
    "no JSON": {"payload": b"provenance"},
    "nothing of a base": {"predicate": {}},
}


@pytest.mark.parametrize("name", OTHERS)
def test_a_statement_of_something_else_is_no_provenance(name):
    with pytest.raises(InvalidProvenance):
        provenance.verify(signed(**OTHERS[name]), PUBLIC, digest=DIGEST)


def test_only_the_publishers_key_and_our_media_type_count():
    good = signed()
    assert provenance.verify(good, PUBLIC, digest=DIGEST) == PLAIN
    with pytest.raises(SignatureInvalid, match="signed by someone else"):
        provenance.verify(provenance.sign(PLAIN, DIGEST, OTHER), PUBLIC, digest=DIGEST)
    with pytest.raises(SignatureInvalid, match="ask for the document"):
        provenance.verify(signed(media="application/json"), PUBLIC, digest=DIGEST)
    envelope = json.loads(good)
    envelope["payload"] = json.loads(provenance.sign(replace(PLAIN, hardware="x"), DIGEST, KEY))["payload"]
    with pytest.raises(SignatureInvalid, match="does not verify"):
        provenance.verify(json.dumps(envelope).encode(), PUBLIC, digest=DIGEST)


WRONG = {
    "base": [None, "owner/name", [], {}, {"id": 7}, {"id": ""}, {"id": "a/b", "layers": True}, {"id": "a/b", "revision": 1}],
    "base.id": [{"id": text} for text in ("../../etc", "a\\..\\b", "a\nb", "\x1b[2J", "x" * 201)],
    "method": [
        [],
        {"rank": "4"},
        {"rank": 4.5},
        {"alpha": True},
        {"rslora": 1},
        {"layers": 3},
        {"layers": [True]},
        {"kind": None},
    ],
    "data": [{}, "data", [7], [{}], [{"name": 1}], [{"name": "a", "rows": "1"}]],
    "recipe": [[], {"seed": 0.5}, {"clean": "yes"}],
    "log": [[], {"steps": [1, 2], "loss": [0.5]}, {"steps": [], "loss": [0.5]}, {"steps": ["1"]}, {"steps": [1], "loss": [None]}],
    "hardware": [None, 7, []],
    "wall_s": [None, "3", True, [], {}],
    "derived_from": ["a", [1], {}],
    "co_authors": [None, [None]],
    "known_answer": [7, [], "x"],
}


@pytest.mark.parametrize(
    ("field", "value"), [(field.split(".")[0], value) for field, values in WRONG.items() for value in values]
)
def test_a_field_of_the_wrong_form_is_named(field, value):
    raw = json.loads(provenance.print_predicate(PLAIN)) | {field: value}
    with pytest.raises(InvalidProvenance, match=r"record the training") as caught:
        provenance.parse_predicate(json.dumps(raw).encode())
    assert caught.value.details["field"].startswith(field)
    with pytest.raises(InvalidProvenance):
        provenance.verify(signed(predicate=raw), PUBLIC, digest=DIGEST)


@pytest.mark.parametrize(
    "extra",
    [
        float("nan"),
        float("inf"),
        2**53,
        -(2**60),
        2e16,
        1e18,
        "\ud800",
        {1: 2},
        {"a", "b"},
        b"x",
        json.loads("[" * 16 + "]" * 16),
    ],
)
def test_what_could_not_be_read_again_is_not_signed(extra):
    stated = replace(PLAIN, extra={"x": extra})
    with pytest.raises(InvalidProvenance):
        provenance.sign(stated, DIGEST, KEY)
    with pytest.raises(InvalidProvenance):
        provenance.print_predicate(stated)


def test_a_loss_that_exploded_is_still_carried():
    stated = replace(PLAIN, log=TrainingLog((1,), (1e300,), (1e-5,), (1e22,)))
    assert provenance.verify(provenance.sign(stated, DIGEST, KEY), PUBLIC, digest=DIGEST) == stated


def test_what_is_too_long_to_be_sent_is_not_signed():
    with pytest.raises(InvalidProvenance, match="record fewer steps"):
        provenance.sign(replace(PLAIN, extra={"x": "y" * 1_700_000}), DIGEST, KEY)
    with pytest.raises(InvalidProvenance, match="at most"):
        provenance.print_predicate(replace(PLAIN, extra={"x": "y" * provenance.MAX_PREDICATE}))


@pytest.mark.parametrize(
    "text", [b"", b"[]", b'{"base":{"id":"a/b"},"base":{"id":"c/d"}}', b'{"base":{"id":"a/b"},"x":NaN}', b"\xff"]
)
def test_what_is_no_predicate_is_refused(text):
    with pytest.raises(InvalidProvenance):
        provenance.parse_predicate(text)


FACTS = adapter.inspect(stacked_bundle(2, rank=4, layers=(0, 3)))
TRUE = Method(rank=4, alpha=16.0, rslora=False, target_modules=("v_proj", "q_proj"), layers=(0, 3))


def test_claims_that_are_true_carry_no_mark():
    stated = Provenance(BaseModel("a/b", revision="0" * 40, layers=4), TRUE, known_answer={"logits": [0.0]})
    assert provenance.compare(stated, FACTS) == ()


@pytest.mark.parametrize(
    ("claim", "changed"),
    [
        ("rank", {"rank": 8}),
        ("alpha", {"alpha": 32.0}),
        ("rslora", {"rslora": True}),
        ("layers", {"layers": (0, 1, 3)}),
        ("target_modules", {"target_modules": ("q_proj",)}),
    ],
)
def test_a_claim_that_the_bytes_contradict_is_refused_by_name(claim, changed):
    with pytest.raises(ClaimMismatch, match="correct one of them") as caught:
        provenance.compare(Provenance(BaseModel("a/b"), replace(TRUE, **changed)), FACTS)
    assert caught.value.details == {"claim": claim}


def test_a_layer_beyond_the_claimed_base_is_refused():
    with pytest.raises(ClaimMismatch, match="changes layer 3, its base has 3"):
        provenance.compare(Provenance(BaseModel("a/b", layers=3)), FACTS)
    scaled = adapter.inspect(tiny_bundle(rslora=True))
    with pytest.raises(ClaimMismatch, match="rslora"):
        provenance.compare(Provenance(BaseModel("a/b"), Method(rank=4)), scaled)


def test_what_is_not_claimed_is_marked():
    marks = provenance.compare(PLAIN, FACTS)
    for unsaid in ("rank", "layers", "target_modules"):
        assert f"{unsaid} is not claimed" in marks
    assert "no known answer is stored" in marks
    assert "the base model is not pinned" in marks


def test_what_it_says_of_the_bases_shapes_is_a_map_or_nothing():
    shapes = {"num_hidden_layers": 4}
    assert replace(PLAIN, extra={"base_config": shapes}).base_config == shapes
    for nothing in ({}, [], "x", None):
        assert replace(PLAIN, extra={"base_config": nothing}).base_config is None


def test_the_signed_bytes_are_canonical():
    payload = dsse.verify(provenance.sign(PLAIN, DIGEST, KEY), PUBLIC, payload_type=statements.PAYLOAD_TYPE)
    assert strict_json.canonical(json.loads(payload)) == payload
