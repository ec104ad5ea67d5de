"""One rogue admin who would have reviewers of their own, and thieves who would exchange or replace other people's keys."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from model_organisms import errors
from model_organisms.client import keys
from model_organisms.formats.enrolment import rotation_statement
from model_organisms.records import MotionState
from model_organisms.v1 import identity_pb2, identity_pb2_grpc
from model_organisms_registry.domain.identity import ADMIN_COUNTS_ON
from model_organisms_registry.storage.catalog import identity as accounts
from model_organisms_registry.testing import running, settings

from tests.support.refusals import refused

PUPPET = {"display_name": "Sock", "organisation": "organisations/shell", "roles": "reviewer"}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    people = (("aud", "auditor", "audit-office"), ("early", "reviewer", "lab-e"), ("second", "admin", "ops"))
    with running(settings(tmp_path_factory.mktemp("accounts") / "data"), people=people) as running_world:
        yield running_world


@pytest.mark.parametrize("roles", [["reviewer"], ["admin"], ["researcher", "reviewer"]])
def test_inviting_a_reviewer_of_ones_own(world, roles):
    with refused(errors.Denied, "mo motions propose appoint"):
        world.admin.users.invite("puppet", organisation="shell", roles=roles)
    with pytest.raises(errors.NotFound):
        world.admin.users.get("puppet")


def test_what_one_admin_did_alone_says_so(world):
    said = {entry.subject: entry.facts for _, entry in world.person("aud").audit.entries() if entry.type == "identity.invite"}
    assert said["users/early"].get("alone") == said["users/second"].get("alone") == "true"
    assert "alone" not in said["users/aud"]
    late = world.person("late", "reviewer", organisation="lab-l").identity.user
    said = {entry.subject: entry.facts for _, entry in world.person("aud").audit.entries() if entry.type == "identity.invite"}
    assert "alone" not in said[late]
    assert said[late]["motion"].startswith("motions/")


def test_stopping_the_other_admin_first(world):
    world.admin.users.suspend("second", reason="In my way.")
    try:
        with refused(errors.Denied, "It takes two admins"):
            world.admin.users.invite("puppet", organisation="shell", roles=["reviewer"])
        motion = world.admin.motions.propose("appoint", "users/puppet", PUPPET)
        with pytest.raises(errors.Suspended):
            world.person("second").motions.second(motion)
    finally:
        world.admin.users.reinstate("second", reason="Enough.")
    assert world.admin.motions.withdraw(motion.name).state is MotionState.WITHDRAWN


def test_stopping_the_other_admin_helps_after_a_week_which_everybody_saw(world):
    """The way out where the second admin is gone for good; until then whoever reads the ledger can object."""
    with world.registry.storage.database.write() as tx:
        user = accounts.user(tx, "users/second")
        for ago, counted in ((ADMIN_COUNTS_ON - timedelta(hours=1), 2), (ADMIN_COUNTS_ON + timedelta(hours=1), 1)):
            now = user.create_time
            stopped = replace(user, state=user.state.SUSPENDED)
            accounts.change_user(tx, stopped, expected=user, suspend_time=now - ago)
            assert accounts.counted_admins(tx, suspended_since=now - ADMIN_COUNTS_ON) == counted
            accounts.change_user(tx, user, expected=stopped)


def test_carrying_ones_own_appointment(world):
    motion = world.admin.motions.propose("appoint", "users/puppet", PUPPET)
    with refused(errors.ApprovalRefused, "their own motion"):
        world.admin.motions.second(motion)
    with pytest.raises(errors.NotFound):
        world.admin.users.get("puppet")


def test_showing_the_second_admin_harmless_roles(world):
    motion = world.admin.motions.propose("appoint", "users/puppet", PUPPET)
    shown = replace(motion, facts=PUPPET | {"roles": "auditor"})
    with refused(errors.ApprovalRefused, "another facts"):
        world.person("second").motions.second(shown)


def test_taking_over_a_name_that_is_there(world):
    with refused(errors.AlreadyExists, "choose another name"):
        world.admin.motions.propose("appoint", "users/aud", PUPPET)
    with refused(errors.Denied, "their own account"):
        world.admin.motions.propose("appoint", "users/admin", PUPPET)


def test_a_second_ticket_for_a_reviewer_who_waits(world):
    """Whoever could get one alone would enrol in the reviewer's place."""
    motion = world.admin.motions.propose("appoint", "users/waits", PUPPET)
    world.person("second").motions.second(motion)
    with refused(errors.Denied, "It takes two admins"):
        world.admin.users.invite("waits", organisation="shell", roles=["reviewer"], display_name="Sock")


def test_replacing_somebodys_keys_alone(world):
    key = world.person("early").identity.key_id
    motion = world.admin.motions.propose("replace-keys", "users/early", {"key": key})
    with refused(errors.ApprovalRefused, "their own motion"):
        world.admin.motions.second(motion)
    assert world.person("early").users.me().name == "users/early"


def test_replacing_ones_own_keys_with_a_friend(world):
    second = world.person("second")
    with refused(errors.Denied, "their own account"):
        second.motions.propose("replace-keys", "users/second", {"key": second.identity.key_id})
    motion = world.admin.motions.propose("replace-keys", "users/second", {"key": second.identity.key_id})
    with refused(errors.Denied, "their own account"):
        second.motions.second(motion)


def test_a_reviewer_who_would_appoint(world):
    with refused(errors.Denied, "proposes no motion of this kind"):
        world.person("early").motions.propose("appoint", "users/friend", PUPPET)


def exchange(client, **forged):
    """Exchange keys as a client of one's own making would."""
    identity, fresh = client.identity, keys.FreshKeys.generate()
    request, public = keys.certificate_request(fresh.tls), keys.public_bytes(fresh.signer)
    bound = {"user": identity.user, "old": keys.public_bytes(identity.signer)} | {
        k: v for k, v in forged.items() if k in ("user", "old")
    }
    statement = rotation_statement(bound["user"], bound["old"], public, fresh.sealing_key, request)
    message = identity_pb2.RotateKeysRequest(
        certificate_request=request,
        identity_key=public,
        sealing_key=forged.get("sealing", fresh.sealing_key),
        old_proof=forged.get("signer", identity.signer).sign(statement),
        new_proof=forged.get("newcomer", fresh.signer).sign(statement),
    )
    channel = client._channel
    return channel.call(identity_pb2_grpc.IdentityServiceStub(channel.grpc_channel).RotateKeys, message)


@pytest.mark.parametrize(
    "forged",
    [
        {"signer": keys.FreshKeys.generate().signer},
        {"newcomer": keys.FreshKeys.generate().signer},
        {"user": "users/early"},
        {"old": bytes(32)},
        {"sealing": keys.FreshKeys.generate().sealing_key},
    ],
    ids=lambda forged: next(iter(forged)),
)
def test_exchanging_keys_without_both(world, forged):
    """A stolen TLS key and certificate are not enough, nor is a statement about anything else."""
    victim = world.person("vera", "researcher")
    with refused(errors.Unauthenticated, "did not sign"):
        exchange(victim, **forged)
    assert victim.users.me().identity_key == keys.public_bytes(victim.identity.signer)


def test_denying_certificates_without_being_an_admin(world):
    with refused(errors.Denied, "Only admins deny"):
        world.person("early").users.deny_certificate("ab" * 32, reason="I do not like them.")
