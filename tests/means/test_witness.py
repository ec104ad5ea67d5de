"""A witness: each status code of the specification, a memory that no crash and no second request loses, and evidence of forks."""

from __future__ import annotations

import http.client
import os
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from model_organisms.errors import AlreadyExists, ConfigurationInvalid, LedgerUnavailable, VerificationFailed
from model_organisms.formats import checkpoint, witness
from model_organisms.formats.note import COSIGNATURE, ED25519, Note, SigningKey, parse, parse_vkey
from model_organisms_registry.ledger.web import Answer, Site
from model_organisms_registry.ledger.witness import Witness, add, create

from tests.support.witnesses import History, running

NOW = 1_790_000_000
SIZE = "text/x.tlog.size"


@pytest.fixture
def history():
    return History("ledger.test")


@pytest.fixture
def folder(tmp_path, history):
    create(tmp_path / "witness", "witness.test")
    add(tmp_path / "witness", history.vkey)
    return tmp_path / "witness"


@pytest.fixture
def here(folder):
    made = Witness.open(folder, clock=lambda: NOW)
    yield made
    made.close()


def ask(here, body):
    answer = here.answer("POST", "/add-checkpoint", body)
    return answer.status, answer.body, answer.kind


def test_a_history_is_cosigned_as_it_grows(here, history):
    key = parse_vkey(here.vkey)
    for old, new in [(0, 1), (1, 3), (3, 3), (3, 8), (8, 21)]:
        answer = here.answer("POST", "/add-checkpoint", history.submission(old, new))
        assert answer.status == 200
        cosigned, time = witness.accept(history.checkpoint(new), answer.body, key)
        assert time == NOW
        assert checkpoint.cosignatures(cosigned, [key]) == {"witness.test": NOW}
        assert checkpoint.verified(cosigned, history.key.verifier, origin="ledger.test").size == new


def test_no_request_is_400(here, history):
    good = history.submission(0, 2)
    for body in (b"", good[3:], good.replace(b"old 0", b"old 00"), good[:-1], b"old 0\n\n", good.replace(b"\n\n", b"\n", 1)):
        assert ask(here, body)[0] == 400
    assert ask(here, good.replace(b"\n2\n", b"\n02\n"))[0] == 400  # no checkpoint, whoever signed it


def test_an_old_size_above_the_new_one_is_400(here, history):
    assert ask(here, history.submission(3, 2))[0] == 400
    assert ask(here, history.submission(0, 2))[0] == 200
    assert ask(here, history.submission(3, 2))[0] == 400


def test_an_unknown_origin_is_404(here):
    assert ask(here, History("elsewhere.test").submission(0, 2))[0] == 404


def test_a_signature_by_nobody_known_is_403(here, history):
    stranger = History("ledger.test")
    assert ask(here, stranger.submission(0, 2))[0] == 403
    signed = parse(history.checkpoint(2))
    broken = history.submission(0, 2, note=bytes(Note(signed.text.replace("\n2\n", "\n3\n"), signed.lines)))
    assert ask(here, broken)[0] == 403


def test_signatures_of_strangers_beside_the_ledgers_are_ignored(here, history):
    signed = parse(history.checkpoint(2))
    both = Note(signed.text, (*parse(History("ledger.test").checkpoint(2)).lines, *signed.lines))
    assert ask(here, history.submission(0, 2, note=bytes(both)))[0] == 200


def test_another_old_size_is_409_and_told_which(here, history):
    assert ask(here, history.submission(1, 2)) == (409, b"0\n", SIZE)
    assert ask(here, history.submission(0, 5))[0] == 200
    for old, new in [(0, 5), (0, 7), (4, 7), (6, 7)]:
        assert ask(here, history.submission(old, new)) == (409, b"5\n", SIZE)


def test_a_rollback_is_409(here, history):
    ask(here, history.submission(0, 5))
    assert ask(here, history.submission(4, 4)) == (409, b"5\n", SIZE)
    assert ask(here, history.submission(0, 4)) == (409, b"5\n", SIZE)


def test_two_heads_of_one_size_are_409_and_kept_as_evidence(here, history, folder):
    forked = History("ledger.test", fork=3, key=history.key)
    ask(here, history.submission(0, 5))
    for _ in range(3):
        assert ask(here, forked.submission(5, 5)) == (409, b"5\n", SIZE)
        assert ask(here, forked.submission(0, 5)) == (409, b"5\n", SIZE)
    kept = list(folder.rglob("refused-*"))
    assert [path.read_bytes() for path in kept] == [forked.checkpoint(5)]
    checkpoint.verified(kept[0].read_bytes(), history.key.verifier, origin="ledger.test")


def test_a_fork_that_has_grown_is_422_and_kept_as_evidence(here, history, folder):
    forked = History("ledger.test", fork=3, key=history.key)
    ask(here, history.submission(0, 5))
    assert ask(here, forked.submission(5, 9))[0] == 422
    assert [path.read_bytes() for path in folder.rglob("refused-*")] == [forked.checkpoint(9)]
    assert ask(here, history.submission(5, 9))[0] == 200


def test_a_proof_where_none_belongs_and_none_where_one_belongs_is_422(here, history):
    spare = witness.Submission(0, (bytes(32),), history.checkpoint(5))
    assert ask(here, witness.print_submission(spare))[0] == 422
    assert ask(here, history.submission(0, 5))[0] == 200
    spare = witness.Submission(5, (bytes(32),), history.checkpoint(5))
    assert ask(here, witness.print_submission(spare))[0] == 422
    missing = witness.Submission(5, (), history.checkpoint(6))
    assert ask(here, witness.print_submission(missing))[0] == 422


def test_evidence_does_not_fill_the_disk(here, history, folder):
    ask(here, history.submission(0, 5))
    for size in range(6, 40):
        assert ask(here, History("ledger.test", fork=3, key=history.key).submission(5, size))[0] == 422
    assert 0 < len(list(folder.rglob("refused-*"))) <= 16


def test_only_one_call_is_known(here):
    assert here.answer("POST", "/", b"").status == 404
    assert here.answer("POST", "/add-checkpoint/", b"").status == 404
    assert here.answer("GET", "/add-checkpoint", b"").status == 405


def test_of_two_at_once_from_one_size_one_is_cosigned(here, history):
    bodies = [history.submission(0, size) for size in range(1, 17)]
    gate = threading.Barrier(len(bodies))

    def race(body):
        gate.wait()
        return ask(here, body)[0]

    with ThreadPoolExecutor(len(bodies)) as pool:
        assert sorted(pool.map(race, bodies)) == [200] + [409] * 15


def test_the_memory_survives_the_process_and_has_one_holder(folder, history):
    one = Witness.open(folder, clock=lambda: NOW)
    assert ask(one, history.submission(0, 5))[0] == 200
    with pytest.raises(LedgerUnavailable):
        Witness.open(folder, clock=lambda: NOW)
    one.close()
    again = Witness.open(folder, clock=lambda: NOW)
    assert ask(again, history.submission(0, 5)) == (409, b"5\n", SIZE)
    assert ask(again, history.submission(5, 6))[0] == 200
    again.close()


def test_a_witness_that_lost_its_memory_does_not_begin_anew(folder, history):
    (head,) = folder.rglob("head")
    kept = head.read_bytes()
    head.unlink()
    with pytest.raises(LedgerUnavailable):
        Witness.open(folder, clock=lambda: NOW)
    head.write_bytes(bytes(len(kept)))
    with pytest.raises(VerificationFailed):
        Witness.open(folder, clock=lambda: NOW)
    with pytest.raises(AlreadyExists):
        add(folder, history.vkey)


def test_what_cannot_be_written_down_is_not_cosigned(here, history):
    (watched,) = here._logs.values()
    file = watched.memory._file
    watched.memory._file = os.open("/dev/full", os.O_RDWR)
    answer = ask(here, history.submission(0, 5))
    watched.memory._file = file
    assert answer[0] == 503
    assert b"\xe2\x80\x94" not in answer[1]
    assert ask(here, history.submission(0, 5))[0] == 200


def test_keys_are_for_one_purpose(tmp_path, folder):
    with pytest.raises(ConfigurationInvalid, match="type 1"):
        add(folder, str(SigningKey.generate("ledger.test", kind=COSIGNATURE).verifier))
    (folder / "key").write_text(SigningKey.generate("witness.test", kind=ED25519).secret_text())
    with pytest.raises(ConfigurationInvalid, match="type 4"):
        Witness.open(folder, clock=lambda: NOW)
    with pytest.raises(ConfigurationInvalid, match="no witness"):
        Witness.open(tmp_path, clock=lambda: NOW)
    assert (folder / "key").stat().st_mode & 0o077 == 0


def test_over_http_by_the_command_that_operators_type(tmp_path, history):
    with running(tmp_path / "w", "witness.test/w1", history.vkey) as standing:
        connection = http.client.HTTPConnection(standing.url.removeprefix("http://"), timeout=20)
        for old, new, status in [(0, 2, 200), (2, 5, 200), (0, 6, 409)]:  # over one connection
            connection.request("POST", "/add-checkpoint", history.submission(old, new))
            response = connection.getresponse()
            body = response.read()
            assert response.status == status
        assert (body, response.headers["Content-Type"]) == (b"5\n", SIZE)
        connection.request("POST", "/add-checkpoint", b"x" * (witness.MAX_SUBMISSION + 1))
        assert connection.getresponse().status == 413
        connection.close()


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"POST /add-checkpoint HTTP/1.1\r\nHost: x\r\n\r\n", 411),
        (b"POST /add-checkpoint HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", 411),
        (b"POST /add-checkpoint HTTP/1.1\r\nHost: x\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n", 413),
        (b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 411),
        (b"DELETE / HTTP/1.1\r\nHost: x\r\n\r\n", 501),
        (b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 200 + b"\r\n", 431),
        (b"GET /" + b"x" * 70_000 + b" HTTP/1.1\r\n\r\n", 414),
    ],
)
def test_requests_that_are_none_are_bounded(head, status):
    import socket

    site = Site("127.0.0.1:0", lambda *_: Answer(200), most_body=10)
    site.start()
    host, port = site.address.split(":")
    try:
        with socket.create_connection((host, int(port)), timeout=10) as raw:
            raw.sendall(head)
            assert raw.recv(64).split()[1] == str(status).encode()
    finally:
        site.close()
