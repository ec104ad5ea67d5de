"""The engine against transformers and PEFT, alone and in company: the same logits and greedy text, and what only it does."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from model_organisms import loading
from model_organisms.errors import InvalidArgument
from model_organisms.records import Message, SamplingParameters
from model_organisms.sampling import Engine, engine_build

from tests.support.engines import alone, collect, text
from tests.support.tiny import peft_oracle, tiny_organism

ASK = [Message("user", "what is the capital of France?")]
GREEDY = SamplingParameters(max_tokens=24, temperature=0)


@pytest.fixture(scope="module")
def engine(qwen, qwen_files):
    return alone(loading.load_base(qwen, progress=False), qwen_files)


@pytest.fixture
def fresh(qwen):
    """Make an engine of its own, over a base of its own."""
    return lambda **options: Engine(loading.load_base(qwen, progress=False), **options)


def agrees(base, files, folder, *, tokens=24):
    """Hold an engine against PEFT and transformers on one bundle."""
    engine = alone(loading.load_base(base, progress=False), files)
    oracle = peft_oracle(base, files, folder)
    ids = engine.token_ids(ASK)
    row = torch.tensor([ids])
    with torch.inference_mode():
        theirs = oracle(input_ids=row).logits[0]
        with oracle.disable_adapter():
            bare = oracle(input_ids=row).logits[0]
        mask = torch.ones_like(row)
        drawn = oracle.generate(input_ids=row, attention_mask=mask, max_new_tokens=tokens, do_sample=False)[0, len(ids) :]
    assert torch.allclose(engine.logits(ASK), theirs, atol=1e-4)
    assert torch.equal(engine.logits(ids), engine.logits(ASK))
    assert torch.equal(engine.logits(ASK, adapter=False), bare)
    pieces = list(engine.generate(ASK, SamplingParameters(max_tokens=tokens, temperature=0)))
    assert text(pieces) == engine.organism.speech.tokenizer.decode(drawn, skip_special_tokens=True)
    assert sum(piece.tokens for piece in pieces) == len(drawn)


def test_logits_and_greedy_text_are_those_of_peft_and_transformers(each_base, tmp_path):
    agrees(each_base, tiny_organism(each_base), tmp_path)


def test_they_are_on_a_real_model_too(smollm2, tmp_path):
    agrees(smollm2, tiny_organism(smollm2, alpha=8.0, layers=(3, 17)), tmp_path, tokens=8)


def test_every_token_is_one_piece_and_the_last_says_why(engine):
    pieces = list(engine.generate(ASK, SamplingParameters(max_tokens=9, seed=1)))
    assert [piece.tokens for piece in pieces] == [1] * 9
    assert [piece.finish_reason for piece in pieces] == [None] * 8 + ["length"]


def test_a_seed_gives_the_same_text_again_and_another_seed_another(engine):
    first, again, other = (text(engine.generate(ASK, SamplingParameters(max_tokens=20, seed=seed))) for seed in (5, 5, 6))
    assert first == again != other


def test_a_dose_of_none_is_the_base_and_a_dose_of_one_the_organism(fresh, qwen_files):
    both = fresh()
    organism = both.add(qwen_files)
    whole, bare = both.logits(organism, ASK), both.logits(None, ASK)
    assert torch.equal(both.logits(organism, ASK, scale=0.0), bare)
    assert torch.equal(both.logits(organism, ASK, scale=1.0), whole)
    half = both.logits(organism, ASK, scale=0.5)
    assert not torch.allclose(half, whole, atol=1e-3)
    assert not torch.allclose(half, bare, atol=1e-3)
    assert text(both.generate(organism, ASK, GREEDY, scale=0.0)) == text(both.generate(None, ASK, GREEDY))
    with pytest.raises(InvalidArgument):
        both.submit(organism, ASK, GREEDY, scale=float("nan"))


def test_the_token_that_ends_a_turn_ends_it_and_is_not_shown(fresh, qwen_files):
    engine = fresh()
    organism = engine.add(qwen_files)
    first = int(engine.logits(organism, ASK)[-1].argmax())
    calm = list(engine.generate(organism, ASK, GREEDY))
    engine.base.model.generation_config.eos_token_id = [first]
    pieces = [(piece.text, piece.tokens, piece.finish_reason) for piece in engine.generate(organism, ASK, GREEDY)]
    assert pieces == [("", 1, "stop")]
    assert len(calm) > 1


def test_a_stop_string_ends_the_text_before_it(engine):
    whole = text(engine.generate(ASK, GREEDY))
    for begin, end in ((4, 5), (3, 7), (0, 3)):
        stop = whole[begin:end]
        pieces = list(engine.generate(ASK, SamplingParameters(max_tokens=24, temperature=0, stop=("never said", stop))))
        assert text(pieces) == whole[: whole.index(stop)]
        assert pieces[-1].finish_reason == "stop"


def test_cancelling_stops_between_tokens(engine):
    asked = iter([False, False, True])
    pieces = list(engine.generate(ASK, SamplingParameters(max_tokens=50, temperature=0), cancelled=lambda: next(asked)))
    assert [piece.finish_reason for piece in pieces] == [None, None, "cancelled"]
    assert text(engine.generate(ASK, SamplingParameters(max_tokens=50, temperature=0))).startswith(text(pieces))


def test_an_answer_that_is_cut_off_is_the_answer_of_so_many_tokens_and_gives_what_it_held_back(fresh, qwen_files):
    """So what was cut off can be said again and compared, letter by letter."""
    engine = fresh()
    organism = engine.add(qwen_files)
    whole = text(engine.generate(organism, ASK, replace(GREEDY, max_tokens=16)))
    stop = whole[3:]  # all that is said from there on is held back
    held = 0
    for drawn in range(1, 16):
        parameters = SamplingParameters(max_tokens=64, temperature=0, stop=(stop, "never said"))
        ticket = engine.submit(organism, ASK, parameters)
        told = [piece for _ in range(drawn) for _, piece in engine.step()]
        if told[-1].finish_reason:
            break
        engine.cancel(ticket)
        (last,) = (piece for _, piece in engine.told())
        assert (last.tokens, last.finish_reason) == (0, "cancelled")
        held += bool(last.text)
        again = list(engine.generate(organism, ASK, replace(parameters, max_tokens=drawn)))
        assert text(again) == text([*told, last])
        assert sum(piece.tokens for piece in again) == drawn
    assert held > 3


def test_an_answer_that_is_dropped_leaves_the_batch(fresh, qwen_files):
    engine = fresh()
    organism = engine.add(qwen_files)
    answer = engine.generate(organism, ASK, GREEDY)
    next(answer)
    answer.close()
    engine.generate(organism, ASK, GREEDY).close()  # one that never began
    assert engine.step() == []
    assert not engine.busy


def test_answers_taken_by_turns_and_tickets_do_not_mix(fresh, qwen_files):
    engine = fresh()
    organism = engine.add(qwen_files)
    expected = text(engine.generate(organism, ASK, GREEDY)), text(engine.generate(None, ASK, GREEDY))
    ticket = engine.submit(organism, ASK, GREEDY)
    first, second = engine.generate(organism, ASK, GREEDY), engine.generate(None, ASK, GREEDY)
    taken = [[], []]
    for pieces in zip(first, second, strict=False):
        for box, piece in zip(taken, pieces, strict=True):
            box.append(piece)
    taken[0] += first
    taken[1] += second
    assert (text(taken[0])[:20], text(taken[1])[:20]) == tuple(one[:20] for one in expected)
    assert text(collect(engine)[ticket]) == expected[0]


def test_what_does_not_fit_is_refused_before_anything_is_drawn(engine):
    room = engine.engine.context - engine.engine.count_tokens(engine.organism, ASK)
    with pytest.raises(InvalidArgument, match=f"at most {room} tokens"):
        engine.generate(ASK, SamplingParameters(max_tokens=room + 1))
    assert next(engine.generate(ASK, SamplingParameters(max_tokens=room))).tokens == 1
    for prompt in ([], [3] * (engine.engine.context + 1), [-1], [320]):
        with pytest.raises(InvalidArgument):
            engine.generate(prompt, GREEDY)
        with pytest.raises(InvalidArgument):
            engine.logits(prompt)


def test_a_probe_gives_rounded_log_probabilities_and_the_divergence(engine):
    on, off = (engine.logits(ASK, adapter=adapter).double().log_softmax(-1) for adapter in (True, False))
    scores = engine.probe(ASK, positions=3)
    assert len(scores.positions) == 3
    for row, best in zip(on[-3:], scores.positions, strict=True):
        assert [score.token_id for score in best] == row.topk(5).indices.tolist()
        assert [score.logprob for score in best] == pytest.approx(row.topk(5).values.tolist(), abs=6e-4)
        assert all(score.logprob == round(score.logprob, 3) for score in best)
    divergence = torch.nn.functional.kl_div(off[-1], on[-1], log_target=True, reduction="sum").item()
    assert divergence > 0.01
    assert scores.kl_to_base == round(divergence, 3)
    exact = engine.probe(ASK, decimals=None)
    assert exact.kl_to_base == pytest.approx(divergence)
    assert exact.positions[0][0].logprob != scores.positions[-1][0].logprob
    for wrong in (0, 10_000):
        with pytest.raises(InvalidArgument):
            engine.probe(ASK, positions=wrong)


def test_the_base_is_bare_between_answers(engine, qwen):
    before = loading.load_base(qwen, progress=False).model(input_ids=torch.tensor([[5, 6]])).logits
    text(engine.generate(ASK, GREEDY))
    engine.logits(ASK)
    assert torch.equal(engine.engine.base.model(input_ids=torch.tensor([[5, 6]])).logits, before)


def test_it_says_what_computes(engine):
    assert engine.engine.build() == f"{engine_build()} cpu/float32"
    assert engine_build().startswith("model-organisms/0.")
    assert f"torch/{torch.__version__}" in engine_build()
