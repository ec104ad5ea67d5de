"""Certificates that are not what they should be: each is refused in a typed error, before anything is read or written."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from model_organisms import errors
from model_organisms.client import keys
from model_organisms.client.channel import Channel, _secure, readmit
from model_organisms.client.client import Client, connect, login
from model_organisms.formats.dsse import key_id
from model_organisms.formats.enrolment import Ticket
from model_organisms_registry.founding import found
from model_organisms_registry.inspection import inspect
from model_organisms_registry.server import Registry
from model_organisms_registry.storage.authority import Authority
from model_organisms_registry.storage.catalog import identity as accounts
from model_organisms_registry.testing import World, settings

from tests.support.refusals import refused

HOUR = timedelta(hours=1)


def caller(identity):
    """A client of just this identity, that renews nothing."""
    return closing(Client(Channel(identity, None, 10.0, _secure(identity)), None))


def presented(world, person, authority=None, **said):
    """What a person would be with a certificate that says something else, under a TLS key of their own."""
    identity, fresh, now = world.person(person).identity, keys.FreshKeys.generate(), datetime.now(UTC)
    told = {"user": identity.user, "key_id": identity.key_id, "now": now, "not_after": now + HOUR * 5} | said
    issuer = authority or world.registry.storage.authority
    certificate = issuer.client_certificate(keys.certificate_request(fresh.tls), **told)
    return keys.renewed(identity, certificate, told["not_after"], fresh.tls_pem)


def entries(world):
    return world.registry.storage.log.size()


def test_the_certificates_made_here_are_otherwise_good(world):
    with caller(presented(world, "rosa")) as rosa:
        assert rosa.users.me().name == "users/rosa"


@pytest.mark.parametrize(
    ("said", "says"),
    [
        ({"user": "users/nobody"}, "names no account here; run `mo login`"),
        ({"user": "organisms/rosa"}, "names no account here; run `mo login`"),
        ({"key_id": "0" * 16}, "was revoked; two admins let you in"),
        ({"user": "users/pia"}, "was revoked; two admins let you in"),
        ({"key_id": ""}, "not a client certificate of this registry; run `mo login`"),
    ],
)
def test_a_certificate_that_names_somebody_else_is_refused(world, said, says):
    before = entries(world)
    with caller(presented(world, "rosa", **said)) as rosa, refused(errors.CertificateRefused, says):
        rosa.users.me()
    assert entries(world) == before


def test_a_certificate_of_another_authority_is_refused(world, tmp_path):
    foreign = Authority.create(tmp_path, world.registry.config.origin, now=datetime.now(UTC))
    with caller(presented(world, "rosa", foreign)) as rosa, refused(errors.RegistryUnreachable, "your certificate"):
        rosa.users.me()


def test_a_certificate_under_a_stolen_name_needs_its_key(world):
    stolen = replace(world.person("rosa").identity, tls_key=keys.FreshKeys.generate().tls_pem)
    with caller(stolen) as thief, refused(errors.RegistryUnreachable, "your certificate"):
        thief.users.me()


def test_a_server_that_shows_another_authoritys_certificate_is_not_spoken_to(world, tmp_path):
    other = Authority.create(tmp_path, world.registry.config.origin, now=datetime.now(UTC))
    deceived = replace(world.person("rosa").identity, authority=other.pem)
    with caller(deceived) as rosa, refused(errors.RegistryUnreachable, "check the address"):
        rosa.users.me()


def test_the_registrys_own_certificate_is_no_clients(world):
    key, certificate = world.registry.storage.authority.server_certificate(["localhost"], now=datetime.now(UTC))
    servers = replace(world.person("rosa").identity, tls_key=key, certificate=certificate)
    with caller(servers) as rosa, refused(errors.RegistryUnreachable, "your certificate"):
        rosa.users.me()


def test_an_expired_certificate_is_refused_by_the_transport(world):
    past = datetime.now(UTC) - HOUR * 2
    expired = presented(world, "rosa", now=past, not_after=past + HOUR)
    with caller(expired) as rosa, refused(errors.RegistryUnreachable, "your certificate"):
        rosa.users.me()


def ended(world, person):
    """An identity whose certificate ended an hour ago, as it lies there after a weekend."""
    past = datetime.now(UTC) - HOUR * 2
    return presented(world, person, now=past, not_after=past + HOUR)


def test_whoever_comes_back_after_their_certificate_ended_is_readmitted_by_their_key(world, tmp_path):
    keys.write(ended(world, "rosa"), tmp_path / "rosa.json")
    before = entries(world)
    with connect(tmp_path / "rosa.json") as rosa:
        assert rosa.users.me().name == "users/rosa"
        assert keys.read(tmp_path / "rosa.json") == rosa.identity
        assert rosa.identity.certificate_expires > datetime.now(UTC) + HOUR * 10
    assert entries(world) == before + 1
    (_, entry) = list(world.person("aud").audit.entries())[-1]
    assert (entry.type, entry.subject) == ("identity.certificate", "users/rosa")


def test_nobody_is_readmitted_by_another_key_and_no_account_is_betrayed(world):
    mallory = world.person("mallory", "researcher").identity
    told = set()
    for user in ("users/rosa", "users/nobody", world.admin.users.invite("yet", organisation="lab", roles=["auditor"]).user.name):
        before = entries(world)
        with refused(errors.Unauthenticated, "with a new ticket") as caught:
            readmit(replace(mallory, user=user), timeout_s=10)
        told.add(caught.value.message)
        assert entries(world) == before
    assert len(told) == 1
    with refused(errors.CertificateRefused, "ask an admin for a new ticket"):
        readmit(replace(mallory, enrol=""), timeout_s=10)


def test_a_suspended_account_is_not_readmitted(world):
    late = world.person("late-one", "researcher").identity
    world.admin.users.suspend("late-one", reason="A question.")
    with refused(errors.Suspended, "ask an admin"):
        readmit(late, timeout_s=10)


def test_a_certificate_denied_by_its_thumbprint_is_refused_and_another_is_not(world):
    one, two = presented(world, "rosa"), presented(world, "rosa")
    thumbprint = x509.load_pem_x509_certificate(one.certificate).fingerprint(hashes.SHA256()).hex()
    with caller(one) as rosa, caller(two) as twin:
        assert rosa.users.me() == twin.users.me()
        with world.registry.storage.database.write() as tx:
            accounts.deny_certificate(tx, thumbprint, "lost laptop", datetime.now(UTC))
        with refused(errors.CertificateRefused, "was revoked; two admins let you in again .* replace-keys.* ticket"):
            rosa.users.me()
        assert twin.users.me().name == "users/rosa"


def test_a_suspended_account_is_refused_and_stands_again_when_reinstated(world):
    zoe = world.person("zoe", "researcher")
    world.admin.users.suspend("zoe", reason="A question.")
    with refused(errors.Suspended, "ask an admin"):
        zoe.users.me()
    with refused(errors.Suspended, "ask an admin"):
        zoe._channel.renew()
    world.admin.users.reinstate("zoe", reason="Answered.")
    assert zoe.users.me().name == "users/zoe"
    assert inspect(world.registry.config).clean


def test_a_ticket_works_once_and_only_whole(world, tmp_path):
    invitation = world.admin.users.invite("ned", organisation="lab", roles=["researcher"])
    before = entries(world)
    wrong = replace(Ticket.parse(invitation.ticket), code="wrong-code-of-twenty")
    with refused(errors.EnrolmentRefused, "ask"):
        login(str(wrong), tmp_path / "ned.json")
    assert not (tmp_path / "ned.json").exists()
    assert entries(world) == before
    login(invitation.ticket, tmp_path / "ned.json").close()
    with refused(errors.EnrolmentRefused, "ask"):
        login(invitation.ticket, tmp_path / "again.json")
    assert not (tmp_path / "again.json").exists()
    assert inspect(world.registry.config).clean


@pytest.fixture
def ahead(tmp_path):
    """A registry whose clock can be put forward, and by how much it is."""
    config, moved = settings(tmp_path / "data"), [timedelta()]
    ticket = found(config, now=datetime.now(UTC))
    registry = Registry(config, clock=lambda: datetime.now(UTC) + moved[0])
    registry.start()
    with closing(World(registry, config.folder, login(str(ticket), config.folder / "admin.json"))) as world:
        yield world, moved


def test_the_door_refuses_what_expired_while_the_connection_stood(ahead):
    world, moved = ahead
    rosa = world.person("rosa", "researcher")
    assert rosa.users.me().name == "users/rosa"
    moved[0] = timedelta(hours=13)
    for call in (rosa.users.me, rosa._channel.renew, lambda: rosa.organisms.get("organisms/x")):
        with refused(errors.CertificateRefused, "has expired; connect again"):
            call()
    moved[0] = timedelta()
    assert rosa.users.me().name == "users/rosa"


def test_a_ticket_expires(ahead, tmp_path):
    world, moved = ahead
    invitation = world.admin.users.invite("late", organisation="lab", roles=["researcher"])
    moved[0] = timedelta(days=60)
    with refused(errors.EnrolmentRefused, "ask"):
        login(invitation.ticket, tmp_path / "late.json")
    assert not (tmp_path / "late.json").exists()
    moved[0] = timedelta()


def test_a_certificate_near_its_end_is_renewed_on_the_way(world, tmp_path):
    near = presented(world, "rosa", not_after=datetime.now(UTC) + HOUR)
    keys.write(near, tmp_path / "rosa.json")
    with connect(tmp_path / "rosa.json") as rosa:
        assert rosa.users.me().name == "users/rosa"
        assert rosa.identity.certificate_expires > datetime.now(UTC) + HOUR * 10
    assert keys.read(tmp_path / "rosa.json").certificate == rosa.identity.certificate
    assert key_id(keys.public_bytes(near.signer)) == rosa.identity.key_id
