"""Every hostile bundle is refused by the reader that both sides use, in its typed error, in bounded time and memory."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys

import pytest
from model_organisms import errors
from model_organisms.client.transfer import upload
from model_organisms.formats import adapter, manifest, provenance, strict_json
from model_organisms.formats.provenance import BaseModel, Method, Provenance
from model_organisms.v1 import organisms_pb2
from model_organisms_registry.inspection import inspect

from tests.support import hostile_files
from tests.support.adapters import tiny_bundle
from tests.support.hostile import crowded
from tests.support.hostile_configs import attacks
from tests.support.tree import ROOT

ATTACKS = attacks()
MEASURE = """
import json, re, sys, time
from pathlib import Path
from model_organisms.errors import ModelOrganismsError
from model_organisms.formats import adapter
from tests.support.adapters import tiny_bundle
from tests.support import hostile_files
from tests.support.adapters import tiny_bundle
from tests.support.hostile import crowded
from tests.support.hostile_configs import attacks

def memory(field):
    return 1024 * int(re.search(field + r":\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])

adapter.inspect(tiny_bundle())  # what is imported once counts for nobody
for name, attack in attacks().items():
    files = attack.make()
    Path("/proc/self/clear_refs").write_text("5")  # forget the highest memory so far
    before, begun = memory("VmRSS"), time.perf_counter()
    try:
        adapter.inspect(files, attack.base_config)
    except ModelOrganismsError:
        pass
    taken, grown = time.perf_counter() - begun, memory("VmHWM") - before
    size = sum(len(data) for data in files.values() if isinstance(data, bytes))
    print(json.dumps([name, taken, grown, size]), flush=True)
"""


@pytest.mark.parametrize("name", ATTACKS)
def test_it_is_refused_by_its_own_error_which_says_what_to_do(name):
    attack = ATTACKS[name]
    with pytest.raises(attack.error, match=attack.says) as caught:
        adapter.inspect(attack.make(), attack.base_config)
    assert type(caught.value) is attack.error
    told = [caught.value.message, *caught.value.details.values()]
    assert all(text.isprintable() and len(text) < 500 for text in told), told


def test_those_that_only_the_base_gives_away_are_taken_without_it():
    for name, attack in ATTACKS.items():
        if attack.base and "of the config" not in name:
            assert adapter.inspect(attack.make())


def test_each_is_refused_in_bounded_time_and_memory():
    run = subprocess.run([sys.executable, "-c", MEASURE], cwd=ROOT, check=True, capture_output=True, text=True, timeout=240)
    rows = [json.loads(line) for line in run.stdout.splitlines()]
    assert [row[0] for row in rows] == list(ATTACKS)
    slow = {name: taken for name, taken, _, size in rows if taken > 5 + size / 20e6}
    large = {name: grown >> 20 for name, _, grown, size in rows if grown > (64 << 20) + size}
    assert not slow
    assert not large


SENT = [name for name in (*list(ATTACKS)[::5], *hostile_files.PATHS, *hostile_files.BASES) if "16 GiB" not in name]
ANNOUNCED_WRONG = {"nothing": errors.InvalidManifest, "too many files": errors.InvalidManifest}
"""What is refused before a byte is sent, because not even its list of files is one."""


def force(client, organism, files, stated, *, signer=None, about=""):
    """Publish as a client would that checks nothing: any paths, any bytes, a manifest written by hand, any signature."""
    kinds = dict.fromkeys(files, "card") | {path: _kind(path) for path in files}
    entries = [
        {"kind": kinds[path], "path": path, "sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
        for path, data in sorted(files.items())
    ]
    listed = strict_json.canonical(entries)
    envelope = provenance.sign(stated, about or hashlib.sha256(listed).hexdigest(), signer or client.identity.signer)
    stub, call = client.organisms._stub, client._channel.call
    request = organisms_pb2.CreateUploadRequest(parent=organism, manifest=listed, provenance=envelope)
    staged = call(stub.CreateUpload, request).upload
    pieces = [memoryview(files[entry["path"]]) for entry in entries]
    return call(stub.PublishVersion, upload(staged.name, staged.received, pieces, lambda _: None), timeout_s=60)


def _kind(path):
    try:
        return manifest.kind_of(path).value
    except errors.InvalidBundle:
        return "card"


def on_disk(world):
    """Every file under the registry's folder that belongs to an upload or a version."""
    kept = [path for top in ("blobs/uploads", "blobs/versions", "keys/kek/live") for path in (world.folder / top).rglob("*")]
    return {str(path.relative_to(world.folder)) for path in kept if path.is_file()}


def test_what_is_as_long_as_is_taken_can_be_read_and_listed(world):
    pia = world.person("pia")
    pia.organisms.create("organisms/long", level="CL1", base_model="test/tiny")
    cards = {f"data-cards/{number:04}{'x' * 150}.md": b"" for number in range(3000)}
    stated = Provenance(BaseModel("test/tiny"), extra={"notes": "x" * 1_450_000})
    for number in range(2):
        version = pia.organisms.publish("organisms/long", crowded(3) | cards | {"LICENSE": b"%d" % number}, provenance=stated)
        assert pia.organisms.version(version.name).facts == version.facts
    assert [version.name[-1] for version in pia.organisms.versions("organisms/long")] == ["2", "1"]


TOY = BaseModel("test/tiny")
CLAIMS = {
    "another rank": (Provenance(TOY, Method(rank=64)), errors.ClaimMismatch, "claims rank 64"),
    "another alpha": (Provenance(TOY, Method(alpha=1.0)), errors.ClaimMismatch, "claims alpha 1, the"),
    "another scaling": (Provenance(TOY, Method(rank=4, rslora=True)), errors.ClaimMismatch, "claims rslora True"),
    "fewer layers": (Provenance(TOY, Method(layers=(0,))), errors.ClaimMismatch, r"claims layers \(0,\)"),
    "other modules": (Provenance(TOY, Method(target_modules=("lm_head",))), errors.ClaimMismatch, "claims target_modules"),
    "a base with too few layers": (Provenance(BaseModel("test/tiny", layers=1)), errors.ClaimMismatch, "its base has 1"),
    "a base of other shapes": (Provenance(TOY, extra={"base_config": {"num_hidden_layers": 1}}), errors.ShapeMismatch, "has 1"),
    "a base of no shapes": (Provenance(TOY, extra={"base_config": {"x": []}}), errors.ShapeMismatch, "no usable"),
}


@pytest.mark.parametrize("name", CLAIMS)
def test_the_registry_itself_holds_claims_against_the_bytes(world, name):
    stated, error, says = CLAIMS[name]
    pia, organism = world.person("pia"), f"organisms/claims-{list(CLAIMS).index(name)}"
    pia.organisms.create(organism, level="CL1", base_model="test/tiny")
    before = on_disk(world)
    with pytest.raises(error, match=says):
        force(pia, organism, tiny_bundle(), stated)
    assert on_disk(world) == before
    assert list(pia.organisms.versions(organism)) == []


def test_a_bundle_that_others_signed_or_that_was_signed_for_another_is_not_even_announced(world):
    pia = world.person("pia")
    pia.organisms.create("organisms/foreign", level="CL1", base_model="test/tiny")
    before = on_disk(world)
    with pytest.raises(errors.SignatureInvalid, match="someone else"):
        force(pia, "organisms/foreign", tiny_bundle(), Provenance(TOY), signer=world.person("rosa").identity.signer)
    with pytest.raises(errors.InvalidProvenance, match="sign it again"):
        force(pia, "organisms/foreign", tiny_bundle(), Provenance(TOY), about="0" * 64)
    with pytest.raises(errors.Denied):
        force(world.person("rosa"), "organisms/foreign", tiny_bundle(), Provenance(TOY))
    assert on_disk(world) == before


def test_none_of_them_is_published_by_a_client_that_checks_nothing(world):
    pia = world.person("pia")
    pia.organisms.create("organisms/hostile", level="CL1", base_model="test/tiny")
    before, wrong = on_disk(world), {}
    for name in dict.fromkeys(SENT):
        attack = ATTACKS[name]
        stated = Provenance(BaseModel("test/tiny"), extra={"base_config": attack.base_config} if attack.base else {})
        with pytest.raises(errors.ModelOrganismsError) as caught:
            force(pia, "organisms/hostile", attack.make(), stated)
        expected = ANNOUNCED_WRONG.get(name, attack.error)
        if type(caught.value) is not expected or (expected is attack.error and not re.search(attack.says, caught.value.message)):
            wrong[name] = caught.value
        assert on_disk(world) == before, name
    assert not wrong
    assert list(pia.organisms.versions("organisms/hostile")) == []
    assert pia.organisms.get("organisms/hostile").latest == 0
    report = inspect(world.registry.config)
    assert report.clean, report.findings
