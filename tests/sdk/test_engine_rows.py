"""Many requests in one engine: who joins, who waits, who leaves, what one fails of; and that none is another's business."""

from __future__ import annotations

import pytest
import torch
from model_organisms import loading
from model_organisms.errors import Conflict, InvalidArgument, LoadingFailed, Unavailable
from model_organisms.records import Inquiry, Measure, Message, SamplingParameters
from model_organisms.sampling import Engine

from tests.support.engines import collect, greedy, text
from tests.support.tiny import peft_oracle, tiny_organism

ASK = [Message("user", "what is the capital of France?")]
GREEDY = SamplingParameters(max_tokens=24, temperature=0)


@pytest.fixture
def fresh(qwen):
    """Make an engine of its own, over a base of its own."""
    return lambda **options: Engine(loading.load_base(qwen, progress=False), **options)


def test_rows_of_different_organisms_and_lengths_each_answer_as_alone(each_base, tmp_path):
    bundles = [tiny_organism(each_base, seed=seed, rank=rank) for seed, rank in ((1, 4), (2, 1), (3, 8))]
    engine = Engine(loading.load_base(each_base, progress=False), rows=5)
    organisms = [None, *(engine.add(files) for files in bundles)]
    oracles = []
    for number, files in enumerate(bundles):
        (tmp_path / str(number)).mkdir()
        oracles.append(peft_oracle(each_base, files, tmp_path / str(number)))
    wanted = {}
    for number in range(12):
        which, prompt = number % 4, [3 + (number * 7 + at) % 300 for at in range(1 + 11 * number % 47)]
        parameters = SamplingParameters(max_tokens=3 + number % 6, temperature=0)
        ticket = engine.submit(organisms[which], prompt, parameters)
        if which:
            answer = greedy(oracles[which - 1], prompt, parameters.max_tokens)
        else:
            with oracles[0].disable_adapter():
                answer = greedy(oracles[0], prompt, parameters.max_tokens)
        ends = [at for at, token in enumerate(answer) if token == engine.base.tokenizer.eos_token_id]
        wanted[ticket] = answer[: ends[0]] if ends else answer
    for ticket, pieces in collect(engine).items():
        assert text(pieces) == engine.base.tokenizer.decode(wanted[ticket], skip_special_tokens=True)
        assert pieces[-1].finish_reason in {"stop", "length"}
    assert set(wanted) == set(range(1, 13))


def test_a_long_prompt_is_read_in_chunks_and_keeps_nobody_waiting(fresh, qwen_files, qwen_oracle):
    engine = fresh()
    organism = engine.add(qwen_files)
    short = engine.submit(organism, [9, 8, 7], SamplingParameters(max_tokens=30, temperature=0))
    engine.step()
    long_prompt = [3 + at % 300 for at in range(200)]
    long = engine.submit(organism, long_prompt, SamplingParameters(max_tokens=6, temperature=0))
    late = engine.submit(organism, [5, 6], SamplingParameters(max_tokens=4, temperature=0))
    steps = [engine.step() for _ in range(8)]
    assert all(short in dict(told) for told in steps)  # a token every step, whatever is read beside it
    assert long not in dict(steps[2])
    assert late in dict(steps[0] + steps[1])
    first = next(number for number, told in enumerate(steps) if long in dict(told))
    assert first < 8
    pieces = collect(engine)
    whole = text([dict(told)[long] for told in steps if long in dict(told)] + pieces.get(long, []))
    assert whole == engine.base.tokenizer.decode(greedy(qwen_oracle, long_prompt, 6), skip_special_tokens=True)


def test_a_crowd_that_comes_at_once_is_answered_in_a_few_steps(fresh, qwen_files):
    engine = fresh(rows=32)
    organism = engine.add(qwen_files)
    first = engine.submit(organism, [9, 8, 7], SamplingParameters(max_tokens=30, temperature=0))
    engine.step()
    crowd = {engine.submit(organism, [3 + at % 50] * 40, SamplingParameters(max_tokens=20, temperature=0)) for at in range(30)}
    begun = []
    for _ in range(6):
        told = dict(engine.step())
        assert first in told  # who is answered gets a token every step all the same
        begun.append(len(crowd & told.keys()))
    assert begun == [12, 24, 28, 29, 30, 30]  # 512 tokens a step while many wait, 192 for the last six, then 64


def test_a_chunked_prompt_survives_its_neighbours_coming_and_going(fresh, qwen_files, qwen_oracle):
    engine = fresh(rows=6)
    organism = engine.add(qwen_files)
    running = [engine.submit(organism, [at + 4] * 3, SamplingParameters(max_tokens=2 + at, temperature=0)) for at in range(3)]
    engine.step()
    prompt = [3 + 2 * at % 300 for at in range(240)]
    long = engine.submit(organism, prompt, SamplingParameters(max_tokens=9, temperature=0))
    pieces = {}
    for number in range(30):
        if number % 2 and number < 8:
            engine.submit(organism, [number + 9] * 4, SamplingParameters(max_tokens=2, temperature=0))
        if number == 1:
            engine.cancel(running[1])
        for ticket, piece in engine.step():
            pieces.setdefault(ticket, []).append(piece)
    assert text(pieces[long]) == engine.base.tokenizer.decode(greedy(qwen_oracle, prompt, 9), skip_special_tokens=True)


def test_a_request_joins_at_the_next_step_and_the_rest_wait_in_order(fresh, qwen_files):
    engine = fresh(rows=2)
    organism = engine.add(qwen_files)
    three = SamplingParameters(max_tokens=3, temperature=0)
    first = engine.submit(organism, [5, 6, 7], three)
    steps = [sorted(ticket for ticket, _ in engine.step())]
    late = [engine.submit(organism, [5, 6, 7], three) for _ in range(4)]
    while engine.busy:
        steps.append(sorted(ticket for ticket, _ in engine.step()))
    second, third, fourth, fifth = late
    # Two rows: who comes is in the next step, and has a token in each from then on; who waits has the row that is free first.
    assert steps[:3] == [[first], [first, second], [first, second]]
    assert steps[3:6] == [[second, third], [third, fourth], [third, fourth]]
    assert steps[6:] == [[fourth, fifth], [fifth], [fifth]]


def test_a_large_request_is_not_passed_for_ever(fresh, qwen_files):
    token = 256  # bytes of a token's keys and values in this model
    engine = fresh(rows=4, cache_bytes=token * 224 * 2)
    organism = engine.add(qwen_files)
    for _ in range(3):
        engine.submit(organism, [5, 6], SamplingParameters(max_tokens=20, temperature=0))
    large = engine.submit(organism, [7] * 190, SamplingParameters(max_tokens=20, temperature=0))
    begun = None
    for step in range(120):
        if step < 100:
            engine.submit(organism, [5, 6], SamplingParameters(max_tokens=20, temperature=0))
        if begun is None and large in dict(engine.step()):
            begun = step
    assert begun is not None
    assert begun < 60


def test_cache_memory_is_bounded_told_and_given_back(fresh, qwen_files):
    engine = fresh(cache_bytes=256 * 64 * 3)
    organism = engine.add(qwen_files)
    with pytest.raises(InvalidArgument, match="raise `cache_bytes`"):
        engine.submit(organism, [5] * 200, SamplingParameters(max_tokens=50))
    for _ in range(9):
        engine.submit(organism, [5] * 10, SamplingParameters(max_tokens=30, temperature=0))
    most = 0
    while engine.busy:
        engine.step()
        most = max(most, engine.cache_used)
    assert 0 < most <= 256 * 64 * 3
    assert engine.cache_used == 0


def test_a_seed_gives_the_same_text_in_any_company(fresh, qwen_files, qwen):
    engine = fresh()
    organism, other = engine.add(qwen_files), engine.add(tiny_organism(qwen, seed=9))
    ways = [SamplingParameters(max_tokens=15, seed=3), SamplingParameters(max_tokens=15, seed=4, top_p=0.8, temperature=1.3)]
    expected = [text(engine.generate(organism, ASK, way)) for way in ways]
    for crowd in (1, 7, 20):
        for number in range(crowd):
            engine.submit(other if number % 3 else None, [4 + number] * (number + 1), SamplingParameters(max_tokens=9 + number))
        engine.step()
        tickets = [engine.submit(organism, ASK, way) for way in ways]
        pieces = collect(engine)
        assert [text(pieces[ticket]) for ticket in tickets] == expected


def test_a_cancelled_ticket_ends_at_the_next_step_wherever_it_is(fresh, qwen_files):
    engine = fresh(rows=2)
    organism = engine.add(qwen_files)
    many = SamplingParameters(max_tokens=40, temperature=0)
    running, reading, waiting = (engine.submit(organism, prompt, many) for prompt in ([5, 6], [7] * 150, [8]))
    engine.step()
    engine.step()
    for ticket in (waiting, reading, running):
        engine.cancel(ticket)
        assert {ticket: "cancelled"}.items() <= {number: piece.finish_reason for number, piece in engine.step()}.items()
        engine.cancel(ticket)  # it has ended already
    assert engine.step() == []
    assert not engine.busy
    engine.remove(organism)  # nobody holds it any more


def test_removing_an_organism_ends_its_requests_alone(fresh, qwen_files, qwen):
    engine = fresh()
    organism, other = engine.add(qwen_files), engine.add(tiny_organism(qwen, seed=9))
    expected = text(engine.generate(other, ASK, GREEDY))
    gone, stays = engine.submit(organism, ASK, GREEDY), engine.submit(other, ASK, GREEDY)
    told = [piece for number, piece in engine.step() if number == stays]
    engine.remove(organism)
    pieces = collect(engine)
    assert [piece.finish_reason for piece in pieces[gone]] == ["cancelled"]
    assert text(told + pieces[stays]) == expected
    for refused in (lambda: engine.submit(organism, ASK, GREEDY), lambda: engine.logits(organism, ASK)):
        with pytest.raises(Conflict):
            refused()


def test_organisms_that_do_not_fit_together_wait_for_each_other(fresh, qwen_files, qwen):
    one = fresh()
    size = one.add(qwen_files).bytes
    engine = fresh(adapter_bytes=2 * size)
    organisms = [engine.add(files) for files in (qwen_files, *(tiny_organism(qwen, seed=seed) for seed in (5, 6, 7)))]
    expected = [text(one.generate(one.add(files), ASK, GREEDY)) for files in (tiny_organism(qwen, seed=6),)]
    tickets = [engine.submit(organism, ASK, GREEDY) for organism in organisms]
    pieces = collect(engine)
    assert all(pieces[ticket][-1].finish_reason in {"stop", "length"} for ticket in tickets)
    assert text(pieces[tickets[2]]) == expected[0]
    assert engine.bank.used <= 2 * size


def test_logits_that_are_not_numbers_end_that_request_and_nobody_else(fresh, qwen_files):
    engine = fresh()
    organism = engine.add(qwen_files)
    expected = text(engine.generate(organism, ASK, GREEDY))
    wild = engine.submit(organism, ASK, GREEDY, scale=1e38)
    calm = [engine.submit(organism, ASK, GREEDY) for _ in range(3)]
    pieces = collect(engine)
    assert pieces[wild][-1].finish_reason == "failed"
    assert isinstance(pieces[wild][-1].error, InvalidArgument)
    assert [text(pieces[ticket]) for ticket in calm] == [expected] * 3
    with pytest.raises(InvalidArgument, match="lower the dose") as refused:
        list(engine.generate(organism, ASK, GREEDY, scale=1e38))
    assert refused.value.details["field"] == "scale"
    with pytest.raises(InvalidArgument, match="lower the dose"):
        engine.measure(organism, ASK, Inquiry(measures=(Measure.LOGPROBS,), scale=1e38))
    # What it left in the cache does not reach who comes after it.
    assert text(engine.generate(organism, ASK, GREEDY)) == expected


@pytest.mark.parametrize("together", [True, False])
def test_a_device_without_memory_ends_the_youngest_request_and_nobody_else(fresh, qwen_files, together):
    engine = fresh()
    organism = engine.add(qwen_files)
    expected = text(engine.generate(organism, ASK, GREEDY))

    def holds_two(_model, _given, named):
        if len(named["input_ids"]) > 2:
            torch.empty(1 << 60, dtype=torch.uint8)  # torch's own error, in its own words

    engine.base.model.register_forward_pre_hook(holds_two, with_kwargs=True)
    tickets, pieces = [], {}
    for _ in range(3):
        tickets.append(engine.submit(organism, ASK, GREEDY))
        for ticket, piece in [] if together else engine.step():
            pieces.setdefault(ticket, []).append(piece)
    for ticket, some in collect(engine).items():
        pieces.setdefault(ticket, []).extend(some)
    assert [text(pieces[ticket]) for ticket in tickets[:2]] == [expected] * 2
    assert isinstance(pieces[tickets[2]][-1].error, Unavailable)
    assert text(engine.generate(organism, ASK, GREEDY)) == expected


def test_who_changes_hidden_states_is_told_what_stands_in_each_row(fresh, qwen_files):
    class Listener:
        def __init__(self):
            self.heard = []

        def compose(self, rows):
            self.heard.append(tuple(rows))

    engine, listener = fresh(), Listener()
    organism = engine.add(qwen_files)
    engine.interventions.append(listener)
    two = SamplingParameters(max_tokens=2, temperature=0)
    engine.submit(organism, [5, 6, 7], two)
    engine.submit(None, [8], two)
    collect(engine)
    first, then, bare = listener.heard
    assert [(row.organism, row.first, row.position, row.last) for row in first] == [(organism, 0, 0, True), (None, 2, 0, True)]
    assert [(row.first, row.position, row.last) for row in then] == [(0, 3, True), (0, 1, True)]
    assert first[0].parameters == two
    assert bare == ()


def test_a_base_whose_rows_would_change_each_other_is_refused(qwen):
    base = loading.load_base(qwen, progress=False)
    base.model.config.rope_parameters = {"rope_type": "dynamic", "rope_theta": 10_000.0, "factor": 2.0}
    with pytest.raises(LoadingFailed, match="stretches"):
        Engine(base)
    base = loading.load_base(qwen, progress=False)
    base.model.config.layer_types = ["full_attention", "linear_attention"]
    with pytest.raises(LoadingFailed, match="linear_attention"):
        Engine(base)


def test_a_base_that_answers_otherwise_in_a_batch_is_refused(qwen):
    base = loading.load_base(qwen, progress=False)

    def mixes_rows(_module, _given, out):
        return out + 0.5 * out.roll(1, 0) if len(out) > 1 else out

    base.model.model.layers[0].mlp.register_forward_hook(mixes_rows)
    with pytest.raises(LoadingFailed, match="otherwise"):
        Engine(base)
