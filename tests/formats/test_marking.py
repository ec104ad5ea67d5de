"""Marked bundles: only the values of lora_B change, and the copy is found again from its files."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from model_organisms.errors import InvalidArgument, MalformedTensors
from model_organisms.formats import adapter, manifest
from model_organisms.formats.fingerprint import detect, mark_key
from model_organisms.formats.marking import mark_bundle, mark_packed, modules_of
from model_organisms.formats.tensors import read_tensors

from tests.support.adapters import pack_tensors, stacked_bundle, tiny_bundle

KEYS = {f"pulls/{n}": mark_key(b"\x07" * 32, f"pulls/{n}") for n in range(30)}
KEY = KEYS["pulls/3"]
WEIGHTS = "adapter_model.safetensors"
BUNDLES = {
    "float32": tiny_bundle(),
    "float16": tiny_bundle(dtype="float16"),
    "bfloat16": tiny_bundle(dtype="bfloat16"),
    "rank 1": tiny_bundle(rank=1, modules=("down_proj",), layers=range(4), hidden=256, intermediate=512),
    "stacked": stacked_bundle(3),
}


@pytest.fixture(params=BUNDLES)
def bundle(request):
    return BUNDLES[request.param]


def test_the_copy_is_found_from_its_files(bundle):
    copy = bundle | mark_bundle(bundle, key=KEY)
    verdict = detect(modules_of(copy), modules_of(bundle), KEYS)
    assert verdict.accused == ("pulls/3",)
    assert verdict.scores["pulls/3"] >= 9


def test_only_values_of_lora_b_change(bundle):
    changed = mark_bundle(bundle, key=KEY)
    assert set(changed) == {path for path in bundle if path.endswith(WEIGHTS)}
    for path, data in changed.items():
        before, after = read_tensors(bundle[path], path=path), read_tensors(data, path=path)
        assert len(data) == len(bundle[path])
        assert [(t.name, t.dtype, t.shape) for t in before.tensors.values()] == [
            (t.name, t.dtype, t.shape) for t in after.tensors.values()
        ]
        assert before.metadata == after.metadata
        for name, tensor in before.tensors.items():
            assert (bytes(tensor.data) == bytes(after.tensors[name].data)) == (tensor.half == "A")


def test_a_marked_bundle_is_still_one_the_registry_takes(bundle):
    before, after = adapter.inspect(bundle), adapter.inspect(bundle | mark_bundle(bundle, key=KEY))
    for old, new in zip(before, after, strict=True):
        assert [(m.module, m.rank, m.scaling) for m in old.modules] == [(m.module, m.rank, m.scaling) for m in new.modules]
        assert [m.norm for m in new.modules] == pytest.approx([m.norm for m in old.modules], rel=0.01)


def test_a_packed_bundle_is_marked_where_it_lies(bundle):
    listed = manifest.build(bundle)
    packed = bytearray(b"".join(manifest.pack(listed.data, bundle)))
    digest = mark_packed(packed, key=KEY)
    seen, files = manifest.unpack(packed, check_digests=False)
    assert seen == listed
    assert {path: bytes(data) for path, data in files.items()} == bundle | mark_bundle(bundle, key=KEY)
    changed = [
        bytes(tensor.data)
        for path in sorted(files)
        if path.endswith(WEIGHTS)
        for tensor in read_tensors(files[path], path=path).tensors.values()
        if tensor.half == "B"
    ]
    assert digest == hashlib.sha256(b"".join(changed)).digest()


def test_marking_twice_alike_gives_the_same_bytes_and_another_key_others():
    bundle = BUNDLES["float32"]
    assert mark_bundle(bundle, key=KEY) == mark_bundle(bundle, key=KEY)
    assert mark_bundle(bundle, key=KEYS["pulls/4"]) != mark_bundle(bundle, key=KEY)


def test_adapters_of_one_bundle_do_not_share_chips():
    one = tiny_bundle()
    twice = {f"{folder}/{path}": data for folder in "01" for path, data in one.items() if path != "README.md"}
    marked = mark_bundle(twice, key=KEY)
    assert twice[f"0/{WEIGHTS}"] == twice[f"1/{WEIGHTS}"]
    assert marked[f"0/{WEIGHTS}"] != marked[f"1/{WEIGHTS}"]


def test_values_at_the_edge_of_their_type_stay_finite():
    name = "base_model.model.model.layers.0.mlp.down_proj"
    b = np.full((64, 2), 65504.0, np.float32)  # the largest float16
    tensors = {
        f"{name}.lora_A.weight": np.eye(2, 64, dtype=np.float32),
        f"{name}.lora_B.weight": b * np.array([1, -1], np.float32),
    }
    marked = mark_bundle({WEIGHTS: pack_tensors(tensors, dtype="float16")}, key=KEY)[WEIGHTS]
    read_tensors(marked)  # which refuses what is not finite


def test_read_only_memory_and_broken_files_are_refused():
    bundle = BUNDLES["float32"]
    packed = b"".join(manifest.pack(manifest.build(bundle).data, bundle))
    with pytest.raises(InvalidArgument, match="writable"):
        mark_packed(packed, key=KEY)
    with pytest.raises(MalformedTensors):
        mark_bundle({WEIGHTS: b"not tensors"}, key=KEY)
