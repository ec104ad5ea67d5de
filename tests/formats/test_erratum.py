"""An erratum is printed in one way and read in that way only."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from model_organisms.errors import InvalidArgument, InvalidName
from model_organisms.formats import strict_json
from model_organisms.formats.erratum import Correction, parse_correction, print_correction
from model_organisms.records import VersionRef

VERSIONS = st.builds(
    VersionRef,
    st.integers(1, 999_999_999).map("organisms/toy/versions/{}".format),
    st.text("0123456789abcdef", min_size=64, max_size=64),
)
STATED = st.builds(
    Correction,
    version=VERSIONS,
    text=st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40).filter(str.strip),
    time=st.datetimes(datetime(2020, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)).map(  # noqa: DTZ001 - hypothesis adds the zone
        lambda when: when.replace(microsecond=0)
    ),
    nonce=st.text("0123456789abcdef", min_size=32, max_size=32),
    successor=st.none() | VERSIONS,
)
WRONG, RIGHT = VersionRef("organisms/toy/versions/3", "a" * 64), VersionRef("organisms/toy/versions/4", "b" * 64)
ONE = Correction(WRONG, "The card names layer 24; the bytes adapt 21.", datetime(2026, 5, 4, tzinfo=UTC), "0" * 32, RIGHT)


@given(STATED)
def test_what_is_printed_is_read_back(stated):
    assert parse_correction(print_correction(stated)) == stated


def changed(**fields):
    raw = json.loads(print_correction(ONE))
    raw["predicate"] |= fields
    return raw


def without(name):
    raw = changed()
    del raw["predicate"][name]
    return raw


TAMPERED = {
    "a field more": changed(level="CL1"),
    "a field fewer": without("nonce"),
    "another type": changed() | {"predicateType": "https://model-organisms.dev/attestation/review/v1"},
    "two versions": changed() | {"subject": changed()["subject"] * 2},
    "no version": changed() | {"subject": []},
    "an organism for a version": changed() | {"subject": [{"name": "organisms/toy", "digest": {"sha256": "a" * 64}}]},
    "a successor that is no version": changed(successor="organisms/toy"),
    "a successor's digest without a successor": changed(successor=""),
    "no words": changed(text=" \n"),
    "too many words": changed(text="x" * 2001),
    "a number for a text": changed(text=7),
    "a time with a fraction": changed(time="2026-05-04T00:00:00.5Z"),
    "a time in another zone": changed(time="2026-05-04T02:00:00+02:00"),
}


@pytest.mark.parametrize("how", TAMPERED)
def test_what_is_not_exactly_one_is_refused(how):
    with pytest.raises((InvalidArgument, InvalidName)):
        parse_correction(strict_json.canonical(TAMPERED[how]))


def test_only_the_canonical_bytes_are_one():
    for data in (json.dumps(changed()).encode(), print_correction(ONE) + b"\n", b"[]", b"\xff"):
        with pytest.raises(InvalidArgument):
            parse_correction(data)


def test_an_erratum_may_name_no_successor():
    alone = replace(ONE, successor=None)
    assert parse_correction(print_correction(alone)).successor is None
