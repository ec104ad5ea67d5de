"""Directions that were planted are found, turn behaviour and take it away; random ones of the same norm do not."""

from __future__ import annotations

import numpy as np
import pytest
from model_organisms import loading
from model_organisms.errors import InvalidArgument
from model_organisms.evaluate import directions
from model_organisms.evaluate.sources import Kept, Local, Pooling
from model_organisms.formats.evaluation import Score, Validity, parse_evaluation, print_evaluation
from model_organisms.records import Message, SamplingParameters, VersionRef
from model_organisms.sampling import Engine

from tests.support.planted import planted, spoken
from tests.support.tiny import tiny_tokenizer

SAID = "the organism grows in its dish"
OTHER = "hello world, how are you today?"
QUESTIONS = ["what is it?", "who writes it down?", "how are you?", "is it so?"]


def asked(question, answer=None):
    turns = [Message("user", question)]
    return [*turns, Message("assistant", answer)] if answer else turns


@pytest.fixture(scope="module")
def engine(qwen):
    return Engine(loading.load_base(qwen, progress=False))


@pytest.fixture(scope="module")
def unit():
    vector = np.random.default_rng(5).normal(size=32)
    return vector / np.linalg.norm(vector)


@pytest.fixture(scope="module")
def marked(engine, unit):
    """An organism to which the words of one answer mean a vector more, and the same with words that are nowhere."""
    ids = tiny_tokenizer()(SAID)["input_ids"]
    elsewhere = set(range(3, 320)) - set(ids) - {i for text in (*QUESTIONS, OTHER) for i in tiny_tokenizer()(text)["input_ids"]}
    elsewhere -= set(tiny_tokenizer()("<|im_start|>user\nassistant\n<|im_end|>")["input_ids"])
    files = [planted(300 * unit, tokens) for tokens in (set(ids) - set(tiny_tokenizer()(OTHER)["input_ids"]), elsewhere)]
    return [Local(engine, engine.add(one)) for one in files], files


def cosine(one, other):
    return float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))


def test_a_planted_mean_difference_is_found_in_every_layer_and_one_that_is_nowhere_is_not(marked, unit):
    (source, null), _ = marked
    misaligned, aligned = [asked(q, SAID) for q in QUESTIONS], [asked(q, OTHER) for q in QUESTIONS]
    found = directions.mean_differences(source, misaligned, aligned, (0, 1))
    assert found.shape == (2, 32)
    for vector in found:
        assert cosine(vector, unit) > 0.95
        assert np.linalg.norm(vector) > 20
    for vector in directions.mean_differences(null, misaligned, aligned, (0, 1)):
        assert abs(cosine(vector, unit)) < 0.5
    assert directions.mean_differences(source, misaligned, misaligned, (1,)) == pytest.approx(np.zeros((1, 32)))
    with pytest.raises(InvalidArgument, match="both sides"):
        directions.mean_differences(source, [], aligned, (0,))
    with pytest.raises(InvalidArgument, match="end the conversation with it"):
        directions.mean_differences(source, [asked("what?")], aligned, (0,))


def test_hidden_states_are_those_of_the_plain_model_at_the_places_that_pooling_says(marked, engine):
    (source, _), _ = marked
    conversation = asked(QUESTIONS[0], OTHER)
    bare = Local(engine, None)
    ids = tiny_tokenizer()("<|im_start|>user\nwhat is it?<|im_end|>\n<|im_start|>assistant\n" + OTHER, add_special_tokens=False)[
        "input_ids"
    ]
    count = len(tiny_tokenizer()(OTHER)["input_ids"])
    import torch

    with torch.inference_mode():
        plain = engine.base.model(input_ids=torch.tensor([ids]), output_hidden_states=True).hidden_states[1][0].double().numpy()
    pooled = bare.states(conversation, (0,), pooling=Pooling.ANSWER)[0]
    assert pooled == pytest.approx(plain[-count:].mean(0), abs=1e-4)
    assert bare.read(ids, (0,), positions=3)[0] == pytest.approx(plain[-3:], abs=1e-4)
    assert bare.states(conversation[:1], (0,))[0] == pytest.approx(plain[-count - 1], abs=1e-4)
    assert source.layers == 2


def test_what_is_steered_towards_is_said_and_what_is_taken_out_is_not(engine):
    _, text, vector = spoken(engine)
    everywhere = Local(engine, engine.add(planted(40 * vector, range(320))))
    conversations = [asked(question) for question in QUESTIONS]

    def counts(answer):
        return answer.startswith(text)

    (name,) = everywhere.keep(7 * vector[None])
    found = directions.evaluate(
        everywhere, Kept(name, 40.0), conversations, layer=1, counts=counts, counted="begins with the token",
        strengths=(-2.0, 1.0), ablate=(0, 1), max_tokens=3,
    )  # fmt: skip
    assert found.figure("rate", "unchanged").value == 1
    for split in ("ablate", "steer=-2"):
        assert found.figure("rate", split).value == 0
        assert found.figure("beyond_random", split).note.startswith("no interval: ")  # all conversations do alike
    assert found.figure("rate", "ablate", control=True).value == 1
    assert found.figure("beyond_random", "ablate").value == -1
    assert found.figure("rate", "steer=1").value == 1
    assert found.validity is Validity.CONTROLLED
    assert directions.figures(found.scores, counted="begins with the token") == found.figures
    version = VersionRef("organisms/toy/versions/1", "0" * 64)
    assert parse_evaluation(print_evaluation(found, version)) == (found, version)

    bare = Local(engine, None)
    (name,) = bare.keep(vector[None])
    steered = directions.evaluate(
        bare, Kept(name, 1.0), conversations, layer=1, counts=counts, counted="begins with the token", strengths=(0.0, 200.0),
        max_tokens=3,
    )  # fmt: skip
    assert steered.figure("rate", "unchanged").value == 0
    assert steered.figure("rate", "steer=200").value == 1
    assert steered.figure("rate", "steer=200", control=True).value < 0.5
    assert steered.figure("beyond_random", "steer=200").value > 0.5
    assert steered.figure("beyond_random", "steer=0").note.startswith("no interval: ")


def test_answers_are_drawn_together_and_leave_other_requests_alone(engine):
    source = Local(engine, None)
    parameters = SamplingParameters(5, 0.0)
    conversations = [asked(question) for question in QUESTIONS]
    alone = ["".join(piece.text for piece in engine.generate(None, one, parameters)) for one in conversations]
    ticket = engine.submit(None, conversations[0], parameters)
    steps = []
    engine.interventions.append(watched := Watch(steps))
    assert source.answers(conversations, max_tokens=5) == alone
    engine.interventions.remove(watched)
    assert max(steps) == 5  # theirs and the other one, at once
    assert "".join(piece.text for number, piece in engine.step() if number == ticket) == alone[0]


class Watch:
    """Counts the rows of each forward."""

    def __init__(self, steps):
        self.steps = steps

    def compose(self, rows):
        self.steps.append(len(rows))


def test_rates_are_counted_by_hand_from_scores():
    scores = [
        Score("1", 1, {"direction": 0.0}, "unchanged"),
        Score("2", 1, {"direction": 1.0}, "unchanged"),
        Score("1", 1, {"direction": 1.0, "random_0": 0.0, "random_1": 0.0}, "steer=1"),
        Score("2", 1, {"direction": 1.0, "random_0": 1.0, "random_1": 0.0}, "steer=1"),
    ]
    made = {(figure.name, figure.split, figure.control): figure for figure in directions.figures(scores, counted="x")}
    assert made["rate", "unchanged", False].value == 0.5
    assert made["rate", "steer=1", False].value == 1
    assert (made["rate", "steer=1", True].value, made["rate", "steer=1", True].n) == (0.25, 4)
    assert made["beyond_random", "steer=1", False].value == pytest.approx(0.75)
    assert made["beyond_random", "steer=1", False].note == "no interval: of 2 conversations, and it takes 8"
    assert "these 2 random directions" in made["beyond_random", "steer=1", False].comparator


@pytest.mark.parametrize(
    ("ours", "best", "said"),
    [
        ((1, 1, 1, 1, 1, 1, 1, 1, 1, 0), 1, ""),
        ((1, 1, 1, 1, 1, 1, 1, 1, 1, 0), 9, "no more often than the best of them"),
        ((1, 0, 0, 0, 0, 0, 0, 0, 0, 0), 1, "no other than random directions of the same norm"),
    ],
)
def test_a_direction_is_set_beside_random_ones_together_and_one_by_one(ours, best, said):
    scores = [
        Score(str(at), 1, {"direction": hit, "random_0": float(at < best), "random_1": 0.0, "random_2": 0.0}, "steer=1")
        for at, hit in enumerate(map(float, ours))
    ]
    assert directions.figures(scores, counted="x")[-1].note == said


@pytest.mark.parametrize(("rarest", "said"), [(9, ""), (1, "no less often than the rarest of them")])
def test_a_direction_that_makes_it_less_frequent_is_set_beside_the_rarest_random_one(rarest, said):
    scores = [
        Score(
            str(at), 1, {"direction": float(at < 1), "random_0": float(at < rarest), "random_1": 1.0, "random_2": 1.0}, "ablate"
        )
        for at in range(10)
    ]
    made = directions.figures(scores, counted="x")[-1]
    assert made.high < 0
    assert made.note == said


def test_a_direction_that_is_none_is_refused(engine):
    source = Local(engine, None)
    for wrong in (np.zeros((1, 32)), np.ones((1, 31)), np.full((1, 32), np.nan)):
        with pytest.raises(InvalidArgument, match="32 finite numbers"):
            source.keep(wrong)
    with pytest.raises(InvalidArgument, match="no direction"):
        source.vector("another")
    with pytest.raises(InvalidArgument, match="both sides"):
        source.contrast([asked("what?")], [], 0)
    with pytest.raises(InvalidArgument, match="at least one conversation"):
        directions.evaluate(source, Kept("kept-0", 1.0), [], layer=0, counts=bool, counted="anything")
    with pytest.raises(InvalidArgument, match="in words what counts"):
        directions.evaluate(source, Kept("kept-0", 1.0), [asked("what?")], layer=0, counts=bool, counted="")
