"""Publish, find, ask, pull, withdraw: the main job over a real server."""

import pytest
from model_organisms import errors
from model_organisms.records import GrantState, Level, VersionState

from tests.support.stories import BASE, granted, provenance, published


def test_a_published_version_carries_facts_from_its_bytes(world):
    version, files = published(world, rank=4)
    assert version.name.endswith("/versions/1")
    assert version.facts[0].ranks == (4,)
    assert version.level is Level.CL1
    assert version.size == sum(map(len, files.values()))
    assert world.person("rosa").organisms.version(version.name) == version


def test_a_claim_the_bytes_contradict_is_refused_before_anything_is_sent(world):
    with pytest.raises(errors.ClaimMismatch, match="rank"):
        published(world, rank=64)


def test_the_same_bytes_are_not_published_twice(world):
    version, files = published(world)
    with pytest.raises(errors.AlreadyExists) as caught:
        world.person("pia").organisms.publish(version.name.split("/versions")[0], files, provenance=provenance())
    assert caught.value.details["name"] == version.name


def test_a_researcher_is_refused_asks_is_approved_pulls_and_is_cut_off(world):
    version, files = published(world)
    rosa = world.person("rosa")
    with pytest.raises(errors.GrantRequired, match=r"access\.request"):
        rosa.organisms.pull(version.name)
    grant = granted(world, version)
    with rosa.organisms.pull(version.name) as pulled:
        assert {path: bytes(data) for path, data in pulled.files.items()} == files
        assert pulled.header.grant == grant
        assert pulled.provenance.base.id == BASE
    assert rosa.access.grant(grant).spent.pulls == 1
    world.person("ravi").access.revoke(grant, reason="The replication is done.")
    assert rosa.access.grant(grant).state is GrantState.REVOKED
    with pytest.raises(errors.GrantRevoked):
        rosa.organisms.pull(version.name)


def test_the_publisher_cannot_approve_and_a_stranger_sees_no_hidden_organism(world):
    version, _ = published(world, hidden=True)
    name = version.name.split("/versions")[0]
    hidden = pytest.raises(errors.NotFound)
    with hidden as there:
        world.person("rosa").organisms.get(name)
    with pytest.raises(errors.NotFound) as absent:
        world.person("rosa").organisms.get("organisms/never-was")
    assert there.value.message.replace(name, "X") == absent.value.message.replace("organisms/never-was", "X")
    assert name not in {item.name for item in world.person("rosa").organisms.list()}
    assert name in {item.name for item in world.person("ravi").organisms.list()}


def test_a_withdrawn_version_is_not_served(world):
    version, _ = published(world)
    granted(world, version)
    withdrawn = world.person("pia").organisms.withdraw(version.name, reason="Trained on the wrong split.")
    assert withdrawn.state is VersionState.WITHDRAWN
    with pytest.raises(errors.Denied):
        world.person("rosa").organisms.pull(version.name)
