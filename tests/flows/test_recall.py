"""A version is set aside and put back, or taken back for good: who may, what it stops, and what the ledger says of it."""

from __future__ import annotations

import pytest
from model_organisms import errors
from model_organisms.records import VersionState

from tests.support.stories import WHY, granted, published


def test_a_quarantine_stops_everything_until_another_reviewer_lifts_it(world):
    version, files = published(world)
    rosa, ravi, rena = (world.person(name) for name in ("rosa", "ravi", "rena"))
    granted(world, version)
    waiting = rosa.access.request(version.name, "pull", purpose="replication", justification=WHY)
    aside = ravi.organisms.quarantine(version.name, reason="A second trigger was seen.")
    assert (aside.state, aside.stopped_by, aside.note) == (VersionState.QUARANTINED, "users/ravi", "A second trigger was seen.")
    assert rosa.organisms.version(version.name) == aside
    for attempt in (
        lambda: rosa.organisms.pull(version.name),
        lambda: rosa.sandbox.open(version.name, purpose="replication"),
        lambda: rosa.access.request(version.name, "sample", purpose="replication", justification=WHY),
        lambda: rena.access.approve(waiting),
    ):
        with pytest.raises(errors.Quarantined, match="wait for its release"):
            attempt()
    released = rena.organisms.release(version.name, reason="It was the first one.")
    assert (released.state, released.stopped_by, released.stop_time, released.note) == (VersionState.PUBLISHED, "", None, "")
    assert rena.access.approve(waiting).grant
    with rosa.organisms.pull(version.name) as pulled:
        assert {path: bytes(data) for path, data in pulled.files.items()} == files


@pytest.mark.parametrize("who", ["pia", "ravi", "admin"])
def test_owner_reviewers_and_admins_set_aside_and_nobody_else(world, who):
    version, _ = published(world)
    client = world.admin if who == "admin" else world.person(who)
    for stranger in ("rosa", "aud"):
        with pytest.raises(errors.Denied):
            world.person(stranger).organisms.quarantine(version.name, reason="Spite.")
    client.organisms.quarantine(version.name, reason="Looking into it.")
    with pytest.raises(errors.Conflict):
        client.organisms.quarantine(version.name, reason="Again.")
    for stranger in ("pia", "rosa", "aud", who):
        other = world.admin if stranger == "admin" else world.person(stranger)
        with pytest.raises(errors.Denied):
            other.organisms.release(version.name, reason="Let it out.")
    assert world.person("rena").organisms.release(version.name, reason="Nothing found.").state is VersionState.PUBLISHED


def test_a_hidden_version_is_not_betrayed_by_stopping_it(world):
    version, _ = published(world, hidden=True)
    for act in ("withdraw", "quarantine", "release"):
        for name in (version.name, "organisms/none-such/versions/1"):
            with pytest.raises(errors.NotFound) as told:
                getattr(world.person("rosa").organisms, act)(name, reason="Curiosity.")
            assert told.value.message.replace(name, "X") == errors.NotFound.named("X").message


def test_the_ledger_tells_of_every_stop_and_start(world):
    version, _ = published(world)
    world.person("pia").organisms.quarantine(version.name, reason="Looking into it.")
    world.person("ravi").organisms.release(version.name, reason="Nothing found.")
    world.person("rena").organisms.quarantine(version.name, reason="Something found.")
    world.person("pia").organisms.withdraw(version.name, reason="It is worse than it says.")
    told = [entry for _, entry in world.person("aud").audit.entries() if entry.subject == version.name]
    assert [(entry.type, entry.actor) for entry in told[-4:]] == [
        ("organisms.quarantine", "users/pia"),
        ("organisms.release", "users/ravi"),
        ("organisms.quarantine", "users/rena"),
        ("organisms.withdraw", "users/pia"),
    ]
    assert all(entry.commit and entry.facts == {"digest": version.digest} for entry in told[-4:])
    with pytest.raises(errors.Conflict):
        world.person("ravi").organisms.release(version.name, reason="Please.")
