"""What was withdrawn is destroyed by two people: its key, whoever keeps it, and nothing else; a crash in between is finished."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from model_organisms import errors
from model_organisms.client.client import connect
from model_organisms.records import HoldingState, MotionState, VersionState
from model_organisms_registry.config import load
from model_organisms_registry.founding import free_ports
from model_organisms_registry.server import Registry
from model_organisms_registry.storage.catalog import organisms as rows
from model_organisms_registry.storage.keys import KeyState
from model_organisms_registry.testing import running, settings

from tests.flows.test_backup import opened, port, run, stored
from tests.support.cells import eventually
from tests.support.keepers import PROVIDERS, kept_by
from tests.support.registries import PEOPLE
from tests.support.stories import WHY, granted, published


@pytest.fixture(scope="module", params=PROVIDERS)
def kept(request, tmp_path_factory, softhsm):
    folder = tmp_path_factory.mktemp(request.param)
    with kept_by(request.param, folder, softhsm) as (keys, server), registry(folder / "data", keys) as at_work:
        yield at_work, server


def registry(folder, keys):
    return running(settings(folder, keys=keys), people=PEOPLE)


@pytest.fixture
def world(kept):
    return kept[0]


def withdrawn(world, level="CL1"):
    version, _ = published(world, level=level)
    return world.person("pia").organisms.withdraw(version.name, reason="Its data must not be used.")


def destroyed(world, version):
    motion = world.person("ravi").motions.propose(
        "destroy-key", version.name, {"digest": version.digest}, reason="Nobody may have it."
    )
    return world.person("rena").motions.second(motion, reason="Nobody.")


def state(world, version):
    return world.registry.storage.keys.state(stored(version).key_id)


def test_two_people_destroy_what_was_withdrawn_and_only_its_bytes_are_gone(world, tmp_path):
    version, _ = published(world, level="CL2")
    granted(world, version)
    world.person("rosa").organisms.pull(version.name).close()
    rosa, ravi, aud = (world.person(who) for who in ("rosa", "ravi", "aud"))
    assert run("backup", "--folder", world.folder, tmp_path / "copy")[0] == 0
    with pytest.raises(errors.Conflict, match="withdraw it first"):
        destroyed(world, version)
    before = ravi.organisms.withdraw(version.name, reason="Its data must not be used.")
    with pytest.raises(errors.Withdrawn) as refused:
        rosa.organisms.pull(version.name)
    assert refused.value.reason == "WITHDRAWN"

    motion = ravi.motions.propose("destroy-key", version.name, {"digest": version.digest}, reason="Nobody may have it.")
    assert state(world, version) is KeyState.LIVE
    done = world.person("rena").motions.second(motion)
    assert (done.state, done.outcome) == (MotionState.CARRIED, {"key": stored(version).key_id})
    assert state(world, version) is KeyState.DESTROYED

    for attempt in (
        lambda: rosa.organisms.pull(version.name),
        lambda: rosa.sandbox.open(version.name, purpose="replication"),
        lambda: rosa.access.request(version.name, "pull", purpose="replication", justification=WHY),
    ):
        with pytest.raises(errors.Destroyed, match="its key is gone") as told:
            attempt()
        assert told.value.reason == "DESTROYED"
    after = rosa.organisms.version(version.name)
    assert after.state is VersionState.DESTROYED
    assert (after.files, after.provenance, after.note) == (version.files, version.provenance, before.note)
    about = [item for _, item in aud.audit.entries() if version.name in {item.subject, item.facts.get("subject")}]
    said = [item for item in about if item.type != "gate.deny"]
    assert [item.type for item in said[-4:]] == ["motions.propose", "organisms.destroy", "motions.carry", "organisms.destroyed"]
    assert said[-3].facts == {"digest": version.digest, "key": stored(version).key_id, "motion": motion.name}
    (due,) = ravi.organisms.holders(version.name, outstanding=True)  # copies that had left are owed as after any withdrawal
    assert (due.user, due.state) == ("users/rosa", HoldingState.DUE)
    with pytest.raises(errors.Conflict, match="destroyed already"):
        destroyed(world, version)
    with pytest.raises(errors.Conflict, match="destroyed already"):
        ravi.organisms.withdraw(version.name, reason="Again.")

    # A registry put back from before it was withdrawn, with the keys as they are now.
    mirrored = ("--version-keys", world.folder / "keys/kek") if world.registry.config.keys.provider == "file" else ()
    status, told = run("restore", tmp_path / "copy", "--folder", tmp_path / "new", *mirrored)
    assert (status, f"destroyed: {version.name}: and this catalog does not say so" in told) == (0, True)
    with pytest.raises(errors.NotFound, match="destroyed"):
        opened(tmp_path / "new", version)
    again = Registry(free_ports(load(tmp_path / "new")))
    again.start()
    try:
        identity = (world.folder / "rosa.json").read_text()
        (tmp_path / "rosa.json").write_text(identity.replace(*(f"localhost:{port(each)}" for each in (world.registry, again))))
        (tmp_path / "rosa.json").chmod(0o600)
        with connect(tmp_path / "rosa.json") as client, pytest.raises(errors.Destroyed):
            client.organisms.pull(version.name)
    finally:
        again.stop(grace_s=1)


def test_who_has_an_interest_and_who_is_alone_destroys_nothing(world):
    version = withdrawn(world, "CL3")
    ravi, facts = world.person("ravi"), {"digest": version.digest}
    with pytest.raises(errors.Denied):
        world.person("pia").motions.propose("destroy-key", version.name, facts)
    with pytest.raises(errors.Denied):
        world.person("rosa").motions.propose("destroy-key", version.name, facts)
    with pytest.raises(errors.Conflict, match="digest"):
        ravi.motions.propose("destroy-key", version.name, {"digest": "0" * 64})
    motion = ravi.motions.propose("destroy-key", version.name, facts)
    with pytest.raises(errors.ApprovalRefused):
        ravi.motions.second(motion)
    with pytest.raises(errors.ApprovalRefused, match="another one must"):
        world.person("rolf", "reviewer", organisation="safety-institute").motions.second(motion)
    assert state(world, version) is KeyState.LIVE
    with pytest.raises(errors.NotFound):
        ravi.motions.propose("destroy-key", "organisms/none-such/versions/1", facts)


def told_of(world, version):
    said = [item.type for _, item in world.person("aud").audit.entries() if item.subject == version.name]
    return said.count("organisms.destroyed")


def test_a_crash_before_the_key_is_gone_is_finished_by_the_next_start(world):
    version = withdrawn(world)
    with world.registry.storage.database.write() as tx:  # what the motion's transaction leaves, and the crash right after it
        rows.set_version_state(tx, replace(version, state=VersionState.DESTROYED), expected=VersionState.WITHDRAWN)
    assert f"unfinished: the destruction of {version.name}" in run("fsck", "--folder", world.folder)[1]
    for _ in range(2):
        world.registry.destruction.recover(datetime.now(UTC))
        assert (state(world, version), told_of(world, version)) == (KeyState.DESTROYED, 1)
    assert f"destroyed: {version.name}: its key" in run("fsck", "--folder", world.folder)[1]


def test_a_keeper_that_is_away_is_asked_again_until_the_key_is_gone(softhsm, tmp_path):
    with kept_by("vault", tmp_path, softhsm) as (keys, server), registry(tmp_path / "data", keys) as world:
        version, honest = withdrawn(world), server.answer
        server.answer = lambda *said: (503, {"errors": ["Vault is sealed"]}) if "version-" in said[1] else honest(*said)
        assert destroyed(world, version).state is MotionState.CARRIED
        with pytest.raises(errors.Destroyed):
            granted(world, version)
        server.answer = honest
        assert eventually(lambda: told_of(world, version) == 1)
        assert state(world, version) is KeyState.DESTROYED
