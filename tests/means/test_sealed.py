"""Sealed blobs: nothing in clear on the store, opened only where they belong, and gone with their key."""

from __future__ import annotations

import itertools
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from model_organisms.errors import AlreadyExists, Conflict, NotFound, VerificationFailed
from model_organisms.formats.streaming import SEGMENT
from model_organisms_registry.storage.key_files import FileKeys
from model_organisms_registry.storage.keyring import Keyring
from model_organisms_registry.storage.keys import KeyState
from model_organisms_registry.storage.sealed import SealedStore

from tests.support.tink import tink_open

AAD = bytes(range(32))
PLAIN = os.urandom(64) * ((5 * SEGMENT) // 64)


def make_store(blobs, folder) -> SealedStore:
    keys = Keyring(FileKeys(folder / "kek"))
    for key in ("k", "other"):
        if keys.state(key) is not KeyState.LIVE:
            keys.create(key)
    return SealedStore(blobs, keys)


@pytest.fixture
def store(folder_blobs, tmp_path) -> SealedStore:
    return make_store(folder_blobs, tmp_path)


def put(store, path="a/body", plain=PLAIN, **options) -> int:
    return store.put_sealed(path, [plain], **({"key_id": "k", "aad": AAD} | options))


@pytest.mark.parametrize("size", [0, 1, SEGMENT, len(PLAIN)])
def test_what_was_sealed_is_opened_on_every_kind_of_store(blobs, tmp_path, size):
    store = make_store(blobs, tmp_path)
    assert put(store, plain=PLAIN[:size]) == blobs.size("a/body")
    blob = store.open_sealed("a/body", aad=AAD)
    assert blob.layout.plain_size == size
    assert blob.into_memory()[:size] == PLAIN[:size]


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cuts=st.lists(st.integers(0, len(PLAIN)), max_size=6), start=st.integers(0, 5))
def test_the_stored_stream_is_tinks_and_is_handed_on_from_any_segment(store, cuts, start):
    edges = [0, *sorted(cuts), len(PLAIN)]
    store.delete("a/body")
    store.put_sealed("a/body", (PLAIN[a:b] for a, b in itertools.pairwise(edges)), key_id="k", aad=AAD)
    blob = store.open_sealed("a/body", aad=AAD)
    segments = [bytes(segment) for segment in blob.segments()]
    assert [len(segment) for segment in segments] == [blob.layout.sealed(n)[1] for n in range(blob.layout.segments)]
    assert [bytes(segment) for segment in blob.segments(start)] == segments[start:]
    assert tink_open(blob.data_key, b"".join(segments), AAD) == PLAIN


def test_nothing_in_clear_reaches_the_disk(store, tmp_path):
    put(store)
    put(store, "s/1", b"what the prompt said, and what came back")
    for path in tmp_path.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert PLAIN[:64] not in content
            assert b"prompt" not in content
            for blob in ("a/body", "s/1"):
                assert store.open_sealed(blob, aad=AAD).data_key not in content


def test_a_blob_opens_only_as_what_it_was_stored(store):
    put(store)
    put(store, "b/body", key_id="other")
    with pytest.raises(VerificationFailed):
        store.open_sealed("a/body", aad=AAD[::-1]).into_memory()
    # An operator who swaps blobs, or blobs with their key records, gains nothing either.
    stream = store.blobs.get("b/body")
    store.blobs.replace("a/body", stream)
    with pytest.raises(VerificationFailed):
        store.open_sealed("a/body", aad=AAD).into_memory()
    store.blobs.replace("a/body.key", store.blobs.get("b/body.key"))
    with pytest.raises(VerificationFailed):
        store.open_sealed("a/body", aad=AAD)


@pytest.mark.parametrize(
    "change", [lambda s: s[:-1], lambda s: s + b"\0", lambda s: s[:SEGMENT], lambda s: s[:0], lambda s: s[:39]]
)
def test_a_cut_or_grown_stream_is_refused(store, change):
    put(store)
    store.blobs.replace("a/body", change(store.blobs.get("a/body")))
    with pytest.raises(VerificationFailed, match="restore it from a backup"):
        store.open_sealed("a/body", aad=AAD).into_memory()


@pytest.mark.parametrize(
    "record", [b"", b"{}", b"[]", b'{"kek":"k"}', b'{"kek":"k","wrapped":"%%"}', b'{"kek":"k","wrapped":"AAAA"}']
)
def test_a_broken_key_record_is_refused(store, record):
    put(store)
    store.blobs.replace("a/body.key", record)
    with pytest.raises(VerificationFailed):
        store.open_sealed("a/body", aad=AAD)


def test_destroying_the_key_destroys_what_it_protects_and_nothing_else(store, tmp_path):
    put(store)
    put(store, "b/body", key_id="other")
    backup = {path: store.blobs.get(path) for path in store.blobs.list()}
    store.keys.destroy("k")
    with pytest.raises(NotFound, match="destroyed"):
        store.open_sealed("a/body", aad=AAD)
    for path, data in backup.items():  # a restored backup of the blobs does not help
        store.blobs.replace(path, data)
    with pytest.raises(NotFound, match="destroyed"):
        SealedStore(store.blobs, Keyring(FileKeys(tmp_path / "kek"))).open_sealed("a/body", aad=AAD)
    assert store.open_sealed("b/body", aad=AAD).into_memory()[:] == PLAIN
    with pytest.raises(NotFound):
        put(store, "c/body")


def test_a_blob_is_stored_once(store):
    put(store)
    with pytest.raises(AlreadyExists):
        put(store, plain=b"other")
    assert store.open_sealed("a/body", aad=AAD).into_memory()[:] == PLAIN


def test_an_attempt_after_a_crash_uses_the_key_that_was_left(store):
    put(store)
    first = store.open_sealed("a/body", aad=AAD).data_key
    store.blobs.delete("a/body")  # as if the crash had come between key and stream
    put(store, plain=b"again")
    again = store.open_sealed("a/body", aad=AAD)
    assert again.data_key == first
    assert again.into_memory()[:5] == b"again"


def test_a_left_key_under_another_key_is_a_conflict(store):
    put(store)
    store.blobs.delete("a/body")
    with pytest.raises(Conflict, match="under k, not other"):
        put(store, key_id="other")
    store.delete("a/body")
    put(store, key_id="other")


@pytest.fixture
def jostling():
    """Threads take turns a thousand times as often, so that they meet between any two steps."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("jostling")
def test_writers_at_once_leave_a_blob_that_opens(store):
    def write(path: str, n: int) -> bool:
        try:
            put(store, path, plain=bytes([n]) * 100_000)
        except AlreadyExists:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        for path in (f"a/{turn}" for turn in range(25)):
            won = [n for n, first in enumerate(pool.map(partial(write, path), range(8))) if first]
            assert len(won) == 1
            assert store.open_sealed(path, aad=AAD).into_memory()[:] == bytes(won) * 100_000


def test_many_small_blobs_share_one_key(store):
    for n in range(5):
        put(store, f"u/1/{n}", b"chunk %d" % n, key_path="u/1.key", aad=b"u/1/%d" % n)
    assert store.blobs.list() == ["u/1.key", *(f"u/1/{n}" for n in range(5))]
    assert store.list("u/1") == [f"u/1/{n}" for n in range(5)]
    opened = [store.open_sealed(f"u/1/{n}", aad=b"u/1/%d" % n, key_path="u/1.key") for n in range(5)]
    assert [blob.into_memory()[:] for blob in opened] == [b"chunk %d" % n for n in range(5)]
    store.blobs.replace("u/1/0", store.blobs.get("u/1/1"))  # each is bound to its own place
    with pytest.raises(VerificationFailed):
        store.open_sealed("u/1/0", aad=b"u/1/0", key_path="u/1.key").into_memory()


def test_deleting_takes_the_key_record_along(store):
    put(store)
    assert store.exists("a/body")
    store.delete("a/body")
    store.delete("a/body")
    assert not store.exists("a/body")
    assert store.blobs.list() == []
    with pytest.raises(NotFound):
        store.open_sealed("a/body", aad=AAD)


def test_a_key_is_not_shown_by_accident(store):
    put(store)
    blob = store.open_sealed("a/body", aad=AAD)
    assert repr(blob.data_key) not in repr(blob)
