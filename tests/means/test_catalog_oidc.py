"""Subjects and used tokens, on both databases."""

from __future__ import annotations

from datetime import timedelta

import pytest
from model_organisms.errors import AlreadyExists, EnrolmentRefused
from model_organisms_registry.storage.catalog import identity, oidc

from tests.support import catalog as make

NOW = make.NOW
HERE, ELSEWHERE = "https://login.example.org", "https://login.example.com"


@pytest.fixture
def people(database):
    with database.write() as tx:
        for name in ("ada", "bob"):
            identity.add_user(tx, make.user(name))
    return database


def test_a_subject_is_one_account_and_an_account_one_subject(people):
    with people.write() as tx:
        oidc.bind(tx, HERE, "7", "users/ada")
        for issuer, subject, user in ((HERE, "7", "users/bob"), (HERE, "8", "users/ada"), (ELSEWHERE, "7", "users/ada")):
            with pytest.raises(AlreadyExists):
                oidc.bind(tx, issuer, subject, user)
        oidc.bind(tx, ELSEWHERE, "7", "users/bob")
    with people.read() as tx:
        assert oidc.user_of(tx, HERE, "7") == "users/ada"
        assert oidc.user_of(tx, ELSEWHERE, "7") == "users/bob"
        for issuer, subject in ((HERE, "8"), (HERE, "7 "), (f"{HERE}/", "7"), (HERE.upper(), "7")):
            assert oidc.user_of(tx, issuer, subject) is None


def test_subjects_are_told_apart_to_the_letter(people):
    with people.write() as tx:
        oidc.bind(tx, HERE, "Twin", "users/ada")
        oidc.bind(tx, HERE, "twin", "users/bob")
    with people.read() as tx:
        assert [oidc.user_of(tx, HERE, subject) for subject in ("Twin", "twin", "TWIN")] == ["users/ada", "users/bob", None]


def test_a_token_is_taken_once_and_forgotten_when_its_time_is_over(database):
    hour, digest = timedelta(hours=1), make.digest("token")
    with database.write() as tx:
        oidc.spend_token(tx, digest, until=NOW + hour, now=NOW)
    for later in (timedelta(), hour):
        with database.write() as tx, pytest.raises(EnrolmentRefused, match="used before"):
            oidc.spend_token(tx, digest, until=NOW + 2 * hour, now=NOW + later)
    with database.write() as tx:
        oidc.spend_token(tx, make.digest("another"), until=NOW + 2 * hour, now=NOW + hour + timedelta(seconds=1))
        oidc.spend_token(tx, digest, until=NOW + 2 * hour, now=NOW + hour + timedelta(seconds=1))
