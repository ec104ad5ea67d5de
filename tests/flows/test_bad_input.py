"""What goes wrong between people and a real registry: each gets a typed error that says what to do, and nothing is half done.

Bundles made to do harm: `tests/attacks/test_hostile_bundles.py`. Uploads that lapse: `test_publishing.py`. Crashes:
`test_crash.py`. Certificates: `test_certificates.py`. Registries that do not answer: `test_unreachable.py`. Base models
and jails that are missing: `test_missing.py`.
"""

from __future__ import annotations

import itertools
import threading
from contextlib import contextmanager, suppress

import grpc
import pytest
from model_organisms import errors
from model_organisms.client.channel import translate
from model_organisms.client.transfer import upload
from model_organisms.formats import manifest
from model_organisms.formats import provenance as provenances
from model_organisms.records import Budget
from model_organisms.v1 import identity_pb2, organisms_pb2
from model_organisms_registry.inspection import inspect
from model_organisms_registry.testing import running, settings
from model_organisms_registry.workflows import publishing

from tests.support.adapters import tiny_bundle
from tests.support.cells import eventually
from tests.support.refusals import quick, refused
from tests.support.registries import PEOPLE
from tests.support.stories import BASE, WHY, granted, provenance, published

NUMBERS = itertools.count()


def assert_nothing_half_done(world, *, uploads=0):
    report = inspect(world.registry.config)
    assert report.clean, report.findings
    assert not report.unfinished
    assert len(list((world.folder / "keys/kek/live").glob("upload-*"))) == uploads


class Sending:
    """Pia's upload of a bundle, by hand."""

    def __init__(self, world, files=None):
        self.pia, self.files = world.person("pia"), files or tiny_bundle(seed=1000 + next(NUMBERS))
        self.organism = f"organisms/sent-{next(NUMBERS)}"
        self.pia.organisms.create(self.organism, level="CL1", base_model=BASE)
        listed = manifest.build(self.files)
        self.data = b"".join(bytes(self.files[file.path]) for file in listed.files)
        envelope = provenances.sign(provenance(), listed.digest, self.pia.identity.signer)
        self.stub, self.call = self.pia.organisms._stub, self.pia._channel.call
        request = organisms_pb2.CreateUploadRequest(parent=self.organism, manifest=listed.data, provenance=envelope)
        self.name = self.call(self.stub.CreateUpload, request).upload.name

    def piece(self, offset, data, name=""):
        return organisms_pb2.PublishVersionRequest(upload=name or self.name, offset=offset, data=data)

    def send(self, *pieces):
        return self.call(self.stub.PublishVersion, iter(pieces))

    @property
    def received(self):
        return self.call(self.stub.GetUpload, organisms_pb2.GetUploadRequest(name=self.name)).upload.received

    def finish(self):
        version = self.pia.organisms.publish(self.organism, self.files, provenance=provenance())
        assert version.name.endswith("/versions/1")


def test_an_upload_that_is_cut_goes_on_where_it_stopped(world):
    sending = Sending(world)
    with refused(errors.UploadConflict, "send the rest") as caught:
        sending.send(sending.piece(0, sending.data[:5000]))
    assert caught.value.details["received"] == str(sending.received) == "5000"
    assert list(sending.pia.organisms.versions(sending.organism)) == []
    sending.finish()
    assert_nothing_half_done(world)


@pytest.mark.parametrize("offset", [0, 4999, 5001, 1 << 40])
def test_a_piece_that_does_not_join_the_last_is_refused_and_the_upload_stands(world, offset):
    sending = Sending(world)
    with refused(errors.UploadConflict, "go on from 5000"):
        sending.send(sending.piece(0, sending.data[:5000]), sending.piece(offset, b"x"))
    assert sending.received == 5000
    sending.finish()
    assert_nothing_half_done(world)


def test_bytes_that_are_not_those_announced_are_refused_and_none_is_kept(world):
    sending = Sending(world)
    changed = bytearray(sending.data)
    changed[len(changed) // 2] ^= 1
    with refused(errors.DigestMismatch, "send it again"):
        sending.send(sending.piece(0, bytes(changed)))
    with refused(errors.NotFound, "check the name"):
        assert sending.received
    assert_nothing_half_done(world)
    sending.finish()


def test_more_bytes_than_announced_are_refused(world):
    sending = Sending(world)
    with refused(errors.InvalidBundle, "announce the bundle you send"):
        sending.send(sending.piece(0, sending.data), sending.piece(len(sending.data), b"x"))
    sending.finish()
    assert_nothing_half_done(world)


def test_a_stream_of_two_uploads_or_none_is_refused(world):
    first, second = Sending(world), Sending(world)
    with refused(errors.InvalidArgument, "open another stream"):
        first.send(first.piece(0, first.data[:10]), second.piece(10, first.data[10:]))
    with refused(errors.InvalidArgument, "send the upload's name"):
        first.send()
    with refused(errors.InvalidArgument, "rules of its fields"):
        first.send(first.piece(0, b"x", "uploads/../../etc"))
    first.finish()
    second.finish()
    assert_nothing_half_done(world)


def test_an_upload_is_its_publishers(world):
    sending = Sending(world)
    eve = world.person("eve", "publisher")
    with refused(errors.NotFound, "check the name"):
        eve._channel.call(eve.organisms._stub.GetUpload, organisms_pb2.GetUploadRequest(name=sending.name))
    with refused(errors.NotFound, "check the name"):
        eve._channel.call(eve.organisms._stub.PublishVersion, iter([sending.piece(0, sending.data)]))
    assert sending.received == 0
    sending.finish()


def test_the_same_upload_sent_twice_at_once_becomes_one_version(world):
    sending, outcomes = Sending(world), []

    def send():
        try:
            pieces = upload(sending.name, 0, [memoryview(sending.data)], lambda _: None)
            outcomes.append(sending.call(sending.stub.PublishVersion, pieces).version.name)
        except errors.ModelOrganismsError as error:
            outcomes.append(type(error))

    threads = [threading.Thread(target=send) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert outcomes.count(f"{sending.organism}/versions/1") <= 1
    assert set(outcomes) <= {f"{sending.organism}/versions/1", errors.UploadConflict, errors.NotFound}
    with suppress(errors.AlreadyExists):
        sending.finish()
    assert len(list(sending.pia.organisms.versions(sending.organism))) == 1
    assert_nothing_half_done(world)


@pytest.mark.parametrize(("timeout", "says"), [(None, "set a timeout"), (1e6, "at most 3600 s"), (3700, "at most 3600 s")])
def test_a_call_without_a_bounded_deadline_is_refused(world, timeout, says):
    stub = world.person("pia").users._stub
    with pytest.raises(grpc.RpcError) as caught:
        stub.WhoAmI(identity_pb2.WhoAmIRequest(), timeout=timeout)
    with refused(errors.DeadlineRequired, says):
        raise translate(caught.value, "registry.test")


def test_a_grant_for_a_lower_rung_gives_no_higher_one(world):
    version, _ = published(world)
    grant = granted(world, version, "sample")
    rosa = world.person("rosa")
    with refused(errors.GrantRequired, r"access\.request"):
        rosa.organisms.pull(version.name)
    assert rosa.access.grant(grant).spent == Budget()
    other, _ = published(world)
    with refused(errors.GrantRequired, r"access\.request"):
        rosa.organisms.pull(other.name)
    assert_nothing_half_done(world)


def test_a_spent_budget_is_spent(world):
    version, _ = published(world)
    rosa = world.person("rosa")
    asked = rosa.access.request(version.name, "pull", purpose="replication", justification=WHY, budget=Budget(pulls=1))
    grant = asked.grant or world.person("ravi").access.approve(asked.name, reason="Once.").grant
    with rosa.organisms.pull(version.name, grant=grant):
        pass
    with refused(errors.BudgetExhausted, "ask|request|renew"):
        rosa.organisms.pull(version.name, grant=grant)
    assert rosa.access.grant(grant).spent.pulls == 1
    assert_nothing_half_done(world)


@pytest.fixture
def own_world(tmp_path):
    with running(settings(tmp_path / "data"), people=PEOPLE) as running_world:
        yield running_world


@contextmanager
def barred(folder):
    """A folder that nobody can write in, not even root: a file stands in its place."""
    aside = folder.with_name(f"{folder.name}-aside")
    folder.rename(aside)
    folder.write_bytes(b"")
    try:
        yield
    finally:
        folder.unlink()
        aside.rename(folder)


def test_without_its_ledger_a_registry_serves_nothing_and_goes_on_when_it_is_back(own_world):
    world = own_world
    version, files = published(world)
    grant = granted(world, version)
    pia, rosa = world.person("pia"), world.person("rosa")
    with barred(world.folder / "blobs" / "ledger"):
        for attempt in (
            lambda: pia.organisms.create("organisms/late", level="CL1", base_model=BASE),
            lambda: rosa.organisms.pull(version.name),
            lambda: rosa.organisms.get(version.name.split("/versions")[0]),
            lambda: pia.organisms.publish("organisms/late", files, provenance=provenance()),
            lambda: rosa.access.request(version.name, "sample", purpose="replication", justification=WHY),
        ):
            with refused(errors.LedgerUnavailable, "try again"):
                quick(attempt, within_s=3)
    assert eventually(lambda: serves(rosa))
    assert rosa.access.grant(grant).spent.pulls == 0
    with suppress(errors.AlreadyExists):  # what was committed meanwhile is there; the caller was told that nothing is certain
        pia.organisms.create("organisms/late", level="CL1", base_model=BASE)
    assert pia.organisms.publish("organisms/late", files, provenance=provenance()).name == "organisms/late/versions/1"
    with rosa.organisms.pull(version.name) as pulled:
        assert {path: bytes(data) for path, data in pulled.files.items()} == files
    world.person("aud").audit.verify_ledger()
    created = [entry.subject for _, entry in world.person("aud").audit.entries() if entry.type == "organisms.create"]
    assert created.count("organisms/late") == 1
    assert_nothing_half_done(world)


def serves(client):
    try:
        return list(client.organisms.list()) != []
    except errors.LedgerUnavailable:
        return False


def test_an_upload_of_crumbs_is_refused_before_it_makes_a_file_of_each(world, monkeypatch):
    monkeypatch.setattr(publishing, "_SPARE_PIECES", 20)
    sending = Sending(world)
    crumbs = (sending.piece(at, sending.data[at : at + 1]) for at in range(1000))
    with refused(errors.InvalidArgument, "too many small pieces"):
        sending.send(*crumbs)
    assert sending.received == 20 + len(sending.files)
    monkeypatch.undo()
    sending.finish()
    assert_nothing_half_done(world)
