"""Conversations that are read for numbers in chunks: the same numbers as read whole, while others are answered."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from model_organisms import loading
from model_organisms.errors import InvalidArgument
from model_organisms.records import Inquiry, Measure, SamplingParameters, Steer
from model_organisms.sampling import Engine
from model_organisms.sampling.reading import drained

from tests.support.engines import collect, text
from tests.support.tiny import tiny_organism

LONG = [3 + at * at % 300 for at in range(200)]
"""Four chunks on a CPU, the last a short one; longer than the windows of the tiny models that have some."""
STEERS = (Steer("push", 0, 3.0), Steer("out", 1, ablate=True))
MEASURES = (Measure.LOGPROBS, Measure.KL, Measure.NORMS, Measure.PROJECTIONS, Measure.COSINES, Measure.ACTIVATIONS)


def engine_of(base, **options):
    engine = Engine(loading.load_base(base, progress=False), **options)
    for number, name in enumerate(("push", "out")):
        engine.directions.keep(name, torch.randn(32, generator=torch.Generator().manual_seed(number)))
    return engine


def wholly(engine):
    """Have everything read at once: as transformers itself computes it."""
    engine._reader._chunk = engine.context
    return engine


def test_numbers_in_chunks_are_those_of_the_whole(each_base):
    files, pairs = tiny_organism(each_base, alpha=8.0), []
    for engine in (engine_of(each_base), wholly(engine_of(each_base))):
        organism = engine.add(files)
        for name in ("push", "out"):
            engine.directions.keep(name, engine.directions.get(name), owner=organism)
        pairs.append((engine, organism))
    for positions, (steer, scale) in product((1, 9, 150), (((), None), (STEERS, 0.5))):
        inquiry = Inquiry(positions, MEASURES, (0, 1), ("push", "out"), steer=steer, scale=scale)
        ours, theirs = (engine.measure(organism, LONG, inquiry) for engine, organism in pairs)
        assert len(ours.kl) == len(ours.positions) == positions
        assert ours.kl == pytest.approx(theirs.kl, rel=1e-4, abs=1e-5)
        assert len(ours.readings) == len(theirs.readings) == 2 * 2 + 2 * 2 * 2
        for mine, wanted in zip(ours.readings, theirs.readings, strict=True):
            assert (mine.measure, mine.layer, mine.direction) == (wanted.measure, wanted.layer, wanted.direction)
            assert torch.allclose(torch.tensor(mine.values), torch.tensor(wanted.values), rtol=1e-5, atol=1e-5)
        for mine, wanted in zip(ours.positions, theirs.positions, strict=True):
            assert [score.logprob for score in mine] == pytest.approx([score.logprob for score in wanted], abs=1e-5)


def test_logits_in_chunks_are_those_of_the_whole(each_base):
    engine = engine_of(each_base)
    organism = engine.add(tiny_organism(each_base, alpha=8.0))
    seen = drained(engine._reader.read(organism, LONG, 70, scale=2.0))
    assert torch.allclose(seen.logits, engine.logits(organism, LONG, scale=2.0, last=70), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(seen.logits, engine.logits(None, LONG, last=70), atol=1e-2)


def test_a_contrast_of_long_prompts_is_that_of_whole_ones(qwen, qwen_files):
    made = []
    for engine in (engine_of(qwen), wholly(engine_of(qwen))):
        organism = engine.add(qwen_files)
        made.append(engine.contrast(organism, [LONG, [5, 6]], [LONG[:100]], 1))
    assert torch.allclose(*made, atol=1e-5, rtol=1e-5)


def test_a_neighbour_gets_a_token_between_any_two_chunks(qwen, qwen_files):
    engine = engine_of(qwen)
    organism, other = engine.add(qwen_files), engine.add(tiny_organism(qwen, seed=9))
    greedy = SamplingParameters(max_tokens=40, temperature=0)
    inquiry = Inquiry(3, (Measure.KL, Measure.ACTIVATIONS), (1,))
    expected = engine.measure(organism, LONG, inquiry)
    said = text(engine.generate(other, [5, 6, 7], greedy))
    ticket = engine.submit(other, [5, 6, 7], greedy)
    made, told, chunks = [], engine.step(), 0

    def measuring():
        made.append((yield from engine.measuring(organism, LONG, inquiry)))

    for amid in measuring():
        assert amid
        step = engine.step()
        assert ticket in dict(step)
        told, chunks = told + step, chunks + 1
    assert made == [expected]  # to the bit: the same question has the same numbers
    assert chunks == 2 * 4 - 1  # the organism's four chunks and the base's
    pieces = [piece for number, piece in told if number == ticket] + collect(engine).get(ticket, [])
    assert text(pieces) == said


def test_who_gives_up_amid_a_prompt_leaves_nothing_of_it(qwen, qwen_files):
    engine = engine_of(qwen)
    steps = engine._reader.read(engine.add(qwen_files), LONG, 1)
    next(steps)
    held = [tensor for pair in steps.gi_frame.f_locals["cache"]._held for tensor in pair]
    assert all(tensor[0, :64].any() for tensor in held)
    steps.close()
    assert not any(tensor.any() for tensor in held)
    assert not any(len(layer._forward_hooks) for layer in engine.base.model.model.layers)


def test_a_prompt_that_does_not_fit_the_cache_is_refused_by_name(qwen, qwen_files):
    engine = engine_of(qwen, cache_bytes=256 * 96)
    organism = engine.add(qwen_files)
    assert engine.measure(organism, LONG[:96], Inquiry()).kl
    with pytest.raises(InvalidArgument, match="cache_bytes") as refused:
        engine.measure(organism, LONG[:97], Inquiry())
    assert refused.value.details["tokens"] == "97"
