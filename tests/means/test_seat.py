"""The signer as a process of its own: what it refuses, what its death costs, and that the key is nowhere but with it."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from datetime import UTC, datetime

import psutil
import pytest
from model_organisms.errors import InvalidArgument, LedgerForked, LedgerUnavailable
from model_organisms.formats import checkpoint, entry, merkle, note, receipt
from model_organisms.records import Entry
from model_organisms_registry.founding import found
from model_organisms_registry.ledger import fsck
from model_organisms_registry.ledger.log import Log
from model_organisms_registry.ledger.seat import Seat
from model_organisms_registry.ledger.signer import HEAD, Signer
from model_organisms_registry.storage.blobs import Blobs
from model_organisms_registry.testing import settings

from tests.support.cells import eventually
from tests.support.serving import Serving

ORIGIN = "ledger.test"
LEAVES = [merkle.leaf_hash(str(number).encode()) for number in range(20)]


def made(number):
    return Entry(seq=number, time=datetime.now(UTC), type="test.entry", actor="users/ada", subject=f"things/{number}")


def hash_at(level, index):
    return merkle.root_of(LEAVES[index << level : (index + 1) << level])


@pytest.fixture
def folder(tmp_path):
    Signer.create(tmp_path / "signer", origin=ORIGIN)
    return tmp_path / "signer"


@pytest.fixture
def seat(folder):
    made = Seat(folder)
    yield made
    made.close()


def sign(seat, size):
    return seat.sign(size, merkle.root(size, hash_at), merkle.consistency(seat.size, size, hash_at))


def test_it_signs_as_the_signer_does_and_remembers(folder, seat):
    assert (seat.vkey, seat.origin) == (Signer.open(folder).vkey, ORIGIN)
    seat.hold()
    for size in (1, 2, 7):
        assert checkpoint.verified(sign(seat, size), seat.verifier, origin=ORIGIN).size == size
    seat.process.kill()
    with pytest.raises(LedgerUnavailable):
        sign(seat, 8)
    assert not seat.held
    seat.hold()
    assert seat.size == 7
    assert checkpoint.verified(sign(seat, 8), seat.verifier, origin=ORIGIN).size == 8


def test_it_refuses_another_history_whatever_its_parent_says(seat):
    seat.hold()
    sign(seat, 7)
    for size, root, proof in [
        (7, b"\1" * 32, ()),
        (9, b"\1" * 32, merkle.consistency(7, 9, hash_at)),
        (9, merkle.root(9, hash_at), ()),
        (6, merkle.root(6, hash_at), ()),
        (0, merkle.EMPTY_ROOT, ()),
    ]:
        with pytest.raises(LedgerForked):
            seat.sign(size, root, proof)
    assert seat.size == 7
    sign(seat, 9)


def test_it_does_not_sign_unheld_and_has_one_holder(folder, seat):
    with pytest.raises(LedgerUnavailable):
        sign(seat, 1)
    seat.hold()
    other = Seat(folder)
    with pytest.raises(LedgerUnavailable, match="Another process"):
        other.hold()
    seat.release()
    other.hold()
    other.close()


@pytest.mark.parametrize("question", [b"X", b"", b"Vx", b"S", b"S" + bytes(39), b"S" + bytes(41), b"H" * 9000])
def test_what_is_no_question_is_refused(seat, question):
    seat.hold()
    with pytest.raises((InvalidArgument, LedgerUnavailable)):
        seat._ask(question, 10.0)
    if not seat.held:
        seat.hold()
    sign(seat, 1)


def test_it_ends_with_its_parent_and_with_nothing_else(folder):
    ours, theirs = socket.socketpair()
    command = [sys.executable, "-m", "model_organisms_registry", "signer", "--folder", str(folder)]
    with theirs:
        child = subprocess.Popen([*command, "--socket", str(theirs.fileno())], pass_fds=[theirs.fileno()])
    ours.sendall(b"\0\0\0\1V")
    assert ours.recv(5)[4:] == b"K"
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        child.send_signal(number)
    time.sleep(0.1)
    assert child.poll() is None
    ours.close()
    assert child.wait(10) == 0


@pytest.fixture
def log(tmp_path, folder, sqlite_database):
    (tmp_path / "blobs").mkdir()
    opened = Log(sqlite_database, Blobs(f"file://{tmp_path / 'blobs'}"), Seat(folder))
    opened.start()
    yield opened
    opened.close()


def clean(log, tmp_path, database):
    key = note.parse_vkey(log.vkey)
    with database.read() as tx:
        bodies, wrong = fsck.check_database(tx, key, origin=ORIGIN)
    wrong += fsck.check_published(Blobs(f"file://{tmp_path / 'blobs'}"), key, origin=ORIGIN, bodies=bodies)[1]
    assert wrong + fsck.check_signer(tmp_path / "signer" / HEAD, bodies, origin=ORIGIN) == []
    return [entry.parse(body).seq for body in bodies]


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP], ids=["dies", "hangs"])
def test_a_signer_that_dies_or_hangs_costs_a_moment_and_no_entry(log, tmp_path, sqlite_database, how):
    log.record(made(1), timeout_s=20)
    before = log._signer.process
    before.send_signal(how)
    begun, proof = time.monotonic(), None
    try:
        proof = log.record(made(2), timeout_s=2.0)
    except LedgerUnavailable:
        assert 2.0 <= time.monotonic() - begun < 3.0
    if proof is not None:
        receipt.verify(proof, log.vkey, origin=ORIGIN)
    log.record(made(3), timeout_s=20)
    assert log.healthy
    assert log._signer.process.pid != before.pid
    assert before.poll() is not None
    seen = clean(log, tmp_path, sqlite_database)
    assert [number for number in seen if number != 2] == [1, 3]
    assert seen.count(2) <= 1 if proof is None else seen == [1, 2, 3]


def test_only_the_signer_opens_the_key_and_it_ends_with_the_registry(tmp_path):
    config = settings(tmp_path / "data")
    found(config, now=datetime.now(UTC))
    trace = tmp_path / "trace"
    registry = Serving(config, wrapper=("strace", "-f", "-qq", "-e", "trace=openat", "-o", str(trace)))
    try:
        (signer,) = [one for one in registry.below() if "signer" in one.cmdline()]
        opened = re.findall(r"^(\d+) +openat\(AT_FDCWD, \"([^\"]+)\"", trace.read_text(), re.MULTILINE)
        key, database = str(config.keys_folder / "ledger" / "key"), str(config.folder / "registry.db")
        assert {int(pid) for pid, path in opened if path == key} == {signer.pid}
        assert {int(pid) for pid, path in opened if path == database} - {signer.pid}
        below = registry.below()
    finally:
        for one in registry.below():
            if "serve" in one.cmdline():
                os.kill(one.pid, signal.SIGKILL)
        registry.kill()
    assert eventually(lambda: not any(one.is_running() and one.status() != psutil.STATUS_ZOMBIE for one in below))
