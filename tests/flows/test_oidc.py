"""People log in at a real identity provider by the device flow, services bring its tokens, and each gets the account meant."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from functools import partial

import pytest
from click.testing import CliRunner
from model_organisms import errors
from model_organisms.cli.main import cli
from model_organisms.client import keys, oidc
from model_organisms.client.channel import providers
from model_organisms.client.client import connect, login
from model_organisms.formats.enrolment import Ticket
from model_organisms.records import Role, UserState
from model_organisms_registry.__main__ import cli as operator
from model_organisms_registry.config import Issuer, load
from model_organisms_registry.founding import found, public_ticket
from model_organisms_registry.inspection import inspect
from model_organisms_registry.server import Registry
from model_organisms_registry.testing import settings

from tests.support.providers import CLIENT
from tests.support.refusals import refused


@pytest.fixture
def ticket(trusting):
    return str(public_ticket(trusting.registry.config))


@pytest.fixture
def enter(ticket, identity_provider, tmp_path):
    """Log a person in by the device flow, as `mo login` does."""

    def log_in(account, *, answer="confirm", file=""):
        tell = partial(identity_provider.approve, account=account, answer=answer)
        return login(ticket, tmp_path / (file or f"{account['sub']}.json"), tell=tell)

    return log_in


def told(world, name):
    """Entries about an account, as an auditor reads them."""
    return [entry for _, entry in world.person("aud").audit.entries() if entry.subject == name]


def test_a_person_logs_in_at_their_provider_and_is_a_researcher_who_may_describe(trusting, identity_provider, enter, tmp_path):
    with enter(identity_provider.account("ada", name="Ada L.")) as ada:
        me = ada.users.me()
        assert (me.name, me.display_name, me.organisation) == ("users/ada", "Ada L.", "organisations/detection-lab")
        assert (me.roles, me.state) == ({Role.RESEARCHER}, UserState.ACTIVE)
        assert ada.identity == keys.read(tmp_path / "ada.json")
        with pytest.raises(errors.NotFound):
            ada.users.invite("friend", organisation="detection-lab", roles=["reviewer"])
    invited, enrolled = told(trusting, "users/ada")[:2]
    assert (invited.type, enrolled.type) == ("identity.invite", "identity.enrol")
    assert invited.actor == enrolled.actor == "registry"
    assert invited.facts["issuer"] == enrolled.facts["issuer"] == identity_provider.issuer
    assert (invited.facts["organisation"], invited.facts["roles"]) == ("organisations/detection-lab", "researcher")
    assert enrolled.facts["identity_key"] == ada.identity.key_id
    assert inspect(trusting.registry.config).clean


def test_the_first_rule_that_matches_decides(identity_provider, enter):
    with enter(identity_provider.account("pat", groups=["detection", "publishing"])) as pat:
        me = pat.users.me()
    assert (me.organisation, me.roles) == ("organisations/nursery-lab", {Role.RESEARCHER, Role.PUBLISHER})


def test_logging_in_again_with_the_same_keys_gives_a_fresh_certificate_and_no_second_account(trusting, identity_provider, enter):
    account = identity_provider.account("bea")
    with enter(account) as first:
        before = first.identity
    with enter(account | {"preferred_username": "renamed", "groups": ["detection", "publishing"]}) as again:
        assert again.users.me().roles == {Role.RESEARCHER}  # an account is made once; a claim that came later changes nothing
        assert (again.identity.user, again.identity.key_id) == (before.user, before.key_id)
        assert again.identity.certificate != before.certificate
    assert [entry.type for entry in told(trusting, "users/bea")] == ["identity.invite", "identity.enrol", "identity.certificate"]


def test_a_provider_does_not_replace_the_keys_of_a_person(identity_provider, enter, tmp_path):
    account = identity_provider.account("cay")
    with enter(account) as cay, refused(errors.Conflict, "tell the registry's admins that they are lost"):
        enter(account, file="elsewhere.json")
    assert not (tmp_path / "elsewhere.json").exists()
    with connect(tmp_path / "cay.json") as cay:
        assert cay.users.me().name == "users/cay"


def test_a_suspended_person_stays_out_though_their_provider_lets_them_in(trusting, identity_provider, enter):
    account = identity_provider.account("dov")
    enter(account).close()
    trusting.admin.users.suspend("dov", reason="A question.")
    with refused(errors.Suspended, "suspended"):
        enter(account)


def test_who_is_in_no_rule_gets_no_account(trusting, identity_provider, enter, tmp_path):
    before = trusting.registry.storage.log.size()
    for groups in ([], ["Detection"], ["detection "], "publish", None):
        with refused(errors.EnrolmentRefused, "ask an admin") as caught:
            enter(identity_provider.account("eve", groups=groups))
        assert caught.value.details["check"] == "account"
    assert trusting.registry.storage.log.size() == before
    assert not (tmp_path / "eve.json").exists()


def test_a_login_that_the_person_refuses_ends_at_once(identity_provider, enter):
    with refused(errors.EnrolmentRefused, "refused at the provider"):
        enter(identity_provider.account("fay"), answer="abort")


def test_a_service_trades_its_token_and_may_do_so_again_under_new_keys(trusting, identity_provider, ticket, tmp_path):
    with login(ticket, tmp_path / "first.json", token=identity_provider.service_token()) as first:
        me = first.users.me()
        assert (me.name, me.roles, me.organisation) == ("users/service-robot", {Role.SERVICE}, "organisations/detection-lab")
        with pytest.raises(errors.NotFound):
            first.users.invite("friend", organisation="detection-lab", roles=["service"])
        assert list(first.organisms.list()) == []
        with login(ticket, tmp_path / "second.json", token=identity_provider.service_token()) as second:
            assert second.users.me().name == me.name
            assert second.identity.key_id != first.identity.key_id
            replaced = told(trusting, me.name)[-1]
            assert (replaced.type, replaced.facts["replaces"]) == ("identity.enrol", first.identity.key_id)
        with refused(errors.CertificateRefused, "was revoked"):
            first.users.me()
    assert inspect(trusting.registry.config).clean


def test_a_registry_says_where_people_can_log_in(ticket, identity_provider):
    said = oidc.Provider(identity_provider.issuer, CLIENT, ("openid", "profile", "groups"))
    assert providers(Ticket.parse(ticket)) == [said]
    assert oidc.choose([said], "") == oidc.choose([said], identity_provider.issuer) == said
    for several, issuer in (([said], "https://elsewhere.example"), ([said, said], ""), ([], "")):
        with pytest.raises(errors.EnrolmentRefused, match=r"Name one of|takes nobody"):
            oidc.choose(several, issuer)


def test_a_public_ticket_without_a_login_enrols_nobody(trusting, tmp_path):
    ticket = public_ticket(trusting.registry.config)
    with pytest.raises(errors.ModelOrganismsError):
        login(str(ticket), tmp_path / "nobody.json", token="x" * 40)
    assert ticket.code == ""


def test_the_commands_of_both_sides(trusting, identity_provider, tmp_path):
    folder = trusting.registry.config.folder
    printed = CliRunner().invoke(operator, ["ticket", "--folder", str(folder)])
    assert printed.exit_code == 0
    assert Ticket.parse(printed.output).authority == trusting.registry.storage.authority.pem.decode()
    as_json = CliRunner().invoke(operator, ["ticket", "--folder", str(folder), "--json"])
    assert json.loads(as_json.output) == {"ticket": printed.output.strip()}
    token, identity = tmp_path / "token", tmp_path / "robot.json"
    token.write_text(identity_provider.service_token() + "\n")
    ticket = str(public_ticket(trusting.registry.config))
    words = ["--json", "--identity", str(identity), "login", ticket, "--token-file", str(token)]
    done = CliRunner().invoke(cli, words, catch_exceptions=False)
    assert json.loads(done.stdout)["user"] == "users/service-robot"
    assert identity.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('oidc = "https://login.example.org"', "'oidc'"),
        ("[oidc]", "'oidc'"),
        ('[[oidc]]\nisuer = "https://login.example.org"', "oidc.isuer"),
        ('[[oidc]]\nalgorithms = "RS256"', "oidc.algorithms"),
        ('[[oidc]]\nrequire_nonce = "no"', "oidc.require_nonce"),
        ("[[oidc]]\nrequire_nonce = 0", "oidc.require_nonce"),
        ("[[oidc]]\ntimeout_s = true", "oidc.timeout_s"),
        ('[[oidc]]\naccounts = "all"', "oidc.accounts"),
        ('[[oidc]]\n[[oidc.accounts]]\nrole = "researcher"', "oidc.accounts.role"),
        ("[[oidc]]\n[[oidc.accounts]]\nroles = [1]", "oidc.accounts.roles"),
    ],
)
def test_a_setting_that_is_none_is_named(tmp_path, text, says):
    (tmp_path / "registry.toml").write_text(text)
    with refused(errors.ConfigurationInvalid, says):
        load(tmp_path)


def test_a_registry_does_not_start_with_an_issuer_that_makes_no_sense(tmp_path):
    config = settings(tmp_path / "data", oidc=(Issuer("http://login.example.org", client_id="model-organisms"),))
    found(config, now=datetime.now(UTC))
    with refused(errors.ConfigurationInvalid, "an issuer is an https URL"):
        Registry(config)
