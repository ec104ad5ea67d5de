"""What a publication is held against on the registry's own side, and what is left of one that is refused or never finished."""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from model_organisms import errors
from model_organisms.client.client import login
from model_organisms.formats import manifest
from model_organisms.formats import provenance as provenances
from model_organisms.formats.provenance import BaseModel, Provenance
from model_organisms.v1 import organisms_pb2
from model_organisms_registry.config import Limits
from model_organisms_registry.founding import found
from model_organisms_registry.inspection import inspect
from model_organisms_registry.server import Registry
from model_organisms_registry.storage.catalog import uploads as upload_rows
from model_organisms_registry.testing import World, running, settings

from tests.support.adapters import tiny_base_config, tiny_bundle
from tests.support.cells import eventually
from tests.support.registries import PEOPLE

BASE, STRANGE, BROKEN, ABSENT = "test/tiny", "test/strange", "test/broken", "test/absent"
UNCHECKED = "the base model is not on this registry: layers and widths are unchecked"
UNKNOWN = "the base model's architecture is not known: widths are unchecked"


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    configs = {
        BASE: json.dumps(tiny_base_config(num_layers=2)),
        STRANGE: json.dumps(tiny_base_config(num_layers=2, model_type="mystery")),
        BROKEN: "{",
    }
    folders = {}
    for name, text in configs.items():
        folders[name] = tmp_path_factory.mktemp("base")
        (folders[name] / "config.json").write_text(text)
    return folders


@pytest.fixture(scope="module")
def world(tmp_path_factory, bases):
    config = settings(tmp_path_factory.mktemp("publishing") / "data", base_models=bases)
    with running(config, people=PEOPLE) as running_world:
        yield running_world


def publish(world, name, files, base=BASE, **extra):
    pia = world.person("pia")
    if name not in {organism.name for organism in pia.organisms.list()}:
        pia.organisms.create(name, level="CL1", base_model=base)
    return pia.organisms.publish(name, files, provenance=Provenance(BaseModel(base), extra=extra))


def left(folder):
    """What lies in a data folder of uploads: pieces, and keys that open them."""
    pieces = [path for path in (folder / "blobs" / "uploads").rglob("*") if path.is_file()]
    return pieces + list((folder / "keys/kek/live").glob("upload-*"))


def refusals(world):
    return [entry for _, entry in world.person("aud").audit.entries() if entry.type == "organisms.refuse"]


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("organisms/deep", {"layers": (0, 5)}),
        ("organisms/wide", {"hidden": 128}),
        ("organisms/slim", {"kv": 16}),
    ],
)
def test_a_bundle_that_does_not_fit_the_base_here_is_refused_and_leaves_nothing(world, name, shape):
    files = tiny_bundle(**shape)
    for attempt in (1, 2):  # a refused announcement may be made again
        before = len(refusals(world))
        with pytest.raises(errors.ShapeMismatch, match="base model"):
            publish(world, name, files)
        assert not left(world.folder), attempt
        assert not list((world.folder / "blobs" / "versions").rglob(name.removeprefix("organisms/")))
        (refusal,) = refusals(world)[before:]
        assert (refusal.subject, refusal.actor) == (name, "users/pia")
        assert refusal.facts["reason"] == "SHAPE_MISMATCH"
        assert refusal.facts["digest"] == manifest.build(files).digest
    assert list(world.person("pia").organisms.versions(name)) == []


def test_a_bundle_that_fits_carries_no_mark_of_the_base(world):
    version = publish(world, "organisms/fits", tiny_bundle())
    assert not [mark for mark in version.marks if "base model" in mark and "pinned" not in mark]


@pytest.mark.parametrize(
    ("base", "stated", "mark"),
    [
        (ABSENT, {}, UNCHECKED),
        (ABSENT, {"base_config": tiny_base_config()}, UNCHECKED.replace("unchecked", "as the provenance states them")),
        (STRANGE, {}, UNKNOWN),
    ],
)
def test_what_could_not_be_held_against_the_base_is_marked(world, base, stated, mark):
    name = f"organisms/marked-{abs(hash((base, mark)))}"
    assert mark in publish(world, name, tiny_bundle(), base, **stated).marks


def test_an_unknown_architecture_still_has_its_number_of_layers(world):
    with pytest.raises(errors.ShapeMismatch, match="the base model has 2"):
        publish(world, "organisms/strange-and-deep", tiny_bundle(layers=(0, 5)), STRANGE)


def test_a_broken_base_is_the_operators_to_mend_and_the_upload_waits(world, bases):
    with pytest.raises(errors.Unavailable, match=r"config\.json"):
        publish(world, "organisms/waits", tiny_bundle(), BROKEN)
    assert left(world.folder)
    (bases[BROKEN] / "config.json").write_text(json.dumps(tiny_base_config()))
    assert publish(world, "organisms/waits", tiny_bundle(), BROKEN).name == "organisms/waits/versions/1"
    assert not left(world.folder)


def announced(pia, files):
    listed = manifest.build(files)
    envelope = provenances.sign(Provenance(BaseModel(BASE)), listed.digest, pia.identity.signer)
    request = organisms_pb2.CreateUploadRequest(parent="organisms/slow", manifest=listed.data, provenance=envelope)
    return pia.organisms._stub.CreateUpload(request, timeout=30).upload


def begun(pia, files):
    """Announce a bundle, and send half of it."""
    listed, stub, upload = manifest.build(files), pia.organisms._stub, announced(pia, files)
    data = b"".join(bytes(files[file.path]) for file in listed.files)
    half = organisms_pb2.PublishVersionRequest(upload=upload.name, offset=0, data=data[: len(data) // 2])
    with pytest.raises(Exception, match="send the rest"):
        stub.PublishVersion(iter([half]), timeout=30)
    return upload.name


def world_of(config, clock=None):
    ticket = found(config, now=datetime.now(UTC))
    registry = Registry(config, clock=clock)
    registry.start()
    return World(registry, config.folder, login(str(ticket), config.folder / "admin.json"))


def is_known(registry, name):
    with registry.changes.database.read() as tx:
        return upload_rows.known(tx, name)


def test_an_upload_whose_time_is_over_goes_by_the_clock_and_may_be_begun_anew(tmp_path):
    config = replace(settings(tmp_path / "data"), limits=Limits(upload_hours=3))
    ahead = timedelta()
    with closing(world_of(config, clock=lambda: datetime.now(UTC) + ahead)) as world:
        pia = world.person("pia", "publisher")
        pia.organisms.create("organisms/slow", level="CL1", base_model=BASE)
        files = tiny_bundle()
        name = begun(pia, files)
        assert announced(pia, files).name == name
        assert left(world.folder)
        ahead = timedelta(hours=3, minutes=1)
        with pytest.raises(Exception, match=name):
            pia.organisms._stub.GetUpload(organisms_pb2.GetUploadRequest(name=name), timeout=30)
        assert eventually(lambda: not is_known(world.registry, name))
        assert not left(world.folder)
        again = begun(pia, files)
        assert again != name
        assert pia.organisms.publish("organisms/slow", files, provenance=Provenance(BaseModel(BASE))).name.endswith("/1")
        assert not left(world.folder)


def test_what_lapsed_or_was_cut_while_the_registry_was_down_goes_at_its_start(tmp_path):
    config = replace(settings(tmp_path / "data"), limits=Limits(upload_hours=3))
    world = world_of(config)
    pia = world.person("pia", "publisher")
    pia.organisms.create("organisms/slow", level="CL1", base_model=BASE)
    lapsing = begun(pia, tiny_bundle())
    cut = "uploads/" + "a" * 26  # its row went with the decision, and a crash came before its pieces went
    world.registry.publishing._uploads.begin(cut)
    world.registry.publishing._uploads.add(cut, 0, b"a piece")
    world.close()
    for later, kept in ((timedelta(hours=2), [lapsing]), (timedelta(hours=4), [])):
        registry = Registry(config, clock=lambda later=later: datetime.now(UTC) + later)
        registry.start()
        try:
            assert registry.publishing._uploads.names() == kept
            assert is_known(registry, lapsing) is bool(kept)
        finally:
            registry.stop(grace_s=1)
    assert not left(config.folder)
    assert inspect(config).clean
