"""The batch under everything that can happen to it, in any order: whatever comes and goes, each answer is its own oracle's."""

from __future__ import annotations

import functools

import pytest
import torch
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, multiple, rule
from model_organisms import loading
from model_organisms.errors import Unavailable
from model_organisms.records import SamplingParameters, Steer
from model_organisms.sampling import Engine

from tests.support.tiny import ARCHITECTURES, peft_oracle, tiny_base, tiny_organism

KINDS = ({"rank": 4}, {"rank": 1, "seed": 2}, {"rank": 8, "seed": 3, "targets": ("v_proj", "o_proj", "up_proj")}, {"seed": 4})
STEPS = 12
"""Longest answer."""
STEER = Steer("push", 0, 40.0)


@functools.cache
def world(arch):
    """A base, bundles over it, and PEFT's own models of each; the last is the bare base."""
    import tempfile
    from pathlib import Path

    folder = Path(tempfile.mkdtemp())
    base = tiny_base(folder / "base", arch)
    bundles = [tiny_organism(base, **kind) for kind in KINDS]
    oracles = []
    for number, files in enumerate(bundles):
        (folder / str(number)).mkdir()
        oracles.append(peft_oracle(base, files, folder / str(number)))
    return base, bundles, oracles


@functools.cache
def oracle(arch, which, prompt):
    """Give the likeliest next tokens of one organism alone, one whole forward each, and the least lead of any of them."""
    _, _, oracles = world(arch)
    model = oracles[which or 0]
    ids, lead = list(prompt), float("inf")
    with torch.inference_mode():
        for _ in range(STEPS):
            if which is None:
                with model.disable_adapter():
                    best = model(input_ids=torch.tensor([ids])).logits[0, -1].topk(2)
            else:
                best = model(input_ids=torch.tensor([ids])).logits[0, -1].topk(2)
            lead = min(lead, float(best.values[0] - best.values[1]))
            ids.append(int(best.indices[0]))
    return ids[len(prompt) :], lead


@functools.cache
def push():
    """Give the direction that some requests are steered along."""
    return torch.randn(32, generator=torch.Generator().manual_seed(3))


@functools.cache
def alone(arch, which):
    """Give an engine for one organism."""
    base, bundles, _ = world(arch)
    engine = Engine(loading.load_base(base, progress=False))
    organism = engine.add(bundles[which])
    engine.directions.keep("push", push(), owner=organism)
    return engine, organism


@functools.cache
def steered(arch, which, prompt, tokens):
    """Give what one organism says under `STEER` alone, and why it ends; `test_steering.py` holds that against hooks by hand."""
    engine, organism = alone(arch, which)
    pieces = list(engine.generate(organism, prompt, SamplingParameters(max_tokens=tokens, temperature=0, steer=(STEER,))))
    return "".join(piece.text for piece in pieces), pieces[-1].finish_reason


@functools.cache
def known_answers(arch):
    """Give the answer each bundle of `world` was published with."""
    base, bundles, _ = world(arch)
    attached = [loading.attach(loading.load_base(base, progress=False), files) for files in bundles]
    return [loading.compute_known_answer(one.model, one.tokenizer) for one in attached]


@functools.cache
def largest(arch):
    """Bytes of the largest bundle of `world` in an engine."""
    base, bundles, _ = world(arch)
    engine = Engine(loading.load_base(base, progress=False))
    return max(engine.add(files).bytes for files in bundles)


class Batching(RuleBasedStateMachine):
    """Organisms come, go and are evicted; requests come, end, and are cancelled; prompts are short, long, and in chunks."""

    arch = "qwen2"
    organisms = Bundle("organisms")
    tickets = Bundle("tickets")

    def __init__(self):
        super().__init__()
        base, _, _ = world(self.arch)
        size = largest(self.arch)
        self.engine = Engine(
            loading.load_base(base, progress=False), rows=5, adapter_bytes=2 * size, cache_bytes=256 * 160 * 5, context=150
        )
        self.engine._batch.line._chunk = 8  # so that most prompts are long
        self.asked = {}
        self.taken = {}
        self.reasons = {}
        self.kinds = {}

    @initialize(target=organisms)
    def begin(self):
        return multiple(*(self.engine_add(which) for which in (0, 1)))

    def engine_add(self, which):
        organism = self.engine.add(world(self.arch)[1][which], known_answer=known_answers(self.arch)[which])
        self.engine.directions.keep("push", push(), owner=organism)
        self.kinds[organism] = which
        return organism

    @rule(target=organisms, which=st.integers(0, len(KINDS) - 1))
    def add(self, which):
        try:
            return self.engine_add(which)
        except Unavailable:  # those being answered fill the budget
            assert self.engine._batch.inside
            return multiple()

    @rule(organism=consumes(organisms))
    def remove(self, organism):
        self.engine.remove(organism)
        assert organism not in self.engine.bank

    @rule(
        target=tickets,
        organism=organisms,
        bare=st.booleans(),
        prompt=st.tuples(st.integers(3, 300), st.sampled_from([1, 2, 3, 5, 8, 9, 17, 30, 66, 120])),
        tokens=st.integers(1, STEPS),
        how=st.sampled_from(["greedy", "cold", "steered"]),
    )
    def submit(self, organism, bare, prompt, tokens, how):
        ids = tuple(3 + (prompt[0] * 31 + at * at) % 300 for at in range(prompt[1]))
        which = None if bare else self.kinds[organism]
        # A temperature near none draws the likeliest too, by the other way through the chooser.
        steer = how == "steered" and not bare
        parameters = SamplingParameters(
            max_tokens=tokens, temperature=1e-9 if how == "cold" else 0.0, seed=prompt[0], steer=(STEER,) if steer else ()
        )
        ticket = self.engine.submit(None if bare else organism, ids, parameters)
        self.asked[ticket] = which, ids, tokens, steer
        self.taken[ticket] = ""
        return ticket

    @rule(ticket=tickets)
    def cancel(self, ticket):
        self.engine.cancel(ticket)

    @rule(times=st.integers(1, 6))
    def step(self, times):
        for _ in range(times):
            self.hear(self.engine.step())

    def hear(self, told):
        for ticket, piece in told:
            assert ticket not in self.reasons
            self.taken[ticket] += piece.text
            if piece.finish_reason:
                self.reasons[ticket] = piece.finish_reason

    @invariant()
    def bounds_hold(self):
        engine = self.engine
        assert engine.cache_used <= engine._forward.cache.budget
        assert engine.bank.used <= engine.bank.budget
        assert len(engine._batch.inside) <= 5

    def teardown(self):
        for _ in range(600):
            if not self.engine.busy:
                break
            self.hear(self.engine.step())
        assert not self.engine.busy  # nobody waits for ever
        assert set(self.reasons) == set(self.asked)
        tokenizer = self.engine.base.tokenizer
        for ticket, (which, ids, tokens, steer) in self.asked.items():
            if steer:
                if self.reasons[ticket] == "cancelled":
                    said = steered(self.arch, which, ids, STEPS)[0]
                    assert said.startswith(self.taken[ticket].rstrip("\N{REPLACEMENT CHARACTER}"))
                else:
                    assert (self.taken[ticket], self.reasons[ticket]) == steered(self.arch, which, ids, tokens)
                continue
            answer, lead = oracle(self.arch, which, ids)
            if lead < 1e-4:
                continue  # the oracle itself might say either
            answer = answer[:tokens]
            ended = tokenizer.eos_token_id in answer
            said = tokenizer.decode(answer[: answer.index(tokenizer.eos_token_id)] if ended else answer, skip_special_tokens=True)
            if self.reasons[ticket] == "cancelled":
                assert said.startswith(self.taken[ticket].rstrip("\N{REPLACEMENT CHARACTER}"))
            else:
                assert self.taken[ticket] == said
                assert self.reasons[ticket] == ("stop" if ended else "length")
        assert self.engine.cache_used == 0


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_whatever_comes_and_goes_each_answer_is_its_own_organisms(arch):
    from hypothesis.stateful import run_state_machine_as_test

    machine = type("Batching", (Batching,), {"arch": arch})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=10,
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow],
            phases=[Phase.explicit, Phase.reuse, Phase.generate],  # making a failure smaller would take minutes
        ),
    )
