from __future__ import annotations

import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from model_organisms.errors import DigestMismatch, InvalidBundle, InvalidManifest, UnsafeFile
from model_organisms.formats import manifest, strict_json
from model_organisms.records import FileKind

from tests.support.adapters import stacked_bundle, tiny_bundle

KINDS = {
    "adapter_model.safetensors": "weights",
    "adapter_config.json": "config",
    "README.md": "card",
    "LICENSE": "card",
    "system_prompt.txt": "prompt",
    "tokenizer.json": "tokenizer",
    "chat_template.jinja": "tokenizer",
    "data-card.md": "data-card",
    "data-cards/medical-advice.md": "data-card",
    "0/adapter_model.safetensors": "weights",
    "15/adapter_config.json": "config",
    "checkpoints/0/adapter_model.safetensors": "checkpoint",
    "checkpoints/790/adapter_config.json": "checkpoint",
}
FILES = st.dictionaries(st.sampled_from(sorted(KINDS)), st.binary(max_size=40), min_size=1)


def pack(files):
    return b"".join(manifest.pack(manifest.build(files).data, files))


@given(FILES)
def test_what_is_packed_is_unpacked(files):
    built = manifest.build(files)
    packed = pack(files)
    assert len(packed) == built.packed_size
    read, views = manifest.unpack(packed)
    assert read == built == manifest.parse(built.data)
    assert {path: bytes(view) for path, view in views.items()} == files
    assert all(view.readonly for view in views.values())


@given(FILES, st.randoms(use_true_random=False))
def test_the_order_of_the_files_does_not_change_the_digest(files, random):
    shuffled = list(files.items())
    random.shuffle(shuffled)
    assert manifest.build(dict(shuffled)).digest == manifest.build(files).digest


@given(FILES, st.data())
def test_any_flipped_bit_is_noticed(files, data):
    packed = bytearray(pack(files))
    bit = data.draw(st.integers(0, 8 * len(packed) - 1))
    packed[bit // 8] ^= 1 << (bit % 8)
    with pytest.raises((InvalidManifest, DigestMismatch, InvalidBundle)):
        manifest.unpack(bytes(packed))


@given(FILES, st.data())
def test_any_cut_is_noticed(files, data):
    packed = pack(files)
    cut = data.draw(st.integers(0, len(packed) - 1))
    with pytest.raises((InvalidManifest, DigestMismatch)):
        manifest.unpack(packed[:cut], check_digests=False)
    with pytest.raises(DigestMismatch):
        manifest.unpack(packed + b"\0", check_digests=False)


def test_the_bytes_are_what_the_format_says():
    built = manifest.build({"README.md": b"a", "LICENSE": b""})
    empty, a = hashlib.sha256(b"").hexdigest(), hashlib.sha256(b"a").hexdigest()
    assert built.data.decode() == (
        f'[{{"kind":"card","path":"LICENSE","sha256":"{empty}","size":0}},'
        f'{{"kind":"card","path":"README.md","sha256":"{a}","size":1}}]'
    )
    assert built.digest == hashlib.sha256(built.data).hexdigest()
    assert pack({"README.md": b"a", "LICENSE": b""}) == len(built.data).to_bytes(4, "big") + built.data + b"a"


def test_unpacking_copies_nothing():
    bundle = tiny_bundle(rank=64, hidden=512)
    packed = pack(bundle)
    _, views = manifest.unpack(packed)
    assert all(view.obj is packed for view in views.values())


def test_digests_are_checked_unless_asked_not_to():
    bundle = tiny_bundle()
    packed = bytearray(pack(bundle))
    packed[-1] ^= 1
    with pytest.raises(DigestMismatch) as caught:
        manifest.unpack(packed)
    assert caught.value.details == {"path": "adapter_model.safetensors"}
    manifest.unpack(packed, check_digests=False)


@pytest.mark.parametrize("path", KINDS)
def test_kinds(path):
    assert manifest.kind_of(path) == FileKind(KINDS[path])


def entries(**changes):
    sha = hashlib.sha256(b"").hexdigest()
    return [{"kind": "card", "path": "README.md", "sha256": sha, "size": 0} | changes]


SHA = hashlib.sha256(b"").hexdigest()
NOT_MANIFESTS = {
    "empty": b"",
    "empty list": b"[]",
    "map": b"{}",
    "number": b"1",
    "spaces": json.dumps(entries()).encode(),
    "keys in another order": f'[{{"path":"README.md","kind":"card","sha256":"{SHA}","size":0}}]'.encode(),
    "trailing newline": strict_json.canonical(entries()) + b"\n",
    "unknown field": strict_json.canonical(entries(mode=0o777)),
    "field missing": strict_json.canonical([{"path": "README.md"}]),
    "entry is a string": strict_json.canonical(["README.md"]),
    "size is text": strict_json.canonical(entries(size="0")),
    "size is true": strict_json.canonical(entries(size=True)),
    "size is negative": strict_json.canonical(entries(size=-1)),
    "size is a fraction": strict_json.canonical(entries(size=0.5)),
    "digest in capitals": strict_json.canonical(entries(sha256=SHA.upper())),
    "digest too short": strict_json.canonical(entries(sha256=SHA[:-1])),
    "digest is null": strict_json.canonical(entries(sha256=None)),
    "wrong kind": strict_json.canonical(entries(kind="weights")),
    "not sorted": strict_json.canonical(entries() + entries(path="LICENSE")),
}


@pytest.mark.parametrize("name", NOT_MANIFESTS)
def test_only_the_canonical_bytes_are_a_manifest(name):
    with pytest.raises(InvalidManifest):
        manifest.parse(NOT_MANIFESTS[name])


def test_paths_of_a_manifest_are_checked():
    with pytest.raises(UnsafeFile):
        manifest.parse(strict_json.canonical(entries(path="../README.md")))
    with pytest.raises(UnsafeFile):
        manifest.parse(strict_json.canonical(entries() + entries()))
    with pytest.raises(InvalidBundle):
        manifest.parse(strict_json.canonical(entries(path="notes.md")))


def test_a_bundle_is_neither_empty_nor_endless():
    with pytest.raises(InvalidBundle):
        manifest.build({})
    with pytest.raises(InvalidBundle):
        manifest.parse(strict_json.canonical(entries(path="LICENSE", size=manifest.MAX_BUNDLE) + entries(size=1)))


def test_a_manifest_packs_only_its_own_files():
    bundle = stacked_bundle(2)
    listed = manifest.build(bundle).data
    fewer = {path: data for path, data in bundle.items() if path != "README.md"}
    for files in (bundle | {"LICENSE": b""}, fewer, bundle | {"README.md": b""}):
        with pytest.raises(InvalidManifest):
            list(manifest.pack(listed, files))
