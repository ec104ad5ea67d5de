"""Tokens that are good in all but one thing: each is refused at the check that is meant to, and leaves nothing behind."""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from dataclasses import replace

import pytest
from joserfc.jwk import ECKey
from model_organisms import errors

from tests.support.providers import encoded
from tests.support.refusals import refused

NOW = int(time.time())
STRANGER = ECKey.generate_key("P-256", {"kid": "one"})


@pytest.fixture
def stopped(trusting, show):
    """Show a token that must be refused at one check, by the class that belongs to it, without a trace."""

    def shown(make, check):
        before = trusting.registry.storage.log.size()
        with refused(errors.EnrolmentRefused, "log in again, or ask an admin of this registry") as caught:
            show(make)
        assert caught.value.details["check"] == check
        assert trusting.registry.storage.log.size() == before

    return shown


def test_the_tokens_forged_here_are_otherwise_good(identity_provider, show):
    made = show(lambda nonce: identity_provider.signed(identity_provider.claims(nonce)))
    assert made.user == "users/forged"


HEADERS = {
    "alg none with a signature": ("alg", {"alg": "none"}),
    "alg None in other letters": ("alg", {"alg": "NoNe"}),
    "no alg": ("alg", {"alg": None}),
    "alg is a list": ("alg", {"alg": ["ES256"]}),
    "an algorithm that this issuer is not configured for": ("alg", {"alg": "ES384"}),
    "RSA over the wrong key": ("alg", {"alg": "RS256"}),
    "unknown kid": ("kid", {"kid": "three"}),
    "kid that walks the file system": ("kid", {"kid": "../../../../dev/null"}),
    "kid that speaks SQL": ("kid", {"kid": "one' OR '1'='1"}),
    "kid is a list": ("kid", {"kid": ["one"]}),
    "kid of another algorithm's key": ("kid", {"kid": "two"}),
    "key injected by jwk": ("key", {"jwk": STRANGER.as_dict(private=False)}),
    "key injected by jku": ("key", {"jku": "https://attacker.example/keys"}),
    "key injected by x5u": ("key", {"x5u": "https://attacker.example/chain"}),
    "key injected by x5c": ("key", {"x5c": ["MIIB"]}),
    "crit that nobody knows": ("crit", {"crit": ["exp"]}),
    "crit that is empty": ("crit", {"crit": []}),
    "unencoded payload": ("crit", {"b64": False}),
    "access token shown for a person": ("typ", {"typ": "at+jwt"}),
    "logout token shown for a person": ("typ", {"typ": "logout+jwt"}),
    "typ is a number": ("typ", {"typ": 7}),
}


@pytest.mark.parametrize("attack", HEADERS)
def test_header(identity_provider, stopped, attack):
    check, header = HEADERS[attack]
    stopped(lambda nonce: identity_provider.signed(identity_provider.claims(nonce), **header), check)


CLAIMS = {
    "wrong audience": ("aud", {"aud": "another-client"}),
    "audience with a slash more": ("aud", {"aud": "model-organisms/"}),
    "two audiences": ("aud", {"aud": ["model-organisms", "another-client"]}),
    "no audience": ("aud", {"aud": None}),
    "empty audience": ("aud", {"aud": []}),
    "wrong issuer": ("iss", {"iss": "https://login.example.org"}),
    "no issuer": ("iss", {"iss": None}),
    "issuer is a list": ("iss", {"iss": ["https://login.example.org"]}),
    "expired": ("exp", {"exp": NOW - 3600}),
    "expired just beyond the skew": ("exp", {"exp": NOW - 61}),
    "no end": ("exp", {"exp": None}),
    "end as text": ("exp", {"exp": str(NOW + 300)}),
    "end is true": ("exp", {"exp": True}),
    "end is a list": ("exp", {"exp": [NOW + 300]}),
    "not valid yet": ("nbf", {"nbf": NOW + 3600}),
    "issued in the future": ("nbf", {"iat": NOW + 3600, "exp": NOW + 7200}),
    "begins at no number": ("nbf", {"nbf": "now"}),
    "issued long ago, with an end far off": ("iat", {"iat": NOW - 86400, "exp": NOW + 864000}),
    "no time of issue": ("iat", {"iat": None}),
    "no subject": ("sub", {"sub": None}),
    "empty subject": ("sub", {"sub": ""}),
    "subject is a number": ("sub", {"sub": 7}),
    "endless subject": ("sub", {"sub": "a" * 256}),
    "subject that writes log lines": ("sub", {"sub": "ada\nusers/admin enrolled"}),
    "subject of look-alike letters": ("sub", {"sub": "\u0430da"}),
    "token of another client": ("azp", {"azp": "another-client"}),
    "client is a list": ("azp", {"azp": ["model-organisms"]}),
    "no nonce": ("nonce", {"nonce": None}),
    "empty nonce": ("nonce", {"nonce": ""}),
    "nonce of other keys": ("nonce", {"nonce": "n" * 43}),
    "nonce is true": ("nonce", {"nonce": True}),
    "group that almost is one": ("account", {"groups": ["detection-lab", "Detection"]}),
    "groups nested": ("account", {"groups": [["detection"]]}),
    "groups as an object": ("account", {"groups": {"detection": True}}),
    "role claims that no rule reads": ("account", {"groups": ["admin"], "roles": ["admin", "reviewer"], "role": "admin"}),
    "no user name": ("username", {"preferred_username": None}),
    "user name of nothing": ("username", {"preferred_username": "../.."}),
    "user name that is a list": ("username", {"preferred_username": ["ada"]}),
    "endless user name": ("username", {"preferred_username": "a" * 64}),
    "user name of look-alike letters": ("username", {"preferred_username": "\u0430dmin"}),
}


@pytest.mark.parametrize("attack", CLAIMS)
def test_claim(identity_provider, stopped, attack):
    check, changes = CLAIMS[attack]
    stopped(lambda nonce: identity_provider.signed(identity_provider.claims(nonce, **({"sub": "eve"} | changes))), check)


def test_alg_none_without_a_signature(identity_provider, stopped):
    def unsigned(nonce):
        head = encoded(json.dumps({"alg": "none"}).encode())
        return f"{head}.{encoded(json.dumps(identity_provider.claims(nonce)).encode())}."

    stopped(unsigned, "signature")


def public_keys(provider):
    key = provider.keys["ES256"]
    return [key.as_pem(private=False), json.dumps(key.as_dict(private=False)).encode(), b""]


@pytest.mark.parametrize("known", range(3))
def test_key_confusion_the_public_key_as_a_shared_secret(identity_provider, stopped, known):
    def mac(nonce):
        head = encoded(json.dumps({"alg": "HS256", "kid": "one"}).encode())
        signed = f"{head}.{encoded(json.dumps(identity_provider.claims(nonce)).encode())}"
        secret = public_keys(identity_provider)[known]
        return f"{signed}.{encoded(hmac.digest(secret, signed.encode(), hashlib.sha256))}"

    stopped(mac, "alg")


def test_signed_by_a_stranger_under_the_providers_key_name(identity_provider, stopped):
    stranger = replace(identity_provider, keys={"ES256": STRANGER})
    stopped(lambda nonce: stranger.signed(stranger.claims(nonce)), "signature")


@pytest.mark.parametrize("part", range(3))
def test_a_part_of_another_good_token(identity_provider, stopped, part):
    def mixed(nonce):
        one = identity_provider.signed(identity_provider.claims(nonce), kid="one").split(".")
        other = identity_provider.signed(identity_provider.claims(nonce, sub="mallory"), kid=None, typ=None).split(".")
        return ".".join(other[index] if index == part else one[index] for index in range(3))

    stopped(mixed, "signature")


SIGNATURES = {
    "zero": bytes(64),
    "beyond the order": b"\xff" * 64,
    "r is zero": bytes(63) + b"\1",
    "one byte": b"\0",
    "a byte more": bytes(65),
    "very long": bytes(2048),
}


@pytest.mark.parametrize("attack", SIGNATURES)
def test_signature_of_no_key(identity_provider, stopped, attack):
    signature = SIGNATURES[attack]
    stopped(
        lambda nonce: f"{identity_provider.signed(identity_provider.claims(nonce)).rpartition('.')[0]}.{encoded(signature)}",
        "signature",
    )


PAYLOADS = {
    "claim said twice": lambda text: text[:-1] + b', "sub": "admin"}',
    "claim said twice, once escaped": lambda text: text[:-1] + b', "\\u0073ub": "admin"}',
    "NaN": lambda text: text[:-1] + b', "nbf": NaN}',
    "endless number": lambda text: text[:-1] + b', "nbf": 1' + b"0" * 400 + b"}",
    "nested beyond sense": lambda text: text[:-1] + b', "x": ' + b"[" * 500 + b"]" * 500 + b"}",
    "a list": lambda text: b"[" + text + b"]",
    "no JSON": lambda text: text[:-1],
    "not UTF-8": lambda text: text[:-1] + b', "x": "\xff"}',
    "half a character": lambda text: text[:-1] + b', "x": "\\ud800"}',
    "two values": lambda text: text + text,
    "a byte order mark": lambda text: b"\xef\xbb\xbf" + text,
}


@pytest.mark.parametrize("attack", PAYLOADS)
def test_payload(identity_provider, stopped, attack):
    spoilt = PAYLOADS[attack]
    stopped(
        lambda nonce: identity_provider.signed(spoilt(json.dumps(identity_provider.claims(nonce)).encode())),
        "form",
    )


SPELLINGS = {
    "padding": lambda token: token + "=",
    "white space": lambda token: token.replace(".", ". "),
    "newline": lambda token: token + "\n",
    "the other alphabet": lambda token: token[:-4] + "+/+/",
    "bits that say nothing": lambda token: token[:-1] + chr(ord(token[-1]) + 1),
    "two parts": lambda token: token.rpartition(".")[0],
    "four parts": lambda token: token + ".e30",
    "five parts, as if it were encrypted": lambda token: token + ".e30.e30",
    "empty header": lambda token: token[token.index(".") :],
    "not ASCII": lambda token: token[:-1] + "\u00e9",
}


@pytest.mark.parametrize("attack", SPELLINGS)
def test_spelling(identity_provider, stopped, attack):
    stopped(lambda nonce: SPELLINGS[attack](identity_provider.signed(identity_provider.claims(nonce))), "form")


def test_oversize_token(trusting, identity_provider, show):
    before = trusting.registry.storage.log.size()
    with refused(errors.InvalidArgument, "token"):
        show(lambda nonce: identity_provider.signed(identity_provider.claims(nonce, padding="x" * 9000)))
    assert trusting.registry.storage.log.size() == before
