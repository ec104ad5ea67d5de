"""Steering and probing through the engine, in mixed batches, held against a PEFT model that is changed by hand."""

from __future__ import annotations

import pytest
import torch
from model_organisms import loading
from model_organisms.errors import InvalidArgument
from model_organisms.records import Inquiry, Measure, Message, SamplingParameters, Steer
from model_organisms.sampling import Engine
from model_organisms.sampling.steering import Push

from tests.sdk.test_steering import ByHand, unit
from tests.support.engines import text
from tests.support.tiny import peft_oracle, tiny_organism

ASK = [Message("user", "what is the capital of France?")]
OTHER = [Message("user", "hello there")]
ALL = tuple(Measure)


@pytest.fixture(scope="module")
def pair(each_base, tmp_path_factory):
    """Two organisms on one engine, and each as PEFT has it."""
    files = [tiny_organism(each_base, seed=seed) for seed in (1, 2)]
    engine = Engine(loading.load_base(each_base, progress=False))
    organisms = [engine.add(one) for one in files]
    oracles = [ByHand(peft_oracle(each_base, one, tmp_path_factory.mktemp("peft"))) for one in files]
    return engine, organisms, oracles


def vectors(engine, organism):
    made = {}
    for number in (1, 2):
        made[f"d{number}"] = unit(engine.directions.size, number)
        engine.directions.keep(f"d{number}", 7 * made[f"d{number}"], owner=organism)
    return made


def test_what_is_measured_is_what_a_plain_model_gives(pair):
    engine, (organism, _), (oracle, _) = pair
    made = vectors(engine, organism)
    layers = (0, len(oracle.layers) - 1)
    asked = Inquiry(3, ALL, layers, ("d1", "d2"), (Steer("d1", 0, 2.0), Steer("d2", layers[1], ablate=True)))
    measured = engine.measure(organism, ASK, asked)
    ids = organism.speech.token_ids(ASK)
    logits, states = oracle(ids, [Push(made["d1"], 0, 2.0), Push(made["d2"], layers[1], ablate=True)])
    with oracle.peft.disable_adapter():
        base, _ = oracle(ids)
    ours, theirs = (part[-3:].double().log_softmax(-1) for part in (logits, base))
    assert measured.kl == pytest.approx(((ours.exp() * (ours - theirs)).sum(-1)).tolist(), abs=1e-4)
    for scores, row in zip(measured.positions, ours, strict=True):
        assert [score.logprob for score in scores] == pytest.approx(row.topk(5).values.tolist(), abs=1e-4)
    got = {(reading.measure, reading.layer, reading.direction): reading.values for reading in measured.readings}
    for layer in layers:
        hidden = states[layer][-3:].double()
        assert got["activations", layer, ""] == pytest.approx(hidden.flatten().tolist(), abs=1e-4)
        assert got["norms", layer, ""] == pytest.approx(hidden.norm(dim=-1).tolist(), abs=1e-4)
        for name, vector in made.items():
            along = hidden @ vector.double()
            assert got["projections", layer, name] == pytest.approx(along.tolist(), abs=1e-4)
            assert got["cosines", layer, name] == pytest.approx((along / hidden.norm(dim=-1)).tolist(), abs=1e-4)
    assert len(got) == 2 * (2 + 2 * 2)


def test_steered_text_in_a_mixed_batch_is_what_a_plain_model_says(pair):
    engine, organisms, oracles = pair
    made = vectors(engine, organisms[0])
    engine.directions.keep("d1", made["d2"], owner=organisms[1])  # the same name, another's direction
    rows = [
        (0, ASK, (Steer("d1", 0, 4.0),), [Push(made["d1"], 0, 4.0)]),
        (
            1,
            OTHER,
            (Steer("d1", 1, -3.0), Steer("d1", 0, ablate=True)),
            [Push(made["d2"], 1, -3.0), Push(made["d2"], 0, ablate=True)],
        ),
        (0, OTHER, (), []),
    ]
    tickets = {}
    for which, messages, steer, pushes in rows:
        parameters = SamplingParameters(max_tokens=8, temperature=0, steer=steer)
        tickets[engine.submit(organisms[which], messages, parameters)] = (which, messages, pushes)
    drawn = dict.fromkeys(tickets, "")
    while engine.busy:
        for ticket, piece in engine.step():
            drawn[ticket] += piece.text
    for ticket, (which, messages, pushes) in tickets.items():
        speech = organisms[which].speech
        ids, ends = speech.token_ids(messages), {speech.tokenizer.eos_token_id}
        start = len(ids)
        while len(ids) < start + 8:
            token = int(oracles[which](ids, pushes)[0][-1].argmax())
            if token in ends:
                break
            ids.append(token)
        assert drawn[ticket] == speech.tokenizer.decode(ids[start:], skip_special_tokens=True)
    assert not any(layer._forward_hooks for layer in engine.base.model.get_decoder().layers)


def test_a_dose_is_a_scale_of_the_adapters(pair):
    engine, (organism, _), _ = pair
    bare = engine.measure(organism, ASK, Inquiry(2, (Measure.KL, Measure.NORMS), (0,), scale=0.0))
    assert bare.kl == (0.0, 0.0)
    full, said = (engine.measure(organism, ASK, Inquiry(2, (Measure.KL,), scale=scale)).kl for scale in (None, 1.0))
    assert full == said
    assert engine.measure(organism, ASK, Inquiry(2, (Measure.KL,), scale=2.0)).kl != full
    none, base = (
        text(engine.generate(who, ASK, SamplingParameters(max_tokens=8, temperature=0, scale=scale)))
        for who, scale in ((organism, 0.0), (None, None))
    )
    assert none == base


def test_a_contrast_is_the_difference_of_two_means(pair):
    engine, (organism, _), (oracle, _) = pair
    ours = engine.contrast(organism, [ASK, OTHER], [ASK], 1)
    asked, other = (oracle(organism.speech.token_ids(prompt))[1][1][-1].double() for prompt in (ASK, OTHER))
    assert torch.allclose(ours, (asked + other) / 2 - asked, atol=1e-4)
    for wrong in (([], [ASK], 0), ([ASK], [], 0), ([ASK], [ASK], 99)):
        with pytest.raises(InvalidArgument):
            engine.contrast(organism, *wrong)


def test_what_is_not_an_organisms_own_is_not_there(pair):
    engine, (organism, another), _ = pair
    engine.directions.keep("secret", unit(engine.directions.size, 5), owner=another)
    steered = SamplingParameters(max_tokens=2, steer=(Steer("secret", 0, 1.0),))
    for refused in (
        lambda: engine.submit(organism, ASK, steered),
        lambda: engine.submit(None, ASK, steered),
        lambda: engine.measure(organism, ASK, Inquiry(1, (Measure.COSINES,), (0,), ("secret",))),
        lambda: engine.measure(organism, ASK, Inquiry(1, steer=steered.steer)),
    ):
        with pytest.raises(InvalidArgument, match="no direction"):
            refused()
    assert not engine.busy


def test_a_direction_goes_with_its_organism(each_base):
    engine = Engine(loading.load_base(each_base, progress=False))
    organism = engine.add(tiny_organism(each_base))
    engine.directions.keep("d", unit(engine.directions.size, 5), owner=organism)
    kept = engine.directions.get("d", owner=organism)
    engine.remove(organism)
    assert not kept.any()
    with pytest.raises(InvalidArgument):
        engine.directions.get("d", owner=organism)
