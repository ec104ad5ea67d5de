"""Attacks on approvals, each over a real server: whoever has an interest, signs for another, or signs again, gets nobody in."""

from __future__ import annotations

from dataclasses import replace

import pytest
from model_organisms import errors
from model_organisms.records import RequestState

from tests.support.adapters import tiny_bundle
from tests.support.stories import BASE, WHY, provenance, published


def asked(world, version, rung="probe"):
    return world.person("rosa").access.request(version.name, rung, purpose="replication", justification=WHY)


def untouched(world, request):
    stands = world.person("rosa").access.get(request.name)
    return (stands.state, stands.approvals) == (RequestState.PENDING, ())


@pytest.mark.parametrize("level", ["CL1", "CL2", "CL3"])
def test_an_owner_who_is_a_reviewer_lets_a_friend_in(world, level):
    olga = world.person("olga", "publisher", "reviewer", organisation="owner-lab")
    olga.organisms.create(f"owned-{level.lower()}", level=level, base_model=BASE)
    version = olga.organisms.publish(f"owned-{level.lower()}", tiny_bundle(seed=101), provenance=provenance())
    request = asked(world, version)
    with pytest.raises(errors.ApprovalRefused):
        olga.access.approve(request, reason="It is mine to give.")
    assert untouched(world, request)


@pytest.mark.parametrize("level", ["CL1", "CL3"])
def test_a_co_author_who_is_a_reviewer_lets_a_friend_in(world, level):
    carl = world.person("carl", "reviewer", organisation="third-lab")
    pia, name = world.person("pia"), f"shared-{level.lower()}"
    pia.organisms.create(name, level=level, base_model=BASE)
    stated = replace(provenance(), co_authors=("users/carl", "Jane Doe"))
    version = pia.organisms.publish(name, tiny_bundle(seed=102), provenance=stated)
    assert version.co_authors == ("users/carl",)
    request = asked(world, version)
    with pytest.raises(errors.ApprovalRefused):
        carl.access.approve(request, reason="I know that it is harmless.")
    assert untouched(world, request)
    stranger, _ = published(world, level="CL1")
    assert carl.access.approve(asked(world, stranger), reason="Sound.").state is RequestState.GRANTED
