"""The folder of blobs under failing system calls: whole or absent, and never acknowledged without being synced."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from model_organisms.errors import ConfigurationInvalid, NotFound, Unavailable
from model_organisms_registry.storage.folder import Folder

DATA = bytes(range(256)) * 40
WRITE = """
import sys
from model_organisms.errors import ModelOrganismsError
from model_organisms_registry.storage.folder import Folder
try:
    Folder(sys.argv[1]).write("a/b", [bytes(range(256)) * 40], create_only=sys.argv[2] == "put")
    print("done")
except ModelOrganismsError as error:
    print(error.reason, error.message)
"""
if TYPE_CHECKING:
    from pathlib import Path

CALLS = [
    ("mkdir,mkdirat", 3),  # the first two are of folders that are there
    *(("fsync", number) for number in (1, 2, 3, 4, 5)),  # above the root, the root, the file, the root again, the blob's folder
    ("write", 1),
    ("link,linkat,rename,renameat,renameat2", 1),
]
"""Every call of opening a folder and writing a blob into a folder of its own that can fail, in turn."""

_ENV = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}


def traced(root: Path, verb: str, *options: str) -> tuple[str, str]:
    log = root.parent / "trace"
    command = ["strace", "-f", "-o", str(log), *options, sys.executable, "-c", WRITE, str(root), verb]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, env=_ENV)
    return done.stdout, log.read_text()


@pytest.fixture
def root(tmp_path) -> Path:
    Folder(str(tmp_path / "blobs"))  # so that what is traced is the write
    return tmp_path / "blobs"


@pytest.mark.parametrize(("verb", "places"), [("put", r"link(at)?"), ("replace", r"rename(at2?)?")])
def test_a_write_is_synced_before_it_is_seen_and_its_folders_after(root, verb, places):
    out, log = traced(root, verb, "-yy", "-e", "trace=fsync,link,linkat,rename,renameat,renameat2")
    assert out == "done\n"
    steps = [line for line in log.splitlines() if str(root) in line][1:]  # the first syncs .tmp itself
    assert len(steps) == 4, steps
    assert "fsync(" in steps[0]
    assert "/.tmp/" in steps[0]
    assert f"{root}>" in steps[1]
    assert re.search(rf"\b{places}\(", steps[2])
    assert f"{root}/a>" in steps[3]


@pytest.mark.parametrize(
    ("verb", "error", "calls", "number"),
    [*(("put", "EIO", *call) for call in CALLS), ("replace", "ENOSPC", *CALLS[-1]), ("replace", "EDQUOT", "write", 1)],
)
def test_a_failing_call_is_an_error_and_leaves_no_half_and_no_leftover(root, verb, error, calls, number):
    out, log = traced(root, verb, "-e", f"trace={calls}", "-e", f"inject={calls}:error={error}:when={number}")
    assert "INJECTED" in log
    opened = number > 2 or calls != "fsync"
    assert re.match("UNAVAILABLE .*check its disk" if opened else "CONFIGURATION_INVALID .*user may write", out)
    assert list((root / ".tmp").iterdir()) == []
    assert whole_or_absent(root)
    Folder(str(root)).write("a/b", [DATA], create_only=False)  # once the fault is gone, all is well
    assert Folder(str(root)).read("a/b") == DATA


@pytest.mark.parametrize(("call", "number"), [("fsync", 3), ("fsync", 4), ("link,linkat", 1), ("fsync", 5)])
def test_killed_in_the_middle_the_blob_is_absent_or_whole(root, call, number):
    out, _ = traced(root, "put", "-e", f"trace={call}", "-e", f"inject={call}:signal=SIGKILL:when={number}")
    assert out == ""
    assert whole_or_absent(root)


def whole_or_absent(folder: Path) -> bool:
    try:
        return Folder(str(folder)).read("a/b") == DATA
    except NotFound:
        return True


def test_what_crashed_writers_left_is_swept_a_day_later(root):
    old, fresh = root / ".tmp" / "old", root / ".tmp" / "fresh"
    for left in (old, fresh):
        left.write_bytes(b"half")
    os.utime(old, (time.time() - 90_000,) * 2)
    Folder(str(root))
    assert not old.exists()
    assert fresh.exists()
    assert list(Folder(str(root)).list("")) == []


def test_files_and_folders_are_the_registrys_alone(root):
    os.umask(os.umask(0o077))
    Folder(str(root)).write("a/b/c", [b"x"], create_only=True)
    assert {path.stat().st_mode & 0o777 for path in (root, root / ".tmp", root / "a", root / "a" / "b")} == {0o700}
    assert (root / "a" / "b" / "c").stat().st_mode & 0o777 == 0o600


def test_emptied_folders_are_pruned(root):
    store = Folder(str(root))
    store.write("u/1/0", [b"x"], create_only=True)
    store.write("u/2/0", [b"x"], create_only=True)
    store.delete("u/1/0")
    assert [path.name for path in (root / "u").iterdir()] == ["2"]
    store.delete("u/2/0")
    assert [path.name for path in root.iterdir()] == [".tmp"]


def test_links_are_not_followed(root, tmp_path):
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    (root / "link").symlink_to(secret)
    store = Folder(str(root))
    with pytest.raises(NotFound):
        store.size("link")
    with pytest.raises(Unavailable):
        store.read("link")


def test_a_place_that_is_no_folder_is_refused(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ConfigurationInvalid, match="the registry's user may write"):
        Folder(str(tmp_path / "file"))


def test_writers_and_deleters_of_one_folder_do_not_trip_over_each_other(root):
    stores = [Folder(str(root)) for _ in range(4)]

    def churn(n: int) -> None:
        for _ in range(25):
            stores[n].write(f"u/deep/{n}", [b"x"], create_only=True)
            stores[n].delete(f"u/deep/{n}")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(churn, range(4)))
    assert list(stores[0].list("")) == []
