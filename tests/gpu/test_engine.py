"""The engine on a CUDA device: PEFT's logits, transformers' greedy text, seeds, and probes, in each type."""

from __future__ import annotations

import pytest
import torch
from model_organisms import loading
from model_organisms.records import Message, SamplingParameters
from model_organisms.sampling import Engine

from tests.support.tiny import peft_oracle

pytestmark = pytest.mark.cuda
ASK = [Message("user", "what is the capital of France?")]
GREEDY = SamplingParameters(max_tokens=24, temperature=0)


@pytest.fixture(scope="module")
def engine(qwen, qwen_files, device, dtype):
    return Engine(loading.load(qwen_files, qwen, device=device, dtype=dtype))


@pytest.fixture(scope="module")
def oracle(qwen, qwen_files, device, dtype, tmp_path_factory):
    return peft_oracle(qwen, qwen_files, tmp_path_factory.mktemp("oracle"), device=device, dtype=dtype)


def text(pieces):
    return "".join(piece.text for piece in pieces)


def test_logits_are_pefts_with_the_adapter_on_and_off(engine, oracle):
    row = torch.tensor([engine.organism.speech.token_ids(ASK)], device=oracle.device)
    with torch.inference_mode():
        on = oracle(input_ids=row).logits[0].float().cpu()
        with oracle.disable_adapter():
            off = oracle(input_ids=row).logits[0].float().cpu()
    assert torch.equal(engine.logits(ASK), on)
    assert torch.equal(engine.logits(ASK, adapter=False), off)
    assert not torch.equal(on, off)


def test_greedy_text_is_that_of_transformers(engine, oracle):
    ids = engine.organism.speech.token_ids(ASK)
    row = torch.tensor([ids], device=oracle.device)
    mask = torch.ones_like(row)
    drawn = oracle.generate(input_ids=row, attention_mask=mask, max_new_tokens=24, do_sample=False)[0, len(ids) :]
    pieces = list(engine.generate(ASK, GREEDY))
    assert text(pieces) == engine.organism.tokenizer.decode(drawn, skip_special_tokens=True)
    assert sum(piece.tokens for piece in pieces) == len(drawn)


def test_a_seed_gives_the_same_text_again_there(engine):
    first, again, other = (text(engine.generate(ASK, SamplingParameters(max_tokens=20, seed=seed))) for seed in (5, 5, 6))
    assert first == again != other


def test_a_probe_is_of_the_logits_and_its_divergence_of_both(engine):
    on, off = (engine.logits(ASK, adapter=adapter).double().log_softmax(-1) for adapter in (True, False))
    scores = engine.probe(ASK, positions=2, decimals=None)
    for row, best in zip(on[-2:], scores.positions, strict=True):
        assert [score.token_id for score in best] == row.topk(5).indices.tolist()
        assert [score.logprob for score in best] == pytest.approx(row.topk(5).values.tolist(), abs=1e-5)
    divergence = torch.nn.functional.kl_div(off[-1], on[-1], log_target=True, reduction="sum").item()
    assert scores.kl_to_base == pytest.approx(divergence, abs=1e-5)
    assert divergence > 0.01


def test_it_says_what_computes(engine, device, dtype):
    assert engine.build().endswith(f"/{dtype}")
    assert engine.build().split()[-1].startswith(torch.device(device).type)
