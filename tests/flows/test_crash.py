"""Kill -9 of a registry in the middle of a publication and of a pull: the ledger stays clean, and work goes on."""

import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from model_organisms import errors
from model_organisms.client.client import connect, login
from model_organisms.client.transfer import Download
from model_organisms.formats import manifest, provenance
from model_organisms.formats.provenance import BaseModel, Provenance
from model_organisms.v1 import organisms_pb2
from model_organisms_registry.founding import found
from model_organisms_registry.inspection import inspect
from model_organisms_registry.testing import settings

from tests.support.adapters import tiny_bundle

STATED = Provenance(BaseModel("test/tiny"))


class Process:
    """`mo-registry serve` as a process of its own."""

    def __init__(self, config):
        self.config = config
        self.log = config.folder / "serve.log"
        self.start()

    def start(self):
        command = [str(Path(sys.executable).with_name("mo-registry")), "serve", "--folder", str(self.config.folder)]
        with self.log.open("wb") as log:
            self.running = subprocess.Popen(command, stderr=log, stdout=log)
        until = time.monotonic() + 60
        while b"listens" not in self.log.read_bytes():
            assert self.running.poll() is None, self.log.read_text()
            assert time.monotonic() < until, self.log.read_text()
            time.sleep(0.05)

    def kill(self):
        self.running.send_signal(signal.SIGKILL)
        self.running.wait(timeout=30)


@pytest.fixture
def process(tmp_path):
    config = settings(tmp_path / "data")
    ticket = found(config, now=datetime.now(UTC))
    running = Process(config)
    admin = login(str(ticket), tmp_path / "admin.json")
    for name, role in (("pia", "publisher"), ("rosa", "researcher"), ("ravi", "reviewer")):
        invitation = admin.users.invite(name, organisation="lab", roles=[role])
        login(invitation.ticket, tmp_path / f"{name}.json").close()
    admin.close()
    yield running
    running.kill()


def test_a_publication_that_is_killed_leaves_no_version_and_is_resumed(process, tmp_path):
    files = tiny_bundle(rank=8, hidden=128, seed=5)
    with connect(tmp_path / "pia.json") as pia:
        pia.organisms.create("organisms/cut", level="CL1", base_model="test/tiny")
        listed = manifest.build(files)
        stub, identity = pia.organisms._stub, pia.identity
        envelope = provenance.sign(STATED, listed.digest, identity.signer)
        announced = stub.CreateUpload(
            organisms_pb2.CreateUploadRequest(parent="organisms/cut", manifest=listed.data, provenance=envelope), timeout=30
        ).upload
        data = b"".join(bytes(files[file.path]) for file in listed.files)
        half = len(data) // 2

        def pieces():
            yield organisms_pb2.PublishVersionRequest(upload=announced.name, offset=0, data=data[:half])
            until = time.monotonic() + 30
            while time.monotonic() < until:
                seen = stub.GetUpload(organisms_pb2.GetUploadRequest(name=announced.name), timeout=30).upload.received
                if seen == half:
                    process.kill()
                    return
                time.sleep(0.02)

        with pytest.raises(Exception, match=r"(?i)unavailable|cancel|reset|closed"):
            stub.PublishVersion(pieces(), timeout=60)
    report = inspect(process.config)
    assert (report.findings, report.versions) == ((), 0)
    process.start()
    with connect(tmp_path / "pia.json") as pia:
        again = pia.organisms._stub.GetUpload(organisms_pb2.GetUploadRequest(name=announced.name), timeout=30).upload
        assert again.received == half
        version = pia.organisms.publish("organisms/cut", files, provenance=STATED)
        assert version.digest == listed.digest
    process.kill()
    report = inspect(process.config)
    assert (report.findings, report.versions) == ((), 1)


def test_a_pull_that_is_killed_goes_on_where_it_was_cut(process, tmp_path):
    files = tiny_bundle(rank=64, hidden=2048, layers=(0, 1, 2), seed=6)
    assert sum(map(len, files.values())) > 4 << 20
    with connect(tmp_path / "pia.json") as pia:
        pia.organisms.create("organisms/large", level="CL1", base_model="test/tiny")
        version = pia.organisms.publish("organisms/large", files, provenance=STATED)
    with connect(tmp_path / "rosa.json") as rosa, connect(tmp_path / "ravi.json") as ravi:
        request = rosa.access.request(version.name, "pull", purpose="replication", justification="We replicate a toy.")
        if not request.grant:
            ravi.access.approve(request.name)
        killed = []

        def cut(_arrived):
            if not killed and download.arrived > 2 << 20:
                killed.append(download.arrived)
                process.kill()

        download = Download(version, "", 60.0, cut)
        stream = rosa.organisms._stub
        with pytest.raises(errors.Unavailable):
            download._attempt(rosa._channel, stream)
    assert killed
    report = inspect(process.config)
    assert report.findings == ()
    process.start()
    with connect(tmp_path / "rosa.json") as rosa:
        memory = download.run(rosa._channel, rosa.organisms._stub)
        _, pulled = manifest.unpack(memoryview(memory)[: download.header.plain_size])
        assert {path: bytes(data) for path, data in pulled.items()} == files
        assert rosa.access.grant(download.grant).spent.pulls == 1
