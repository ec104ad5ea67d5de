"""Steering, taking out and reading of hidden states, held against hooks set by hand on a PEFT model, one row at a time."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from model_organisms.errors import Conflict, InvalidArgument, LoadingFailed
from model_organisms.records import Inquiry, Measure, Steer
from model_organisms.sampling import probing
from model_organisms.sampling.steering import (
    MOST_DIRECTIONS,
    MOST_STEERS,
    Directions,
    Interventions,
    Push,
    Touch,
    mean_difference,
)

from tests.support.tiny import peft_oracle, tiny_organism

IDS = list(range(3, 14))


def unit(size, seed):
    vector = torch.randn(size, generator=torch.Generator().manual_seed(seed))
    return vector / vector.norm()


class ByHand:
    """A model whose layers are changed the plain way: one hook a layer, one row, one change after the other."""

    def __init__(self, peft):
        self.peft = peft
        self.layers = peft.get_base_model().model.layers

    def __call__(self, ids, pushes=()):
        """Run one row; give its logits, and its hidden states after each layer."""
        states, hooks = {}, []

        def changed(layer):
            def hook(_module, _given, out):
                hidden = out.clone()
                for push in pushes:
                    if push.layer == layer and push.ablate:
                        for token in range(hidden.shape[1]):
                            hidden[0, token] -= (hidden[0, token] @ push.vector) * push.vector
                for push in pushes:
                    if push.layer == layer:
                        hidden = hidden + push.strength * push.vector
                states[layer] = hidden[0]
                return hidden

            return hook

        for at, layer in enumerate(self.layers):
            hooks.append(layer.register_forward_hook(changed(at)))
        try:
            with torch.inference_mode():
                return self.peft(input_ids=torch.tensor([ids])).logits[0], states
        finally:
            for hook in hooks:
                hook.remove()


@pytest.fixture(scope="module")
def organism(each_base, tmp_path_factory):
    return peft_oracle(each_base, tiny_organism(each_base), tmp_path_factory.mktemp("peft"))


def forward(model, rows):
    with torch.inference_mode():
        return model(input_ids=torch.tensor(rows)).logits


def test_each_row_of_a_batch_gets_its_own_changes_and_readings(organism):
    size, layers = organism.config.hidden_size, len(ByHand(organism).layers)
    one, two = unit(size, 1), unit(size, 2)
    touches = [
        Touch((Push(one, 0, 3.0),), read=tuple(range(layers)), last=0),
        None,
        Touch((Push(two, layers - 1, ablate=True), Push(one, 0, -2.0, ablate=True)), read=(0, layers - 1), last=2),
        Touch((Push(one, 0, 1.5), Push(two, 0, 0.5)), read=(0,)),
    ]
    rows = [[token + at for token in IDS] for at in range(len(touches))]
    interventions = Interventions(organism.get_base_model())
    interventions.compose(touches)
    ours = forward(organism, rows)
    read = dict(interventions.read)
    interventions.close()
    assert len(read) == layers + 3
    for at, (row, touch) in enumerate(zip(rows, touches, strict=True)):
        theirs, states = ByHand(organism)(row, touch.pushes if touch else ())
        assert torch.allclose(ours[at], theirs, atol=1e-4)
        for layer in touch.read if touch else ():
            assert torch.allclose(read[at, layer], states[layer][-touch.last :], atol=1e-4)
    plain = forward(organism, rows)
    assert (plain[0] - ours[0]).abs().max() > 1e-2  # it does something
    assert torch.equal(plain[1], ours[1])  # and nothing to a row that asked for nothing


def test_hidden_states_are_those_of_transformers(organism):
    interventions = Interventions(organism.get_base_model())
    layers = len(interventions.layers)
    interventions.compose([Touch(read=tuple(range(layers)), last=0)])
    with torch.inference_mode():
        said = organism(input_ids=torch.tensor([IDS]), output_hidden_states=True).hidden_states
    for layer in range(layers - 1):  # the last of transformers' is after the final norm
        assert torch.equal(interventions.read[0, layer], said[layer + 1][0])
    interventions.close()


def test_nothing_is_hooked_when_nobody_asks(organism):
    interventions = Interventions(organism.get_base_model())

    def hooks():
        return [len(layer._forward_hooks) for layer in interventions.layers]

    before = hooks()  # transformers leaves its own there once hidden states were asked for
    interventions.compose([Touch((Push(unit(organism.config.hidden_size, 1), 0, 1.0),)), None])
    assert hooks() == [before[0] + 1, *before[1:]]
    for nothing in ([None, None], [Touch(), None], []):
        interventions.compose(nothing)
        assert hooks() == before


def test_a_batch_of_other_rows_than_composed_is_refused(organism):
    interventions = Interventions(organism.get_base_model())
    interventions.compose([Touch(read=(0,))])
    with pytest.raises(Conflict, match="1 rows were composed"):
        forward(organism, [IDS, IDS])
    with pytest.raises(InvalidArgument, match="Layer 99"):
        interventions.compose([Touch(read=(99,))])
    interventions.close()


def test_a_model_with_layers_elsewhere_is_refused():
    class Strange:
        class config:  # noqa: N801 - transformers calls it so
            @staticmethod
            def get_text_config():
                return type("Config", (), {"num_hidden_layers": 2})

        def get_decoder(self):
            return torch.nn.Linear(1, 1)

    with pytest.raises(LoadingFailed, match="layers"):
        Interventions(Strange())


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**31), count=st.integers(1, 4), close=st.booleans())
def test_what_was_taken_out_is_gone_along_every_direction_however_they_lie(seed, count, close):
    vectors = [unit(8, seed + at) for at in range(count)]
    if close:  # two that are nearly the same
        nearly = vectors[0] + 1e-3 * unit(8, seed + 100)
        vectors.append(nearly / nearly.norm())
    layer = torch.nn.Identity()

    class Model:
        class config:  # noqa: N801 - transformers calls it so
            @staticmethod
            def get_text_config():
                return type("Config", (), {"num_hidden_layers": 1})

        def get_decoder(self):
            return type("Decoder", (), {"layers": torch.nn.ModuleList([layer])})

    interventions = Interventions(Model())
    interventions.compose([Touch(tuple(Push(vector, 0, ablate=True) for vector in vectors))])
    hidden = layer(torch.randn(1, 5, 8, generator=torch.Generator().manual_seed(seed)))
    interventions.close()
    for vector in vectors:
        assert (hidden @ vector).abs().max() < 1e-4


def test_directions_belong_to_their_owner_and_are_refused_when_they_mean_nothing():
    kept = Directions(4)
    assert kept.keep("mine", [3.0, 0.0, 4.0, 0.0], owner=1) == 5.0
    assert torch.allclose(kept.get("mine", owner=1), torch.tensor([0.6, 0.0, 0.8, 0.0]))
    for name, owner in (("mine", 2), ("mine", None), ("yours", 1)):
        with pytest.raises(InvalidArgument, match="no direction"):
            kept.get(name, owner=owner)
    wrong = ([], [1.0] * 3, [1.0] * 5, [0.0] * 4, [math.nan] * 4, [math.inf, 0, 0, 0], [[1.0] * 4], [1e300] * 4)
    strange = ("abcd", [1j] * 4, torch.ones(4, dtype=torch.complex64), [1.0, "2", 3.0, 4.0], [10**400] * 4, None, [1e-300] * 4)
    for vector in (*wrong, *strange):
        with pytest.raises(InvalidArgument):
            kept.keep("wrong", vector, owner=1)
    for number in range(MOST_DIRECTIONS - 1):
        kept.keep(f"{number}", [1.0, 0, 0, 0], owner=1)
    with pytest.raises(InvalidArgument, match="no more are kept"):
        kept.keep("one too many", [1.0, 0, 0, 0], owner=1)
    kept.keep("mine", [0, 1.0, 0, 0], owner=1)  # in the place of the old one
    kept.keep("another's", [0, 1.0, 0, 0], owner=2)
    vector = kept.get("mine", owner=1)
    kept.drop(1)
    assert not vector.any()
    with pytest.raises(InvalidArgument):
        kept.get("mine", owner=1)
    assert kept.get("another's", owner=2).any()


def test_steering_that_means_nothing_is_refused():
    kept = Directions(2)
    kept.keep("d", [1.0, 0.0])
    assert [push.layer for push in kept.pushes([Steer("d", 1, 2.0)], 2)] == [1]
    for wrong in ([Steer("d", 2, 1.0)], [Steer("d", -1)], [Steer("e", 0)], [Steer("d", 0, math.nan)], [Steer("d", 0, math.inf)]):
        with pytest.raises(InvalidArgument):
            kept.pushes(wrong, 2)
    with pytest.raises(InvalidArgument, match=f"{MOST_STEERS}"):
        kept.pushes([Steer("d", 0, 1.0)] * (MOST_STEERS + 1), 2)


def test_a_mean_difference_is_one():
    positive, negative = [torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0])], [torch.tensor([1.0, 1.0])]
    assert mean_difference(positive, negative).tolist() == [1.0, 2.0]


def test_readings_are_norms_projections_and_cosines_by_position():
    hidden = {1: torch.tensor([[3.0, 4.0], [0.0, 0.0]])}
    asked = Inquiry(2, (Measure.NORMS, Measure.PROJECTIONS, Measure.COSINES, Measure.ACTIVATIONS), (1,), ("d",))
    made = probing.readings(asked, hidden, [torch.tensor([0.0, 1.0])])
    assert [(reading.measure, reading.layer, reading.direction, reading.values) for reading in made] == [
        ("norms", 1, "", (5.0, 0.0)),
        ("projections", 1, "d", (4.0, 0.0)),
        ("cosines", 1, "d", (0.8, 0.0)),
        ("activations", 1, "", (3.0, 4.0, 0.0, 0.0)),
    ]
    assert probing.readings(Inquiry(), {}, []) == ()


def test_an_inquiry_that_cannot_be_answered_is_refused():
    norms = (Measure.NORMS,)
    for wrong in (
        Inquiry(0),
        Inquiry(9),
        Inquiry(1, norms),
        Inquiry(1, norms, (2,)),
        Inquiry(1, norms, (-1,)),
        Inquiry(1, (Measure.COSINES,), (0,)),
    ):
        with pytest.raises(InvalidArgument):
            probing.check_inquiry(wrong, layers=2, tokens=8)
    probing.check_inquiry(Inquiry(8, (Measure.COSINES,), (1,), ("d",)), layers=2, tokens=8)


def test_divergence_is_never_negative_and_by_position():
    same = torch.randn(3, 7, generator=torch.Generator().manual_seed(0))
    assert probing.divergences(same, same) == (0.0, 0.0, 0.0)
    two = torch.tensor([[0.0, 0.0]]), torch.tensor([[0.0, math.log(3)]])
    assert probing.divergences(*two)[0] == pytest.approx(0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75))


def test_cosines_of_directions():
    assert probing.cosines(torch.tensor([1.0, 0.0]), [torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])]) == (1.0, 0.0)
