"""Several sessions in one cell, as its owner holds them: whose frames are whose, who waits for whom, and how each ends."""

from __future__ import annotations

import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from model_organisms.cells import calls, cell
from model_organisms.cells.calls import Call
from model_organisms.cells.frames import Draw, Piece
from model_organisms.errors import CellUnavailable, DeadlineExceeded, ModelOrganismsError
from model_organisms.records import Message, SamplingParameters
from model_organisms_registry.isolation.backing import FORGOTTEN_S, FREE, LONGEST_S, BackOff

from tests.support.cells import crowded, eventually

ASKED = (Message("user", "hello"),)
ENDLESS = SamplingParameters(max_tokens=100_000)
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
    time.sleep(0.005)
"""


def test_pieces_of_many_calls_interleave_and_reach_their_own():
    with crowded(TIRELESS, tenants=4) as (tenants, deaths):
        answers = [tenant.sample(ASKED, ENDLESS, max_seconds=30) for tenant in tenants]
        heard = [[next(answer).text for answer in answers] for _ in range(20)]
        assert {tuple(row) for row in heard} == {("a", "b", "c", "d")}
        answers[1].close()
        tenants[2].cancel()
        assert list(answers[2])[-1].finish_reason == "cancelled"
        assert {next(answers[0]).text for _ in range(5)} == {"a"}
        assert next(tenants[1].sample(ASKED, ENDLESS, max_seconds=5)).text == "b"
    assert deaths == [[]] * 4


FLOOD = """
while True:
    frame = hear()
    if isinstance(frame.body, Draw) and frame.body.slot == 1:
        for _ in range(300):
            say(Piece("x" * 10_000, 1), frame.call)
        say(Piece("", 0, "stop"), frame.call)
    elif isinstance(frame.body, Draw):
        say(Piece("well", 1, "stop"), frame.call)
"""


def test_a_reader_who_does_not_read_loses_the_rest_and_holds_nobody_up():
    with crowded(FLOOD, tenants=2) as ((slow, other), deaths):
        answer = slow.sample(ASKED, ENDLESS, max_seconds=30)
        first = next(answer)
        started = time.monotonic()
        assert next(other.sample(ASKED, ENDLESS, max_seconds=20)).text == "well"  # comes after all of the flood
        assert time.monotonic() - started < 10
        assert next(iter(slow._running))._size <= calls.MOST_WAITING
        pieces = [first]
        with pytest.raises(CellUnavailable, match="not read as it came"):
            pieces.extend(answer)
        assert 900_000 < sum(len(piece.text) for piece in pieces) <= calls.MOST_WAITING + 2 * 10_000
        assert next(slow.sample(ASKED, ENDLESS, max_seconds=20)).text  # and the session goes on
        assert slow.alive
        assert other.alive
    assert deaths == [[], []]


@pytest.mark.parametrize(
    ("lie", "told"),
    [
        ("say(Piece('x', 1), first - 1)", "not asked"),  # the number of a load that was answered
        ("say(Piece('x', 6), first)", "not asked for"),
        ("say(Numbers(), second)", "something else"),
        ("say(Pong(), 77)", "not asked"),
        ("say(Unloaded(), second)", "something else"),
        ("say(INFO, 0)", "not asked"),
        ("say(Ready('again'), 0)", "not asked"),
        ("say(Draw((), SamplingParameters()), first)", "something else"),
        ("[say(Piece('', 0), first) for _ in range(50)]", "not asked for"),
    ],
)
def test_a_cell_that_lies_to_one_is_lost_to_all_and_each_hears_it_once(lie, told):
    code = f"first, second = hear().call, hear().call\n{lie}\ntime.sleep(60)"
    with crowded(code, tenants=2) as (tenants, deaths):
        errors = [None, None]

        def ask(number):
            try:
                list(tenants[number].sample(ASKED, SamplingParameters(max_tokens=5), max_seconds=20))
            except ModelOrganismsError as error:
                errors[number] = error

        asking = [threading.Thread(target=ask, args=(number,)) for number in range(2)]
        for thread in asking:
            thread.start()
        for thread in asking:
            thread.join(30)
        assert [type(error) for error in errors] == [CellUnavailable] * 2
        assert all(told in str(error) for error in errors)
        assert eventually(lambda: all(deaths))
        assert not any(tenant.alive for tenant in tenants)
    assert [len(each) for each in deaths] == [1, 1]


def test_a_cell_that_answers_no_ping_is_killed(monkeypatch):
    monkeypatch.setattr(cell, "_PING_S", 0.1)
    with crowded("hear()", tenants=2, silence_s=2.0) as (tenants, _):
        time.sleep(3.0)
        assert all(tenant.alive for tenant in tenants)  # pings were answered, again and again
    silent = """
    while True:
        frame = channel.receive()
        if isinstance(frame.body, Load):
            say(INFO, frame.call)
    """
    with crowded(silent, tenants=2, silence_s=0.6) as (tenants, deaths):
        assert eventually(lambda: all(deaths), within_s=15)
        assert not any(tenant.alive for tenant in tenants)
        assert "did not answer in time" in deaths[0][0]
    assert [len(each) for each in deaths] == [1, 1]


def test_an_organism_that_is_not_unloaded_takes_its_cell_with_it(monkeypatch):
    monkeypatch.setattr(calls, "GRACE_S", 0.5)
    deaf = """
    while True:
        frame = channel.receive()
        if isinstance(frame.body, Load):
            say(INFO, frame.call)
        elif isinstance(frame.body, Ping):
            say(Pong(), frame.call)
    """
    with crowded(deaf, tenants=2) as ((killed, neighbour), deaths):
        started = time.monotonic()
        killed.kill()
        assert time.monotonic() - started < 0.5
        assert eventually(lambda: deaths[1])
        assert not neighbour.alive
        assert "did not answer in time" in deaths[1][0]
    assert [len(each) for each in deaths] == [0, 1]
    with crowded(deaf, tenants=2) as ((closed, neighbour), deaths):
        closed.close()  # nobody waits for long, and who closes in good order does not cost the others their cell so soon
        assert neighbour.alive
        with pytest.raises(CellUnavailable, match="in time"):
            neighbour.probe(ASKED, max_seconds=0.2)
        assert neighbour.alive
    assert deaths == [[], []]


def test_a_cell_may_not_refuse_to_unload():
    refusing = """
    while True:
        frame = channel.receive()
        if isinstance(frame.body, Load):
            say(INFO, frame.call)
        elif isinstance(frame.body, Unload):
            say(Failed("CONFLICT", "no"), frame.call)
    """
    with crowded(refusing, tenants=2) as ((leaving, _), deaths):
        leaving.kill()
        assert eventually(lambda: deaths[1])
    assert [len(each) for each in deaths] == [0, 1]


def test_closing_from_many_threads_ends_each_session_once():
    with crowded(TIRELESS, tenants=4) as (tenants, deaths):
        answers = [tenant.sample(ASKED, ENDLESS, max_seconds=30) for tenant in tenants]
        for answer in answers:
            next(answer)
        ending = [threading.Thread(target=end) for tenant in tenants for end in (tenant.close, tenant.kill, tenant.close)]
        for thread in ending:
            thread.start()
        for thread in ending:
            thread.join(20)
        assert not any(thread.is_alive() for thread in ending)
        for answer in answers:
            with pytest.raises(CellUnavailable):
                list(answer)
        assert eventually(lambda: not tenants[0].cell.process.alive)
        assert not tenants[0].cell.reserve()
    assert deaths == [[]] * 4


@given(st.lists(st.one_of(st.text(max_size=40), st.none()), max_size=60), st.integers(0, 60))
def test_what_waits_comes_out_as_it_went_in(said, left):
    """None takes one out; the rest goes in. What is left at the end comes before the error that ends it."""
    call = Call(1, Piece, judge=calls.drawn(Draw(ASKED, ENDLESS)))
    put, taken = [], []
    for word in said[:left]:
        if word is None and len(put) > len(taken):
            taken.append(call.take(0.0).text)
        elif word is not None:
            call.put(Piece(word, 1))
            put.append(word)
    call.fail(CellUnavailable("over"))
    call.fail(CellUnavailable("a second error does not count"))
    while len(taken) < len(put):
        taken.append(call.take(0.0).text)
    assert taken == put
    with pytest.raises(CellUnavailable, match="over"):
        call.take(0.0)


def test_a_silenced_call_gives_nothing_of_what_waits():
    call = Call(1, Piece, judge=calls.drawn(Draw(ASKED, ENDLESS)))
    with pytest.raises(DeadlineExceeded):
        call.take(0.0)
    call.put(Piece("secret", 1))
    call.silence(CellUnavailable("closed"))
    call.put(Piece("secret", 1))
    with pytest.raises(CellUnavailable, match="closed"):
        call.take(0.0)
    with pytest.raises(CellUnavailable, match="something else"):
        call.put(Draw(ASKED, ENDLESS))


def refused(patience, kind):
    try:
        patience.check(kind)
    except CellUnavailable as refusal:
        return "try again in" in str(refusal)
    return False


def test_cells_that_keep_ending_are_started_ever_more_rarely():
    now = [100.0]
    patience = BackOff(lambda: now[0])
    waits = []
    for _ in range(12):
        patience.lost("kind")
        waits.append(0.0)
        while refused(patience, "kind"):
            now[0] += 0.5
            waits[-1] += 0.5
        patience.check("another kind")
    assert waits[:FREE] == [0.0] * FREE
    assert waits[FREE:] == sorted(waits[FREE:])
    assert waits[FREE] == 1.0
    assert waits[-1] == LONGEST_S
    patience.well("kind")
    patience.lost("kind")
    patience.check("kind")


def test_a_cell_that_is_lost_long_after_the_one_before_does_not_keep_ending():
    now = [100.0]
    patience = BackOff(lambda: now[0])
    for _ in range(12):
        patience.lost("kind")
        patience.check("kind")
        now[0] += FORGOTTEN_S + 1
    for _ in range(FREE + 1):
        patience.lost("kind")
    assert refused(patience, "kind")
