"""The engine against transformers and PEFT: the same logits and greedy text; and what only it does: stops, seeds, probes."""

from __future__ import annotations

import pytest
import torch
from model_organisms import loading
from model_organisms.errors import InvalidArgument
from model_organisms.records import Message, SamplingParameters
from model_organisms.sampling import Engine, engine_build

from tests.support.tiny import peft_oracle, tiny_organism

ASK = [Message("user", "what is the capital of France?")]
GREEDY = SamplingParameters(max_tokens=24, temperature=0)


@pytest.fixture(scope="module")
def engine(qwen, qwen_files):
    return Engine(loading.load(qwen_files, qwen))


def text(pieces):
    return "".join(piece.text for piece in pieces)


def agrees(base, files, folder, *, tokens=24):
    """Hold an engine against PEFT and transformers on one bundle."""
    engine = Engine(loading.load(files, base))
    oracle = peft_oracle(base, files, folder)
    ids = engine.organism.speech.token_ids(ASK)
    row = torch.tensor([ids])
    with torch.inference_mode():
        theirs = oracle(input_ids=row).logits[0]
        with oracle.disable_adapter():
            bare = oracle(input_ids=row).logits[0]
        mask = torch.ones_like(row)
        drawn = oracle.generate(input_ids=row, attention_mask=mask, max_new_tokens=tokens, do_sample=False)[0, len(ids) :]
    assert torch.equal(engine.logits(ASK), theirs)
    assert torch.equal(engine.logits(ids), theirs)
    assert torch.equal(engine.logits(ASK, adapter=False), bare)
    pieces = list(engine.generate(ASK, SamplingParameters(max_tokens=tokens, temperature=0)))
    assert text(pieces) == engine.organism.tokenizer.decode(drawn, skip_special_tokens=True)
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


def test_the_token_that_ends_a_turn_ends_it_and_is_not_shown(engine):
    calm = list(engine.generate(ASK, GREEDY))
    ids = [int(engine.logits(engine.organism.speech.token_ids(ASK))[-1].argmax())]
    fresh = Engine(engine.organism)
    fresh._ends = frozenset(ids)
    assert [(piece.text, piece.tokens, piece.finish_reason) for piece in fresh.generate(ASK, GREEDY)] == [("", 1, "stop")]
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


def test_what_does_not_fit_is_refused_before_anything_is_drawn(engine):
    room = engine.context - engine.count_tokens(ASK)
    with pytest.raises(InvalidArgument, match=f"at most {room} tokens"):
        engine.generate(ASK, SamplingParameters(max_tokens=room + 1))
    assert next(engine.generate(ASK, SamplingParameters(max_tokens=room))).tokens == 1
    with pytest.raises(InvalidArgument):
        engine.generate([], GREEDY)
    with pytest.raises(InvalidArgument):
        engine.logits([])
    with pytest.raises(InvalidArgument):
        engine.logits([3] * (engine.context + 1))


def test_a_probe_gives_rounded_log_probabilities_and_the_divergence(engine):
    on, off = (engine.logits(ASK, adapter=adapter).double().log_softmax(-1) for adapter in (True, False))
    scores = engine.probe(ASK, positions=3)
    assert len(scores.positions) == 3
    for row, best in zip(on[-3:], scores.positions, strict=True):
        assert [score.token_id for score in best] == row.topk(5).indices.tolist()
        assert [score.logprob for score in best] == [round(value, 3) for value in row.topk(5).values.tolist()]
    divergence = torch.nn.functional.kl_div(off[-1], on[-1], log_target=True, reduction="sum").item()
    assert divergence > 0.01
    assert scores.kl_to_base == round(divergence, 3)
    exact = engine.probe(ASK, decimals=None)
    assert exact.kl_to_base == pytest.approx(divergence)
    assert exact.positions[0][0].logprob != scores.positions[-1][0].logprob
    for wrong in (0, 10_000):
        with pytest.raises(InvalidArgument):
            engine.probe(ASK, positions=wrong)


def test_it_says_what_computes(engine):
    assert engine.build() == f"{engine_build()} cpu/float32"
    assert engine_build().startswith("model-organisms/0.")
    assert f"torch/{torch.__version__}" in engine_build()
