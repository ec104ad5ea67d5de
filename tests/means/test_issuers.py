"""Keys of identity providers: fetched from the right place only, within bounds, and not more often than is decent."""

from __future__ import annotations

import ipaddress
import json
import ssl
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from joserfc.errors import SecurityWarning
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey
from model_organisms import errors
from model_organisms_registry import issuers
from model_organisms_registry.config import AccountRule, Issuer
from model_organisms_registry.issuers import Issuers

from tests.support.pages import serving
from tests.support.providers import IdentityProvider
from tests.support.refusals import quick, refused

NONCE, DISCOVERY = "n" * 43, "/.well-known/openid-configuration"
ALGORITHMS = ("ES256", "ES384", "Ed25519", "RS256", "PS256")


@pytest.fixture
def pages():
    with serving() as made:
        yield made


@pytest.fixture
def provider(pages):
    """A provider whose every answer a test may change."""
    keys = {
        "ES256": ECKey.generate_key("P-256", {"kid": "one"}),
        "ES384": ECKey.generate_key("P-384", {"kid": "wide"}),
        "Ed25519": OKPKey.generate_key("Ed25519", {"kid": "edwards"}),
    }
    pages.said = {
        DISCOVERY: {"issuer": pages.address, "jwks_uri": f"{pages.address}/keys"},
        "/keys": {"keys": [key.as_dict(private=False) for key in keys.values()]},
    }
    return IdentityProvider(pages.address, keys)


def trusting(address, folder=Path("/nowhere"), **changes):
    told = {"client_id": "model-organisms", "algorithms": ALGORITHMS, "insecure_loopback": True, "timeout_s": 2.0}
    rule = AccountRule("groups", "detection", "lab")
    return Issuers([Issuer(address, **(told | changes), accounts=(rule,))], folder)


def verify(trusted, provider, *, later=timedelta(), algorithm="ES256", **header):
    text = provider.signed(provider.claims(NONCE), algorithm, **header)
    return trusted.verify(text, nonce=NONCE, now=datetime.now(UTC) + later)


@pytest.mark.parametrize("algorithm", ["ES256", "ES384", "Ed25519"])
def test_each_algorithm_is_verified_with_its_own_key(pages, provider, algorithm):
    token, issuer = verify(trusting(pages.address), provider, algorithm=algorithm)
    assert (token.claims["sub"], issuer.issuer) == ("forged", pages.address)


def test_keys_are_kept_and_asked_for_again_after_a_while(pages, provider):
    trusted = trusting(pages.address)
    for later in (0, 1, 2):
        verify(trusted, provider, later=timedelta(seconds=later))
    assert pages.asked == [DISCOVERY, "/keys"]
    with refused(errors.EnrolmentRefused, "expired|older"):
        verify(trusted, provider, later=timedelta(minutes=11))
    assert pages.asked == [DISCOVERY, "/keys"] * 2


def test_a_new_key_is_found_and_an_unknown_one_does_not_pester_the_provider(pages, provider):
    trusted = trusting(pages.address)
    verify(trusted, provider)
    provider.keys["ES256"] = ECKey.generate_key("P-256", {"kid": "rotated"})
    pages.said["/keys"] = {"keys": [provider.keys["ES256"].as_dict(private=False)]}
    for _ in range(20):
        with refused(errors.EnrolmentRefused, "key is not one of its issuer"):
            verify(trusted, provider, kid="forged")
    assert pages.asked == [DISCOVERY, "/keys"]
    verify(trusted, provider, later=timedelta(seconds=31))
    assert pages.asked == [DISCOVERY, "/keys"] * 2


def test_a_key_that_was_taken_back_counts_for_nothing_after_ten_minutes(pages, provider):
    trusted = trusting(pages.address, token_age_s=3600.0)
    text = provider.signed(provider.claims(NONCE, exp=int(time.time()) + 3600))
    trusted.verify(text, nonce=NONCE, now=datetime.now(UTC))
    pages.said["/keys"] = {"keys": []}
    with refused(errors.EnrolmentRefused, "key is not one of its issuer"):
        trusted.verify(text, nonce=NONCE, now=datetime.now(UTC) + timedelta(minutes=11))


def without(key, *names, **more):
    data = key.as_dict(private=False) | more
    return {name: value for name, value in data.items() if name not in names}


def test_a_token_without_a_key_id_is_verified_where_a_single_key_fits(pages, provider):
    verify(trusting(pages.address), provider, kid=None)
    pages.said["/keys"]["keys"].append(ECKey.generate_key("P-256", {"kid": "second"}).as_dict(private=False))
    with refused(errors.EnrolmentRefused, "key is not one of its issuer"):
        verify(trusting(pages.address), provider, kid=None)


SECRET = OctKey.generate_key(256, {"kid": "one"})
KEYS = {
    "none": lambda _: [],
    "a secret": lambda _: [SECRET.as_dict()],
    "for encryption": lambda key: [without(key, use="enc")],
    "for another algorithm": lambda key: [without(key, alg="ES384")],
    "of another curve": lambda _: [without(ECKey.generate_key("P-384"), kid="one")],
    "of another kind": lambda _: [without(OKPKey.generate_key("Ed25519"), kid="one")],
    "off the curve": lambda key: [without(key, x=key.as_dict()["y"])],
    "without a curve": lambda key: [without(key, "crv")],
    "without a kind": lambda key: [without(key, "kty")],
    "two of one name": lambda key: [without(key), without(ECKey.generate_key("P-256"), kid="one")],
    "no objects": lambda _: ["one", None, 7],
    "a name that is no text": lambda key: [without(key, kid=["one"])],
    "not a list": lambda key: {"one": without(key)},
}


@pytest.mark.parametrize("kind", KEYS)
def test_what_is_no_key_for_the_algorithm_is_not_used(pages, provider, kind):
    pages.said["/keys"] = {"keys": KEYS[kind](provider.keys["ES256"])}
    with refused(errors.EnrolmentRefused, "log in again"):
        verify(trusting(pages.address), provider)


def test_a_short_rsa_key_is_not_used(pages, provider):
    with pytest.warns(SecurityWarning):
        weak = RSAKey.generate_key(1024, {"kid": "weak"})
    pages.said["/keys"] = {"keys": [weak.as_dict(private=False)]}
    with pytest.warns(SecurityWarning), refused(errors.EnrolmentRefused, "key is not one of its issuer"):
        verify(trusting(pages.address), replace(provider, keys={"RS256": weak}), algorithm="RS256")


LIES = {
    "another issuer": lambda pages: {"issuer": "https://login.example.org", "jwks_uri": f"{pages.address}/keys"},
    "an issuer with a slash more": lambda pages: {"issuer": f"{pages.address}/", "jwks_uri": f"{pages.address}/keys"},
    "no issuer": lambda pages: {"jwks_uri": f"{pages.address}/keys"},
    "no keys": lambda pages: {"issuer": pages.address},
    "keys in a file": lambda pages: {"issuer": pages.address, "jwks_uri": "file:///etc/passwd"},
    "keys on a plain page elsewhere": lambda pages: {"issuer": pages.address, "jwks_uri": "http://login.example.org/keys"},
    "keys at a name that only begins like loopback": lambda pages: {
        "issuer": pages.address,
        "jwks_uri": "http://127.0.0.1.example.org/",
    },
    "keys behind a password": lambda pages: {"issuer": pages.address, "jwks_uri": "http://a:b@127.0.0.1/keys"},
    "a list": lambda _: [],
    "no JSON": lambda _: b"<html>",
    "one thing twice": lambda _: b'{"issuer": "a", "issuer": "b"}',
    "too much": lambda _: b'{"x": "' + b"x" * (1 << 20) + b'"}',
    "depths": lambda _: b"[" * 100_000,
    "nothing": lambda _: b"",
}


@pytest.mark.parametrize("lie", LIES)
def test_a_provider_that_makes_no_sense_lets_nobody_in(pages, provider, lie):
    pages.said[DISCOVERY] = LIES[lie](pages)
    trusted = trusting(pages.address)
    with refused(errors.Unavailable, "try again in a minute"):
        verify(trusted, provider)
    with refused(errors.Unavailable, "try again in a minute"):  # and it is not asked again at once
        verify(trusted, provider)
    assert pages.asked == [DISCOVERY]


@pytest.mark.parametrize("path", [DISCOVERY, "/keys"])
@pytest.mark.parametrize("status", [301, 302, 307, 404, 500])
def test_redirects_and_failures_are_not_followed(pages, provider, path, status):
    pages.status[path] = (status, f"{pages.address}/elsewhere")
    with refused(errors.Unavailable, "try again in a minute"):
        verify(trusting(pages.address), provider)
    assert "/elsewhere" not in pages.asked


def test_a_provider_that_drips_is_given_up(pages, provider):
    pages.drip_s = 0.1
    trusted = trusting(pages.address, timeout_s=0.5)
    with refused(errors.Unavailable, "try again in a minute"):
        quick(lambda: verify(trusted, provider), within_s=8.0)


def test_nobody_waits_long_behind_a_provider_that_hangs(pages, provider, monkeypatch):
    monkeypatch.setattr(issuers, "_WAIT_S", 0.1)
    pages.drip_s = 0.3
    slow = trusting(pages.address, timeout_s=3.0)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(verify, slow, provider)
        while not pages.asked:
            time.sleep(0.01)
        with refused(errors.Unavailable, "try again in a minute"):
            verify(slow, provider)
        assert not first.done()
        with refused(errors.Unavailable, "try again in a minute"):
            first.result()


def test_a_provider_that_is_away_is_asked_again_when_it_is_back(pages, provider):
    trusted, said = trusting(pages.address), pages.said[DISCOVERY]
    pages.status[DISCOVERY] = (503, "")
    with refused(errors.Unavailable, "try again in a minute"):
        verify(trusted, provider)
    pages.status.clear()
    pages.said[DISCOVERY] = said
    verify(trusted, provider, later=timedelta(seconds=6))


def test_no_key_is_asked_for_when_a_token_cannot_be_good(pages, provider):
    trusted = trusting(pages.address)
    for header in ({"alg": "none"}, {"alg": "HS256"}, {"jku": f"{pages.address}/keys"}, {"typ": "at+jwt"}):
        with refused(errors.EnrolmentRefused, "log in again"):
            verify(trusted, provider, **header)
    with refused(errors.EnrolmentRefused, "does not trust"):
        trusted.verify(provider.signed(provider.claims(NONCE, iss=f"{pages.address}/")), nonce=NONCE, now=datetime.now(UTC))
    assert pages.asked == []


def own_authority(folder, host):
    """A TLS server's certificate for one address, self-signed, and how to serve with it."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "provider")])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(7)
    builder = builder.not_valid_before(now - timedelta(hours=1)).not_valid_after(now + timedelta(hours=1))
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(host))])
    certificate = builder.add_extension(names, critical=False).sign(key, hashes.SHA256())
    pem, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    (folder / "key.pem").write_bytes(key.private_bytes(pem, form, serialization.NoEncryption()))
    (folder / "ca.pem").write_bytes(certificate.public_bytes(pem))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "ca.pem", folder / "key.pem")
    return context


@pytest.mark.parametrize(
    ("host", "authority", "taken"), [("127.0.0.1", True, True), ("127.0.0.1", False, False), ("127.0.0.2", True, False)]
)
def test_over_tls_the_provider_must_show_a_certificate_of_a_trusted_authority_in_its_name(tmp_path, host, authority, taken):
    with serving(own_authority(tmp_path, host)) as pages:
        key = ECKey.generate_key("P-256", {"kid": "one"})
        pages.said = {
            DISCOVERY: {"issuer": pages.address, "jwks_uri": f"{pages.address}/keys"},
            "/keys": {"keys": [key.as_dict(private=False)]},
        }
        provider = IdentityProvider(pages.address, {"ES256": key})
        trusted = trusting(pages.address, tmp_path, insecure_loopback=False, authority="ca.pem" if authority else "")
        if taken:
            verify(trusted, provider)
        else:
            with refused(errors.Unavailable, "try again in a minute"):
                verify(trusted, provider)
            assert pages.asked == []


def test_an_authority_that_cannot_be_read_is_told_at_start(tmp_path):
    (tmp_path / "ca.pem").write_text(json.dumps({}))
    for path in (tmp_path / "ca.pem", tmp_path / "absent.pem"):
        with refused(errors.ConfigurationInvalid, "name a PEM file"):
            trusting("https://login.example.org", authority=str(path))
