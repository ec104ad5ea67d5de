"""What every keeper of key-encryption keys promises, held against each: a folder, a token behind PKCS#11, a vault."""

from __future__ import annotations

import secrets
from concurrent.futures import ThreadPoolExecutor

import pytest
from model_organisms.errors import AlreadyExists, Conflict, InvalidArgument, NotFound, VerificationFailed
from model_organisms_registry.storage.keys import KeyState

KEY = bytes(range(32))


@pytest.fixture
def keys(opened):
    return opened()


@pytest.fixture
def a():
    """An id that no run before has used, in a vault that outlives it."""
    return f"a-{secrets.token_hex(6)}"


@pytest.mark.parametrize("aad", [b"", b"purpose", b"\0\xff" * 40])
def test_what_was_wrapped_unwraps_also_after_a_restart(keys, opened, a, aad):
    keys.create(a)
    wrapped = keys.wrap(a, KEY, aad)
    assert KEY not in wrapped
    assert opened().unwrap(a, wrapped, aad) == KEY
    assert keys.unwrap(a, wrapped, aad) == KEY


def test_a_wrapped_key_is_bound_to_its_purpose_its_key_and_every_byte(keys, a):
    keys.create(a)
    keys.create(f"{a}-b")
    wrapped = keys.wrap(a, KEY, b"purpose")
    wrong = [(a, wrapped, b"other"), (f"{a}-b", wrapped, b"purpose")]
    wrong += [(a, wrapped[:cut], b"purpose") for cut in (0, 1, 17, 20, len(wrapped) - 1)]
    wrong += [(a, wrapped + b"\0", b"purpose"), (a, wrapped + b"=", b"purpose")]
    for at in range(len(wrapped)):
        broken = bytearray(wrapped)
        broken[at] ^= 1
        wrong.append((a, bytes(broken), b"purpose"))
    for kek, blob, aad in wrong:
        with pytest.raises(VerificationFailed):
            keys.unwrap(kek, blob, aad)
    assert keys.unwrap(a, wrapped, b"purpose") == KEY


def test_two_wrappings_of_one_key_differ(keys, a):
    keys.create(a)
    assert keys.wrap(a, KEY, b"") != keys.wrap(a, KEY, b"")


def test_a_key_is_made_once(keys, a):
    assert keys.state(a) is KeyState.MISSING

    def create(_: int) -> bool:
        try:
            keys.create(a)
        except AlreadyExists:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(create, range(8))) == 1
    assert keys.state(a) is KeyState.LIVE
    with pytest.raises(AlreadyExists):
        keys.create(a)


def test_many_wrap_and_unwrap_at_once(keys, a):
    keys.create(a)

    def turn(number: int) -> bool:
        key = bytes([number]) * 32
        return keys.unwrap(a, keys.wrap(a, key, b"%d" % number), b"%d" % number) == key

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(turn, range(24)))


def test_a_destroyed_key_is_gone_for_good(keys, opened, a):
    keys.create(a)
    wrapped = keys.wrap(a, KEY, b"")
    keys.destroy(a)
    keys.destroy(a)
    for again in (keys, opened()):
        assert again.state(a) is KeyState.DESTROYED
        assert a in again.destroyed()
        with pytest.raises(NotFound, match="destroyed"):
            again.unwrap(a, wrapped, b"")
        with pytest.raises(NotFound, match="destroyed"):
            again.wrap(a, KEY, b"")
        with pytest.raises(Conflict, match="not made again"):
            again.create(a)


def test_a_missing_key_is_not_taken_for_a_destroyed_one(keys, a):
    with pytest.raises(NotFound, match="There is no key"):
        keys.wrap(a, KEY, b"")
    keys.create(f"{a}-b")
    with pytest.raises(NotFound, match="There is no key"):
        keys.unwrap(a, keys.wrap(f"{a}-b", KEY, b""), b"")
    assert keys.state(a) is KeyState.MISSING
    assert a not in keys.destroyed()


def test_a_key_that_never_was_can_be_destroyed_beforehand(keys, a):
    keys.destroy(a)
    with pytest.raises(Conflict):
        keys.create(a)


@pytest.mark.parametrize(
    "kek_id",
    ["", "../a", "a/b", "A", "a.b", "-a", "a" * 129, "a\n", ".tmp", "é", "a.0", "a.01", "a.destroyed", "a.2.2", "a.1234567"],
)
def test_ids_that_could_escape_are_refused(keys, kek_id):
    for call in (
        lambda: keys.create(kek_id),
        lambda: keys.destroy(kek_id),
        lambda: keys.state(kek_id),
        lambda: keys.wrap(kek_id, KEY, b""),
        lambda: keys.unwrap(kek_id, b"", b""),
    ):
        with pytest.raises(InvalidArgument):
            call()


def test_only_keys_are_wrapped(keys, a):
    keys.create(a)
    for size in (0, 16, 33):
        with pytest.raises(InvalidArgument):
            keys.wrap(a, bytes(size), b"")
