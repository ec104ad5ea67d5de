"""Webhook signatures: the specification's own example, what is signed is what is read, and nothing else passes."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from model_organisms.errors import ConfigurationInvalid, SignatureInvalid
from model_organisms.formats import webhooks

KEY = bytes(range(32))
NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)
BODY = b'{"type":"access.grant"}'


def test_the_example_of_the_specification():
    """From the reference libraries of Standard Webhooks, which all carry it."""
    key = webhooks.parse_secret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    headers = webhooks.sign(
        b'{"test": 2432232314}', identifier="msg_p5jXN8AQM9LWM0D4loKWxJek", time=datetime.fromtimestamp(1614265330, UTC), key=key
    )
    assert headers[webhooks.SIGNATURE] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@given(st.binary(max_size=99), st.from_regex(r"[0-9a-z]{26}", fullmatch=True), st.binary(min_size=24, max_size=64))
def test_what_is_signed_is_read_and_nothing_else(body, identifier, key):
    headers = webhooks.sign(body, identifier=identifier, time=NOW, key=key)
    assert webhooks.verify(headers, body, key=key, now=NOW) == identifier
    assert webhooks.parse_secret(webhooks.print_secret(key)) == key
    with pytest.raises(SignatureInvalid):
        webhooks.verify(headers, body + b" ", key=key, now=NOW)


HEADERS = webhooks.sign(BODY, identifier="id", time=NOW, key=KEY)


@pytest.mark.parametrize(
    "changed",
    [
        {webhooks.ID: "other"},
        {webhooks.ID: ""},
        {webhooks.TIMESTAMP: str(int(NOW.timestamp()) + 1)},
        {webhooks.TIMESTAMP: ""},
        {webhooks.TIMESTAMP: "1e9"},
        {webhooks.TIMESTAMP: "\uff11"},
        {webhooks.SIGNATURE: ""},
        {webhooks.SIGNATURE: HEADERS[webhooks.SIGNATURE].replace("v1,", "v1a,")},
        {webhooks.SIGNATURE: HEADERS[webhooks.SIGNATURE][:-2]},
        {webhooks.SIGNATURE: "v1,\u00e9"},
    ],
)
def test_a_changed_header_is_refused(changed):
    with pytest.raises(SignatureInvalid):
        webhooks.verify(HEADERS | changed, BODY, key=KEY, now=NOW)


def test_one_of_several_signatures_will_do_while_a_key_is_changed():
    old = webhooks.sign(BODY, identifier="id", time=NOW, key=bytes(32))[webhooks.SIGNATURE]
    both = HEADERS | {webhooks.SIGNATURE: f"{old} {HEADERS[webhooks.SIGNATURE]}"}
    assert webhooks.verify(both, BODY, key=KEY, now=NOW) == "id"


@pytest.mark.parametrize("minutes", [6, -6])
def test_a_recording_is_refused(minutes):
    with pytest.raises(SignatureInvalid, match="another time"):
        webhooks.verify(HEADERS, BODY, key=KEY, now=NOW + timedelta(minutes=minutes))


@pytest.mark.parametrize("key", [b"x" * 23, b"x" * 65])
def test_a_secret_of_another_length_is_none(key):
    with pytest.raises(ConfigurationInvalid):
        webhooks.parse_secret(webhooks.print_secret(key))


@pytest.mark.parametrize("text", ["", "whsec_", base64.b64encode(KEY).decode(), "whsec_!!!!", "whsec_" + "\u00e9" * 40])
def test_a_text_that_is_no_secret(text):
    with pytest.raises(ConfigurationInvalid):
        webhooks.parse_secret(text)
