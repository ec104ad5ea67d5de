"""What may be configured of an identity provider, and which account a token gives: no token gives more than its rules say."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from model_organisms.errors import ConfigurationInvalid, Conflict, EnrolmentRefused, Suspended
from model_organisms.records import Role, UserState
from model_organisms_registry.config import AccountRule, Issuer
from model_organisms_registry.domain import identity, oidc
from model_organisms_registry.domain.identity import enrol_again

from tests.domain.cast import NOW, user

RULE = AccountRule("groups", "detection", "lab")
PERSON = Issuer("https://login.example.org", client_id="model-organisms", accounts=(RULE,))
SERVICE = Issuer("https://login.example.org", kind="service", audience="https://registry.example.org", accounts=(RULE,))


def token(**claims):
    return oidc.Token("a.b.c", {}, {"sub": "7", "preferred_username": "ada", "groups": ["detection"]} | claims)


def test_a_person_and_a_service_may_come_from_one_issuer():
    assert oidc.checked([PERSON, SERVICE]) == (PERSON, SERVICE)
    assert oidc.checked([]) == ()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"issuer": ""}, "https URL"),
        ({"issuer": "http://login.example.org"}, "https URL"),
        ({"issuer": "http://127.0.0.1:8080"}, "insecure_loopback"),
        ({"issuer": "http://127.0.0.1.example.org", "insecure_loopback": True}, "https URL"),
        ({"issuer": "http://localhost@example.org", "insecure_loopback": True}, "https URL"),
        ({"issuer": "https://user:secret@login.example.org"}, "https URL"),
        ({"issuer": "https://login.example.org/" + "x" * 300}, "https URL"),
        ({"issuer": "https://l\u00f6gin.example.org"}, "https URL"),
        ({"kind": "people"}, "'person' or 'service'"),
        ({"algorithms": ()}, "algorithms"),
        ({"algorithms": ("none",)}, "algorithms"),
        ({"algorithms": ("RS256", "HS256")}, "algorithms"),
        ({"client_id": ""}, "client_id"),
        ({"scopes": ("profile",)}, "openid"),
        ({"accounts": ()}, "gives nobody an account"),
        ({"clock_skew_s": 301.0}, "at most 300"),
        ({"timeout_s": 11.0}, "at most 10"),
        ({"token_age_s": -1.0}, "negative"),
        ({"accounts": (replace(RULE, claim=""),)}, "name a `claim`"),
        ({"accounts": (replace(RULE, value=""),)}, "name a `claim`"),
        ({"accounts": (replace(RULE, organisation="Lab"),)}, "organisations/"),
        ({"accounts": (replace(RULE, roles=("reviewer",)),)}, "may_give"),
        ({"accounts": (replace(RULE, roles=("admin",)),)}, "may_give"),
        ({"accounts": (replace(RULE, roles=("admin",)),), "may_give": ("researcher", "admin")}, "may_give"),
        ({"accounts": (replace(RULE, roles=("service",)),), "may_give": ("service",)}, "may_give"),
        ({"accounts": (replace(RULE, roles=("king",)),)}, "name researcher"),
        ({"may_give": ("king",)}, "name researcher"),
    ],
)
def test_what_makes_no_sense_is_refused_at_start(changes, says):
    with pytest.raises(ConfigurationInvalid, match=says):
        oidc.checked([replace(PERSON, **changes)])


def test_a_service_is_nothing_else_and_needs_an_audience_of_its_own():
    for changes, says in (({"audience": ""}, "audience"), ({"accounts": (replace(RULE, roles=("researcher",)),)}, "may_give")):
        with pytest.raises(ConfigurationInvalid, match=says):
            oidc.checked([replace(SERVICE, **changes)])
    assert oidc.newcomer(token(), SERVICE).roles == {Role.SERVICE}


@pytest.mark.parametrize("other", [PERSON, replace(SERVICE, audience="model-organisms")])
def test_one_token_is_one_entrys(other):
    with pytest.raises(ConfigurationInvalid, match="twice"):
        oidc.checked([PERSON, other])


def test_a_role_beyond_researcher_needs_both_the_rule_and_the_issuers_leave():
    rule = replace(RULE, roles=("researcher", "reviewer"))
    given_leave = replace(PERSON, may_give=("researcher", "reviewer"), accounts=(rule, replace(RULE, value="others")))
    assert oidc.newcomer(token(), *oidc.checked([given_leave])).roles == {Role.RESEARCHER, Role.REVIEWER}
    assert oidc.newcomer(token(groups=["others"]), given_leave).roles == {Role.RESEARCHER}


words = st.text("ad \n\x1b\u202e", max_size=12) | st.sampled_from(["admin", "detection", "reviewer"])
claim = st.recursive(
    st.none() | st.booleans() | st.integers() | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from(["groups", "roles", "role", "organisation", "name", "admin"]), claim))
def test_whatever_a_token_says_it_gives_a_researcher_of_the_rules_organisation_or_nothing(claims):
    try:
        made = oidc.newcomer(token(**claims), PERSON)
    except EnrolmentRefused as error:
        assert error.details["check"] == "account"  # noqa: PT017 - either end is right, and each is looked at
        return
    assert (made.roles, made.organisation) == ({Role.RESEARCHER}, "organisations/lab")
    identity.invite(made.name, display_name=made.display_name, organisation=made.organisation, roles=made.roles, now=NOW)


@pytest.mark.parametrize(
    ("said", "prefix", "name"),
    [
        ("ada", "", "users/ada"),
        ("Ada.Lovelace@Example.org", "", "users/ada-lovelace-example-org"),
        ("__ada__", "", "users/ada"),
        ("ada", "uni-", "users/uni-ada"),
        ("users/admin", "", "users/users-admin"),
        ("a" * 63, "", "users/" + "a" * 63),
    ],
)
def test_names_are_made_of_what_the_token_says(said, prefix, name):
    assert oidc.newcomer(token(preferred_username=said), replace(PERSON, prefix=prefix)).name == name


@pytest.mark.parametrize("said", [None, 7, "", "---", "../..", "a" * 64, "\u212aate", "ad\u00e4", ["ada"]])
def test_what_makes_no_name_makes_no_account(said):
    with pytest.raises(EnrolmentRefused, match="user name"):
        oidc.newcomer(token(preferred_username=said), PERSON)


@pytest.mark.parametrize("name", [None, 7, "", "  ", "Ada\nadmin", "\x1b[2J", "x" * 201, "Ada\u202etxt"])
def test_a_display_name_that_is_no_plain_line_gives_way_to_the_user_name(name):
    assert oidc.newcomer(token(name=name), PERSON).display_name == "ada"


KEYS = {"identity_key": bytes(32), "sealing_key": bytes(1216)}
OTHERS = {"identity_key": b"k" * 32, "sealing_key": b"s" * 1216}


def test_a_token_never_replaces_the_keys_of_a_person_and_may_those_of_a_service():
    person, service = user("ada", Role.RESEARCHER), user("robot", Role.SERVICE)
    assert enrol_again(person, identity_key=person.identity_key, sealing_key=person.sealing_key) == person
    for changed in (OTHERS, OTHERS | {"identity_key": person.identity_key}, OTHERS | {"sealing_key": person.sealing_key}):
        with pytest.raises(Conflict, match="tell the registry's admins"):
            enrol_again(person, **changed)
    assert enrol_again(service, **OTHERS) == replace(service, **OTHERS)
    waiting = replace(person, state=UserState.INVITED, identity_key=b"", sealing_key=b"")
    assert enrol_again(waiting, **KEYS) == replace(waiting, state=UserState.ACTIVE, **KEYS)
    for stopped in (person, service):
        with pytest.raises(Suspended):
            enrol_again(replace(stopped, state=UserState.SUSPENDED), **OTHERS)


def test_a_used_token_is_remembered_for_as_long_as_its_age_would_let_it_in():
    until = oidc.remembered_until(PERSON, NOW)
    assert until.timestamp() > NOW.timestamp() + PERSON.token_age_s + 2 * PERSON.clock_skew_s
