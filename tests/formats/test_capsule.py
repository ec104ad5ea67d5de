"""Capsules: what was sealed opens, in our own code and in an independent one, and headers are read as strictly as printed."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from model_organisms.errors import CapsuleInvalid, InvalidArgument
from model_organisms.formats import dsse
from model_organisms.formats.capsule import (
    INFO,
    MAGIC,
    PAYLOAD_TYPE,
    body_associated_data,
    body_secrets,
    commit_key,
    generate_sealing_key,
    head_length,
    open_head,
    seal_head,
)
from model_organisms.formats.sealing_keys import check_sealing_public, open_key, seal_key, sealing_public
from model_organisms.formats.streaming import Sealer
from model_organisms.records import Level

from tests.support.capsules import HEADER, NOW, PUBLIC, RELEASE, SEED, make_capsule, open_capsule
from tests.support.hpke import open_single, schedule, xwing_decapsulate
from tests.support.tink import tink_open

VECTOR = {
    name: bytes.fromhex(value) if isinstance(value, str) and name != "source" else value
    for name, value in json.loads((Path(__file__).parents[1] / "vectors" / "hpke_xwing.json").read_text()).items()
}
PLAIN = b"not really weights" * 99


def test_the_independent_opener_agrees_with_the_published_vector():
    assert xwing_decapsulate(VECTOR["skRm"], VECTOR["enc"]) == VECTOR["shared_secret"]
    assert schedule(VECTOR["shared_secret"], VECTOR["info"]) == (VECTOR["key"], VECTOR["base_nonce"], VECTOR["exporter_secret"])
    first = {name: bytes.fromhex(value) for name, value in VECTOR["encryption"].items()}
    assert open_single(VECTOR["skRm"], VECTOR["enc"] + first["ct"], VECTOR["info"], first["aad"]) == first["pt"]


def test_our_public_key_is_the_published_one():
    assert sealing_public(VECTOR["skRm"]) == VECTOR["pkRm"]


@settings(max_examples=20, deadline=None)
@given(seed=st.binary(min_size=32, max_size=32), key=st.binary(min_size=32, max_size=32), info=st.binary(max_size=100))
def test_a_sealed_key_opens_here_and_in_the_independent_opener(seed, key, info):
    sealed = seal_key(key, sealing_public(seed), info=info)
    assert open_key(sealed, seed, info=info) == key
    assert open_single(seed, sealed, info) == key


def test_a_capsule_is_made_of_what_the_format_says():
    capsule = make_capsule(PLAIN)
    assert capsule.head.startswith(MAGIC)
    length = int.from_bytes(capsule.head[8:12], "big")
    printed, signature = capsule.head[12 : 12 + length], capsule.head[12 + length : 76 + length]
    RELEASE.public_key().verify(signature, dsse.pae(printed, PAYLOAD_TYPE))
    assert json.dumps(json.loads(printed), sort_keys=True, separators=(",", ":")).encode() == printed
    before, sealed = capsule.head[: 76 + length], capsule.head[76 + length :]
    body_key = open_single(SEED, sealed, INFO + hashlib.sha256(before).digest())
    header, opened, start = _open(capsule.head)
    assert (opened, start) == (body_key, len(capsule.head))
    assert header == replace(capsule.header, recipient_key=dsse.key_id(PUBLIC), key_commitment=commit_key(body_key, "ab" * 32))
    assert tink_open(body_key, capsule.body, body_associated_data(header)) == PLAIN


def _open(data, **changes):
    asked = {
        "recipient_private": SEED,
        "release_public": RELEASE.public_key().public_bytes_raw(),
        "origin": HEADER.origin,
        "version_digest": HEADER.version_digest,
        "grant": HEADER.grant,
        "level": HEADER.level,
        "now": NOW,
    }
    return open_head(data, **(asked | changes))


@pytest.mark.parametrize("size", [0, 1, 1 << 20, (2 << 20) + 77])
def test_what_was_sealed_opens(size):
    plain = bytes(size)
    capsule = make_capsule(plain)
    header, opened = open_capsule(capsule.head + capsule.body)
    assert opened == plain
    assert header.pull == HEADER.pull


def test_an_unmarked_body_is_bound_to_the_version_alone_and_a_marked_one_to_its_pull():
    digest = bytes.fromhex(HEADER.version_digest)
    assert body_associated_data(replace(HEADER, fingerprint="")) == digest
    assert body_associated_data(HEADER) == digest + HEADER.pull.encode()


times = st.datetimes(datetime(2000, 1, 1), datetime(2200, 1, 1)).map(lambda time: time.replace(microsecond=0, tzinfo=UTC))  # noqa: DTZ001 - hypothesis draws naive times
digests = st.binary(min_size=32, max_size=32).map(bytes.hex)
opaque = st.text("0123456789abcdefghjkmnpqrstvwxyz", min_size=26, max_size=26)


@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_headers_come_back_as_they_were(data):
    issued = data.draw(times)
    header = replace(
        HEADER,
        origin=data.draw(st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=255)),
        version_digest=data.draw(digests),
        level=data.draw(st.sampled_from([Level.CL1, Level.CL2, Level.CL3])),
        grant="grants/" + data.draw(opaque),
        pull="pulls/" + data.draw(opaque),
        plain_size=data.draw(st.integers(0, 1 << 40)),
        issued=issued,
        not_after=issued + timedelta(seconds=data.draw(st.integers(1, 10**9))),
        fingerprint=data.draw(st.one_of(st.just(""), digests)),
    )
    head = seal_head(header, bytes(32), recipient_public=PUBLIC, release_key=RELEASE)
    seen, _, _ = _open(
        head,
        origin=header.origin,
        version_digest=header.version_digest,
        grant=header.grant,
        level=header.level,
        now=issued,
    )
    assert replace(seen, recipient_key="", key_commitment="") == header


@pytest.mark.parametrize(
    "change",
    [
        {"level": Level.CL4},
        {"origin": ""},
        {"origin": "a\nb"},
        {"origin": "é"},
        {"origin": "x" * 256},
        {"organism": "organisms/../x"},
        {"version_digest": "AB" * 32},
        {"version_digest": "ab"},
        {"grant": "grants/1"},
        {"pull": ""},
        {"plain_size": -1},
        {"plain_size": 1 << 60},
        {"fingerprint": "zz" * 32},
        {"not_after": NOW},
        {"issued": NOW.replace(tzinfo=None)},
        {"issued": NOW.replace(microsecond=1)},
    ],
)
def test_a_header_that_no_capsule_may_have_is_not_sealed(change):
    with pytest.raises(InvalidArgument):
        seal_head(replace(HEADER, **change), bytes(32), recipient_public=PUBLIC, release_key=RELEASE)


def test_keys_of_the_wrong_size_are_refused():
    with pytest.raises(InvalidArgument):
        seal_head(HEADER, bytes(16), recipient_public=PUBLIC, release_key=RELEASE)
    with pytest.raises(InvalidArgument):
        sealing_public(bytes(31))
    for public in (b"", PUBLIC[:-1], PUBLIC + b"\0", b"\xff" * 1216):
        with pytest.raises(InvalidArgument):
            check_sealing_public(public)


def test_sealing_keys_are_fresh_and_whole():
    first, second = generate_sealing_key(), generate_sealing_key()
    assert first != second
    assert [len(part) for part in first] == [32, 1216]
    check_sealing_public(first[1])


def test_a_marked_body_is_sealed_alike_twice_and_otherwise_for_other_bytes():
    secret = bytes(range(32))
    first = body_secrets(secret, plaintext_id=b"\x01" * 32)
    assert body_secrets(secret, plaintext_id=b"\x01" * 32) == first
    other = body_secrets(secret, plaintext_id=b"\x02" * 32)
    assert not set(first) & set(other)
    streams = [b"".join(Sealer(s.key, b"", salt=s.salt, nonce_prefix=s.nonce_prefix).from_memory(PLAIN)) for s in (first, first)]
    assert streams[0] == streams[1]


def test_a_heads_length_is_known_from_its_first_twelve_bytes():
    head = make_capsule(PLAIN).head
    assert [head_length(head[:n]) for n in (0, 5, 11)] == [None] * 3
    assert {head_length(head[:n]) for n in range(12, len(head))} == {len(head)}
    for wrong in (b"X", MAGIC[:-1] + b"X", MAGIC + b"\xff\xff\xff\xff"):
        with pytest.raises(CapsuleInvalid):
            head_length(wrong)
