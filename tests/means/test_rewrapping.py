"""Keys are turned and moved: at each step, cut off there, everything opens; afterwards nothing opens with an older copy."""

from __future__ import annotations

import subprocess
import sys
from contextlib import suppress

import pytest
from model_organisms.errors import ConfigurationInvalid, NotFound, Unavailable, VerificationFailed
from model_organisms_registry.config import Keys
from model_organisms_registry.rewrapping import turn
from model_organisms_registry.storage.key_files import FileKeys
from model_organisms_registry.storage.keyring import Keyring, open_keyring
from model_organisms_registry.storage.keys import KeyState
from model_organisms_registry.storage.sealed import SealedStore

from tests.support.keepers import kept_by

PLAIN = {f"{owner}/{number}": f"{owner} {number}".encode() for owner in ("one", "two") for number in range(2)}


def tell(_done, _total):
    """Nobody watches."""


def store(blobs, settings, tmp_path):
    return SealedStore(blobs, open_keyring(settings, tmp_path / "kek"))


def filled(blobs, settings, tmp_path):
    sealed = store(blobs, settings, tmp_path)
    for owner in ("one", "two", "gone"):
        sealed.keys.create(owner)
    for path, plain in {**PLAIN, "gone/0": b"gone"}.items():
        sealed.put_sealed(path, [plain], key_id=path.split("/")[0], aad=path.encode())
    sealed.keys.destroy("gone")
    return sealed


def readable(sealed):
    opened = {path: bytes(sealed.open_sealed(path, aad=path.encode()).into_memory()) for path in PLAIN}
    return {path: content[: len(PLAIN[path])] for path, content in opened.items()} == PLAIN


def keks(sealed):
    return {path.removesuffix(".key"): sealed.record(path).kek for path in sealed.records()}


@pytest.fixture
def folders(folder_blobs, tmp_path):
    return folder_blobs, tmp_path


def test_every_key_is_turned_and_the_older_ones_are_destroyed(folders, provider):
    blobs, tmp_path = folders
    sealed = filled(blobs, provider, tmp_path)
    older = {path: blobs.get(path) for path in sealed.records()}
    seen = []
    done = turn(sealed, set(), provider.provider, lazy=False, tell=lambda *said: seen.append(said))
    assert (done.keys, done.records, done.failed, seen[-1]) == (2, 4, (), (4, 4))
    assert keks(sealed) == {path: path.split("/")[0] + ".2" for path in PLAIN} | {"gone/0": "gone"}
    assert readable(sealed)
    assert [sealed.keys.held(kek) for kek in ("one", "one.2", "gone")] == [KeyState.DESTROYED, KeyState.LIVE, KeyState.DESTROYED]
    assert sealed.keys.state("one") is KeyState.LIVE

    turn(sealed, {"one"}, provider.provider, lazy=False, tell=tell)
    again = store(blobs, provider, tmp_path)
    assert (keks(again)["one/0"], keks(again)["two/0"]) == ("one.3", "two.2")
    assert readable(again)
    again.put_sealed("one/new", [b"new"], key_id="one", aad=b"one/new")
    assert keks(again)["one/new"] == "one.3"
    for path, record in older.items():
        blobs.replace(path, record)
    with pytest.raises(NotFound, match="destroyed"):
        again.open_sealed("one/0", aad=b"one/0")
    again.keys.destroy("two")
    assert (again.keys.state("two"), again.keys.held("two.2")) == (KeyState.DESTROYED, KeyState.DESTROYED)
    for ring in (sealed, again):
        ring.keys.close()


@pytest.mark.parametrize(("source", "target"), [("file", "pkcs11"), ("pkcs11", "vault"), ("vault", "file")])
def test_keys_move_to_another_keeper_and_what_was_destroyed_stays_so(folders, softhsm, source, target):
    blobs, tmp_path = folders
    with kept_by(source, tmp_path, softhsm) as (old, _), kept_by(target, tmp_path, softhsm) as (new, _):
        filled(blobs, old, tmp_path).keys.close()
        tables = {name: getattr(which, name) for which in (old, new) for name in (which.provider,) if name != "file"}
        both = Keys(target, (source,), **tables)
        sealed = store(blobs, both, tmp_path)
        assert readable(sealed)
        sealed.put_sealed("one/new", [b"new"], key_id="one", aad=b"one/new")
        done = turn(sealed, set(), target, lazy=True, tell=tell)
        assert (done.keys, done.failed) == (2, ())
        assert turn(sealed, set(), target, lazy=True, tell=tell).keys == 0
        sealed.keys.close()
        alone = store(blobs, Keys(target, **tables), tmp_path)
        assert readable(alone)
        assert [alone.keys.state(key) for key in ("one", "gone")] == [KeyState.LIVE, KeyState.DESTROYED]
        assert alone.keys.held("one") is KeyState.DESTROYED
        alone.keys.close()
        other = store(blobs, old, tmp_path)
        assert [other.keys.held(key) for key in ("one", "one.2", "gone")] == [
            KeyState.DESTROYED,
            KeyState.MISSING,
            KeyState.DESTROYED,
        ]
        with pytest.raises(VerificationFailed, match=r"\[keys\] also"):
            other.open_sealed("one/0", aad=b"one/0")
        other.keys.close()


def test_a_keeper_that_fails_at_any_call_leaves_everything_readable_and_the_next_run_finishes(folders, softhsm):
    """Both ways of it: the call failed and did not happen, and it failed and did happen."""
    blobs, tmp_path = folders
    with kept_by("vault", tmp_path, softhsm) as (keys, server):
        filled(blobs, Keys(), tmp_path).keys.close()
        both, at, honest = Keys("vault", ("file",), vault=keys.vault), 0, server.answer

        def count(*said):
            counted[0] += 1
            cut = counted[0] == at // 2
            if cut and at % 2:
                return 500, {"errors": ["down"]}
            answer = honest(*said)
            return (500, {"errors": ["down"]}) if cut else answer

        failures = 0
        while True:
            at, counted = at + 1, [0]
            server.answer = count
            sealed = store(blobs, both, tmp_path)
            try:
                turn(sealed, {"one"}, "vault", lazy=False, tell=tell)
            except Unavailable:
                failures += 1
            else:
                assert counted[0] < at // 2 or at < 2
                if at > 2:
                    break
            finally:
                server.answer = honest
                sealed.keys.close()
            after = store(blobs, both, tmp_path)
            assert readable(after), at
            after.keys.close()
        assert failures > 20


TURN = """
import sys
from pathlib import Path
from model_organisms_registry.config import Keys
from model_organisms_registry.rewrapping import turn
from model_organisms_registry.storage.blobs import Blobs
from model_organisms_registry.storage.keyring import open_keyring
from model_organisms_registry.storage.sealed import SealedStore
folder = Path(sys.argv[1])
sealed = SealedStore(Blobs(sys.argv[2]), open_keyring(Keys(), folder / "kek"))
turn(sealed, set(), "file", lazy=False, tell=lambda *_: None)
"""


@pytest.mark.parametrize("number", [2, 9, 18, 28])
def test_killed_at_a_sync_everything_opens_and_the_next_run_finishes(folders, number):
    blobs, tmp_path = folders
    sealed = filled(blobs, Keys(), tmp_path)
    command = ["strace", "-f", "-o", "/dev/null", "-e", "trace=fsync", "-e", f"inject=fsync:signal=SIGKILL:when={number}"]
    ended = subprocess.run([*command, sys.executable, "-c", TURN, str(tmp_path), blobs.url], check=False, timeout=60)
    assert ended.returncode != 0
    again = store(blobs, Keys(), tmp_path)
    again.keys.finish()
    assert readable(again)
    assert turn(again, set(), "file", lazy=False, tell=tell).failed == ()
    assert readable(again)
    assert len(list((tmp_path / "kek/live").iterdir())) == 2
    sealed.keys.close()


class Interrupted(FileKeys):
    """Keys in a folder, to which another process comes before one call or after it."""

    def __init__(self, folder, call, when, step):
        super().__init__(folder)
        self._at, self._steps = (*call, when), [step]

    def _between(self, *now):
        if now == self._at and self._steps:
            self._steps.pop()()

    def state(self, kek_id):
        self._between("state", kek_id, "before")
        found = super().state(kek_id)
        self._between("state", kek_id, "after")
        return found

    def create(self, kek_id):
        self._between("create", kek_id, "before")
        super().create(kek_id)
        self._between("create", kek_id, "after")

    def wrap(self, kek_id, data_key, aad):
        self._between("wrap", kek_id, "before")
        wrapped = super().wrap(kek_id, data_key, aad)
        self._between("wrap", kek_id, "after")
        return wrapped

    def destroy(self, kek_id):
        self._between("destroy", kek_id, "before")
        super().destroy(kek_id)
        self._between("destroy", kek_id, "after")


def assert_erased(blobs, tmp_path):
    """One key is gone, for whoever opens the folder anew; the other is not."""
    again = store(blobs, Keys(), tmp_path)
    assert again.keys.state("one") is KeyState.DESTROYED
    for path in ("one/0", "one/1"):
        with pytest.raises(NotFound, match="destroyed"):
            again.open_sealed(path, aad=path.encode())
    assert bytes(again.open_sealed("two/0", aad=b"two/0").into_memory()).startswith(PLAIN["two/0"])
    assert not list((tmp_path / "kek/live").glob("one*"))


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("call", [("state", "one"), ("state", "one.2"), ("create", "one.2"), ("wrap", "one.2")])
def test_a_key_that_is_erased_while_it_is_turned_stays_destroyed(folders, call, when):
    blobs, tmp_path = folders
    other = filled(blobs, Keys(), tmp_path).keys
    keeper = Interrupted(tmp_path / "kek", call, when, lambda: other.destroy("one"))
    turn(SealedStore(blobs, Keyring(keeper)), set(), "file", lazy=False, tell=tell)
    assert_erased(blobs, tmp_path)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("call", [("state", "one"), ("state", "one.2"), ("destroy", "one")])
def test_a_key_that_is_turned_while_it_is_erased_is_destroyed(folders, call, when):
    """The rewrap wraps anew, and has not yet come to destroying the older rotation."""
    blobs, tmp_path = folders
    other = filled(blobs, Keys(), tmp_path)

    def rewrap():
        with suppress(NotFound):  # the erasing came first
            fresh = other.keys.turn("one", "file")
            for path in ("one/0.key", "one/1.key"):
                other.rewrap(path, fresh)

    Keyring(Interrupted(tmp_path / "kek", call, when, rewrap)).destroy("one")
    assert_erased(blobs, tmp_path)


def test_what_does_not_unwrap_is_told_and_no_older_key_is_destroyed(folders):
    blobs, tmp_path = folders
    sealed = filled(blobs, Keys(), tmp_path)
    blobs.replace("one/0.key", b"{}")
    blobs.replace("two/0.key", blobs.get("two/1.key"))
    (tmp_path / "kek/live/two").rename(tmp_path / "two")
    done = turn(sealed, set(), "file", lazy=False, tell=tell)
    assert sorted(what.split(":")[0] for what in done.failed) == ["one/0.key", "two"]
    assert "the older keys were kept" in done.as_text()
    (tmp_path / "two").rename(tmp_path / "kek/live/two")
    done = turn(sealed, {"two"}, "file", lazy=False, tell=tell)
    assert [what.split(":")[0] for what in done.failed] == ["one/0.key", "two/0.key"]
    assert [sealed.keys.held(kek) for kek in ("one", "two")] == [KeyState.LIVE, KeyState.LIVE]


def test_a_keeper_that_the_settings_do_not_name_is_refused(folders):
    blobs, tmp_path = folders
    with pytest.raises(ConfigurationInvalid, match="does not name the provider 'vault'"):
        turn(filled(blobs, Keys(), tmp_path), set(), "vault", lazy=True, tell=tell)
