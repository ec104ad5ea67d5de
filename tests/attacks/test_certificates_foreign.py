"""Certificates that the registry never issued, or not for this: each is refused, by the transport or the door, without a trace.

Most are signed with the registry's own authority key, which is more than an attacker has: what refuses them is not the chain.
"""

from __future__ import annotations

from concurrent import futures
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from model_organisms import errors
from model_organisms.client import keys
from model_organisms.client.channel import Channel, _secure, enrol
from model_organisms.client.client import Client
from model_organisms.formats.enrolment import Ticket
from model_organisms_registry.storage.authority import Authority

from tests.support.refusals import refused

HOUR, CLIENT, SERVER = timedelta(hours=1), ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH
PEM = serialization.Encoding.PEM


def uri(text):
    return x509.UniformResourceIdentifier(text)


class Forger:
    """Makes a client certificate for somebody in all ways but those it is told."""

    def __init__(self, world, person="rosa"):
        self.identity = world.person(person).identity
        self.authority = world.registry.storage.authority
        self.name = f"mo://{world.registry.config.origin}/{self.identity.user}?key={self.identity.key_id}"
        self.key = ec.generate_private_key(ec.SECP256R1())

    def __call__(self, *, sans=None, usage=(CLIENT,), ca=False, since=-HOUR, until=HOUR, issuer=None, signer=None, more=()):
        """The identity with that certificate."""
        now, authority = datetime.now(UTC), self.authority
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, self.identity.user)])
        builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer or authority._certificate.subject)
        builder = builder.public_key(self.key.public_key()).serial_number(x509.random_serial_number())
        builder = builder.not_valid_before(now + since).not_valid_after(now + until)
        builder = builder.add_extension(x509.BasicConstraints(ca=ca, path_length=0 if ca else None), critical=True)
        names = [uri(self.name)] if sans is None else sans
        for extension in (
            x509.SubjectAlternativeName(names) if names else None,
            x509.ExtendedKeyUsage(usage) if usage else None,
        ):
            builder = builder.add_extension(extension, critical=False) if extension else builder
        for extension in more:
            builder = builder.add_extension(extension, critical=True)
        return self.shown(builder.sign(signer or authority._key, hashes.SHA256()))

    def shown(self, *chain):
        """The identity with these certificates, under the forger's key."""
        form = serialization.PrivateFormat.PKCS8
        tls_key = self.key.private_bytes(PEM, form, serialization.NoEncryption())
        pem = b"".join(certificate.public_bytes(PEM) for certificate in chain)
        return replace(self.identity, certificate=pem, tls_key=tls_key)


@pytest.fixture
def forge(world):
    return Forger(world)


@contextmanager
def calling(identity):
    """A client of just this identity, that renews nothing."""
    with closing(Client(Channel(identity, None, 10.0, _secure(identity)), None)) as client:
        yield client


def turned_away(world, identity):
    """Neither transport nor door let it in, and nothing is written."""
    before = world.registry.storage.log.size()
    with calling(identity) as client, pytest.raises((errors.CertificateRefused, errors.RegistryUnreachable)) as caught:
        client.users.me()
    assert "certificate" in caught.value.message
    assert world.registry.storage.log.size() == before


def test_the_certificates_forged_here_are_otherwise_good(forge):
    with calling(forge()) as rosa:
        assert rosa.users.me().name == "users/rosa"


USAGES = {
    "for servers": (SERVER,),
    "for both ends": (CLIENT, SERVER),
    "for code": (ExtendedKeyUsageOID.CODE_SIGNING,),
    "for time stamps": (ExtendedKeyUsageOID.TIME_STAMPING,),
    "for anything": (ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE,),
    "for nothing in particular": (),
}


@pytest.mark.parametrize("attack", USAGES)
def test_wrong_use(world, forge, attack):
    turned_away(world, forge(usage=USAGES[attack]))


NAMES = {
    "two people": lambda name: [uri(name), uri(name.replace("users/rosa", "users/admin"))],
    "one person twice": lambda name: [uri(name), uri(name)],
    "a person and a host": lambda name: [uri(name), x509.DNSName("localhost")],
    "a host and a person": lambda name: [x509.DNSName("localhost"), uri(name)],
    "a host": lambda _: [x509.DNSName("localhost")],
    "the name as a host": lambda name: [x509.DNSName(name)],
    "the name as an address of mail": lambda name: [x509.RFC822Name("rosa@registry.test"), uri(name)],
    "nobody": lambda _: [],
    "a person of another registry": lambda name: [uri(name.replace("registry.test", "registry.example.org"))],
    "a person of a registry whose name goes on": lambda name: [uri(name.replace("registry.test", "registry.test.example.org"))],
    "another scheme": lambda name: [uri(name.replace("mo://", "https://"))],
    "the scheme in capitals": lambda name: [uri(name.replace("mo://", "MO://"))],
    "no key": lambda name: [uri(name.partition("?")[0])],
    "an empty key": lambda name: [uri(name.partition("=")[0] + "=")],
    "two keys": lambda name: [uri(name + "&key=" + "0" * 16)],
    "a key in capitals": lambda name: [uri(name.partition("=")[0] + "=" + name.partition("=")[2].upper() + "A")],
    "a way around": lambda name: [uri(name.replace("users/rosa", "users/../users/rosa"))],
    "an escape": lambda name: [uri(name.replace("users/rosa", "users%2Frosa"))],
    "white space": lambda name: [uri(name.replace("users/rosa", "users/rosa%20"))],
}


@pytest.mark.parametrize("attack", NAMES)
def test_wrong_names(world, forge, attack):
    turned_away(world, forge(sans=NAMES[attack](forge.name)))


def test_expired(world, forge):
    turned_away(world, forge(since=-2 * HOUR, until=-HOUR))


def test_not_yet_valid(world, forge):
    turned_away(world, forge(since=HOUR, until=2 * HOUR))


def test_valid_for_no_time(world, forge):
    turned_away(world, forge(since=-HOUR, until=-HOUR + timedelta(seconds=1)))


def test_certificate_that_is_an_authority_too(world, forge):
    turned_away(world, forge(ca=True))


def test_unknown_critical_extension(world, forge):
    strange = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.99999.1"), b"\x05\x00")
    turned_away(world, forge(more=[strange]))


def test_self_made_authority_of_the_same_name(world, forge, tmp_path):
    foreign = Authority.create(tmp_path, world.registry.config.origin, now=datetime.now(UTC))
    assert foreign._certificate.subject == forge.authority._certificate.subject
    turned_away(world, forge(signer=foreign._key))


def test_self_made_authority_shown_with_its_whole_chain(world, forge, tmp_path):
    foreign = Authority.create(tmp_path, world.registry.config.origin, now=datetime.now(UTC))
    leaf = x509.load_pem_x509_certificate(forge(signer=foreign._key).certificate)
    turned_away(world, forge.shown(leaf, foreign._certificate))


def test_self_signed(world, forge):
    turned_away(world, forge(signer=forge.key))


def test_researcher_who_issues_certificates_with_their_own(world, forge):
    rosa = forge.identity
    own = serialization.load_pem_private_key(rosa.tls_key, None)
    certificate = x509.load_pem_x509_certificate(rosa.certificate)
    admin = Forger(world, "pia")
    leaf = x509.load_pem_x509_certificate(admin(issuer=certificate.subject, signer=own).certificate)
    turned_away(world, admin.shown(leaf, certificate))


def test_authority_certificate_without_its_key(world, forge):
    turned_away(world, forge.shown(forge.authority._certificate))


def test_certificate_of_a_key_that_is_not_held(world, forge):
    turned_away(world, replace(forge(), tls_key=keys.FreshKeys.generate().tls_pem))


def test_client_certificate_on_a_server(world):
    """An enrolled researcher stands in the way with what they have: a certificate of the authority that everybody trusts."""
    mallory = world.person("rosa").identity
    pair = [(mallory.tls_key, mallory.certificate)]
    server = grpc.server(futures.ThreadPoolExecutor(1))
    port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials(pair))
    server.start()
    try:
        victim = replace(world.person("pia").identity, registry=f"localhost:{port}")
        with calling(victim) as pia, refused(errors.RegistryUnreachable, "check the address"):
            pia.users.me()
        ticket = Ticket(f"localhost:{port}", f"localhost:{port}", victim.authority.decode(), "a-code-that-is-long-enough")
        with refused(errors.RegistryUnreachable, "check the address"):
            enrol(ticket, timeout_s=10.0)
    finally:
        server.stop(0)
