"""Key-encryption keys in files: their owner's alone, and nothing of a destroyed one is left on the disk."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from model_organisms.errors import (
    ConfigurationInvalid,
    Conflict,
    NotFound,
    VerificationFailed,
)
from model_organisms_registry.storage.key_files import FileKeys
from model_organisms_registry.storage.keys import KeyState

KEY = bytes(range(32))


def exists(keys, kek_id):
    return keys.state(kek_id) is KeyState.LIVE


@pytest.fixture
def keys(tmp_path) -> FileKeys:
    return FileKeys(tmp_path / "kek")


def test_a_destroyed_key_is_gone_for_good(keys, tmp_path):
    keys.create("a")
    wrapped = keys.wrap("a", KEY, b"")
    secret = (tmp_path / "kek" / "live" / "a").read_bytes()
    held = (tmp_path / "kek" / "live" / "a").open("rb")  # as a snapshot would hold it
    keys.destroy("a")
    keys.destroy("a")
    with held:
        assert held.read() != secret
    for again in (keys, FileKeys(tmp_path / "kek")):
        assert not exists(again, "a")
        with pytest.raises(NotFound, match="destroyed"):
            again.unwrap("a", wrapped, b"")
        with pytest.raises(NotFound):
            again.wrap("a", KEY, b"")
        with pytest.raises(Conflict, match="not made again"):
            again.create("a")
    assert not any(secret in path.read_bytes() for path in (tmp_path / "kek").rglob("*") if path.is_file())


def test_a_key_put_back_from_a_backup_stays_destroyed(keys, tmp_path):
    keys.create("a")
    wrapped = keys.wrap("a", KEY, b"")
    file = tmp_path / "kek" / "live" / "a"
    copy = file.read_bytes()
    keys.destroy("a")
    file.parent.mkdir(mode=0o700, exist_ok=True)
    file.write_bytes(copy)
    file.chmod(0o600)
    with pytest.raises(NotFound):
        keys.unwrap("a", wrapped, b"")


DESTROY = """
import sys
from model_organisms_registry.storage.key_files import FileKeys
FileKeys(sys.argv[1]).destroy("a")
"""


@pytest.mark.parametrize("number", [1, 4, 6, 9, 12])
def test_a_destruction_that_was_interrupted_is_finished_at_the_next_start(keys, tmp_path, number):
    """Killed at each sync in turn: before the first mark the key lives, after it the next start leaves nothing of it."""
    keys.create("a")
    secret = (tmp_path / "kek" / "live" / "a").read_bytes()
    command = ["strace", "-f", "-o", "/dev/null", "-e", "trace=fsync", "-e", f"inject=fsync:signal=SIGKILL:when={number}"]
    ended = subprocess.run([*command, sys.executable, "-c", DESTROY, str(tmp_path / "kek")], check=False, timeout=60)
    again = FileKeys(tmp_path / "kek")
    again.finish()
    left = [path for path in (tmp_path / "kek").rglob("*") if path.is_file() and secret in path.read_bytes()]
    if exists(again, "a"):
        assert ended.returncode != 0
        assert left == [tmp_path / "kek" / "live" / "a"]
    else:
        assert left == []
    assert list(again._files.list("destroying")) == []


@pytest.mark.parametrize("mode", [0o750, 0o701, 0o704])
def test_a_folder_open_to_others_is_refused(tmp_path, mode):
    (tmp_path / "kek").mkdir()
    (tmp_path / "kek").chmod(mode)
    with pytest.raises(ConfigurationInvalid, match="chmod"):
        FileKeys(tmp_path / "kek")


@pytest.mark.parametrize("mode", [0o640, 0o604])
def test_a_key_file_open_to_others_is_refused(keys, tmp_path, mode):
    keys.create("a")
    (tmp_path / "kek" / "live" / "a").chmod(mode)
    with pytest.raises(ConfigurationInvalid, match="who read it"):
        keys.wrap("a", KEY, b"")


def test_files_are_their_owners_alone(keys, tmp_path):
    keys.create("a")
    keys.destroy("b")
    files = [path for path in (tmp_path / "kek").rglob("*") if path.is_file()]
    folders = [tmp_path / "kek", *(path for path in (tmp_path / "kek").rglob("*") if path.is_dir())]
    assert {path.stat().st_mode & 0o777 for path in files} == {0o600}
    assert {path.stat().st_mode & 0o777 for path in folders} == {0o700}


def test_a_cut_key_file_and_a_link_are_refused(keys, tmp_path):
    keys.create("a")
    os.truncate(tmp_path / "kek" / "live" / "a", 31)
    with pytest.raises(VerificationFailed):
        keys.wrap("a", KEY, b"")
    (tmp_path / "kek" / "live" / "b").symlink_to(tmp_path / "kek" / "live" / "a")
    with pytest.raises(Exception, match="cannot be reached"):
        keys.wrap("b", KEY, b"")
