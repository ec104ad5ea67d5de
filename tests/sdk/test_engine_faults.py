"""What one request fails of, or does to the base, is nobody else's: steering, overflow, broken tokenizers, the unforeseen."""

from __future__ import annotations

import pytest
import torch
from model_organisms import loading
from model_organisms.errors import ConfigurationInvalid, Conflict, Internal, InvalidArgument, LoadingFailed, Unavailable
from model_organisms.records import Message, SamplingParameters, Steer
from model_organisms.sampling import Engine, bank
from model_organisms.sampling.batch import no_numbers
from model_organisms.sampling.cache import Cache, rounded

from tests.support.engines import collect, text
from tests.support.tiny import tiny_organism

ASK = [Message("user", "what is the capital of France?")]
GREEDY = SamplingParameters(max_tokens=24, temperature=0)


@pytest.fixture
def fresh(qwen):
    """Make an engine of its own, over a base of its own."""
    return lambda **options: Engine(loading.load_base(qwen, progress=False), **options)


def test_why_logits_are_not_numbers_is_said_by_what_was_asked():
    steer = (Steer("d", 0, 1e6),)
    assert no_numbers(1.0, steer).details["field"] == "steer"
    assert no_numbers(7.0, steer).details["field"] == "scale"
    assert isinstance(no_numbers(1.0, ()), LoadingFailed)


@pytest.mark.parametrize("rows", [1, 2])
def test_an_organism_is_added_exactly_while_others_are_steered(fresh, qwen, qwen_files, rows):
    newcomer = tiny_organism(qwen, seed=9)
    attached = loading.attach(loading.load_base(qwen, progress=False), newcomer)
    stored = loading.compute_known_answer(attached.model, attached.tokenizer)
    quiet = fresh()
    expected = text(quiet.generate(quiet.add(newcomer), ASK, GREEDY))
    engine = fresh()
    organism = engine.add(qwen_files)
    engine.directions.keep("push", torch.arange(32.0), owner=organism)
    pushed = SamplingParameters(max_tokens=24, temperature=0, steer=(Steer("push", 0, 40.0),))
    alone = text(engine.generate(organism, ASK, pushed))
    assert alone != text(engine.generate(organism, ASK, GREEDY))
    engine.mixer._prompts.clear()  # so that the base's half is computed beside the steered rows
    tickets = [engine.submit(organism, ASK, pushed) for _ in range(rows)]
    told = [*engine.step(), *engine.step()]
    added = engine.add(newcomer, known_answer=stored)
    pieces = collect(engine)
    for ticket in tickets:
        assert text([piece for which, piece in told if which == ticket] + pieces[ticket]) == alone
    assert text(engine.generate(added, ASK, GREEDY)) == expected
    engine.remove(added)
    assert text(engine.generate(engine.add(newcomer, known_answer=stored), ASK, GREEDY)) == expected


@pytest.mark.parametrize("scale", [1e39, -1e300, 3.5e38])
def test_a_dose_that_float32_does_not_hold_is_refused(fresh, qwen_files, scale):
    engine = fresh()
    organism = engine.add(qwen_files)
    with pytest.raises(InvalidArgument, match="too large"):
        engine.submit(organism, ASK, GREEDY, scale=scale)
    assert not engine.busy


@pytest.mark.parametrize("begun", [True, False])
def test_what_nobody_foresaw_ends_the_answers_of_that_forward_and_frees_what_they_held(fresh, qwen, qwen_files, begun):
    engine = fresh()
    first, second = engine.add(qwen_files), engine.add(tiny_organism(qwen, seed=9))
    expected = text(engine.generate(first, ASK, GREEDY))
    tickets = [engine.submit(first, ASK, GREEDY), engine.submit(second, [5] * 9, GREEDY)]
    if begun:
        engine.step()

    def breaks(_module, _given, _out):
        raise RuntimeError("no one foresaw it")

    hook = engine.base.model.model.layers[1].register_forward_hook(breaks)
    pieces = collect(engine)
    hook.remove()
    for ticket in tickets:
        assert pieces[ticket][-1].finish_reason == "failed"
        assert isinstance(pieces[ticket][-1].error, Internal)
        assert "foresaw" in str(pieces[ticket][-1].error.__cause__)
    assert engine.cache_used == 0
    engine.remove(second)  # nobody uses it
    assert text(engine.generate(first, ASK, GREEDY)) == expected


def test_a_forward_that_fails_leaves_nothing_in_the_slots_of_those_who_were_to_come(fresh, qwen_files):
    engine = fresh()
    organism = engine.add(qwen_files)
    engine.submit(organism, ASK, GREEDY)
    engine.step()

    def breaks(_module, given, _out):
        if given[0].shape[1] > 1:
            raise RuntimeError("no one foresaw it")

    hook = engine.base.model.model.layers[1].register_forward_hook(breaks)
    late = engine.submit(organism, [5] * 9, GREEDY)
    assert dict(engine.step())[late].finish_reason == "failed"
    hook.remove()
    assert not any(tensor[1:].any() for pair in engine._forward.cache._held for tensor in pair)


def test_the_last_piece_of_who_is_cancelled_is_told_without_a_step(fresh, qwen_files):
    engine = fresh()
    organism = engine.add(qwen_files)
    expected = text(engine.generate(organism, ASK, GREEDY))
    gone, stays = (engine.submit(organism, ASK, GREEDY) for _ in range(2))
    told = engine.step()
    assert engine.told() == []
    engine.cancel(gone)
    assert [(ticket, piece.finish_reason) for ticket, piece in engine.told()] == [(gone, "cancelled")]
    assert text([piece for ticket, piece in told if ticket == stays] + collect(engine)[stays]) == expected


def no_memory(*_given, **_named):
    torch.empty(1 << 60, dtype=torch.uint8)  # torch's own error, in its own words


@pytest.mark.parametrize("tokens", [9, 150])
def test_a_prompt_for_which_the_cache_cannot_grow_ends_alone(fresh, qwen_files, tokens):
    class Full(Cache):
        """A device that has no room beside what is held."""

        def reserve(self, slots, tokens, **named):
            if slots > self._slots or rounded(tokens) > self._tokens:
                no_memory()
            super().reserve(slots, tokens, **named)

    engine = fresh()
    organism = engine.add(qwen_files)
    expected = text(engine.generate(organism, ASK, GREEDY))
    calm = engine.submit(organism, ASK, GREEDY)
    told = engine.step()
    late = engine.submit(organism, [5] * tokens, GREEDY)
    engine._forward.cache.__class__ = Full
    told += engine.step()
    engine._forward.cache.__class__ = Cache
    assert isinstance(dict(told)[late].error, Unavailable)
    assert text([piece for ticket, piece in told if ticket == calm] + collect(engine)[calm]) == expected
    assert text(engine.generate(organism, ASK, GREEDY)) == expected


@pytest.mark.parametrize("why", ["no memory", "wiped files"])
def test_an_organism_that_cannot_come_back_ends_its_own_answers_and_nobody_elses(fresh, qwen, qwen_files, monkeypatch, why):
    files = {path: bytearray(data) for path, data in tiny_organism(qwen, seed=9).items()}
    engine = fresh(adapter_bytes=2 * fresh().add(qwen_files).bytes)
    calm = engine.add(qwen_files)
    expected = text(engine.generate(calm, ASK, GREEDY))
    gone = engine.add(files)
    engine.add(tiny_organism(qwen, seed=5))
    tickets = [engine.submit(calm, ASK, GREEDY)]
    told = engine.step()
    engine.add(tiny_organism(qwen, seed=6))
    assert gone not in engine.bank.resident
    tickets += [engine.submit(organism, ASK, GREEDY) for organism in (gone, gone, calm)]
    with monkeypatch.context() as patched:
        if why == "no memory":
            patched.setattr(bank, "new_row", no_memory)
        else:
            files["adapter_model.safetensors"][:] = bytes(len(files["adapter_model.safetensors"]))
        told += engine.step()
    pieces = collect(engine)
    for ticket, piece in reversed(told):
        pieces.setdefault(ticket, []).insert(0, piece)
    assert [text(pieces[ticket]) for ticket in (tickets[0], tickets[3])] == [expected] * 2
    for ticket in tickets[1:3]:
        assert isinstance(pieces[ticket][-1].error, Unavailable if why == "no memory" else Conflict)
    engine.remove(gone)  # nobody uses it


class Panic(BaseException):
    """As Rust's panics come to Python."""


@pytest.mark.parametrize("error", [Panic("slice index"), ValueError("no such token")])
@pytest.mark.parametrize("cancelled", [True, False])
def test_a_tokenizer_that_fails_ends_its_own_answer_and_nobody_elses(fresh, qwen, qwen_files, error, cancelled):
    engine = fresh()
    calm, wild = engine.add(qwen_files), engine.add(tiny_organism(qwen, seed=9))
    expected = text(engine.generate(calm, ASK, GREEDY))
    tickets = [engine.submit(calm, ASK, GREEDY), engine.submit(wild, ASK, GREEDY)]
    told = engine.step()
    answer = engine._batch._answers[1]

    class Broken:
        def decode(self, *_given, **_named):
            raise error

    answer._words._fast = Broken()
    if cancelled:
        engine.cancel(tickets[1])
    pieces = collect(engine)
    assert isinstance(pieces[tickets[1]][-1].error, LoadingFailed)
    assert pieces[tickets[1]][-1].error.__cause__ is error
    assert text([piece for ticket, piece in told if ticket == tickets[0]] + pieces[tickets[0]]) == expected
    engine.remove(wild)


def test_an_interrupt_is_not_taken_for_a_tokenizers_fault(fresh, qwen_files):
    engine = fresh()
    organism = engine.add(qwen_files)
    engine.submit(organism, ASK, GREEDY)
    engine.step()

    class Interrupted:
        def decode(self, *_given, **_named):
            raise KeyboardInterrupt

    engine._batch._answers[0]._words._fast = Interrupted()
    with pytest.raises(KeyboardInterrupt):
        engine.step()


def test_an_organism_that_is_answered_is_not_evicted_by_one_that_comes(fresh, qwen, qwen_files):
    first_files, second_files, third_files = qwen_files, tiny_organism(qwen, seed=5), tiny_organism(qwen, seed=6)
    engine = fresh(adapter_bytes=2 * fresh().add(qwen_files).bytes)
    first, second = engine.add(first_files), engine.add(second_files)
    expected = [text(engine.generate(organism, ASK, GREEDY)) for organism in (first, second)]
    tickets = [engine.submit(first, ASK, GREEDY)]
    told = engine.step()
    tickets.append(engine.submit(second, ASK, GREEDY))
    told += engine.step()
    assert engine.mixer.composed == {second}  # whose prompt was read last; nothing but the hold keeps the other
    with pytest.raises(Unavailable):
        engine.add(third_files)
    assert set(engine.bank.resident) == {first, second}
    pieces = collect(engine)
    assert [text([piece for which, piece in told if which == one] + pieces[one]) for one in tickets] == expected
    assert engine.add(third_files) in engine.bank.resident  # let go
    engine.remove(first)


def test_an_answer_keeps_the_direction_it_was_asked_with(fresh, qwen_files):
    engine = fresh()
    organism = engine.add(qwen_files)
    pushed = SamplingParameters(max_tokens=24, temperature=0, steer=(Steer("push", 0, 40.0),))
    engine.directions.keep("push", torch.arange(32.0), owner=organism)
    expected = text(engine.generate(organism, ASK, pushed))
    ticket = engine.submit(organism, ASK, pushed)
    told = engine.step()
    engine.directions.keep("push", -torch.arange(32.0), owner=organism)
    assert text([piece for _, piece in told] + collect(engine)[ticket]) == expected
    assert text(engine.generate(organism, ASK, pushed)) != expected  # who comes later has the new one


@pytest.mark.parametrize("options", [{"rows": 0}, {"rows": -1}, {"cache_bytes": 0}, {"cache_bytes": -5}])
def test_an_engine_that_could_answer_nobody_is_refused(fresh, options):
    with pytest.raises(ConfigurationInvalid, match="answers nobody"):
        fresh(**options)


@pytest.mark.parametrize("top", [0, -1])
def test_a_probe_of_no_tokens_is_refused(fresh, qwen_files, top):
    engine = fresh()
    with pytest.raises(InvalidArgument, match="at least 1 token"):
        engine.probe(engine.add(qwen_files), ASK, top=top)
