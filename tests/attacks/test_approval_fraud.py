"""Attacks on approvals, each over a real server: whoever has an interest, signs for another, or signs again, gets nobody in."""

from __future__ import annotations

import secrets
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from model_organisms import errors
from model_organisms.formats import dsse, statements
from model_organisms.formats.statements import review_of
from model_organisms.records import Budget, Condition, Level, Modifier, MotionState, RequestState, Rung, Stated, VersionRef
from model_organisms.v1 import access_pb2, access_pb2_grpc

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


@pytest.mark.parametrize("shown", [{"conditions": ()}, {"stated": Stated()}])
def test_a_reviewer_is_shown_lighter_conditions_than_the_grant_would_have(world, shown):
    version, _ = published(world, level="CL2")
    world.person("pia").organisms.set_conditions(version.name.split("/versions")[0], conditions=["no-merge"])
    stated = Stated(accepts=(Condition(Modifier.NO_MERGE),))
    request = world.person("rosa").access.request(version.name, "pull", purpose="replication", justification=WHY, stated=stated)
    with pytest.raises(errors.ApprovalRefused, match="another"):
        world.person("ravi").access.approve(replace(request, **shown), reason="Fine.")
    assert untouched(world, request)


def handed_in(world, who, request, envelope):
    """Hand bytes in as a client of an attacker's own would."""
    channel = world.person(who)._channel
    stub = access_pb2_grpc.AccessServiceStub(channel.grpc_channel)
    return channel.call(stub.ApproveAccessRequest, access_pb2.ApproveAccessRequestRequest(name=request.name, envelope=envelope))


def signed(world, who, request, **changes):
    made = review_of(
        request,
        approve=True,
        reason="Fine.",
        expires=datetime.now(UTC).replace(microsecond=0) + timedelta(hours=1),
        nonce=secrets.token_hex(16),
    )
    printed = statements.print_review(replace(made, **changes))
    return dsse.sign(printed, statements.PAYLOAD_TYPE, world.person(who)._channel.identity.signer)


def test_the_same_envelope_is_handed_in_twice(world):
    version, _ = published(world, level="CL3")
    request = asked(world, version)
    envelope = signed(world, "ravi", request)
    handed_in(world, "ravi", request, envelope)
    for who in ("ravi", "rena"):
        with pytest.raises(errors.ModelOrganismsError) as refused:
            handed_in(world, who, request, envelope)
        assert type(refused.value) in {errors.ApprovalRefused, errors.SignatureInvalid}
    stands = world.person("rosa").access.get(request.name)
    assert (stands.state, len(stands.approvals)) == (RequestState.PENDING, 1)


def test_a_nonce_is_used_again_for_another_request(world):
    version, _ = published(world, level="CL2")
    first, second, nonce = asked(world, version), asked(world, version), secrets.token_hex(16)
    handed_in(world, "ravi", first, signed(world, "ravi", first, nonce=nonce))
    with pytest.raises(errors.AlreadyExists):
        handed_in(world, "ravi", second, signed(world, "ravi", second, nonce=nonce))
    assert untouched(world, second)
    handed_in(world, "ravi", second, signed(world, "ravi", second))


@pytest.mark.parametrize(
    "change",
    [
        {"level": Level.CL1},
        {"rung": Rung.SAMPLE},
        {"revision": 2},
        {"versions": (VersionRef("organisms/other/versions/1", "ab" * 32),)},
        {"expires": datetime(2020, 1, 1, tzinfo=UTC)},
        {"expires": datetime(2100, 1, 1, tzinfo=UTC)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_statement_about_something_else_is_handed_in(world, change):
    version, _ = published(world, level="CL2")
    request = asked(world, version)
    with pytest.raises(errors.ApprovalRefused):
        handed_in(world, "ravi", request, signed(world, "ravi", request, **change))
    assert untouched(world, request)


def test_a_statement_signed_for_an_older_version_is_used_for_the_new_one(world):
    pia, name = world.person("pia"), "renewed-line"
    pia.organisms.create(name, level="CL2", base_model=BASE)
    old, new = (pia.organisms.publish(name, tiny_bundle(seed=seed), provenance=provenance()) for seed in (201, 202))
    about_old, about_new = asked(world, old), asked(world, new)
    for envelope in (signed(world, "ravi", about_old), signed(world, "ravi", about_new, versions=about_old.versions)):
        with pytest.raises(errors.ApprovalRefused):
            handed_in(world, "ravi", about_new, envelope)
    assert untouched(world, about_new)


def test_a_level_is_raised_between_two_approvals(world):
    version, _ = published(world, level="CL3")
    request = asked(world, version)
    world.person("ravi").access.approve(request, reason="Fine.")
    world.person("rena").organisms.raise_level(version.name.split("/versions")[0], "CL4", reason="Worse than thought.")
    with pytest.raises(errors.Conflict, match="level"):
        world.person("rena").access.approve(request, reason="Fine.")
    amended = world.person("rosa").access.amend(request, budget=Budget(tokens=1000, sessions=1, output_bytes=1000))
    assert (amended.approvals, amended.level) == ((), Level.CL4)


def test_somebody_signs_with_the_key_of_another(world):
    version, _ = published(world, level="CL2")
    request = asked(world, version)
    with pytest.raises(errors.SignatureInvalid):
        handed_in(world, "rena", request, signed(world, "ravi", request))
    assert untouched(world, request)


def test_two_of_one_organisation_pass_for_two(world):
    version, _ = published(world, level="CL3")
    request = asked(world, version)
    world.person("ravi").access.approve(request, reason="Fine.")
    second = world.person("rudi", "reviewer", organisation="safety-institute")
    with pytest.raises(errors.ApprovalRefused, match="organisation"):
        second.access.approve(request, reason="Fine.")
    assert world.person("rosa").access.get(request.name).state is RequestState.PENDING


def test_a_co_author_lets_their_own_version_out_of_quarantine_or_lowers_it(world):
    world.person("carl", "reviewer", organisation="carls-lab")
    name = "organisms/carls-second"
    pia, carl, rena = (world.person(who) for who in ("pia", "carl", "rena"))
    pia.organisms.create(name, level="CL2", base_model=BASE)
    version = pia.organisms.publish(name, tiny_bundle(seed=7117), provenance=replace(provenance(), co_authors=("users/carl",)))
    rena.organisms.quarantine(version.name, reason="It does more than it says.")
    with pytest.raises(errors.Denied, match="or a version they made"):
        carl.organisms.release(version.name, reason="It is fine.")
    down = {"from": "CL2", "to": "CL1"}
    with pytest.raises(errors.ApprovalRefused):
        carl.motions.propose("lower-level", name, down)
    motion = rena.motions.propose("lower-level", name, down)
    with pytest.raises(errors.ApprovalRefused):
        carl.motions.second(motion)


def test_a_requester_lowers_the_level_to_need_fewer_reviewers(world):
    version, _ = published(world, level="CL2")
    name, down = version.name.split("/versions")[0], {"from": "CL2", "to": "CL1"}
    rex = world.person("rex-who-asks", "researcher", "reviewer", organisation="rexs-lab")
    motion = rex.motions.propose("lower-level", name, down)
    asked = rex.access.request(version.name, "pull", purpose="replication", justification=WHY, need=WHY)
    with pytest.raises(errors.ApprovalRefused):
        rex.motions.propose("lower-level", name, down)
    # nor does what they signed before they asked count
    assert world.person("rena").motions.second(motion).state is MotionState.OPEN
    rex.access.withdraw(asked.name)
