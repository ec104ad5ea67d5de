"""One person who would pass for two: own motions, other people's votes, votes for other motions, and levels of one's own."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from model_organisms import errors
from model_organisms.formats import dsse, motions, statements
from model_organisms.records import MotionState
from model_organisms.v1 import motions_pb2, motions_pb2_grpc

from tests.support.stories import published

DOWN = {"from": "CL3", "to": "CL2"}


@pytest.fixture
def motion(world):
    """Ravi's, to lower a toy of pia's."""
    name = published(world, level="CL3")[0].name.split("/versions")[0]
    return world.person("ravi").motions.propose("lower-level", name, DOWN)


def vote(motion, *, origin="registry.test", approve=True):
    return motions.vote_of(motion, origin=origin, approve=approve, reason="", nonce="n")


def hand_in(client, motion, said, *, key=None, method="SecondMotion", message=motions_pb2.SecondMotionRequest):
    """Hand in a vote as a client of one's own making would."""
    channel = client._channel
    envelope = dsse.sign(motions.print_vote(said), statements.PAYLOAD_TYPE, key or client.identity.signer)
    stub = motions_pb2_grpc.MotionsServiceStub(channel.grpc_channel)
    return channel.call(getattr(stub, method), message(name=motion.name, envelope=envelope))


def unmoved(world, motion):
    stands = world.person("ravi").motions.get(motion.name)
    return stands.state is MotionState.OPEN and len(stands.signatures) == 1


def test_seconding_ones_own_motion(world, motion):
    with pytest.raises(errors.ApprovalRefused, match="their own motion"):
        world.person("ravi").motions.second(motion)
    assert unmoved(world, motion)


def test_a_vote_signed_by_another_key(world, motion):
    thief = world.person("ravi").identity.signer
    with pytest.raises(errors.SignatureInvalid):
        hand_in(world.person("rena"), motion, vote(motion), key=thief)
    assert unmoved(world, motion)


@pytest.mark.parametrize("origin", ["another.registry", ""])
def test_a_vote_for_another_registry(world, motion, origin):
    with pytest.raises(errors.ApprovalRefused, match="another origin"):
        hand_in(world.person("rena"), motion, vote(motion, origin=origin))
    assert unmoved(world, motion)


def test_a_vote_for_another_motion_on_the_same_organism(world, motion):
    twin = world.person("ravi").motions.propose("lower-level", motion.subject, DOWN)
    with pytest.raises(errors.ApprovalRefused, match="another motion"):
        hand_in(world.person("rena"), motion, vote(twin))
    assert unmoved(world, motion)


@pytest.mark.parametrize(
    "shown",
    [{"facts": {"from": "CL3", "to": "CL1"}}, {"subject": "organisms/other"}, {"expire_time": datetime(2030, 1, 1, tzinfo=UTC)}],
)
def test_a_reviewer_who_was_shown_something_else(world, motion, shown):
    with pytest.raises(errors.ApprovalRefused, match="another"):
        hand_in(world.person("rena"), motion, vote(replace(motion, **shown)))
    assert unmoved(world, motion)


def test_a_no_handed_in_as_a_yes_and_a_yes_as_a_no(world, motion):
    rena = world.person("rena")
    with pytest.raises(errors.Denied, match="the opposite"):
        hand_in(rena, motion, vote(motion, approve=False))
    with pytest.raises(errors.Denied, match="the opposite"):
        hand_in(rena, motion, vote(motion), method="RejectMotion", message=motions_pb2.RejectMotionRequest)
    assert unmoved(world, motion)


def test_a_vote_that_was_handed_in_before(world, motion):
    mia, rena = world.person("mia", "reviewer", organisation="safety-institute"), world.person("rena")
    with pytest.raises(errors.ApprovalRefused):  # of ravi's house
        hand_in(mia, motion, vote(motion))
    assert rena.motions.second(motion).state is MotionState.CARRIED
    with pytest.raises(errors.Conflict, match="carried"):
        hand_in(rena, motion, vote(motion))


def test_a_name_that_was_used_before(world, motion):
    ravi = world.person("ravi")
    ravi.motions.withdraw(motion.name)
    channel = ravi._channel
    envelope = dsse.sign(motions.print_vote(vote(motion)), statements.PAYLOAD_TYPE, ravi.identity.signer)
    message = motions_pb2.ProposeMotionRequest(
        kind="MOTION_KIND_LOWER_LEVEL", subject=motion.subject, facts=DOWN, envelope=envelope
    )
    with pytest.raises(errors.AlreadyExists):
        channel.call(motions_pb2_grpc.MotionsServiceStub(channel.grpc_channel).ProposeMotion, message)
    assert ravi.motions.get(motion.name).state is MotionState.WITHDRAWN


def test_a_motion_that_never_lapses(world, motion):
    ravi = world.person("ravi")
    channel = ravi._channel
    lasting = replace(
        motion, name=motion.name[:-4] + "zzzz", expire_time=datetime.now(UTC).replace(microsecond=0) + timedelta(days=365)
    )
    envelope = dsse.sign(motions.print_vote(vote(lasting)), statements.PAYLOAD_TYPE, ravi.identity.signer)
    message = motions_pb2.ProposeMotionRequest(
        kind="MOTION_KIND_LOWER_LEVEL", subject=motion.subject, facts=DOWN, envelope=envelope
    )
    with pytest.raises(errors.ApprovalRefused, match="72 h"):
        channel.call(motions_pb2_grpc.MotionsServiceStub(channel.grpc_channel).ProposeMotion, message)


def test_the_owner_as_one_of_the_two(world):
    owner = world.person("olga", "publisher", "reviewer", organisation="owner-lab")
    owner.organisms.create("organisms/olgas-own", level="CL2", base_model="test/tiny")
    down = {"from": "CL2", "to": "CL1"}
    with pytest.raises(errors.Denied, match="their own organism"):
        owner.motions.propose("lower-level", "organisms/olgas-own", down)
    motion = world.person("ravi").motions.propose("lower-level", "organisms/olgas-own", down)
    with pytest.raises(errors.Denied, match="their own organism"):
        owner.motions.second(motion)
    with pytest.raises(errors.Denied, match="their own organism"):
        owner.motions.reject(motion, reason="I would rather not.")
    assert unmoved(world, motion)


def test_a_signer_who_was_suspended_since(world):
    name = published(world, level="CL3")[0].name.split("/versions")[0]
    thief = world.person("theo", "reviewer", organisation="t-lab")
    motion = thief.motions.propose("lower-level", name, DOWN)
    world.admin.users.suspend("theo", reason="The key was stolen.")
    assert world.person("rena").motions.second(motion).state is MotionState.OPEN
    assert world.person("ravi").motions.second(motion).state is MotionState.CARRIED


def test_hidden_organisms_are_not_found_by_proposing(world):
    """An admin, who may not see hidden organisms, learns from no refusal which there are."""
    hidden = published(world, level="CL3", hidden=True)[0].name.split("/versions")[0]
    told = []
    for name in (hidden, "organisms/never-was"):
        with pytest.raises(errors.Denied) as refused:
            world.admin.motions.propose("lower-level", name, DOWN)
        told.append(refused.value.message)
    assert told[0] == told[1]
