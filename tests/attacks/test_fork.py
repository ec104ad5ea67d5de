"""A ledger that shows two histories, or an older one: to a monitor, to two people who compare, to somebody who has only files.

The attacker is the operator: they hold the ledger's key and a copy of its signer's memory, and can sign whatever they like.
"""

from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import time

import pytest
from model_organisms.client.client import connect
from model_organisms.client.monitor import Monitor
from model_organisms.client.published import Published
from model_organisms.errors import LedgerForked, ModelOrganismsError, VerificationFailed
from model_organisms.formats import checkpoint, merkle, tiles
from model_organisms.formats.note import COSIGNATURE, SigningKey
from model_organisms.formats.tiles import Tile
from model_organisms.records import Entry
from model_organisms_registry.ledger.log import Log
from model_organisms_registry.ledger.signer import Signer, read_key
from model_organisms_registry.storage.blobs import Blobs
from model_organisms_registry.storage.database import Database

from tests.support.stories import WHY
from tests.support.terminal import typed

NOW = datetime(2026, 11, 1, tzinfo=UTC)
ORIGIN = "ledger.test"
WITNESS = SigningKey.generate("witness.test", kind=COSIGNATURE)


@dataclass
class Ledger:
    """A ledger in a folder: signer, database and files."""

    folder: Path

    def grow(self, count, what="things"):
        database = Database(f"sqlite:///{self.folder / 'ledger.db'}")
        database.migrate()
        log = Log(database, Blobs(f"file://{self.folder / 'blobs'}"), Signer.open(self.folder / "signer"))
        log.start()
        begin = log.size()

        def record(number):
            log.record(Entry(number, NOW, "test.entry", actor="users/ada", subject=f"{what}/{number}"), timeout_s=20)

        with ThreadPoolExecutor(32) as pool:
            list(pool.map(record, range(begin, begin + count)))
        log.close()
        database.close()
        return self

    def copy(self, name):
        return Ledger(Path(shutil.copytree(self.folder, self.folder.with_name(name))))

    @property
    def files(self):
        return self.folder / "blobs" / "ledger"

    @property
    def key(self):
        return read_key(self.folder / "signer" / "key")

    @property
    def vkey(self):
        return str(self.key.verifier)

    @property
    def note(self):
        return (self.files / "checkpoint").read_bytes()


@pytest.fixture(scope="module")
def stem(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fork") / "stem"
    folder.mkdir()
    Signer.create(folder / "signer", origin=ORIGIN)
    return Ledger(folder).grow(300)


@pytest.fixture(scope="module")
def true(stem):
    return stem.copy("true").grow(5)


@pytest.fixture(scope="module")
def forks(stem):
    """Histories that part from the true one after 300 entries: shorter, as long, and longer."""
    return {name: stem.copy(name).grow(count, "lies") for name, count in {"shorter": 3, "as long": 5, "longer": 9}.items()}


def monitor(ledger, pin=None, **more):
    source = Published(str(ledger.files), ledger.vkey)
    return Monitor(source, source.key, source.origin, pin, **more)


def kinds(alarms):
    return [alarm.kind for alarm in alarms]


def test_a_true_history_raises_no_alarm(stem, true, tmp_path):
    pin = tmp_path / "pin"
    assert kinds(monitor(stem, pin).look(NOW)) == []
    assert kinds(monitor(true, pin).look(NOW)) == []
    assert checkpoint.parse_unverified(pin.read_bytes()).size == 305


@pytest.mark.parametrize("fork", ["shorter", "as long", "longer"])
def test_a_fork_is_seen_by_who_saw_the_other_branch(true, forks, fork, tmp_path):
    pin = tmp_path / "pin"
    monitor(true, pin).look(NOW)
    before = pin.read_bytes()
    again = monitor(forks[fork], pin)
    for _ in range(3):  # and it is not forgotten
        assert kinds(again.look(NOW)) == ["rollback" if fork == "shorter" else "fork"]
    assert kinds(monitor(forks[fork], pin).look(NOW)) == ["rollback" if fork == "shorter" else "fork"]
    assert pin.read_bytes() == before


@pytest.mark.parametrize("fork", ["shorter", "as long", "longer"])
def test_a_fork_under_a_running_monitor_is_seen(true, forks, fork, tmp_path):
    """The same address serves the true history first, and then another."""
    here = Ledger(Path(shutil.copytree(true.folder, tmp_path / "here")))
    following = monitor(here)
    assert following.look(NOW) == []
    shutil.rmtree(here.files)
    shutil.copytree(forks[fork].files, here.files)
    for _ in range(2):
        assert kinds(following.look(NOW)) == ["rollback" if fork == "shorter" else "fork"]
    shutil.rmtree(here.files)
    shutil.copytree(true.files, here.files)
    assert following.look(NOW) == []


def test_a_rollback_is_seen(stem, true, tmp_path):
    pin = tmp_path / "pin"
    monitor(true, pin).look(NOW)
    assert kinds(monitor(stem, pin).look(NOW)) == ["rollback"]


@pytest.mark.parametrize("fork", ["shorter", "as long", "longer"])
def test_two_people_who_were_shown_two_histories_find_out_by_comparing(true, forks, fork, tmp_path):
    """Each is served files that verify; either one's checkpoint, held against the other's files, does not."""
    mine, theirs = tmp_path / "mine", tmp_path / "theirs"
    for ledger, note in ((true, mine), (forks[fork], theirs)):
        assert Published(str(ledger.files), ledger.vkey).verify().entries > 300
        note.write_bytes(ledger.note)
    verify = ("audit", "verify", "--key", true.vkey)
    status, _, err = typed(*verify, "--files", true.files, "--pin", theirs)
    assert (status, "evidence" in err) == (4, True)
    status, _, err = typed(*verify, "--files", forks[fork].files, "--pin", mine)
    assert (status, "evidence" in err) == (4, True)
    heads = sorted((checkpoint.verified(path.read_bytes(), true.key.verifier, origin=ORIGIN) for path in (mine, theirs)),
                   key=lambda head: head.size)  # fmt: skip
    for ledger in (true, forks[fork]):  # no proof from either side joins them
        source = Published(str(ledger.files), ledger.vkey)
        leaves = [leaf for leaf, _ in source.leaves(0, source.checkpoint().size)]

        def hash_at(level, index, leaves=leaves):
            return merkle.root_of(leaves[index << level : (index + 1) << level])

        with pytest.raises(LedgerForked):
            checkpoint.consistent(*heads, merkle.consistency(heads[0].size, heads[1].size, hash_at))


def test_a_fork_that_witnesses_did_not_cosign_is_seen_at_the_first_look(true, forks):
    """Somebody new, who has no pin: the operator has no cosignature of the branch they are shown."""
    for ledger in forks.values():
        (ledger.files / "checkpoint.cosigned").write_bytes(checkpoint.cosigned(true.note, WITNESS, time=int(NOW.timestamp())))
        found = monitor(ledger, witnesses=[WITNESS.verifier], quorum=1).look(NOW)
        assert kinds(found) in (["fork"], ["invalid"])  # of the shorter branch, files are missing besides
    (true.files / "checkpoint.cosigned").write_bytes(checkpoint.cosigned(true.note, WITNESS, time=int(NOW.timestamp())))
    assert monitor(true, witnesses=[WITNESS.verifier], quorum=1).look(NOW) == []


def test_missing_late_and_false_cosignatures_are_alarms(true):
    cosigned = true.files / "checkpoint.cosigned"
    expected = {"witnesses": [WITNESS.verifier], "quorum": 1, "lag_s": 600.0}
    fresh = checkpoint.cosigned(true.note, WITNESS, time=int(NOW.timestamp()))
    cosigned.unlink(missing_ok=True)
    assert kinds(monitor(true, **expected).look(NOW)) == ["unwitnessed"]
    for note in (true.note, checkpoint.cosigned(true.note, SigningKey.generate("b.test", kind=COSIGNATURE), time=1), fresh[:-9]):
        cosigned.write_bytes(note)
        assert kinds(monitor(true, **expected).look(NOW)) in (["unwitnessed"], ["invalid"])
    cut = bytearray(fresh)
    cut[-20] ^= 1
    cosigned.write_bytes(bytes(cut))
    assert kinds(monitor(true, **expected).look(NOW)) != []
    cosigned.write_bytes(fresh)
    following = monitor(true, **expected)
    assert following.look(NOW + timedelta(seconds=590)) == []
    assert kinds(following.look(NOW + timedelta(seconds=610))) == ["unwitnessed"]
    cosigned.unlink()


def test_an_old_copy_served_for_ever_is_noticed(true):
    following = monitor(true, stale_s=3600.0)
    assert following.look(NOW) == []
    assert following.look(NOW + timedelta(seconds=3500)) == []
    assert kinds(following.look(NOW + timedelta(seconds=3700))) == ["stale"]


def planted(data, old=b"things/7", new=b"things/8"):
    assert data.count(old) >= 1
    return data.replace(old, new, 1)


def rewritten(files, size, *, upper):
    """Plant a change in an entry and make hash tiles that fit it, as far up as `upper`."""
    bundle = files / "tile/entries/000"
    bundle.write_bytes(planted(bundle.read_bytes()))
    hashes = [merkle.leaf_hash(body) for body in tiles.decode_entries(bundle.read_bytes(), width=256)]
    if upper >= 0:
        (files / tiles.path(Tile(0, 0))).write_bytes(tiles.encode_hashes(hashes))
    if upper >= 1:
        (files / tiles.path(Tile(1, 0, size >> 8))).write_bytes(merkle.root_of(hashes))


@pytest.mark.parametrize("upper", [-1, 0, 1], ids=["the entry", "the entry and its tile", "the entry and every tile"])
def test_a_planted_change_is_found_by_who_has_only_files_and_a_key(true, tmp_path, upper):
    files = Path(shutil.copytree(true.files, tmp_path / "files"))
    verify = ("audit", "verify", "--files", files, "--key", true.vkey)
    status, out, _ = typed(*verify, "--json")
    assert (status, json.loads(out)["entries"]) == (0, 305)
    rewritten(files, 305, upper=upper)
    status, _, err = typed(*verify)
    assert (status, "keep" in err) == (4, True)
    assert kinds(Monitor(Published(str(files), true.vkey), true.key.verifier, ORIGIN).look(NOW)) == ["fork"]


def every_file(files):
    return sorted(str(path.relative_to(files)) for path in files.rglob("*") if path.is_file() and ".cosigned" not in path.name)


def test_each_file_changed_cut_emptied_or_gone_is_found(true, tmp_path):
    """Partial tiles that a wider one has made obsolete are nobody's business; none is left here but those that count."""
    files = Path(shutil.copytree(true.files, tmp_path / "files"))
    needed = {"checkpoint", "tile/entries/000", "tile/0/000", "tile/entries/001.p/49", "tile/0/001.p/49", "tile/1/000.p/1"}
    assert needed <= set(every_file(files))
    source = Published(str(files), true.vkey)
    for name in sorted(needed):
        path, sound = files / name, (files / name).read_bytes()
        middle = len(sound) // 2
        wrong = [sound[:middle] + bytes([sound[middle] ^ 1]) + sound[middle + 1 :], sound[:-1], b"", sound[:middle]]
        for data in wrong:
            path.write_bytes(data)
            with pytest.raises(VerificationFailed):
                source.verify()
        path.unlink()
        with pytest.raises(ModelOrganismsError):
            source.verify()
        path.write_bytes(sound)
    assert source.verify().entries == 305


def test_a_file_without_an_end_is_not_read(true, tmp_path):
    files = Path(shutil.copytree(true.files, tmp_path / "files"))
    with (files / "checkpoint").open("r+b") as file:
        file.truncate(1 << 32)
    begun = time()
    with pytest.raises(VerificationFailed, match="larger"):
        Published(str(files), true.vkey).checkpoint()
    assert time() - begun < 5


def test_files_of_another_ledger_or_key_are_refused(true):
    stranger = SigningKey.generate(ORIGIN)
    with pytest.raises(VerificationFailed):
        Published(str(true.files), str(stranger.verifier)).verify()
    with pytest.raises(VerificationFailed):
        Published(str(true.files), true.vkey, origin="other.test").verify()


def test_without_entries_the_hashes_verify_and_say_so(true, tmp_path):
    files = Path(shutil.copytree(true.files, tmp_path / "files"))
    shutil.rmtree(files / "tile/entries")
    status, out, _ = typed("audit", "verify", "--files", files, "--key", true.vkey, "--json")
    assert (status, json.loads(out)["entries"], json.loads(out)["size"]) == (0, 0, 305)


@pytest.mark.parametrize(
    "size", [lambda now: now - 2, lambda now: now, lambda now: now + 7], ids=["shorter", "as long", "longer"]
)
def test_a_registry_on_the_other_branch_is_asked_for_nothing(world, size):
    """A client has seen a head that the ledger's own key signed, of a history that this registry does not have."""
    rosa, key = world.person("rosa"), read_key(world.registry.config.keys_folder / "ledger" / "key")
    now = rosa.audit.checkpoint().size
    seen = checkpoint.signed("registry.test", size(now), b"\1" * 32, key)
    identity = world.folder / "rosa.json"
    pin, honest = identity.with_suffix(".checkpoint"), identity.with_suffix(".checkpoint").read_bytes()
    pin.write_bytes(seen.note)
    try:
        with connect(identity) as shown:
            for ask in (
                shown.audit.checkpoint,
                shown.audit.verify_ledger,
                lambda: shown.access.request("organisms/any/versions/1", "sample", purpose="replication", justification=WHY),
            ):
                with pytest.raises(LedgerForked):
                    ask()
        assert pin.read_bytes() == seen.note  # what was seen is evidence
    finally:
        pin.write_bytes(honest)
    assert world.person("aud").audit.checkpoint().size == now
