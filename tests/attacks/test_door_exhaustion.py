"""Who holds calls open and says nothing keeps nobody else out, known or unknown, and not for long."""

from __future__ import annotations

import threading
import time
from contextlib import ExitStack, contextmanager
from dataclasses import replace

import grpc
import pytest
from model_organisms import errors
from model_organisms.client.client import login
from model_organisms.v1 import organisms_pb2
from model_organisms_registry.config import Limits
from model_organisms_registry.testing import running, settings

from tests.support.cells import eventually

MANY = 40
EACH, SILENCE_S = 6, 3.0
SOON_S = 1.0
WHO = "/model_organisms.v1.IdentityService/WhoAmI"
PUBLISH = "/model_organisms.v1.OrganismsService/PublishVersion"
ENROL = "/model_organisms.v1.EnrolmentService/Enrol"


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    limits = Limits(threads=24, calls_each=EACH, silence_s=SILENCE_S)
    config = replace(settings(tmp_path_factory.mktemp("exhaustion") / "data"), limits=limits)
    people = [(name, role, "example-lab") for name, role in (("rosa", "researcher"), ("ann", "researcher"), ("pia", "publisher"))]
    with running(config, people=people) as running_world:
        yield running_world


@contextmanager
def silent(channel, path, *, timeout=60.0, first=()):
    """Begin many calls that say no more than `first`, and leave them so while the block runs."""
    hung = threading.Event()

    def never():
        yield from first
        hung.wait()

    calls = [channel.stream_unary(path).future(never(), timeout=timeout) for _ in range(MANY)]
    time.sleep(0.5)
    try:
        yield calls
    finally:
        for call in calls:
            call.cancel()
        hung.set()


@contextmanager
def dialled(who, *, enrolment=False):
    """A connection of its own."""
    pair = (None, None) if enrolment else (who.tls_key, who.certificate)
    credentials = grpc.ssl_channel_credentials(who.authority, *pair)
    with grpc.secure_channel(who.enrol if enrolment else who.registry, credentials) as channel:
        yield channel


def seconds(work):
    began = time.monotonic()
    work()
    return time.monotonic() - began


@pytest.mark.parametrize("path", [PUBLISH, WHO])
def test_silent_calls_of_one_user_hold_up_nobody(world, path):
    ann, rosa = world.person("ann"), world.person("rosa")
    rosa.users.whoami()
    with dialled(ann.identity) as channel, silent(channel, path) as calls:
        assert seconds(rosa.users.whoami) < SOON_S
        assert seconds(ann.users.whoami) < SOON_S  # what has said nothing yields, also to its own
        # The one that yielded hears of it a moment after the other was answered, and long before silence ends them all.
        assert eventually(lambda: sum(not call.done() for call in calls) < EACH, within_s=1.0)


def test_calls_that_have_spoken_are_counted_and_the_next_is_refused_with_what_to_do(world):
    pia, rosa = world.person("pia"), world.person("rosa")
    request = organisms_pb2.PublishVersionRequest(upload="uploads/" + "a" * 26, data=b"x").SerializeToString()
    with dialled(pia.identity) as channel, ExitStack() as spoken:
        for _ in range(EACH):
            spoken.enter_context(world.registry._turns.taken("users/pia", lambda: None)).heard = True
        with pytest.raises(grpc.RpcError) as failed:
            channel.stream_unary(PUBLISH)(iter([request]), timeout=20)
        assert failed.value.code() is grpc.StatusCode.UNAVAILABLE
        with pytest.raises(errors.Unavailable, match="let one end first"):
            pia.users.whoami()
        assert seconds(rosa.users.whoami) < SOON_S
    assert pia.users.whoami().user.name == "users/pia"


def test_a_call_that_falls_silent_is_ended(world):
    with dialled(world.person("ann").identity) as channel, silent(channel, PUBLISH) as calls:
        time.sleep(SILENCE_S + 3)
        assert all(call.done() for call in calls)
        assert {call.code() for call in calls} == {grpc.StatusCode.CANCELLED}


def test_a_suspended_user_and_a_call_without_a_deadline_wait_for_nothing(world):
    sam, rosa = world.person("sam", "researcher"), world.person("rosa")
    with dialled(rosa.identity) as channel, silent(channel, WHO, timeout=None) as calls:
        assert {call.code() for call in calls} == {grpc.StatusCode.INVALID_ARGUMENT}
    world.admin.users.suspend("users/sam", reason="a laptop was stolen")
    with dialled(sam.identity) as channel, silent(channel, WHO) as calls:
        assert {call.code() for call in calls} == {grpc.StatusCode.PERMISSION_DENIED}
        assert seconds(rosa.users.whoami) < SOON_S


@pytest.mark.parametrize("timeout", [25.0, None])
def test_half_open_calls_at_the_enrolment_door_keep_nobody_from_enrolling(world, timeout):
    name = f"late-{timeout is None}".lower()
    ticket = world.admin.users.invite(name, organisation="late-lab", roles=["researcher"]).ticket
    with dialled(world.person("rosa").identity, enrolment=True) as channel, silent(channel, ENROL, timeout=timeout):
        assert seconds(lambda: login(ticket, world.folder / f"{name}.json").close()) < 2 * SOON_S
