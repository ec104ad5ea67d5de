"""Accounts over a real server: who one is told to be, and what suspending somebody ends."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta


def test_everybody_is_told_who_they_are_and_until_when(world):
    rosa = world.person("rosa")
    said = rosa.users.whoami()
    assert said.user == rosa.users.me() == world.admin.users.get("rosa")
    assert said.origin == world.registry.config.origin
    assert said.certificate_expire_time == rosa.identity.certificate_expires
    assert timedelta(hours=11) < said.certificate_expire_time - datetime.now(UTC) < timedelta(hours=13)
