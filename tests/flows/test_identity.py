"""Accounts over a real server: who one is told to be, and what suspending somebody ends."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from model_organisms import errors
from model_organisms.client.client import login


def test_everybody_is_told_who_they_are_and_until_when(world):
    rosa = world.person("rosa")
    said = rosa.users.whoami()
    assert said.user == rosa.users.me() == world.admin.users.get("rosa")
    assert said.origin == world.registry.config.origin
    assert said.certificate_expire_time == rosa.identity.certificate_expires
    assert timedelta(hours=11) < said.certificate_expire_time - datetime.now(UTC) < timedelta(hours=13)


def test_a_lost_ticket_is_replaced_and_the_first_is_void(world, tmp_path):
    words = {"organisation": "lab", "roles": ["researcher"]}
    first = world.admin.users.invite("forgetful", **words)
    second = world.admin.users.invite("forgetful", **words)
    with pytest.raises(errors.EnrolmentRefused):
        login(first.ticket, tmp_path / "first.json")
    with login(second.ticket, tmp_path / "second.json") as client:
        assert client.users.me().name == "users/forgetful"
    with pytest.raises(errors.AlreadyExists):
        world.admin.users.invite("forgetful", **words)


def test_a_waiting_account_is_not_changed_by_a_second_invitation(world):
    world.admin.users.invite("waiting", organisation="lab", roles=["researcher"])
    with pytest.raises(errors.AlreadyExists):
        world.admin.users.invite("waiting", organisation="lab", roles=["researcher", "reviewer"])


def test_the_first_admin_is_no_reviewer(world):
    assert {role.value for role in world.admin.users.me().roles} == {"admin"}
