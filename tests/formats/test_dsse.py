"""DSSE envelopes: what is signed comes back, and nothing else does."""

from __future__ import annotations

import base64
import json

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from model_organisms.errors import InvalidProvenance, SignatureInvalid
from model_organisms.formats import dsse

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = KEY.public_key().public_bytes_raw()
OTHER = Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))
TYPE = "application/vnd.in-toto+json"
ENVELOPE = dsse.sign(b'{"a":1}', TYPE, KEY)


def test_encoding_is_that_of_the_specification():
    # The example of the DSSE protocol document.
    assert dsse.pae(b"hello world", "http://example.com/HelloWorld") == b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"


@given(payload=st.binary(max_size=200), kind=st.text(max_size=40))
def test_what_was_signed_comes_back(payload, kind):
    envelope = dsse.sign(payload, kind, KEY)
    assert dsse.verify(envelope, PUBLIC, payload_type=kind) == payload


@given(st.integers(0, len(ENVELOPE) * 8 - 1))
def test_no_flipped_bit_passes(bit):
    broken = bytearray(ENVELOPE)
    broken[bit // 8] ^= 1 << bit % 8
    with pytest.raises((SignatureInvalid, InvalidProvenance)):
        dsse.verify(bytes(broken), PUBLIC, payload_type=TYPE)


def test_another_key_and_another_type_are_refused():
    with pytest.raises(SignatureInvalid, match="someone else"):
        dsse.verify(ENVELOPE, OTHER.public_key().public_bytes_raw(), payload_type=TYPE)
    with pytest.raises(SignatureInvalid, match="not application/other"):
        dsse.verify(ENVELOPE, PUBLIC, payload_type="application/other")


def test_a_forged_key_id_does_not_help():
    fields = json.loads(dsse.sign(b"x", TYPE, OTHER))
    fields["signatures"][0]["keyid"] = dsse.key_id(PUBLIC)
    with pytest.raises(SignatureInvalid, match="does not verify"):
        dsse.verify(json.dumps(fields).encode(), PUBLIC, payload_type=TYPE)


def test_one_bad_signature_of_the_key_spoils_a_good_one():
    fields = json.loads(ENVELOPE)
    fields["signatures"].append({"keyid": dsse.key_id(PUBLIC), "sig": base64.b64encode(bytes(64)).decode()})
    with pytest.raises(SignatureInvalid):
        dsse.verify(json.dumps(fields).encode(), PUBLIC, payload_type=TYPE)


def test_other_peoples_signatures_beside_ours_are_no_obstacle():
    fields = json.loads(ENVELOPE)
    fields["signatures"].insert(0, {"keyid": "someone", "sig": base64.b64encode(bytes(64)).decode()})
    assert dsse.verify(json.dumps(fields).encode(), PUBLIC, payload_type=TYPE) == b'{"a":1}'


@pytest.mark.parametrize(
    "envelope",
    [
        b"",
        b"{}",
        b"[]",
        b"null",
        b"\xff",
        b"[" * 100_000,
        b'{"payload":"","payload":"","payloadType":"t","signatures":[]}',
        b'{"payload":"","payloadType":"t","signatures":[]}',
        b'{"payload":"","payloadType":1,"signatures":[{"sig":""}]}',
        b'{"payload":"YQ","payloadType":"t","signatures":[{"sig":""}]}',
        b'{"payload":"YR==","payloadType":"t","signatures":[{"sig":""}]}',
        b'{"payload":"","payloadType":"t","signatures":[{"sig":"","cert":""}]}',
        b'{"payload":"","payloadType":"t","signatures":[7]}',
        b'{"payload":"","payloadType":"t","signatures":[' + b",".join([b'{"sig":""}'] * 17) + b"]}",
        b" " * (dsse.MAX_ENVELOPE + 1),
    ],
)
def test_what_is_no_envelope_is_refused(envelope):
    with pytest.raises(InvalidProvenance):
        dsse.verify(envelope, PUBLIC, payload_type="t")


def test_a_payload_can_be_read_without_believing_who_signed_it():
    envelope = dsse.sign(b"{}", "application/test", Ed25519PrivateKey.generate())
    assert dsse.unsafe_payload(envelope, payload_type="application/test") == b"{}"
    for wrong in ({"payload_type": "application/other"}, {"payload_type": ""}):
        with pytest.raises(InvalidProvenance, match="ask for the document"):
            dsse.unsafe_payload(envelope, **wrong)
    with pytest.raises(InvalidProvenance, match="not a DSSE envelope"):
        dsse.unsafe_payload(b"{}", payload_type="application/test")
