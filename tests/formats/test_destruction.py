"""An attestation of destruction is printed in one way and read in that way only."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from model_organisms.errors import InvalidArgument
from model_organisms.formats import strict_json
from model_organisms.formats.destruction import Destruction, parse_destruction, print_destruction
from model_organisms.records import VersionRef

IDS = st.text("0123456789abcdefghjkmnpqrstvwxyz", min_size=26, max_size=26)
STATED = st.builds(
    Destruction,
    grant=IDS.map("grants/{}".format),
    version=st.builds(VersionRef, st.just("organisms/toy/versions/3"), st.text("0123456789abcdef", min_size=64, max_size=64)),
    pulls=st.sets(IDS.map("pulls/{}".format), min_size=1, max_size=5).map(lambda found: tuple(sorted(found))),
    how=st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40).filter(str.strip),
    time=st.datetimes(datetime(2020, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)).map(  # noqa: DTZ001 - hypothesis adds the zone
        lambda when: when.replace(microsecond=0)
    ),
    nonce=st.text("0123456789abcdef", min_size=32, max_size=32),
)
TOY = VersionRef("organisms/toy/versions/3", "a" * 64)
ONE = Destruction("grants/" + "1" * 26, TOY, ("pulls/" + "2" * 26,), "Shredded.", datetime(2026, 5, 4, tzinfo=UTC), "0" * 32)


@given(STATED)
def test_what_is_printed_is_read_back(stated):
    assert parse_destruction(print_destruction(stated)) == stated


def changed(**fields):
    raw = json.loads(print_destruction(ONE))
    raw["predicate"] |= fields
    return raw


def without(name):
    raw = changed()
    del raw["predicate"][name]
    return raw


TAMPERED = {
    "a field more": changed(witness="me"),
    "a field fewer": without("nonce"),
    "another type": changed() | {"predicateType": "https://model-organisms.dev/attestation/review/v1"},
    "two versions": changed() | {"subject": changed()["subject"] * 2},
    "no copy": changed(pulls=[]),
    "a copy twice": changed(pulls=[*ONE.pulls, *ONE.pulls]),
    "copies out of order": changed(pulls=["pulls/" + "3" * 26, *ONE.pulls]),
    "a number for a copy": changed(pulls=[7]),
    "a name that is no pull": changed(pulls=[ONE.grant]),
    "a name that is no grant": changed(grant=ONE.pulls[0]),
    "an organism for a version": changed() | {"subject": [{"name": "organisms/toy", "digest": {"sha256": "a" * 64}}]},
    "no words": changed(how=" "),
    "too many words": changed(how="x" * 2001),
    "a time with a fraction": changed(time="2026-05-04T00:00:00.5Z"),
    "a time in another zone": changed(time="2026-05-04T02:00:00+02:00"),
    "true for a text": changed(how=True),
}


@pytest.mark.parametrize("how", TAMPERED)
def test_what_is_not_exactly_one_is_refused(how):
    with pytest.raises(InvalidArgument):
        parse_destruction(strict_json.canonical(TAMPERED[how]))


def test_only_the_canonical_bytes_are_one():
    for data in (json.dumps(changed()).encode(), print_destruction(ONE) + b"\n", b"[]", b"\xff"):
        with pytest.raises(InvalidArgument):
            parse_destruction(data)
