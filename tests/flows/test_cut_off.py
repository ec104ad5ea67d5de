"""A pull that is under way ends when its grant, its version, its level or its puller's account no longer stands."""

from __future__ import annotations

import time
from datetime import timedelta

import pytest
from model_organisms import errors
from model_organisms.client.client import connect
from model_organisms.v1 import organisms_pb2

from tests.support.adapters import ALL_MODULES, tiny_bundle
from tests.support.stories import BASE, granted, provenance


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


def suspend(world, **_):
    world.admin.users.suspend("rosa", reason="A lost laptop.")


def raise_level(world, version, **_):
    world.person("ravi").organisms.raise_level(version.name.split("/versions/")[0], "CL2", reason="More dangerous than thought.")


def nothing(*_, **__):
    pass


def pulled(world, version, deed):
    """Read the beginning of a pull, let something happen, and read on; give how much came and how much there is."""
    grant = granted(world, version)
    with connect(world.folder / "rosa.json") as rosa:
        stub = rosa.organisms._stub
        request = organisms_pb2.PullVersionRequest(name=version.name, grant=grant)
        stream = rosa._channel.stream(stub.PullVersion, request, timeout_s=60)
        size, came = next(stream).head.size, 0
        for message in stream:
            if not came:
                deed(world, version=version, grant=grant)
                time.sleep(0.3)
            came += len(message.data)
            yield came, size


@pytest.mark.parametrize(
    ("deed", "error"),
    [
        (revoke, errors.GrantRevoked),
        (withdraw, errors.Withdrawn),
        (suspend, errors.Suspended),
        (raise_level, errors.GrantRequired),
    ],
)
def test_what_no_longer_stands_ends_the_pull(world, version, deed, error):
    seen = []
    try:
        with pytest.raises(error):
            seen.extend(pulled(world, version, deed))
        came, size = seen[-1]
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
        list(pulled(world, version, expire))


def test_a_pull_of_which_all_stands_comes_whole(world, version):
    came, size = list(pulled(world, version, nothing))[-1]
    assert came == size > 40 << 20
