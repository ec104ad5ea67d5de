"""The one door, knocked at by hand: what it refuses before anybody asks who may, in which words, and that it stands after."""

from __future__ import annotations

import select
import socket
import ssl
import threading
import warnings
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace

import grpc
import pytest
from google.rpc import code_pb2, error_details_pb2, status_pb2
from model_organisms import errors
from model_organisms.v1 import access_pb2, audit_pb2, identity_pb2, organisms_pb2, records_pb2, sandbox_pb2
from model_organisms_registry.config import Limits
from model_organisms_registry.ports import Shown, port
from model_organisms_registry.rpc.door import Door, anyone
from model_organisms_registry.rpc.turns import Turns
from model_organisms_registry.testing import running, settings

LONGEST_S = 47.0
MODULES = (access_pb2, audit_pb2, identity_pb2, organisms_pb2, sandbox_pb2)
METHODS = {
    f"/{service.full_name}/{method.name}": method
    for module in MODULES
    for service in module.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}
WHO = "/model_organisms.v1.IdentityService/WhoAmI"
PORCH = "/model_organisms.v1.EnrolmentService/"
ENROL, LISTED = PORCH + "Enrol", PORCH + "ListProviders"
NEEDS_NOTHING = ("WhoAmI", "List", "GetCheckpoint", "GetConsistency", "GetReceipt", "GetPolicyStatus")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    config = replace(settings(tmp_path_factory.mktemp("door") / "data"), limits=Limits(deadline_s=LONGEST_S))
    with running(config) as running_world:
        running_world.person("rosa", "researcher")
        yield running_world


@pytest.fixture
def dial(world):
    """Connections by hand, to either port, with rosa's certificate or with none."""
    with ExitStack() as stack:

        def connected(port="listen", *, certified=True):
            who = world.person("rosa").identity
            pair = (who.tls_key, who.certificate) if certified else (None, None)
            credentials = grpc.ssl_channel_credentials(who.authority, *pair)
            address = f"localhost:{getattr(world.registry.config, port).rsplit(':', 1)[-1]}"
            options = [("grpc.max_send_message_length", -1), ("grpc.max_metadata_size", 1 << 20)]
            return stack.enter_context(grpc.secure_channel(address, credentials, options=options))

        yield connected


def call(channel, path=WHO, request=b"", *, timeout=20.0, metadata=()):
    """Send bytes; give the answer's bytes, or the failed call."""
    method = METHODS.get(path)
    given = {"timeout": timeout, "metadata": metadata}
    try:
        if method is not None and method.client_streaming:
            return channel.stream_unary(path)(iter([request]), **given)
        if method is not None and method.server_streaming:
            return b"".join(channel.unary_stream(path)(request, **given))
        return channel.unary_unary(path)(request, **given)
    except grpc.RpcError as error:
        return error


def told(failed):
    """What the door says in its trailing metadata."""
    status = status_pb2.Status.FromString(dict(failed.trailing_metadata())["grpc-status-details-bin"])
    info = error_details_pb2.ErrorInfo()
    (detail,) = status.details
    assert detail.Unpack(info)
    assert code_pb2.Code.Name(status.code) == failed.code().name
    assert status.message == failed.details()
    return info


@pytest.mark.parametrize("timeout", [None, 1e9, LONGEST_S * 1.05])
def test_a_call_without_a_bounded_deadline_is_refused(dial, timeout):
    failed = call(dial(), timeout=timeout)
    assert told(failed).reason == errors.DeadlineRequired.reason
    assert "47 s" in failed.details()


@pytest.mark.parametrize("timeout", [LONGEST_S, LONGEST_S - 0.01, 1.0])
def test_a_deadline_of_just_the_limit_is_taken(dial, timeout):
    channel = dial()
    call(channel)  # so that the handshake does not count
    answer = identity_pb2.WhoAmIResponse.FromString(call(channel, timeout=timeout))
    assert answer.user.name == "users/rosa"


@pytest.mark.parametrize("port", ["listen", "enrol_listen"])
@pytest.mark.parametrize("path", [WHO + "Else", "/model_organisms.v2.IdentityService/WhoAmI", "/", "/grpc.reflection.v1.X/Y"])
def test_a_method_that_is_none_is_answered_by_the_transport(dial, port, path):
    assert call(dial(port), path).code() is grpc.StatusCode.UNIMPLEMENTED


def test_a_message_over_the_limit_is_refused_and_the_next_one_served(dial):
    channel = dial()
    request = organisms_pb2.CreateUploadRequest(parent="organisms/x", provenance=bytes(5 << 20)).SerializeToString()
    failed = call(channel, "/model_organisms.v1.OrganismsService/CreateUpload", request)
    assert failed.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert isinstance(call(channel), bytes)


@pytest.mark.parametrize(
    "flood",
    [[("flood", "x" * (64 << 10))], [(f"flood-{number}", "x" * 100) for number in range(400)]],
    ids=["long", "many"],
)
def test_a_flood_of_metadata_is_refused_and_the_next_call_served(dial, flood):
    channel = dial()
    failed = call(channel, metadata=flood)
    assert failed.code() in {grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INTERNAL}
    assert isinstance(call(channel), bytes)


def test_the_enrolment_port_serves_enrolment_and_nothing_else(dial):
    channel = dial("enrol_listen", certified=False)
    answers = {path: call(channel, path) for path in METHODS}
    unserved = {
        path for path, said in answers.items() if not isinstance(said, bytes) and said.code() is grpc.StatusCode.UNIMPLEMENTED
    }
    assert unserved == {path for path in METHODS if not path.startswith(PORCH)}
    assert answers[ENROL].code() is grpc.StatusCode.INVALID_ARGUMENT
    assert answers[LISTED] == b""
    assert len(answers) > 30


def test_the_main_port_serves_nobody_without_a_certificate_and_enrols_nobody(dial):
    assert call(dial(certified=False)).code() is grpc.StatusCode.UNAVAILABLE
    assert call(dial(), ENROL).code() is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize("path", sorted(METHODS))
def test_every_refusal_carries_a_reason_of_the_tree_and_says_what_to_do(dial, path):
    """An empty request is never what a method needs, but for those that need nothing."""
    answer = call(dial("enrol_listen" if path.startswith(PORCH) else "listen"), path)
    if METHODS[path].name.startswith(NEEDS_NOTHING) and isinstance(answer, bytes):
        return
    info = told(answer)
    assert info.domain == errors.DOMAIN == "model-organisms.v1"
    assert errors.BY_REASON[info.reason].status == answer.code().name
    assert answer.details().endswith(".")


BAD = records_pb2.Role.Value("ROLE_UNSPECIFIED")


@pytest.mark.parametrize(
    ("path", "request_", "field"),
    [
        ("IdentityService/GetUser", identity_pb2.GetUserRequest(name="users/Ada"), "name"),
        (
            "IdentityService/InviteUser",
            identity_pb2.InviteUserRequest(user_id="a", display_name="A", organisation="organisations/x", roles=[BAD]),
            "roles",
        ),
        (
            "OrganismsService/CreateOrganism",
            organisms_pb2.CreateOrganismRequest(organism_id="a", organism=organisms_pb2.Organism(display_name="x" * 201)),
            "organism.display_name",
        ),
        ("OrganismsService/ListOrganisms", organisms_pb2.ListOrganismsRequest(page_size=-1), "page_size"),
        ("AccessService/RevokeGrant", access_pb2.RevokeGrantRequest(name="grants/" + "0" * 26), "reason"),
        ("SandboxService/GetSession", sandbox_pb2.GetSessionRequest(name="sessions/../../etc"), "name"),
    ],
)
def test_a_request_that_breaks_a_rule_names_the_field(dial, path, request_, field):
    failed = call(dial(), f"/model_organisms.v1.{path}", request_.SerializeToString())
    info = told(failed)
    assert (info.reason, info.metadata["field"]) == ("INVALID_ARGUMENT", field)
    assert f"{field}: " in failed.details()


def test_bytes_that_are_no_message_are_refused(dial):
    failed = call(dial(), "/model_organisms.v1.IdentityService/GetUser", b"\xff" * 40)
    assert told(failed).reason == errors.InvalidArgument.reason
    assert "no GetUserRequest" in failed.details()
    assert isinstance(call(dial()), bytes)


class Broken:
    """Rooms with a fault of our own behind every method."""

    def __getattr__(self, name):
        def fail(*_):
            raise ZeroDivisionError("a secret of the inside")

        return fail


def test_what_nobody_foresaw_leaves_an_incident_and_no_inside(world, caplog):
    authority, limits = world.registry.storage.authority, world.registry.config.limits
    service = identity_pb2.DESCRIPTOR.services_by_name["EnrolmentService"]
    config = settings(world.folder)
    shown = Shown(authority, config.hosts, world.registry._clock, demand=False)
    turns = Turns(each=4, together=8, silence_s=20.0)
    door = Door(anyone, whose=lambda arrival: arrival.address, turns=turns, longest_s=60)
    server = port([door.service(service, Broken())], config.listen, shown, limits)
    server.start()
    try:
        credentials = grpc.ssl_channel_credentials(authority.pem)
        sound = identity_pb2.EnrolRequest(
            code="0" * 16, certificate_request=bytes(64), identity_key=bytes(32), sealing_key=bytes(1216), proof=bytes(64)
        )
        with grpc.secure_channel(config.listen.replace("127.0.0.1", "localhost"), credentials) as channel:
            failed = call(channel, ENROL, sound.SerializeToString())
    finally:
        server.stop(0)
    info = told(failed)
    assert (failed.code(), info.reason) == (grpc.StatusCode.INTERNAL, "INTERNAL")
    assert info.metadata["incident"] in failed.details()
    assert "secret" not in failed.details()
    (record,) = [record for record in caplog.records if info.metadata["incident"] in record.getMessage()]
    assert record.exc_info[0] is ZeroDivisionError


@contextmanager
def wrapping(world, tls, port="listen"):
    """A port on this machine that takes plain HTTP/2 and passes it on in the TLS of our choice, with rosa's certificate."""
    address = getattr(world.registry.config, port)
    who = world.person("rosa").identity
    context = ssl.create_default_context(cadata=who.authority.decode())
    context.minimum_version = context.maximum_version = tls
    context.set_alpn_protocols(["h2"])
    pem = world.folder / "rosa.pem"
    pem.write_bytes(who.tls_key + who.certificate)
    context.load_cert_chain(pem)

    def relay(plain, wrapped):
        while ready := select.select([plain, wrapped], [], [], 20)[0]:
            if plain in ready:
                if not (data := plain.recv(1 << 16)):
                    return
                wrapped.settimeout(5)
                wrapped.sendall(data)
            if wrapped in ready:
                wrapped.setblocking(False)
                with suppress(ssl.SSLWantReadError):  # a record that is not whole yet, or not for us
                    while data := wrapped.recv(1 << 16):
                        plain.sendall(data)
                    return

    def serve(server):
        with suppress(OSError):
            plain, _ = server.accept()
            raw = socket.create_connection(("127.0.0.1", int(address.rsplit(":", 1)[-1])))
            with plain, context.wrap_socket(raw, server_hostname="localhost") as wrapped:
                relay(plain, wrapped)

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve, args=(server,), daemon=True)
        thread.start()
        with grpc.insecure_channel(f"127.0.0.1:{server.getsockname()[1]}") as channel:
            yield channel
    thread.join(10)


@pytest.mark.parametrize(("port", "path"), [("listen", WHO), ("enrol_listen", ENROL), ("enrol_listen", LISTED)])
def test_an_older_tls_is_refused(world, port, path):
    with wrapping(world, ssl.TLSVersion.TLSv1_2, port) as channel:
        failed = call(channel, path)
    assert (failed.code(), told(failed).reason) == (grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED")
    assert "TLS 1.3 only" in failed.details()


def test_the_newest_tls_is_spoken_on_both_ports(world):
    with wrapping(world, ssl.TLSVersion.TLSv1_3) as channel:
        assert identity_pb2.WhoAmIResponse.FromString(call(channel)).user.name == "users/rosa"
    with wrapping(world, ssl.TLSVersion.TLSv1_3, "enrol_listen") as channel:
        assert identity_pb2.ListProvidersResponse.FromString(call(channel, LISTED)).providers == []


@pytest.mark.parametrize("port", ["listen", "enrol_listen"])
def test_what_is_older_still_is_refused_by_the_transport(world, port):
    """TLS 1.1 and before: no handshake, so that not even the door is reached."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # that they are old is the point
        context.minimum_version, context.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
    address = ("127.0.0.1", int(getattr(world.registry.config, port).rsplit(":", 1)[-1]))
    with socket.create_connection(address, timeout=10) as raw, pytest.raises((ssl.SSLError, ConnectionError)):
        context.wrap_socket(raw, server_hostname="localhost")
