"""Witnesses that are dead, slow, lying, or have been shown another history: none of them counts, and none holds the ledger up."""

from __future__ import annotations

import http.client
import shutil
import time
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime

import pytest
from model_organisms.errors import ConfigurationInvalid, LedgerUnavailable, ModelOrganismsError
from model_organisms.formats import checkpoint, receipt, witness
from model_organisms.formats.note import COSIGNATURE, SigningKey, parse_vkey
from model_organisms.records import Entry
from model_organisms_registry.ledger.history import View
from model_organisms_registry.ledger.log import Log
from model_organisms_registry.ledger.quorum import Peer, Quorum
from model_organisms_registry.ledger.rows import Head
from model_organisms_registry.ledger.signer import Signer, read_key
from model_organisms_registry.ledger.web import Answer
from model_organisms_registry.storage.blobs import Blobs

from tests.support.outside import setup
from tests.support.witnesses import History, answering, running

ORIGIN = "ledger.test"
TIMEOUT_S = 2.0


def made(number):
    return Entry(seq=number, time=datetime.now(UTC), type="test.entry", actor="users/ada", subject=f"things/{number}")


@pytest.fixture
def keys(tmp_path):
    return Signer.create(tmp_path / "signer", origin=ORIGIN)


@pytest.fixture
def opened(tmp_path, sqlite_database, keys):
    """Opens a ledger with the witnesses that are given."""
    assert keys.origin == ORIGIN

    @contextmanager
    def with_witnesses(*standing, quorum, timeout_s=TIMEOUT_S, lag_s=60.0):
        log = Log(
            sqlite_database,
            Blobs(f"file://{tmp_path / 'blobs'}"),
            Signer.open(tmp_path / "signer"),
            witnesses={one.vkey: one.url for one in standing},
            quorum=quorum,
            witness_timeout_s=timeout_s,
            witness_lag_s=lag_s,
        )
        log.start()
        try:
            yield log
        finally:
            log.close()

    return with_witnesses


def eventually(condition, seconds=20):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


def refused(log):
    """Ordinary entries get through at once; what needs a witness does not get out."""
    begun = time.monotonic()
    proof = log.record(made(1), timeout_s=10)
    assert time.monotonic() - begun < TIMEOUT_S
    with pytest.raises(LedgerUnavailable, match="witnesses"):
        log.cosigned(proof)
    assert not log.witnessed
    assert log.cosigned_checkpoint() == b""


def test_two_witnesses_that_stand_cosign_what_is_released(tmp_path, opened, keys):
    with running(tmp_path / "a", "a.test", keys.vkey) as a, running(tmp_path / "b", "b.test", keys.vkey) as b:
        with opened(a, b, quorum=2) as log:
            for number in range(3):
                proof = log.cosigned(log.record(made(number), timeout_s=10))
                head = receipt.verify(proof, log.vkey, origin=ORIGIN)
                both = checkpoint.cosignatures(head.note, map(parse_vkey, (a.vkey, b.vkey)))
                assert set(both) == {"a.test", "b.test"}
                assert all(abs(seconds - time.time()) < 60 for seconds in both.values())
            assert log.witnessed
        published = tmp_path / "blobs" / "ledger"
        assert checkpoint.verified((published / "checkpoint.cosigned").read_bytes(), keys.verifier, origin=ORIGIN).size == 3
        # A program of other people's making accepts what our witnesses cosigned, and counts them.
        shutil.copy(published / "checkpoint.cosigned", published / "checkpoint")
        aics = next(reader for reader in setup.readers() if reader.name == "aics")
        assert aics("folder", published, keys.vkey, ORIGIN, a.vkey, b.vkey).accepted
        stranger = SigningKey.generate("c.test", kind=COSIGNATURE)
        assert not aics("folder", published, keys.vkey, ORIGIN, a.vkey, str(stranger.verifier)).accepted
        with opened(a, b, quorum=2) as log:  # a restart does not know what they have; it asks
            assert log.checkpoint().size == 3
            assert log.cosigned(log.record(made(9), timeout_s=10)).index == 3


def test_one_dead_witness_of_three_is_not_missed_and_two_are(tmp_path, opened, keys):
    with ExitStack() as stack:
        a, b, c = (stack.enter_context(running(tmp_path / name, f"{name}.test", keys.vkey)) for name in "abc")
        with opened(a, b, c, quorum=2, lag_s=1.0, timeout_s=1.0) as log:
            log.cosigned(log.record(made(0), timeout_s=10))
            a.process.kill()
            log.cosigned(log.record(made(1), timeout_s=10))
            b.process.kill()
            eventually(lambda: not log.witnessed)
            with pytest.raises(LedgerUnavailable, match="witnesses"):
                log.cosigned(log.record(made(2), timeout_s=10))
            assert log.healthy


def test_a_slow_witness_is_not_waited_for(tmp_path, opened, keys):
    def slow(key, body):
        time.sleep(4 * TIMEOUT_S)
        return honest(key, body)

    with answering("slow.test", slow) as one, running(tmp_path / "a", "a.test", keys.vkey) as a:
        with opened(one, a, quorum=1) as log:
            begun = time.monotonic()
            for number in range(3):
                log.cosigned(log.record(made(number), timeout_s=10))
            assert time.monotonic() - begun < 3 * TIMEOUT_S
        with opened(one, quorum=1, timeout_s=0.2) as log:
            with pytest.raises(LedgerUnavailable, match="witnesses"):
                log.cosigned(log.record(made(9), timeout_s=10))
            assert not log.witnessed


def test_a_witness_that_was_shown_a_fork_does_not_cosign(tmp_path, opened, keys, caplog):
    """An operator has shown one witness a history of 40 entries, and goes on with another one."""
    forged = History(ORIGIN, fork=0, key=read_key(tmp_path / "signer" / "key"))
    with running(tmp_path / "a", "a.test", keys.vkey) as a:
        connection = http.client.HTTPConnection(a.url.removeprefix("http://"), timeout=20)
        connection.request("POST", "/add-checkpoint", forged.submission(0, 40))
        assert connection.getresponse().status == 200
        connection.close()
        with opened(a, quorum=1, timeout_s=0.6) as log:
            refused(log)
            for number in range(2, 60):
                log.record(made(number), timeout_s=10)
            with pytest.raises(LedgerUnavailable, match="witnesses"):
                log.cosigned(log.record(made(60), timeout_s=10))
            eventually(lambda: list((tmp_path / "a").rglob("refused-*")))
        said = [record.message for record in caplog.records if record.levelname == "CRITICAL"]
        assert any("another" in message for message in said)
        assert any("will not cosign" in message for message in said)
    evidence = [path.read_bytes() for path in (tmp_path / "a").rglob("refused-*")]
    assert all(checkpoint.verified(kept, keys.verifier, origin=ORIGIN).size > 40 for kept in evidence)


def honest(key, body, *, seconds=0, note_of=None):
    sent = witness.parse_submission(body).note
    line = checkpoint.cosignature(note_of or sent, key, time=int(time.time()) + seconds)
    return Answer(200, f"{line}\n".encode())


TRUE, ELSEWHERE = History(ORIGIN), History(ORIGIN)
LIES = {
    "a cosignature of another head": lambda key, body: honest(key, body, note_of=ELSEWHERE.checkpoint(5)),
    "a cosignature of yesterday": lambda key, body: honest(key, body, seconds=-86_400),
    "a cosignature of tomorrow": lambda key, body: honest(key, body, seconds=86_400),
    "another witness's": lambda _, body: honest(SigningKey.generate("b.test", kind=COSIGNATURE), body),
    "the ledger's own line": lambda _, body: Answer(200, witness.parse_submission(body).note.partition(b"\n\n")[2]),
    "the checkpoint back": lambda _, body: Answer(200, witness.parse_submission(body).note),
    "nothing": lambda *_: Answer(200),
    "noise": lambda *_: Answer(200, bytes(range(256)) * 16),
    "a great deal": lambda *_: Answer(200, b"x" * (1 << 22)),
    "a redirect": lambda *_: Answer(302, b"http://127.0.0.1/"),
    "its own refusal": lambda *_: Answer(403, b"No.\n"),
    "a size for ever": lambda *_: Answer(409, b"0\n", witness.SIZE_TYPE),
    "a size beyond": lambda *_: Answer(409, b"999999\n", witness.SIZE_TYPE),
    "a size that is none": lambda *_: Answer(409, b"many\n", witness.SIZE_TYPE),
    "a size of another type": lambda *_: Answer(409, b"0\n"),
    "an unknown status": lambda *_: Answer(299, b"Fine.\n"),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_lying_witness_does_not_count(lie):
    head = checkpoint.parse_unverified(TRUE.checkpoint(7))
    view = View(Head(head.size, head.root, head.note), TRUE)
    with answering("liar.test", LIES[lie]) as liar:
        peer = Peer(parse_vkey(liar.vkey), liar.url, timeout_s=10.0)
        with pytest.raises(ModelOrganismsError):
            peer.cosign(view)


def test_a_liar_beside_an_honest_one_is_one_too_few(tmp_path, opened, keys):
    liar = answering("liar.test", LIES["a cosignature of another head"])
    with liar as false, running(tmp_path / "a", "a.test", keys.vkey) as a:
        with opened(false, a, quorum=2, timeout_s=0.5) as log:
            refused(log)
        with opened(false, a, quorum=1) as log:
            log.cosigned(log.record(made(5), timeout_s=10))
            known = [parse_vkey(one.vkey) for one in (false, a)]
            assert set(checkpoint.cosignatures(log.cosigned_checkpoint(), known)) == {"a.test"}


def quorum(witnesses, needed):
    return Quorum(witnesses, needed=needed, timeout_s=1.0, lag_s=1.0, newest=lambda: None, publish=lambda _: None)


def test_one_witness_is_not_two():
    key = SigningKey.generate("a.test", kind=COSIGNATURE)
    twin = SigningKey("b.test", key.seed, COSIGNATURE)  # a cosignature does not say its witness's name
    namesake = SigningKey.generate("a.test", kind=COSIGNATURE)
    for other in (twin, namesake):
        both = {str(key.verifier): "http://127.0.0.1:1", str(other.verifier): "http://127.0.0.1:2"}
        with pytest.raises(ConfigurationInvalid, match="of its own"):
            quorum(both, 2)


def test_what_cannot_be_asked_is_refused_at_start():
    good = SigningKey.generate("a.test", kind=COSIGNATURE).verifier
    ledger = SigningKey.generate("a.test").verifier
    for witnesses, needed in [
        ({str(good): "http://127.0.0.1:1"}, 2),
        ({str(good): "http://127.0.0.1:1"}, -1),
        ({str(ledger): "http://127.0.0.1:1"}, 1),
        ({str(good): "file:///etc/passwd"}, 1),
        ({str(good): "127.0.0.1:1"}, 1),
        ({"a.test": "http://127.0.0.1:1"}, 1),
    ]:
        with pytest.raises(ConfigurationInvalid):
            quorum(witnesses, needed)
