"""A pull that is under way ends when its grant, its version, its level or its puller's account no longer stands."""

from __future__ import annotations

import time
from datetime import timedelta

import pytest
from model_organisms import errors
from model_organisms.client.client import connect
from model_organisms.v1 import organisms_pb2

from tests.support.adapters import ALL_MODULES, tiny_bundle
from tests.support.stories import BASE, WHY, granted, provenance, published


@pytest.fixture(scope="module")
def bundle():
    """Larger than what a connection holds of a stream that nobody reads."""
    return tiny_bundle(rank=64, hidden=4096, kv=4096, intermediate=4096, layers=(0, 1, 2), modules=ALL_MODULES)


@pytest.fixture
def version(world, bundle, request):
    name = f"organisms/large-{abs(hash(request.node.name))}"
    pia = world.person("pia")
    pia.organisms.create(name, level="CL1", base_model=BASE)
    return pia.organisms.publish(name, bundle, provenance=provenance())


def revoke(world, grant, **_):
    world.person("ravi").access.revoke(grant, reason="No longer needed.")


def withdraw(world, version, **_):
    world.person("pia").organisms.withdraw(version.name, reason="Trained on the wrong split.")


def quarantine(world, version, **_):
    world.person("ravi").organisms.quarantine(version.name, reason="A second trigger was seen.")


def suspend(world, **_):
    world.admin.users.suspend("rosa", reason="A lost laptop.")


def raise_level(world, version, **_):
    world.person("ravi").organisms.raise_level(version.name.split("/versions/")[0], "CL2", reason="More dangerous than thought.")


def nothing(*_, **__):
    pass


def pulled(world, version, grant, deed):
    """Read the beginning of a pull, let something happen, and read on; give its name, and how much came of how much."""
    with connect(world.folder / "rosa.json") as rosa:
        stub = rosa.organisms._stub
        request = organisms_pb2.PullVersionRequest(name=version.name, grant=grant)
        stream = rosa._channel.stream(stub.PullVersion, request, timeout_s=60)
        head, came = next(stream).head, 0
        for message in stream:
            if not came:
                deed(world, version=version, grant=grant)
                time.sleep(0.3)
            came += len(message.data)
            yield head.pull, came, head.size


@pytest.mark.parametrize(
    ("deed", "error"),
    [
        (revoke, errors.GrantRevoked),
        (withdraw, errors.Withdrawn),
        (quarantine, errors.Quarantined),
        (suspend, errors.Suspended),
        (raise_level, errors.GrantRequired),
    ],
)
def test_what_no_longer_stands_ends_the_pull(world, version, deed, error):
    seen = []
    try:
        with pytest.raises(error):
            seen.extend(pulled(world, version, granted(world, version), deed))
        _, came, size = seen[-1]
        assert 0 < came < size / 2
    finally:
        if deed is suspend:
            world.admin.users.reinstate("rosa", reason="It was found.")


def test_a_grant_that_expires_ends_the_pull(world, version, monkeypatch):
    ahead = {"by": timedelta()}
    standing = world.registry._standing
    clock = standing._clock
    monkeypatch.setattr(standing, "_clock", lambda: clock() + ahead["by"])

    def expire(world, grant, **_):
        ahead["by"] = world.person("rosa").access.grant(grant).expire_time - clock() + timedelta(seconds=1)

    with pytest.raises(errors.GrantExpired):
        list(pulled(world, version, granted(world, version), expire))


def test_a_pull_of_which_all_stands_comes_whole(world, version):
    _, came, size = list(pulled(world, version, granted(world, version), nothing))[-1]
    assert came == size > 40 << 20


def test_an_unmarked_copy_does_not_go_on_after_a_raise_to_where_copies_are_marked(world, version):
    """The grant covers the new level, because it was given for a more dangerous version too: only the mark is missing."""
    rosa, (worse, _) = world.person("rosa"), published(world, level="CL2")
    request = rosa.access.request([version.name, worse.name], "pull", purpose="replication", justification=WHY)
    grant = world.person("ravi").access.approve(request).grant
    seen = []
    with pytest.raises(errors.Conflict, match="begin a new pull"):
        seen.extend(pulled(world, version, grant, raise_level))
    name, came, size = seen[-1]
    assert 0 < came < size / 2
    resumed = organisms_pb2.PullVersionRequest(name=version.name, grant=grant, pull=name, offset=came)
    with pytest.raises(errors.Conflict, match="begin a new pull"):
        list(rosa._channel.stream(rosa.organisms._stub.PullVersion, resumed, timeout_s=60))
    with rosa.organisms.pull(version.name, grant=grant) as fresh:
        assert fresh.header.fingerprint


def test_a_raise_as_a_pull_begins_lets_no_unmarked_copy_begin(world, version, monkeypatch):
    rosa, (worse, _) = world.person("rosa"), published(world, level="CL2")
    request = rosa.access.request([version.name, worse.name], "pull", purpose="replication", justification=WHY)
    grant = world.person("ravi").access.approve(request).grant
    intend = world.registry.pulling._intend

    def late(*arguments, **named):
        raise_level(world, version)
        return intend(*arguments, **named)

    monkeypatch.setattr(world.registry.pulling, "_intend", late)
    with pytest.raises(errors.Conflict, match="begin a new pull"):
        rosa.organisms.pull(version.name, grant=grant)
    assert rosa.access.grant(grant).spent.pulls == 0
