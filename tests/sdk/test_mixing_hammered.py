"""Whatever comes, goes, is evicted and composed: row i of a forward is its own organism's, or the forward fails."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule, run_state_machine_as_test
from model_organisms import loading
from model_organisms.errors import Conflict
from model_organisms.sampling.bank import Bank
from model_organisms.sampling.mixing import Mix, Mixer

from tests.support.tiny import tiny_organism

IDS = torch.tensor([[5, 17, 200, 44, 31]])
KINDS = (
    {"rank": 1, "targets": ("down_proj",), "seed": 1},
    {"rank": 1, "targets": ("down_proj",), "seed": 2},
    {"rank": 4, "targets": ("q_proj", "up_proj"), "seed": 3},
    {"rank": 4, "targets": ("q_proj", "up_proj"), "seed": 4},
    {"rank": 4, "targets": ("q_proj", "up_proj"), "seed": 5},
    {"rank": 9, "targets": ("embed_tokens", "v_proj"), "layers": None, "rslora": True},
)
BUDGET, LARGEST = 24_000, 16_200
"""Bytes of the bank, which has no room for all, and that the largest organism stays below."""
SCALES = (1.0, 1.0, 0.5, 0.0, -2.0)


@pytest.fixture(scope="module")
def parts(qwen):
    """The base, and of each kind its files, and at each scale what the one-organism loader answers."""
    base = loading.load_base(qwen, progress=False)
    bundles = [tiny_organism(qwen, **options) for options in KINDS]
    answers = {}
    for kind, files in enumerate(bundles):
        organism = loading.attach(base, files)
        for scale in set(SCALES):
            for module in organism.model.modules():
                if hasattr(module, "set_scale"):
                    module.set_scale("0", scale)
            answers[kind, scale] = forward(base.model, IDS)[0]
        base = loading.detach(organism)
    answers[None] = forward(base.model, IDS)[0]
    return base, bundles, answers


def forward(model, ids):
    with torch.inference_mode():
        return model(input_ids=ids, use_cache=False).logits


class Hammer(RuleBasedStateMachine):
    """One mixer over a bank that is too small for all."""

    base, files, answers = None, (), None

    @initialize()
    def begin(self):
        self.bank = Bank(self.base, budget=1)
        self.held = {}  # organism: kind
        self.rows = []  # what was composed: (organism or None, scale)
        self.bank.budget = BUDGET
        self.mixer = Mixer(self.base, self.bank)

    @rule(kind=st.sampled_from(range(len(KINDS))))
    def add(self, kind):
        if self.room_left():
            self.held[self.bank.add(self.files[kind])] = kind

    def room_left(self):
        """Composed ones stay: adding may find no room beside them, which is not what is tried here."""
        composed = sum(organism.bytes for organism in self.mixer.composed)
        return composed + LARGEST <= self.bank.budget and len(self.held) < 8

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def remove(self, data):
        organism = data.draw(st.sampled_from(list(self.held)))
        row = self.bank.weights(organism) if organism in self.bank.resident else None
        self.bank.remove(organism)
        del self.held[organism]
        assert row is None or not torch.count_nonzero(row)

    @rule(data=st.data())
    def compose(self, data):
        fits, chosen = 0, {}
        for organism in data.draw(st.permutations(list(self.held))):
            if fits + organism.bytes <= self.bank.budget:
                fits, chosen[organism] = fits + organism.bytes, None
        rows = data.draw(st.lists(st.tuples(st.sampled_from([None, *chosen]), st.sampled_from(SCALES)), min_size=1, max_size=7))
        self.mixer.compose([Mix(organism, scale) if organism else None for organism, scale in rows])
        self.rows = rows

    @invariant()
    def every_row_is_its_own(self):
        if not self.rows:
            return
        if any(organism and scale and organism not in self.held for organism, scale in self.rows):
            with pytest.raises(Conflict):
                forward(self.base.model, IDS.repeat(len(self.rows), 1))
            return
        for (organism, scale), row in zip(self.rows, forward(self.base.model, IDS.repeat(len(self.rows), 1)), strict=True):
            expected = self.answers[self.held[organism], scale] if organism and organism in self.held else self.answers[None]
            torch.testing.assert_close(row, expected, atol=1e-4, rtol=1e-4)

    @invariant()
    def the_budget_holds_and_tables_say_what_they_hold(self):
        assert self.bank.used <= self.bank.budget
        for table in self.mixer._tables.values():
            for place, organism in enumerate(table.holds):
                wanted = self.bank.weights(organism) if organism else torch.zeros(table.memory.shape[1])
                assert torch.equal(table.memory[place], wanted)

    def teardown(self):
        self.mixer.close()
        assert not any(module._forward_hooks for module in self.base.model.modules())
        self.bank.close()


def test_row_i_is_always_its_own_organisms(parts):
    Hammer.base, Hammer.files, Hammer.answers = parts
    run_state_machine_as_test(
        Hammer,
        settings=settings(max_examples=25, stateful_step_count=20, deadline=None, suppress_health_check=[HealthCheck.too_slow]),
    )


def test_the_hammer_hits(parts):
    """Eviction happens in it, and answers of different organisms are far apart."""
    base, bundles, answers = parts
    bank = Bank(base, budget=BUDGET)
    held = [bank.add(files) for files in bundles]
    assert len(bank.resident) < len(held)
    assert max(organism.bytes for organism in held) <= LARGEST
    told = list(answers.values())
    apart = [(one - other).abs().max() for index, one in enumerate(told) for other in told[:index] if not torch.equal(one, other)]
    assert min(apart) > 1e-2
