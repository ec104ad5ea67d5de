"""One contract for blobs, kept by a folder and by buckets of two different servers."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from model_organisms.errors import AlreadyExists, ConfigurationInvalid, InvalidArgument, NotFound, Unavailable
from model_organisms_registry.storage.blobs import Blobs

from tests.support.s3 import SECRET

MIB = 1 << 20
parts = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,20}", fullmatch=True)


@pytest.mark.parametrize("data", [b"", b"x", bytes(range(256)) * 100])
def test_what_was_put_comes_back(blobs, data):
    assert blobs.put("a/b.c/d-e_f", data) == len(data)
    assert blobs.get("a/b.c/d-e_f") == data
    assert blobs.size("a/b.c/d-e_f") == len(data)
    assert blobs.exists("a/b.c/d-e_f")


@pytest.mark.parametrize("wrap", [bytes, bytearray, memoryview, lambda data: iter([data[:2], data[2:]]), lambda data: [data]])
def test_bytes_come_in_any_wrapping(blobs, wrap):
    assert blobs.put("a", wrap(b"hello")) == 5
    assert blobs.replace("a", wrap(b"hello!")) == 6
    assert blobs.get("a") == b"hello!"


def test_nothing_is_overwritten_unless_asked(blobs):
    blobs.put("a/b", b"first")
    for data in (b"second", b"first"):
        with pytest.raises(AlreadyExists) as caught:
            blobs.put("a/b", data)
        assert caught.value.details == {"path": "a/b"}
    assert blobs.get("a/b") == b"first"
    blobs.replace("a/b", b"third")
    assert blobs.get("a/b") == b"third"
    blobs.replace("a/new", b"made")
    assert blobs.get("a/new") == b"made"


def test_what_is_not_there_is_not_found(blobs):
    blobs.put("a/b/c", b"x")
    for path in ("z", "a", "a/b", "a/b/d"):
        assert not blobs.exists(path)
        for read in (blobs.get, blobs.size, lambda path: blobs.get_range(path, 0, 1)):
            with pytest.raises(NotFound) as caught:
                read(path)
            assert caught.value.details == {"path": path}


def test_ranges(blobs):
    data = bytes(range(256)) * 17
    blobs.put("a", data)
    for start, length in [(0, 1), (1, 1), (0, len(data)), (5, 1000), (len(data) - 1, 1), (len(data) - 3, 99), (0, 1 << 30)]:
        assert blobs.get_range("a", start, length) == data[start : start + length]
    for start, length in [(-1, 1), (0, 0), (0, -1), (len(data), 1), (len(data) + 7, 1)]:
        with pytest.raises(InvalidArgument):
            blobs.get_range("a", start, length)
    blobs.put("empty", b"")
    with pytest.raises(InvalidArgument):
        blobs.get_range("empty", 0, 1)


def test_lists_are_sorted_and_by_whole_parts(blobs):
    paths = ["a/b/c", "a/b/d/e", "a/b.c", "a/bc", "b", "a/b-/x"]
    for path in reversed(paths):
        blobs.put(path, b"")
    assert blobs.list() == sorted(paths)
    assert blobs.list("a") == sorted(paths[:4] + paths[5:])
    assert blobs.list("a/b") == ["a/b/c", "a/b/d/e"]
    assert blobs.list("c") == []


def test_deleting_is_final_and_repeatable(blobs):
    for path in ("a/b/c", "a/x"):
        blobs.put(path, b"1")
    blobs.delete("a/b/c")
    blobs.delete("a/b/c")
    blobs.delete("never/there")
    assert blobs.list() == ["a/x"]
    blobs.put("a/b/c", b"2")
    assert blobs.get("a/b/c") == b"2"


@pytest.mark.parametrize("create_only", [True, False])
def test_big_objects_arrive_in_chunks_and_leave_in_ranges(blobs, create_only):
    chunks = [bytes([n]) * MIB for n in range(24)]
    assert blobs.put("big", iter(chunks), create_only=create_only) == 24 * MIB
    assert blobs.size("big") == 24 * MIB
    assert blobs.get_range("big", 7 * MIB - 3, 6) == b"\x06\x06\x06\x07\x07\x07"
    assert blobs.get_range("big", 0, 24 * MIB) == b"".join(chunks)
    assert blobs.get("big") == b"".join(chunks)


@pytest.mark.parametrize("create_only", [True, False])
def test_a_write_that_fails_half_way_leaves_nothing(blobs, create_only):
    def breaks():
        for _ in range(12):
            yield bytes(MIB)
        raise InvalidArgument("The source broke.")

    with pytest.raises((InvalidArgument, Unavailable)):
        blobs.put("a/b", breaks(), create_only=create_only)
    assert blobs.list() == []
    blobs.put("a/b", b"whole")
    with pytest.raises((InvalidArgument, Unavailable)):
        blobs.replace("a/b", breaks())
    assert blobs.get("a/b") == b"whole"


def test_of_many_creators_one_wins(open_blobs):
    """Each writer has its own handle; what is read afterwards is what the one winner wrote."""
    writers, rounds = 8, 6
    stores = [open_blobs() for _ in range(writers)]
    for number in range(rounds):
        start = threading.Barrier(writers)

        def write(writer: int, number: int = number, start: threading.Barrier = start) -> int | None:
            start.wait()
            try:
                stores[writer].put(f"race/{number}", bytes([writer]) * 1000)
            except AlreadyExists:
                return None
            return writer

        with ThreadPoolExecutor(writers) as pool:
            won = [writer for writer in pool.map(write, range(writers)) if writer is not None]
        assert len(won) == 1
        assert stores[0].get(f"race/{number}") == bytes(won) * 1000


def test_readers_see_the_old_or_the_new_never_a_mixture(open_blobs):
    writer, reader = open_blobs(), open_blobs()
    versions = [bytes([n]) * 100_000 for n in range(2)]
    writer.put("head", versions[0])
    done = threading.Event()

    def keep_writing() -> None:
        for n in range(40):
            writer.replace("head", versions[n % 2])
        done.set()

    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(keep_writing)
        while not done.is_set() and not writing.done():
            assert reader.get("head") in versions
        writing.result()


PATHS = [
    "",
    "/",
    "/a",
    "a/",
    "a//b",
    ".",
    "..",
    "../a",
    "a/../b",
    ".x",
    "a/.x",
    "a b",
    "a\\b",
    "é",
    "a\0b",
    "a\n",
    "-a",
    "a#1",
    "a%2e",
]


def test_folders_of_long_ago_are_not_kept_in_mind(folder_blobs):
    for number in range(1100):
        folder_blobs.put(f"sessions/{number}/a", b"x")
    assert len(folder_blobs._store._synced) <= 1024
    folder_blobs.put("sessions/0/b", b"y")
    assert folder_blobs.get("sessions/0/b") == b"y"


@pytest.mark.parametrize("path", PATHS)
def test_paths_that_could_escape_are_refused(folder_blobs, path):
    for call in (
        lambda: folder_blobs.put(path, b""),
        lambda: folder_blobs.replace(path, b""),
        lambda: folder_blobs.get(path),
        lambda: folder_blobs.size(path),
        lambda: folder_blobs.get_range(path, 0, 1),
        lambda: folder_blobs.delete(path),
        lambda: folder_blobs.list(path or "/"),
    ):
        with pytest.raises(InvalidArgument):
            call()


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.dictionaries(st.lists(parts, min_size=1, max_size=3).map("/".join), st.binary(max_size=50), max_size=8))
def test_a_store_is_a_mapping_from_paths_to_bytes(blobs, content):
    under = {path: data for path, data in content.items() if not any(other.startswith(f"{path}/") for other in content)}
    for path, data in under.items():
        blobs.put(path, data)
    assert blobs.list() == sorted(under)
    assert {path: blobs.get(path) for path in under} == under
    for path in under:
        blobs.delete(path)
    assert blobs.list() == []


@pytest.mark.parametrize(
    "url",
    [
        "",
        "memory://",
        "/relative/to/nothing",
        "file://host/x",
        "file:relative",
        "file:///x?endpoint=y",
        "s3://",
        "http://x/y",
        "s3://bucket/../x",
    ],
)
def test_an_address_that_is_no_store_is_refused(url):
    with pytest.raises(ConfigurationInvalid):
        Blobs(url)


def test_an_unknown_option_is_refused():
    with pytest.raises(ConfigurationInvalid, match="endpiont"):
        Blobs("s3://bucket?endpiont=http://127.0.0.1:1")


def test_a_server_that_overwrites_is_refused_unless_one_process_writes(rclone_s3):
    url = rclone_s3.url()
    with pytest.raises(ConfigurationInvalid, match="one_writer"):
        Blobs(url, secret_access_key=SECRET)
    store = Blobs(f"{url}&one_writer=true", secret_access_key=SECRET)
    assert store.list() == []  # the probe is gone


def test_a_server_that_is_not_there_is_unavailable():
    with pytest.raises(Unavailable, match="check the server"):
        Blobs("s3://bucket?endpoint=http://127.0.0.1:1", access_key_id="a", secret_access_key="b")


def test_a_bucket_that_does_not_exist_is_said_to_be_missing(moto_s3):
    with pytest.raises(ConfigurationInvalid, match="make the bucket first"):
        Blobs(moto_s3.url().replace("bucket/test", "nowhere"), secret_access_key=SECRET)


def test_wrong_credentials_are_said_to_be_wrong(rclone_s3):
    with pytest.raises(Unavailable, match="credentials"):
        Blobs(rclone_s3.url(), secret_access_key="wrong")


def test_a_password_is_not_shown(rclone_s3):
    store = Blobs(f"{rclone_s3.url()}&one_writer=true", secret_access_key=SECRET)
    assert "secret" not in store.url
    assert "?" not in store.url
