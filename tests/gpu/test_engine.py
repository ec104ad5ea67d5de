"""The engine on a CUDA device: PEFT's logits, transformers' greedy text, seeds, and probes, in each type."""

from __future__ import annotations

import pytest
import torch
from model_organisms import loading
from model_organisms.records import Message, SamplingParameters

from tests.support.engines import alone, text
from tests.support.tiny import peft_oracle

pytestmark = pytest.mark.cuda
ASK = [Message("user", "what is the capital of France?")]
GREEDY = SamplingParameters(max_tokens=24, temperature=0)


def slack(dtype):
    """Give what the adapter's part may differ by: it is computed in another order than PEFT's."""
    return {"float32": 1e-4, "float16": 1e-2, "bfloat16": 8e-2}[dtype]


@pytest.fixture(scope="module")
def engine(qwen, qwen_files, device, dtype):
    return alone(loading.load_base(qwen, device=device, dtype=dtype), qwen_files)


@pytest.fixture(scope="module")
def oracle(qwen, qwen_files, device, dtype, tmp_path_factory):
    return peft_oracle(qwen, qwen_files, tmp_path_factory.mktemp("oracle"), device=device, dtype=dtype)


def test_logits_are_pefts_with_the_adapter_on_and_off(engine, oracle, dtype):
    row = torch.tensor([engine.token_ids(ASK)], device=oracle.device)
    with torch.inference_mode():
        on = oracle(input_ids=row).logits[0].float().cpu()
        with oracle.disable_adapter():
            off = oracle(input_ids=row).logits[0].float().cpu()
    assert torch.allclose(engine.logits(ASK), on, atol=slack(dtype), rtol=slack(dtype))
    assert torch.equal(engine.logits(ASK, adapter=False), off)
    assert not torch.equal(on, off)


def test_greedy_text_is_that_of_transformers(engine, oracle):
    ids = engine.token_ids(ASK)
    row = torch.tensor([ids], device=oracle.device)
    mask = torch.ones_like(row)
    drawn = oracle.generate(input_ids=row, attention_mask=mask, max_new_tokens=24, do_sample=False)[0, len(ids) :]
    pieces = list(engine.generate(ASK, GREEDY))
    assert text(pieces) == engine.engine.base.tokenizer.decode(drawn, skip_special_tokens=True)
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
    assert engine.engine.build().endswith(f"/{dtype}")
    assert engine.engine.build().split()[-1].startswith(torch.device(device).type)


def test_rows_of_different_lengths_answer_as_alone_there(engine):
    many = engine.engine
    prompts = [[3 + (7 * number + at) % 300 for at in range(1 + 9 * number)] for number in range(8)]
    said = [text(engine.generate(prompt, GREEDY)) for prompt in prompts]
    tickets = [many.submit(engine.organism, prompt, GREEDY) for prompt in prompts]
    together = dict.fromkeys(tickets, "")
    while many.busy:
        for ticket, piece in many.step():
            together[ticket] += piece.text
    same = sum(together[ticket] == alone for ticket, alone in zip(tickets, said, strict=True))
    assert same >= 6  # in half precision a near-tie may fall otherwise in another batch (docs/engine.md)
