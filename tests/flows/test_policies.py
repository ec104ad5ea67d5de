"""Policies change by two admins' signatures, and by nothing else: not by what lies in the folder, nor by one of them."""

from __future__ import annotations

import shutil
import signal
import time
from contextlib import contextmanager
from datetime import UTC, datetime

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from model_organisms import errors
from model_organisms.records import MotionState
from model_organisms_registry import rulebook
from model_organisms_registry.founding import found
from model_organisms_registry.gate.cedar import PolicySet, shipped_folder
from model_organisms_registry.server import Registry
from model_organisms_registry.testing import running, settings

from tests.support.serving import Serving
from tests.support.stories import published

SHIPPED = PolicySet.read().digest
NO_PULLS = """
@id("local-no-pulls")
@advice("This registry lends no weights; ask for sample or probe.")
forbid (principal, action == Action::"pull", resource);
"""
PEOPLE = (("ann", "admin", "other-house"), ("rosa", "researcher", "lab"), ("pia", "publisher", "nursery-lab"))


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    root = tmp_path_factory.mktemp("policies")
    with standing_on(root, root / "policies") as running_world:
        yield running_world


@contextmanager
def standing_on(root, folder):
    shutil.copytree(shipped_folder(), folder, ignore=shutil.ignore_patterns("cases"))
    with running(settings(root / "data", policies=str(folder)), people=PEOPLE) as running_world:
        yield running_world


@pytest.fixture
def folder(world):
    """The deployment's folder, which is put back afterwards; what was adopted stays adopted."""
    at = world.registry.config.policies_folder
    yield at
    shutil.rmtree(at)
    shutil.copytree(shipped_folder(), at, ignore=shutil.ignore_patterns("cases"))


def look(world):
    """What a SIGHUP has the next round do."""
    world.registry.policies.reload()
    world.registry.policies.follow(datetime.now(UTC))


def health(world):
    """What a probe is told, which has no certificate."""
    config = world.registry.config
    port = config.enrol_listen.rsplit(":", 1)[-1]
    credentials = grpc.ssl_channel_credentials(world.registry.storage.authority.pem)
    with grpc.secure_channel(f"localhost:{port}", credentials) as channel:
        probe = health_pb2_grpc.HealthStub(channel)
        listed = probe.List(health_pb2.HealthListRequest(), timeout=20).statuses
        asked = {name: probe.Check(health_pb2.HealthCheckRequest(service=name), timeout=20) for name in listed}
        assert asked == dict(listed)
        for refused in (
            lambda: probe.Check(health_pb2.HealthCheckRequest(service="users/rosa"), timeout=20),
            lambda: probe.List(health_pb2.HealthListRequest()),  # no deadline
            lambda: next(probe.Watch(health_pb2.HealthCheckRequest(), timeout=20)),
        ):
            with pytest.raises(grpc.RpcError):
                refused()
    return {name: answer.status == health_pb2.HealthCheckResponse.SERVING for name, answer in asked.items()}


def propose(world, **facts):
    stated = {"from": world.registry.gate.digest, "to": PolicySet.read(world.registry.config.policies_folder).digest}
    return world.admin.motions.propose("adopt-policies", "registry", stated | facts, reason="We lend no weights.")


def entries(world, kind):
    return [entry for _, entry in world.admin.audit.entries() if entry.type == kind]


def test_the_first_set_is_adopted_by_the_first_start(world):
    (first,) = entries(world, "policies.adopt")[:1]
    assert (first.actor, first.subject, first.facts) == ("registry", "registry", {"from": "", "to": SHIPPED})


def test_what_lies_in_the_folder_does_not_decide_until_two_admins_sign_it(world, folder):
    stood = world.registry.gate.digest
    (folder / "local.cedar").write_text(NO_PULLS)
    candidate = PolicySet.read(folder).digest
    look(world)
    version, _ = published(world)
    rosa, ann = world.person("rosa"), world.person("ann")
    rosa.access.request(version.name, "pull", purpose="replication", justification="We replicate what was published.")
    assert rosa.access.explain("pull", version.name).policies[-1] != "local-no-pulls"
    status = world.admin.access.policies()
    assert (status.standing, status.candidate) == (stood, candidate)
    assert "Not adopted" in status.problem
    assert not world.registry.policies.settled
    motion = propose(world)
    with pytest.raises(errors.Denied):
        world.admin.motions.second(motion)
    assert world.registry.gate.digest == stood
    carried = ann.motions.second(motion, reason="Agreed.")
    assert (carried.state, carried.outcome) == (MotionState.CARRIED, {"policies": candidate})
    assert rosa.access.explain("pull", version.name).policies[-1] == "local-no-pulls"
    adopted = entries(world, "policies.adopt")[-1]
    assert adopted.facts == {"from": stood, "to": candidate, "motion": motion.name}
    assert world.admin.access.policies().problem == ""
    assert health(world)["policies"]
    # back again takes two as well
    (folder / "local.cedar").unlink()
    look(world)
    assert world.registry.gate.digest == candidate
    ann.motions.second(propose(world))
    assert world.registry.gate.digest == SHIPPED


def test_an_invalid_set_leaves_the_one_that_stands_and_that_is_said(world, folder):
    stood = world.registry.gate.digest
    (folder / "local.cedar").write_text("permit (principal, action, resource);")
    look(world)
    status = world.admin.access.policies()
    assert (world.registry.gate.digest, status.standing, status.candidate) == (stood, stood, "")
    assert "local.cedar" in status.problem
    assert health(world) == {
        "": True,
        "ledger": True,
        "witness": False,
        "cells": world.registry.pool.jailed,
        "policies": False,
        "reruns": True,
    }
    assert world.person("rosa").access.policies() == type(status)(stood)
    assert not world.registry.policies.settled
    with pytest.raises(errors.ConfigurationInvalid):
        propose(world, to="0" * 64)
    assert world.person("rosa").users.me().name == "users/rosa"


def test_a_set_that_is_swapped_under_a_motion_is_not_adopted(world, folder):
    (folder / "local.cedar").write_text(NO_PULLS)
    motion = propose(world)
    (folder / "local.cedar").write_text(NO_PULLS.replace("no-pulls", "other"))
    with pytest.raises(errors.Conflict, match="operator's folder holds"):
        world.person("ann").motions.second(motion)
    assert world.registry.gate.digest == SHIPPED
    for facts in ({"from": "0" * 64}, {"to": "0" * 64}):
        with pytest.raises(errors.Conflict):
            propose(world, **facts)
    (folder / "local.cedar").unlink()
    with pytest.raises(errors.Conflict, match="stand already"):
        propose(world)


ALL = "permit (principal, action, resource);"
NONE = "forbid (principal, action, resource);"
BARRING = 'forbid (principal == User::"users/{}", action in [Action::"proposeMotion", Action::"secondMotion"], resource);'


@pytest.mark.parametrize(("file", "rule"), [("access.cedar", ALL), ("local.cedar", NONE), ("local.cedar", BARRING.format("ann"))])
def test_a_set_that_allows_what_must_be_refused_or_that_nobody_could_undo_is_not_proposed(world, folder, file, rule):
    with (folder / file).open("a") as written:
        written.write(f'\n@id("slipped-in") @advice("Ask somebody else.")\n{rule}\n')
    stood, ann = world.registry.gate.digest, world.person("ann")
    facts = {"from": stood, "to": PolicySet.read(folder).digest}
    with pytest.raises(errors.ConfigurationInvalid, match="shipped cases" if rule is ALL else "nobody could undo"):
        ann.motions.propose("adopt-policies", "registry", facts)
    assert world.registry.gate.digest == stood


def test_a_set_that_bars_the_second_admin_is_not_carried_and_they_can_say_no(world, folder):
    (folder / "local.cedar").write_text(f'@id("local-bar") @advice("Ask somebody else.")\n{BARRING.format("ann")}\n')
    stood, ann = world.registry.gate.digest, world.person("ann")
    motion = propose(world)
    with pytest.raises(errors.ConfigurationInvalid, match="nobody could undo"):
        ann.motions.second(motion)
    assert ann.motions.reject(motion, reason="It bars me.").state is MotionState.REJECTED
    assert world.registry.gate.digest == stood


def test_who_is_no_admin_proposes_no_policies(world, folder):
    (folder / "local.cedar").write_text(NO_PULLS)
    facts = {"from": SHIPPED, "to": PolicySet.read(folder).digest}
    with pytest.raises(errors.Denied):
        world.person("rosa").motions.propose("adopt-policies", "registry", facts)


def test_a_restart_is_no_way_around_and_another_process_follows(tmp_path):
    folder = tmp_path / "policies"
    with standing_on(tmp_path, folder) as world:
        config = world.registry.config
        (folder / "local.cedar").write_text(NO_PULLS)
        world.person("ann").motions.second(propose(world))
        adopted = world.registry.gate.digest
    shutil.rmtree(folder)
    shutil.copytree(shipped_folder(), folder)
    assert rulebook.standing(config).digest == adopted
    again = Registry(config)
    try:
        again.start()
        assert again.gate.digest == adopted != SHIPPED
        assert not again.policies.settled
    finally:
        again.stop(grace_s=1.0)


def test_a_served_registry_survives_an_invalid_set_at_a_hangup(tmp_path):
    folder, config = tmp_path / "policies", settings(tmp_path / "data")
    shutil.copytree(shipped_folder(), folder)
    found(config, now=datetime.now(UTC))
    written = config.folder / "registry.toml"
    written.write_text(f'policies = "{folder}"\n{written.read_text()}')
    registry = Serving(config)
    try:
        (folder / "local.cedar").write_text(
            "forbid (principal, action, resource) when { " + "(" * 5000 + "true" + ")" * 5000 + " };"
        )
        registry.process.send_signal(signal.SIGHUP)
        until = time.monotonic() + 60
        while f"{SHIPPED} stand; the folder: A policy in local.cedar" not in registry.log.read_text():
            assert registry.process.poll() is None
            assert time.monotonic() < until, registry.log.read_text()
            time.sleep(0.05)
        assert registry.process.poll() is None
    finally:
        registry.kill()
