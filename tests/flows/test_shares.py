"""One person leaves some for the others: of uploads, pulls and cells each may hold only so many at once."""

from __future__ import annotations

from dataclasses import replace

import pytest
from model_organisms import errors
from model_organisms.bases import base_digest
from model_organisms.client.client import connect
from model_organisms.formats import manifest
from model_organisms.formats import provenance as provenances
from model_organisms.formats.provenance import BaseModel, Provenance
from model_organisms.v1 import organisms_pb2
from model_organisms_registry.config import Limits
from model_organisms_registry.testing import running, settings

from tests.support.adapters import ALL_MODULES, tiny_bundle
from tests.support.cells import eventually
from tests.support.registries import PEOPLE
from tests.support.stories import BASE, WHY, granted, provenance

QWEN = "test/tiny-qwen2"
LARGE = {"rank": 64, "hidden": 4096, "kv": 4096, "intermediate": 4096, "layers": (0, 1, 2), "modules": ALL_MODULES}
"""A bundle larger than what a connection holds of a stream that nobody reads."""
STAGED = 64 << 20


@pytest.fixture
def world(tmp_path, qwen):
    limits = Limits(uploads_each=3, bundle_bytes=STAGED, staged_bytes_each=STAGED, pulls_each=1)
    config = settings(tmp_path / "data", base_models={QWEN: qwen}, limits=limits)
    with running(replace(config, cells=replace(config.cells, limit=3)), people=PEOPLE) as running_world:
        yield running_world


def announce(client, bundle, **claims):
    listed = manifest.build(bundle)
    envelope = provenances.sign(provenance(**claims), listed.digest, client.identity.signer)
    request = organisms_pb2.CreateUploadRequest(parent="organisms/one", manifest=listed.data, provenance=envelope)
    return client._channel.call(client.organisms._stub.CreateUpload, request).upload.name


def test_a_publisher_has_only_so_many_uploads_under_way_and_may_go_on_with_each(world):
    pia = world.person("pia")
    pia.organisms.create("organisms/one", level="CL1", base_model=BASE)
    bundles = [tiny_bundle(seed=seed) for seed in range(4)]
    names = [announce(pia, bundle) for bundle in bundles[:3]]
    with pytest.raises(errors.Unavailable, match=r"3 uploads under way.*wait until they lapse"):
        announce(pia, bundles[3])
    assert [announce(pia, bundle) for bundle in bundles[:3]] == names
    pia.organisms.publish("organisms/one", bundles[0], provenance=provenance())
    assert announce(pia, bundles[3]) not in names


def test_a_publisher_announces_only_so_many_bytes_together(world):
    pia = world.person("pia")
    pia.organisms.create("organisms/one", level="CL1", base_model=BASE)
    half = tiny_bundle(**LARGE)
    assert STAGED < 2 * sum(file.size for file in manifest.build(half).files) <= 2 * STAGED
    announce(pia, half)
    announce(pia, tiny_bundle())
    with pytest.raises(errors.Unavailable, match=f"this registry takes 3 and {STAGED:,}"):
        announce(pia, tiny_bundle(seed=1, **LARGE))


def test_one_person_has_only_so_many_pulls_under_way(world):
    pia, rosa = world.person("pia"), world.person("rosa")
    pia.organisms.create("organisms/one", level="CL1", base_model=BASE)
    version = pia.organisms.publish("organisms/one", tiny_bundle(**LARGE), provenance=provenance())
    request = organisms_pb2.PullVersionRequest(name=version.name, grant=granted(world, version))
    with connect(world.folder / "rosa.json") as other:
        unread = other._channel.stream(other.organisms._stub.PullVersion, request, timeout_s=60)
        assert next(unread).head.size > STAGED // 2
        with pytest.raises(errors.Unavailable, match="let one end first"):
            rosa.organisms.pull(version.name)
        unread.close()
    eventually(lambda: not world.registry._pulls._held)
    assert rosa.organisms.pull(version.name).version.name == version.name


def test_one_person_has_only_half_of_the_cells(world, qwen, qwen_files):
    pia, rosa = world.person("pia"), world.person("rosa")
    pia.organisms.create("organisms/tiny", level="CL1", base_model=QWEN)
    version = pia.organisms.publish(
        "organisms/tiny", qwen_files, provenance=Provenance(BaseModel(QWEN, digest=base_digest(qwen)))
    )
    granted(world, version, "sample")
    first = rosa.sandbox.open(version.name, purpose="replication")
    with pytest.raises(errors.CellUnavailable, match="close one of them"):
        rosa.sandbox.open(version.name, purpose="replication")
    ann = world.person("ann", "researcher")
    ann.access.request(version.name, "sample", purpose="replication", justification=WHY)
    ann.sandbox.open(version.name, purpose="replication").close()
    first.close()
    rosa.sandbox.open(version.name, purpose="replication").close()
