"""Tickets: what an admin hands over is read back whole, and anything else is no ticket."""

from __future__ import annotations

import base64
import json
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st
from model_organisms.errors import EnrolmentRefused
from model_organisms.formats.enrolment import Ticket, enrolment_statement, renewal_statement, token_nonce, token_statement


def authority():
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(1)
    builder = builder.not_valid_before(now).not_valid_after(now + timedelta(days=1))
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


TICKET = Ticket("localhost:7600", "localhost:7601", authority(), "CODE-1234")
WORD = str(TICKET)


def written(values):
    data = values if isinstance(values, bytes) else json.dumps(values).encode()
    return "mo1." + base64.urlsafe_b64encode(data).decode().rstrip("=")


def test_a_ticket_is_read_back_however_it_was_pasted():
    assert Ticket.parse(WORD) == TICKET
    assert Ticket.parse(f"  {WORD[:40]}\n {WORD[40:]}\r\n") == TICKET


@pytest.mark.parametrize(
    "text",
    [
        "",
        "mo1.",
        WORD[:-9],
        WORD + "A",
        WORD.replace("mo1.", "mo2."),
        WORD[:50] + "!" + WORD[50:],
        "é" * 40,
        written(b"\xff"),
        written(b"[" * 9000),
        written(b"[" * 1_000_000),
        written([]),
        written({}),
        written(asdict(TICKET) | {"admin": True}),
        written({key: value for key, value in asdict(TICKET).items() if key != "code"}),
        written(asdict(TICKET) | {"registry": {"host": "evil"}}),
        written(asdict(TICKET) | {"code": 7}),
        written(asdict(TICKET) | {"authority": None}),
        written(asdict(TICKET) | {"authority": "-----BEGIN CERTIFICATE-----\n"}),
        written(b'{"code":"a",' + json.dumps(asdict(TICKET)).encode()[1:]),
    ],
)
def test_anything_else_is_no_ticket(text):
    with pytest.raises(EnrolmentRefused, match="paste"):
        Ticket.parse(text)


@given(st.binary(max_size=40), st.binary(max_size=40), st.text(st.characters(codec="ascii"), max_size=20))
def test_statements_bind_each_part_in_its_place(request, sealing, code):
    stated = enrolment_statement(code, request, sealing)
    assert stated == enrolment_statement(code, request, sealing)
    if request != sealing:
        assert stated != enrolment_statement(code, sealing, request)
    assert stated != token_statement(code, request, sealing) != token_statement(code + " ", request, sealing)
    assert stated != renewal_statement(request)
    assert renewal_statement(request) != renewal_statement(request + b"\0")


def test_a_public_ticket_has_no_code():
    public = replace(TICKET, code="")
    assert Ticket.parse(str(public)) == public


@given(st.lists(st.binary(max_size=40), min_size=3, max_size=3), st.lists(st.binary(max_size=40), min_size=3, max_size=3))
def test_a_nonce_names_its_keys_and_no_others(one, other):
    assert (token_nonce(*one) == token_nonce(*other)) == (one == other)
    assert len(token_nonce(*one)) == 43


def test_the_nonce_of_known_keys_is_this_one():
    assert token_nonce(b"request", b"identity", b"sealing") == "zVtDGwObcA7XhZJo_bIjZiqlAG8XkrKBCP6h2HdulMo"
