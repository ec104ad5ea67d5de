"""Good tokens in the wrong hands, and good tokens that ask for more than is theirs: replay, another's proof, another's name."""

from __future__ import annotations

import base64
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import pytest
from joserfc.jwk import ECKey
from model_organisms import errors
from model_organisms.client import keys, oidc
from model_organisms.client.channel import _at_enrolment, enrol_with_token
from model_organisms.formats.enrolment import enrolment_statement, token_nonce, token_statement
from model_organisms.v1 import identity_pb2
from model_organisms_registry.config import AccountRule, Issuer
from model_organisms_registry.founding import public_ticket
from model_organisms_registry.inspection import inspect
from model_organisms_registry.testing import running, settings

from tests.support.pages import serving
from tests.support.providers import CLIENT, OTHER, IdentityProvider, encoded, trusted
from tests.support.refusals import refused

ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
"""Of P-256: an ECDSA signature (r, s) has a twin (r, ORDER - s)."""


class Newcomer:
    """Somebody at the enrolment door, with keys and one certificate request."""

    def __init__(self, world):
        self.ticket = public_ticket(world.registry.config)
        self.keys = keys.FreshKeys.generate()
        self.request = keys.certificate_request(self.keys.tls)
        self.identity_key = keys.public_bytes(self.keys.signer)
        self.nonce = token_nonce(self.request, self.identity_key, self.keys.sealing_key)

    def send(self, token, **changes):
        told = {
            "token": token,
            "certificate_request": self.request,
            "identity_key": self.identity_key,
            "sealing_key": self.keys.sealing_key,
            "proof": self.keys.signer.sign(token_statement(token, self.request, self.keys.sealing_key)),
        }
        message = identity_pb2.EnrolWithTokenRequest(**(told | changes))
        return _at_enrolment(self.ticket.enrol, self.ticket.authority.encode(), "EnrolWithToken", message, 10.0)


@contextmanager
def untouched(world, error=errors.EnrolmentRefused, says="", check=None):
    """Refused, at this check, without a trace in the ledger."""
    before = world.registry.storage.log.size()
    with refused(error, says) as caught:
        yield
    assert caught.value.details.get("check") == check
    assert world.registry.storage.log.size() == before


def signed_again(token):
    """The same words under the twin of their signature, which is just as good."""
    signed, _, signature = token.rpartition(".")
    raw = base64.urlsafe_b64decode(signature + "==")
    return f"{signed}.{encoded(raw[:32] + (ORDER - int.from_bytes(raw[32:], 'big')).to_bytes(32, 'big'))}"


@pytest.mark.parametrize("spelt", [str, signed_again], ids=["the same bytes", "a twin signature"])
def test_token_replay(trusting, identity_provider, spelt):
    who = f"replayed-{spelt.__name__.replace('_', '-')}"
    newcomer = Newcomer(trusting)
    token = identity_provider.signed(identity_provider.claims(newcomer.nonce, sub=who, preferred_username=who))
    assert newcomer.send(token).user.name == f"users/{who}"
    with untouched(trusting, says="used before", check="replay"):
        newcomer.send(spelt(token))


def test_service_token_stolen_after_its_use(trusting, identity_provider):
    token = identity_provider.service_token()
    assert Newcomer(trusting).send(token).user.name == "users/service-robot"
    with untouched(trusting, says="used before", check="replay"):
        Newcomer(trusting).send(token)


def test_id_token_stolen_before_its_use_and_shown_with_the_thiefs_proof(trusting, identity_provider):
    owner, thief = Newcomer(trusting), Newcomer(trusting)
    token = identity_provider.signed(identity_provider.claims(owner.nonce, sub="owner", preferred_username="owner"))
    with untouched(trusting, says="not bound to the keys", check="nonce"):
        thief.send(token)
    assert owner.send(token).user.name == "users/owner"


def changed(owner, thief, token):
    """What a thief may put in place of the owner's parts of a request."""
    theirs = thief.keys.signer.sign(token_statement(token, owner.request, owner.keys.sealing_key))
    other_room = enrolment_statement(token, owner.request, owner.keys.sealing_key)
    return {
        "another's proof": {"proof": theirs},
        "no proof": {"proof": bytes(64)},
        "another's TLS key": {"certificate_request": thief.request},
        "another's sealing key": {"sealing_key": thief.keys.sealing_key},
        "another's identity key": {"identity_key": thief.identity_key},
        "a proof made for a code": {"proof": owner.keys.signer.sign(other_room)},
    }


@pytest.mark.parametrize("attack", range(6))
def test_request_of_another_with_one_part_changed(trusting, identity_provider, attack):
    owner, thief = Newcomer(trusting), Newcomer(trusting)
    token = identity_provider.signed(identity_provider.claims(owner.nonce, sub="untouched"))
    with untouched(trusting, errors.Unauthenticated, "did not sign"):
        owner.send(token, **list(changed(owner, thief, token).values())[attack])


def test_proof_over_another_token(trusting, identity_provider):
    newcomer = Newcomer(trusting)
    one, two = (identity_provider.signed(identity_provider.claims(newcomer.nonce, sub=sub)) for sub in ("one", "two"))
    proof = newcomer.keys.signer.sign(token_statement(one, newcomer.request, newcomer.keys.sealing_key))
    with untouched(trusting, errors.Unauthenticated, "did not sign"):
        newcomer.send(two, proof=proof)


def test_real_token_of_another_client_of_the_same_provider(trusting, identity_provider):
    newcomer = Newcomer(trusting)
    elsewhere = oidc.Provider(identity_provider.issuer, OTHER, ("openid", "profile", "groups"))
    tell = partial(identity_provider.approve, account=identity_provider.account("ola"))
    token = oidc.sign_in(elsewhere, newcomer.nonce, tell=tell)
    with untouched(trusting, says="not for this registry", check="aud"):
        newcomer.send(token)


def test_service_token_with_a_persons_audience_and_the_reverse(trusting, identity_provider):
    for claims in ({"aud": CLIENT}, {"aud": "https://registry.test"}):
        newcomer = Newcomer(trusting)
        header = {"typ": "at+jwt"} if claims["aud"] == CLIENT else {"typ": "id+jwt"}
        token = identity_provider.signed(identity_provider.claims(newcomer.nonce, client_id="robot", **claims), **header)
        with untouched(trusting, says="another kind of token", check="typ"):
            newcomer.send(token)


def test_service_that_nobody_named(trusting, identity_provider):
    newcomer = Newcomer(trusting)
    said = identity_provider.claims(newcomer.nonce, client_id="rogue", aud="https://registry.test")
    with untouched(trusting, says="gives no account", check="account"):
        newcomer.send(identity_provider.signed(said, typ="at+jwt"))


@pytest.mark.parametrize("said", ["admin", "ADMIN", "admin@", " admin", "aud", "users/admin"])
def test_name_of_somebody_who_was_invited(trusting, identity_provider, said):
    newcomer = Newcomer(trusting)
    names = {"users/admin": "users-admin"}  # another name, and nobody's: it is no way around
    token = identity_provider.signed(identity_provider.claims(newcomer.nonce, sub=f"squatter {said}", preferred_username=said))
    if said in names:
        assert newcomer.send(token).user.name == f"users/{names[said]}"
        return
    with untouched(trusting, says="somebody else's account", check="username"):
        newcomer.send(token)


def test_name_of_somebody_who_was_invited_and_has_not_come_yet(trusting, identity_provider):
    trusting.admin.users.invite("expected", organisation="detection-lab", roles=["reviewer"])
    newcomer = Newcomer(trusting)
    token = identity_provider.signed(identity_provider.claims(newcomer.nonce, sub="early", preferred_username="expected"))
    with untouched(trusting, says="somebody else's account", check="username"):
        newcomer.send(token)


def test_subject_that_differs_in_letters_only_is_somebody_else(trusting, identity_provider):
    told = {}
    for subject in ("Twin", "twin", "twin "):
        newcomer = Newcomer(trusting)
        said = identity_provider.claims(newcomer.nonce, sub=subject, preferred_username=f"twin-{len(told)}")
        told[subject] = newcomer.send(identity_provider.signed(said)).user.name
    assert len(set(told.values())) == 3


@pytest.fixture(scope="module")
def rivals(identity_provider, tmp_path_factory):
    """A registry that trusts a second provider, whose owner hates the first and signs what they like; and that provider."""
    with serving() as pages:
        key = ECKey.generate_key("P-256", {"kid": "one"})
        rival = IdentityProvider(pages.address, {"ES256": key})
        pages.said = {
            "/.well-known/openid-configuration": {"issuer": pages.address, "jwks_uri": f"{pages.address}/keys"},
            "/keys": {"keys": [key.as_dict(private=False)]},
        }
        told = {"client_id": CLIENT, "algorithms": ("ES256",), "insecure_loopback": True, "require_nonce": False}
        second = Issuer(pages.address, **told, accounts=(AccountRule("groups", "detection", "rival-lab"),))
        folder = tmp_path_factory.mktemp("rivals") / "data"
        with running(settings(folder, oidc=(*trusted(identity_provider), second))) as world:
            yield world, rival


def test_account_takeover_by_the_same_user_name_from_another_issuer(rivals, identity_provider):
    world, rival = rivals
    owner, taker = Newcomer(world), Newcomer(world)
    owner.send(identity_provider.signed(identity_provider.claims(owner.nonce, sub="ada", preferred_username="ada")))
    for subject in ("ada", "another"):
        said = rival.claims(taker.nonce, sub=subject, preferred_username="ada")
        with untouched(world, says="somebody else's account", check="username"):
            taker.send(rival.signed(said))
    assert inspect(world.registry.config).clean


def test_same_subject_at_another_issuer_is_somebody_else(rivals, identity_provider):
    world, rival = rivals
    one, other = Newcomer(world), Newcomer(world)
    mine = one.send(identity_provider.signed(identity_provider.claims(one.nonce, sub="7", preferred_username="first")))
    theirs = other.send(rival.signed(rival.claims(other.nonce, sub="7", preferred_username="second")))
    assert (mine.user.name, theirs.user.name) == ("users/first", "users/second")
    assert (mine.user.organisation, theirs.user.organisation) == ("organisations/detection-lab", "organisations/rival-lab")


def test_issuer_that_signs_in_the_name_of_another(rivals, identity_provider):
    world, rival = rivals
    newcomer = Newcomer(world)
    said = identity_provider.claims(newcomer.nonce, sub="borrowed", preferred_username="borrowed")
    with untouched(world, says="signature does not hold", check="signature"):
        newcomer.send(rival.signed(said))


def test_token_without_a_nonce_is_still_its_bearers_once(rivals):
    world, rival = rivals
    first, second = Newcomer(world), Newcomer(world)
    token = rival.signed(rival.claims("", nonce=None, sub="loose", preferred_username="loose"))
    assert first.send(token).user.name == "users/loose"
    with untouched(world, says="used before", check="replay"):
        second.send(token)


def test_token_whose_nonce_is_anothers_though_none_is_required(rivals):
    world, rival = rivals
    owner, thief = Newcomer(world), Newcomer(world)
    token = rival.signed(rival.claims(owner.nonce, sub="bound", preferred_username="bound"))
    with untouched(world, says="not bound to the keys", check="nonce"):
        thief.send(token)


def test_keys_of_another_account(trusting, identity_provider):
    first = Newcomer(trusting)
    first.send(identity_provider.signed(identity_provider.claims(first.nonce, sub="keyed", preferred_username="keyed")))
    with untouched(trusting, errors.AlreadyExists, "belongs to another account"):
        first.send(
            identity_provider.signed(identity_provider.claims(first.nonce, sub="keyed-too", preferred_username="keyed-too"))
        )


def test_a_lying_client_cannot_choose_its_own_issuer(trusting, identity_provider):
    with serving() as pages:
        rogue = replace(identity_provider, issuer=pages.address)
        with untouched(trusting, says="does not trust", check="iss"):
            ticket = public_ticket(trusting.registry.config)
            enrol_with_token(ticket, lambda nonce: rogue.signed(rogue.claims(nonce)), fresh=keys.FreshKeys.generate())
        assert pages.asked == []
