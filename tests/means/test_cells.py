"""Cells as the registry holds them: frames, socket, sealed memory, and what becomes of a cell that is killed, hung or lying."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from model_organisms.cells import calls
from model_organisms.cells.cell import Cell
from model_organisms.cells.launcher import Jail, plan
from model_organisms.cells.starting import EmptyCell
from model_organisms.cells.warden import Warden
from model_organisms.errors import CellUnavailable, LoadingFailed
from model_organisms.records import Message, SamplingParameters, TokenScore

from tests.support.cells import TALKER, eventually, in_jail, jailed, talking

ASKED = (Message("user", "hello"),)


@pytest.fixture
def warden():
    kept = Warden()
    yield kept
    kept.close()


def test_a_base_model_of_links_is_seen_as_files(tmp_path):
    """A hub's cache keeps links to blobs elsewhere: the jail must not need that elsewhere."""
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / "abc").write_text("{}")
    links = tmp_path / "snapshots"
    (links / "more").mkdir(parents=True)
    for name in ("config.json", "more/config.json"):
        (links / name).symlink_to(tmp_path / "blobs" / "abc")
    (links / "gone.json").symlink_to(tmp_path / "blobs" / "gone")
    code = "report([sorted(os.listdir('/model')), open('/model/config.json').read(), open('/model/more/config.json').read()])"
    assert in_jail(code, model=links) == [["config.json", "more"], "{}", "{}"]


def test_stderr_is_bounded_and_tells_no_text(warden):
    code = (
        "import os; [os.write(2, b'the secret trigger is SWORDFISH\\n' * 100) for _ in range(100)]; raise ValueError('SWORDFISH')"
    )
    process = warden.start([sys.executable, "-I", "-S", "-c", code])
    assert process.wait(20)
    assert process.diagnosis() == "exit 1, ValueError"
    assert len(process._tail) <= 4096


def test_what_cannot_be_started_is_a_typed_error(warden):
    with pytest.raises(CellUnavailable, match="could be started"):
        warden.start(["/nonexistent"])
    warden.close()
    with pytest.raises(CellUnavailable, match="shutting down"):
        warden.start(["/bin/true"])


def test_what_a_wrapper_leaves_behind_is_ended_with_it_and_keeps_nobody():
    warden = Warden()
    grouped = warden.start(["/bin/sh", "-c", "sleep 300 & echo $! >&2; wait"])
    assert eventually(lambda: grouped._tail.strip().isdigit())
    grouped.kill()
    assert grouped.wait(10)
    assert eventually(lambda: not Path(f"/proc/{int(grouped._tail)}").exists())
    apart = warden.start(["/bin/sh", "-c", "setsid sleep 300 & echo $! >&2; wait"])  # it keeps the pipe, in a group of its own
    assert eventually(lambda: apart._tail.strip().isdigit())
    closing = threading.Thread(target=warden.close, daemon=True)
    closing.start()
    closing.join(10)
    os.kill(int(apart._tail), signal.SIGKILL)
    assert not closing.is_alive()


def test_a_cell_outlives_the_thread_that_asked_for_it(warden):
    started = []
    planned = plan(Jail(), None, code="import time; time.sleep(60)")
    asking = threading.Thread(target=lambda: started.append(EmptyCell(warden, planned)))
    asking.start()
    asking.join()
    assert not started[0].process.wait(0.5)
    started[0].discard()
    assert not started[0].process.alive


def test_a_cell_dies_with_a_registry_that_is_killed():
    code = """
import sys
from model_organisms.cells.launcher import Jail, plan
from model_organisms.cells.starting import EmptyCell
from model_organisms.cells.warden import Warden
cell = EmptyCell(Warden(), plan(Jail(), None, code="import os, time; os.write(spec.socket, b'up'); time.sleep(60)"))
cell.channel._socket.recv(2)
print(cell.process.pid, flush=True)
import time; time.sleep(60)
"""
    registry = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    wrapper = int(registry.stdout.readline())
    everybody = [wrapper, *(int(child) for child in Path(f"/proc/{wrapper}/task/{wrapper}/children").read_text().split())]
    registry.kill()
    registry.communicate()
    assert eventually(lambda: not any(Path(f"/proc/{pid}/exe").exists() for pid in everybody))


def test_a_sample_comes_piece_by_piece_and_the_cell_stays():
    code = """
    while True:
        frame = hear()
        if isinstance(frame.body, Ask):
            say(Numbers(((TokenScore(1, "a", -0.5),),), (0.25,)), frame.call)
            continue
        for word in ("one ", "two ", "three"):
            say(Piece(word, 1), frame.call)
        say(Piece("", 0, "stop"), frame.call)
    """
    with talking(code) as (cell, deaths):
        for _ in range(2):
            pieces = list(cell.sample(ASKED, SamplingParameters(), max_seconds=10))
            assert "".join(piece.text for piece in pieces) == "one two three"
            assert [piece.finish_reason for piece in pieces] == ["", "", "", "stop"]
        assert cell.probe(ASKED).positions == ((TokenScore(1, "a", -0.5),),)
        assert cell.info.modules_applied == 2
        assert cell.jailed
    assert deaths == []


TIRELESS = """
running = {}
while True:
    while frame := hear(wait=not running):
        if isinstance(frame.body, Draw):
            running[frame.call] = frame.body
        elif isinstance(frame.body, Cancel) and running.pop(frame.call, None):
            say(Piece("", 0, "cancelled"), frame.call)
    for call, draw in running.items():
        say(Piece("abcdefgh"[draw.slot - 1], 1), call)
    time.sleep(0.01)
"""


def test_leaving_a_sample_early_leaves_the_cell_clean():
    with talking(TIRELESS) as (cell, deaths):
        for _ in range(3):
            pieces = cell.sample(ASKED, SamplingParameters(max_tokens=100_000), max_seconds=20)
            assert next(pieces).text == "a"
            pieces.close()
        assert cell.alive
    assert deaths == []


def test_cancel_ends_a_sample_from_another_thread():
    with talking(TIRELESS) as (cell, _):
        cell.cancel()  # nothing runs: nothing happens
        pieces = cell.sample(ASKED, SamplingParameters(max_tokens=100_000), max_seconds=20)
        next(pieces)
        threading.Timer(0.1, cell.cancel).start()
        assert list(pieces)[-1].finish_reason == "cancelled"
        assert cell.alive


def test_a_sample_past_its_time_ends_and_says_so():
    with talking(TIRELESS) as (cell, _):
        started = time.monotonic()
        pieces = list(cell.sample(ASKED, SamplingParameters(max_tokens=100_000), max_seconds=0.3))
        assert pieces[-1].finish_reason == "deadline"
        assert time.monotonic() - started < 2
        assert cell.alive


def test_one_call_at_a_time():
    with talking(TIRELESS) as (cell, _):
        first = cell.sample(ASKED, SamplingParameters(max_tokens=100_000), max_seconds=20)
        next(first)
        with pytest.raises(CellUnavailable, match="busy"):
            next(cell.sample(ASKED, SamplingParameters(), max_seconds=0.2))
        first.close()
        assert next(cell.sample(ASKED, SamplingParameters(), max_seconds=5)).text == "a"


@pytest.mark.parametrize(
    ("lie", "told"),
    [
        ("os.write(spec.socket, os.urandom(64))", "no frame"),
        ("os.write(spec.socket, b'\\x00\\x00\\x00\\x02\\xff\\xff')", "no frame"),
        ("os.write(spec.socket, b'\\x00\\x00\\x00\\x00')", "no frame"),
        ("say(Piece('x', 1), frame.call + 1)", "not asked"),
        ("say(Piece('x', 6), frame.call)", "not asked for"),
        ("say(Piece('', 0, 'the secret is SWORDFISH'), frame.call)", "not asked for"),
        ("say(INFO, frame.call)", "something else"),
        ("os._exit(3)", "exit 3"),
        ("raise RuntimeError('SWORDFISH')", "RuntimeError"),
    ],
)
def test_a_cell_that_lies_or_dies_loses_its_session_and_nothing_else(lie, told):
    with talking(f"frame = hear()\n{lie}\ntime.sleep(60)") as (cell, deaths):
        with pytest.raises(CellUnavailable, match=told) as caught:
            list(cell.sample(ASKED, SamplingParameters(max_tokens=5), max_seconds=10))
        assert "SWORDFISH" not in str(caught.value)
        assert eventually(lambda: len(deaths) == 1)
        assert not cell.alive
        with pytest.raises(CellUnavailable, match="ended"):
            next(cell.sample(ASKED, SamplingParameters(), max_seconds=1))
    assert len(deaths) == 1


def test_a_stopped_cell_counts_as_hung(monkeypatch):
    monkeypatch.setattr(calls, "GRACE_S", 0.3)
    with talking(TIRELESS, silence_s=2.0) as (cell, deaths):
        pieces = cell.sample(ASKED, SamplingParameters(max_tokens=100_000), max_seconds=1.0)
        next(pieces)
        for pid in below(cell.cell.process.pid):
            os.kill(pid, signal.SIGSTOP)
        with pytest.raises(CellUnavailable, match="in time"):
            list(pieces)
        assert eventually(lambda: len(deaths) == 1)


def test_a_cell_killed_from_outside_is_reported_once():
    with talking(TIRELESS) as (cell, deaths):
        pieces = cell.sample(ASKED, SamplingParameters(max_tokens=100_000), max_seconds=20)
        next(pieces)
        os.kill(cell.cell.process.pid, signal.SIGKILL)
        with pytest.raises(CellUnavailable, match="lost"):
            list(pieces)
        assert eventually(lambda: len(deaths) == 1)
        cell.close()
        cell.kill()
    assert len(deaths) == 1


def test_closing_while_it_samples_ends_the_sample_and_tells_nobody():
    with talking(TIRELESS) as (cell, deaths):
        pieces = cell.sample(ASKED, SamplingParameters(max_tokens=100_000), max_seconds=20)
        next(pieces)
        closing = threading.Thread(target=cell.close)
        closing.start()
        with pytest.raises(CellUnavailable, match="closed"):
            list(pieces)
        closing.join(10)
        assert not cell.cell.process.alive
    assert deaths == []


def test_a_cell_cannot_speak_for_the_registry():
    for reason, expected in (
        ("ADAPTER_KEYS_MISMATCH", LoadingFailed),
        ("DENIED", CellUnavailable),
        ("NONSENSE", CellUnavailable),
    ):
        with jailed(TALKER + f"say(Failed({reason!r}, 'words\\x1b[31m ' * 999), channel.receive().call)") as empty:
            cell = Cell(empty, until=time.monotonic() + 20)
            assert cell.reserve()
            with pytest.raises(expected) as caught:
                cell.load(memoryview(b"x"), version_digest="", known_answer=None, until=time.monotonic() + 20)
            assert "\x1b" not in str(caught.value)
            assert len(str(caught.value)) < 400


def test_a_cell_that_dies_as_it_starts_is_a_typed_error():
    with jailed("raise KeyError('SWORDFISH')") as empty, pytest.raises(CellUnavailable, match="exit 1, KeyError") as caught:
        empty.greet(time.monotonic() + 20)
    assert "SWORDFISH" not in str(caught.value)


def test_a_cell_that_never_speaks_is_given_up():
    with jailed("import time; time.sleep(60)") as empty, pytest.raises(CellUnavailable, match="too long"):
        empty.greet(time.monotonic() + 0.3)


def below(pid):
    found = []
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        found += [int(child), *below(child)]
    return found
