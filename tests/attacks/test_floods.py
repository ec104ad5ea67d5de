"""Bytes meant to exhaust: bombs that unpack, messages that nest, pages without end, calls by the thousand. The registry stands.

Message size, metadata and missing deadlines are played in `tests/flows/test_door.py`, silent and slow calls in
`test_door_exhaustion.py`.
"""

import time
from pathlib import Path

import grpc
import pytest
from model_organisms import errors
from model_organisms.client.client import connect
from model_organisms.v1 import access_pb2, audit_pb2, identity_pb2, organisms_pb2, sandbox_pb2
from model_organisms_registry.testing import settings

from tests.support.serving import serving
from tests.support.stories import BASE

SERVICE = "/model_organisms.v1.OrganismsService/"
WHO = "/model_organisms.v1.IdentityService/WhoAmI"
BOMB = bytes(24 << 20)
SOON_S = 5.0
GROWN_MB = 96
"""What a registry may have grown by after all of it: less than its bombs, were each unpacked once."""


@pytest.fixture(scope="module")
def process(tmp_path_factory):
    folder = tmp_path_factory.mktemp("floods")
    with serving(settings(folder / "data"), folder, ("pia", "publisher"), ("rosa", "researcher")) as running:
        with connect(folder / "pia.json") as pia:
            pia.organisms.create("organisms/flooded", level="CL1", base_model=BASE)
        running.people, running.before = folder, most(running)
        yield running


def most(process):
    """The most memory that the registry ever had, in MiB."""
    status = Path(f"/proc/{process.process.pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) >> 10


@pytest.fixture
def channel(process):
    with connect(process.people / "pia.json") as pia:
        who = pia.identity
        credentials = grpc.ssl_channel_credentials(who.authority, who.tls_key, who.certificate)
        options = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
        with grpc.secure_channel(who.registry, credentials, options=options) as dialled:
            yield dialled


@pytest.fixture(autouse=True)
def stands(process):
    """After each attack somebody else is served, soon, and the registry has not swelled."""
    yield
    began = time.monotonic()
    with connect(process.people / "rosa.json") as rosa:
        assert rosa.users.whoami().user.name == "users/rosa"
    assert time.monotonic() - began < SOON_S
    assert process.process.poll() is None
    assert most(process) - process.before < GROWN_MB


def code(channel, path, *requests, **options):
    try:
        channel.stream_unary(path)(iter(requests), timeout=30, **options)
    except grpc.RpcError as error:
        return error.code()
    return grpc.StatusCode.OK


BOMBS = {"gzip": grpc.Compression.Gzip, "deflate": grpc.Compression.Deflate}


@pytest.mark.parametrize("packed", BOMBS)
@pytest.mark.parametrize("method", ["PublishVersion", "CreateUpload"])
def test_a_compressed_bomb_is_refused_unpacked_no_further_than_the_limit(channel, packed, method):
    assert code(channel, SERVICE + method, BOMB, compression=BOMBS[packed]) is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_a_compressed_bomb_among_sound_pieces_is_refused(channel):
    sound = organisms_pb2.PublishVersionRequest(upload="uploads/" + "0" * 26, data=b"x").SerializeToString()
    found = code(channel, SERVICE + "PublishVersion", sound, BOMB, compression=grpc.Compression.Gzip)
    assert found in {grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.NOT_FOUND}


NESTED = {
    "groups": b"\x0b" * (1 << 20),
    "groups-in-a-known-field": b"\x0a\x0f" + b"organisms/abcde" + b"\x13" * 100_000,
    "messages-in-messages": b"\x12\xff\xff\x3f" * 200_000,
    "json-lists": organisms_pb2.CreateUploadRequest(
        parent="organisms/flooded", manifest=b"[" * 500_000, provenance=b"{}"
    ).SerializeToString(),
    "json-objects": organisms_pb2.CreateUploadRequest(
        parent="organisms/flooded", manifest=b'[{"a":' * 100_000, provenance=b"{}"
    ).SerializeToString(),
    "json-in-the-envelope": organisms_pb2.CreateUploadRequest(
        parent="organisms/flooded", manifest=b"[]", provenance=b'{"payload":' * 100_000
    ).SerializeToString(),
}


@pytest.mark.parametrize("nested", NESTED)
def test_what_nests_a_hundred_thousand_deep_is_refused_as_an_argument(channel, nested):
    assert code(channel, SERVICE + "CreateUpload", NESTED[nested]) is grpc.StatusCode.INVALID_ARGUMENT


MOST = 2**31 - 1
LISTINGS = {
    "organisms": (SERVICE + "ListOrganisms", organisms_pb2.ListOrganismsRequest(page_size=MOST)),
    "versions": (SERVICE + "ListVersions", organisms_pb2.ListVersionsRequest(parent="organisms/flooded", page_size=MOST)),
    "requests": (
        "/model_organisms.v1.AccessService/ListAccessRequests",
        access_pb2.ListAccessRequestsRequest(requester="users/pia", page_size=MOST),
    ),
    "grants": ("/model_organisms.v1.AccessService/ListGrants", access_pb2.ListGrantsRequest(user="users/pia", page_size=MOST)),
    "sessions": (
        "/model_organisms.v1.SandboxService/ListSessions",
        sandbox_pb2.ListSessionsRequest(user="users/pia", page_size=MOST),
    ),
    "users": ("/model_organisms.v1.IdentityService/ListUsers", identity_pb2.ListUsersRequest(page_size=MOST)),
    "entries": ("/model_organisms.v1.AuditService/ListEntries", audit_pb2.ListEntriesRequest(count=2**32 - 1)),
}


@pytest.mark.parametrize("listing", LISTINGS)
def test_a_page_of_two_thousand_million_is_refused_or_cut(channel, listing):
    path, request = LISTINGS[listing]
    began = time.monotonic()
    allowed = {grpc.StatusCode.OK, grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.PERMISSION_DENIED}
    assert code(channel, path, request.SerializeToString()) in allowed
    assert time.monotonic() - began < SOON_S


def test_a_thousand_calls_at_once_over_one_connection_end_in_answers_and_refusals(channel):
    calls = [channel.stream_unary(WHO).future(iter([b""]), timeout=30) for _ in range(1000)]
    found = {call.code() for call in calls}
    assert grpc.StatusCode.OK in found
    # Cancelled: what has said nothing yet makes room for what comes, also for its own.
    assert found <= {
        grpc.StatusCode.OK,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.CANCELLED,
    }


def test_calls_that_are_reset_as_soon_as_they_are_made_hold_nothing(channel):
    """CVE-2023-44487."""
    for _ in range(1000):
        channel.stream_unary(WHO).future(iter([b""]), timeout=30).cancel()
    assert code(channel, WHO, b"") is grpc.StatusCode.OK


@pytest.mark.parametrize("count", [100, 10_000])
def test_a_stream_of_empty_pieces_ends(channel, count):
    empty = organisms_pb2.PublishVersionRequest().SerializeToString()
    assert code(channel, SERVICE + "PublishVersion", *[empty] * count) is grpc.StatusCode.INVALID_ARGUMENT


def test_one_request_where_two_are_sent_is_read_and_the_second_is_not(channel):
    assert code(channel, WHO, b"", BOMB[: 5 << 20]) in {grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED}


def test_the_client_gives_flooders_an_error_of_the_tree(process):
    request = organisms_pb2.CreateUploadRequest(parent="organisms/flooded", provenance=bytes(5 << 20))
    with connect(process.people / "pia.json") as pia, pytest.raises(errors.ModelOrganismsError) as refused:
        pia.organisms._channel.call(pia.organisms._stub.CreateUpload, request)
    assert refused.value.message.endswith(".")
