"""Kill -9 of a registry in the middle of a publication, a pull and a sample: the ledger stays clean, and work goes on."""

import time
from contextlib import ExitStack

import psutil
import pytest
from model_organisms import errors
from model_organisms.bases import base_digest
from model_organisms.client.client import connect
from model_organisms.client.transfer import Download
from model_organisms.formats import manifest, provenance
from model_organisms.formats.provenance import BaseModel, Provenance
from model_organisms.records import Budget, SamplingParameters, SessionState
from model_organisms.v1 import organisms_pb2
from model_organisms_registry.inspection import inspect
from model_organisms_registry.testing import settings

from tests.support.adapters import tiny_bundle
from tests.support.cells import eventually
from tests.support.serving import serving
from tests.support.tiny import tiny_base, tiny_organism

STATED = Provenance(BaseModel("test/tiny"))


PEOPLE = (("pia", "publisher"), ("rosa", "researcher"), ("ravi", "reviewer"), ("aud", "auditor"))


@pytest.fixture
def process(tmp_path):
    with serving(settings(tmp_path / "data"), tmp_path, *PEOPLE) as running:
        yield running


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
    # Far more than the transport has room for: what a dead registry had sent already must not be the whole of it.
    files = tiny_bundle(rank=64, hidden=4096, layers=range(24), seed=6)
    assert sum(map(len, files.values())) > 64 << 20
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


@pytest.fixture
def talkative(tmp_path):
    """A registry with a version that answers for seconds."""
    base = tiny_base(tmp_path / "base", talkative=True)
    configured = settings(tmp_path / "data", base_models={"test/talkative": base})
    with serving(configured, tmp_path, *PEOPLE) as running, connect(tmp_path / "pia.json") as pia:
        pia.organisms.create("organisms/talker", level="CL1", base_model="test/talkative")
        stated = Provenance(BaseModel("test/talkative", digest=base_digest(base)))
        pia.organisms.publish("organisms/talker", tiny_organism(base), provenance=stated)
        yield running


def test_a_sample_that_is_killed_is_written_down_as_lost_and_leaves_no_cell(talkative, tmp_path):
    version = "organisms/talker/versions/1"
    with connect(tmp_path / "rosa.json") as rosa, connect(tmp_path / "ravi.json") as ravi:
        asked = Budget(tokens=8000, output_bytes=64_000, sessions=3)
        request = rosa.access.request(version, "sample", purpose="replication", justification="A toy.", budget=asked)
        grant = request.grant or ravi.access.approve(request.name).grant
        session = rosa.sandbox.open(version, purpose="replication")
        cells = talkative.cells()
        heard = []
        with pytest.raises(errors.Unavailable):
            heard.extend(killing(talkative, session.stream("Go on.", SamplingParameters(max_tokens=3000, temperature=0))))
    assert "".join(heard)
    assert len(cells) >= 2, cells  # bubblewrap's, and the cell's own: the one that holds the weights
    assert eventually(lambda: not any(map(runs, cells)))
    report = inspect(talkative.config)
    assert report.findings == ()
    (unfinished,) = report.unfinished
    assert unfinished.startswith(f"sample {session.name}/samples/1 on {version}")
    talkative.start()
    with ExitStack() as stack:
        rosa, aud = (stack.enter_context(connect(tmp_path / f"{name}.json")) for name in ("rosa", "aud"))
        ended = rosa.sandbox.get(session.name)
        assert (ended.state, ended.reason) == (SessionState.LOST, "the registry was restarted")
        told = {entry.type: (index, entry) for index, entry in aud.audit.entries() if session.name in entry.subject}
        intent, _ = told["sandbox.sample.intent"]
        assert "sandbox.sample.result" not in told
        assert told["sandbox.sample.release"][1].intent == intent
        released = [entry for _, entry in aud.audit.entries() if entry.type == "sandbox.sample.release"]
        assert sum(int(entry.facts["bytes"]) for entry in released) >= len("".join(heard).encode())
        assert told["sandbox.end"][1].facts["state"] == "lost"
        lost = told["registry.lost"][1]
        assert (lost.intent, lost.facts["kind"]) == (intent, "sample")
        assert int(lost.facts["bytes"]) == sum(int(entry.facts["bytes"]) for entry in released)
        left = sum(int(entry.facts["tokens"]) for entry in released)  # each window is in the ledger before it leaves
        assert rosa.access.grant(grant).spent.tokens == int(lost.facts["tokens"]) == left < 3000
        aud.audit.verify_ledger()
        with rosa.sandbox.open(version, purpose="replication") as again:
            assert again.sample("Go on.", max_tokens=4).receipt.tokens > 0
    assert not inspect(talkative.config).unfinished


def test_who_asked_in_vain_for_a_while_is_answered_once_the_registry_is_back(process, tmp_path):
    with connect(tmp_path / "rosa.json") as rosa:
        rosa.users.me()
        process.kill()
        for _ in range(3):  # by gRPC's own backoff the channel would now wait longer than the call does
            with pytest.raises(errors.RegistryUnreachable):
                rosa.users.me()
        process.start()
        assert rosa.users.me().name == "users/rosa"


def killing(registry, stream):
    """Go on with a stream, but end the registry at its first words."""
    for text in stream:
        yield text
        registry.kill()


def runs(process):
    """Whether a process is there and more than an entry that waits for its parent: such a one holds no memory."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
