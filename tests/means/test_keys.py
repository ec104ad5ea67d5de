"""Key-encryption keys in files: only their owner's, bound to what they wrap, and gone when destroyed."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from model_organisms.errors import (
    AlreadyExists,
    ConfigurationInvalid,
    Conflict,
    InvalidArgument,
    NotFound,
    VerificationFailed,
)
from model_organisms_registry.storage.keys import FileKeys

KEY = bytes(range(32))


@pytest.fixture
def keys(tmp_path) -> FileKeys:
    return FileKeys(tmp_path / "kek")


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(key=st.binary(min_size=32, max_size=32), aad=st.binary(max_size=60))
def test_what_was_wrapped_unwraps_also_after_a_restart(keys, tmp_path, key, aad):
    if not keys.exists("version-1"):
        keys.create("version-1")
    wrapped = keys.wrap("version-1", key, aad)
    assert key not in wrapped
    assert FileKeys(tmp_path / "kek").unwrap("version-1", wrapped, aad) == key


def test_a_wrapped_key_is_bound_to_its_purpose_its_key_and_every_bit(keys):
    keys.create("a")
    keys.create("b")
    wrapped = keys.wrap("a", KEY, b"purpose")
    for kek, blob, aad in [
        ("a", wrapped, b"other"),
        ("b", wrapped, b"purpose"),
        ("a", b"", b"purpose"),
        ("a", wrapped[:20], b"purpose"),
    ]:
        with pytest.raises(VerificationFailed):
            keys.unwrap(kek, blob, aad)
    for bit in range(len(wrapped) * 8):
        broken = bytearray(wrapped)
        broken[bit // 8] ^= 1 << bit % 8
        with pytest.raises(VerificationFailed):
            keys.unwrap("a", bytes(broken), b"purpose")


def test_two_wrappings_of_one_key_differ(keys):
    keys.create("a")
    assert keys.wrap("a", KEY, b"") != keys.wrap("a", KEY, b"")


def test_a_key_is_made_once(keys):
    keys.create("a")
    with pytest.raises(AlreadyExists):
        keys.create("a")

    def create(_: int) -> bool:
        try:
            keys.create("race")
        except AlreadyExists:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(create, range(8))) == 1


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
        assert not again.exists("a")
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


def test_a_key_that_never_was_can_be_destroyed_beforehand(keys):
    keys.destroy("never")
    with pytest.raises(Conflict):
        keys.create("never")


DESTROY = """
import sys
from model_organisms_registry.storage.keys import FileKeys
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
    left = [path for path in (tmp_path / "kek").rglob("*") if path.is_file() and secret in path.read_bytes()]
    if again.exists("a"):
        assert ended.returncode != 0
        assert left == [tmp_path / "kek" / "live" / "a"]
    else:
        assert left == []
    assert list(again._files.list("destroying")) == []


@pytest.mark.parametrize("mode", [0o750, 0o701, 0o704])
def test_a_folder_open_to_others_is_refused(tmp_path, mode):
    FileKeys(tmp_path / "kek")
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


@pytest.mark.parametrize("kek_id", ["", "../a", "a/b", "A", "a.b", "-a", "a" * 129, "a\n", ".tmp", "é"])
def test_ids_that_could_escape_are_refused(keys, kek_id):
    for call in (
        lambda: keys.create(kek_id),
        lambda: keys.destroy(kek_id),
        lambda: keys.exists(kek_id),
        lambda: keys.wrap(kek_id, KEY, b""),
        lambda: keys.unwrap(kek_id, b"", b""),
    ):
        with pytest.raises(InvalidArgument):
            call()


def test_only_keys_are_wrapped(keys):
    keys.create("a")
    for size in (0, 16, 33):
        with pytest.raises(InvalidArgument):
            keys.wrap("a", bytes(size), b"")
