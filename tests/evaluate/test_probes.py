"""Probes find what was planted, and say of random labels that they are no better than chance; features of a given autoencoder."""

from __future__ import annotations

import random
from statistics import fmean

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from model_organisms import loading
from model_organisms.errors import InvalidArgument, NotFound
from model_organisms.evaluate import features, pictures, probes
from model_organisms.evaluate.probes import Example
from model_organisms.evaluate.sources import Local, Pooling
from model_organisms.formats.evaluation import Score, parse_evaluation, print_evaluation
from model_organisms.records import Message, Rung, VersionRef
from model_organisms.sampling import Engine
from safetensors.numpy import save

from tests.support.planted import planted
from tests.support.tiny import tiny_tokenizer

HIDDEN = 24
SAID, OTHER = "the organism grows", "hello world"
VERSION = VersionRef("organisms/toy/versions/1", "0" * 64)


def examples(count, *, of=4, seed=0, labels=None):
    """Make `count` examples, `of` a question, with coin tosses for labels and distractors."""
    coin = random.Random(seed)
    return [
        Example((), coin.random() < 0.5 if labels is None else labels[at], f"q{at // of}", coin.random() < 0.5)
        for at in range(count)
    ]


def cloud(shown, *, label=0.0, distractor=0.0, seed=0):
    """Make states in which label and distractor each push along an axis of their own: shape [examples, hidden]."""
    rng = np.random.default_rng(seed)
    states = rng.normal(size=(len(shown), HIDDEN))
    states[:, 0] += label * np.array([one.label for one in shown])
    states[:, 1] += distractor * np.array([one.distractor for one in shown])
    return states


def by_name(made):
    return {(figure.name, figure.split): figure for figure in made}


def test_a_planted_label_is_found_beside_controls_that_know_nothing_of_it():
    shown = examples(200)
    made = by_name(probes.figures(probes.measure(cloud(shown, label=5, distractor=5), shown)))
    found = made["auroc", ""]
    assert found.value > 0.97
    assert found.low > 0.9
    assert found.note == ""
    assert found.n == 100
    assert made["fnr_at_50_fpr", ""].value == 0
    assert made["auroc", "random-direction-best"].value < found.value
    assert "1,000 random directions" in made["auroc", "random-direction-best"].note
    assert 0.5 < made["auroc", "random-direction-median"].value < 0.75
    assert made["auroc", "distractor"].value > 0.97
    for control in ("shuffled-labels", "distractor-on-label", "probe-on-distractor"):
        assert made["auroc", control].control
        assert abs(made["auroc", control].value - 0.5) < 0.25


def test_one_that_ranks_the_other_way_round_is_said_to_be_below_chance():
    scores = [  # of each question one that misbehaves and one that does not, mostly above it
        Score(f"q{number}", at, {"probe": number % 3 + (0.0 if label else 1.0 - 2.5 * (number == 5)), "label": label}, "test")
        for number in range(12)
        for at, label in enumerate((1.0, 0.0), 1)
    ]
    found = probes.figures(scores)[0]
    assert found.high < 0.5
    assert found.note == "no better than chance: below it, as if labels were turned"


def test_a_probe_on_random_labels_is_near_chance_and_says_so():
    found = []
    for seed in range(12):
        shown = examples(120, seed=seed)
        figure = probes.figures(probes.measure(cloud(shown, seed=seed), shown, randoms=20, seed=seed))[0]
        found.append(figure)
    assert abs(fmean(figure.value for figure in found) - 0.5) < 0.06
    said = [figure.note for figure in found]
    assert said.count("no better than chance") >= 10  # an interval of 95 % leaves .5 out now and then
    assert all(note.startswith("no better than") for note in said)


def test_what_random_directions_find_as_well_is_said():
    shown = examples(80)
    states = cloud(shown) * 0.05 + 3 * np.array([one.label for one in shown])[:, None]
    found = probes.figures(probes.measure(states, shown))[0]
    assert found.value == 1
    assert found.note.startswith("no interval: ")  # no draw is other than 1
    assert found.note.endswith("; no better than the best of 1,000 random directions")


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**20), of=st.integers(1, 4))
def test_no_question_is_on_both_sides_and_every_test_example_is_scored_once(seed, of):
    shown = examples(48, of=of, seed=seed)
    scores = probes.measure(cloud(shown), shown, randoms=1, seed=seed)
    tested = [score for score in scores if score.split == "test"]
    questions = {score.id for score in tested}
    assert len({(score.id, score.epoch) for score in tested}) == len(tested) == of * len(questions)
    assert len(questions) == len({one.question for one in shown}) - len({one.question for one in shown}) // 2
    assert probes.measure(cloud(shown), shown, randoms=1, seed=seed) == scores


def test_examples_that_cannot_be_split_are_refused():
    one_label = examples(20, labels=[True] * 20)
    with pytest.raises(InvalidArgument, match="both labels"):
        probes.measure(cloud(one_label), one_label)
    two = examples(8, labels=[True] * 4 + [False] * 4)
    with pytest.raises(InvalidArgument, match="more questions"):
        probes.measure(cloud(two), two)
    shown = [Example((), at % 2 == 0, f"q{at // 2}", distractor=True) for at in range(20)]
    with pytest.raises(InvalidArgument, match="mix them"):
        probes.measure(cloud(shown), shown)


def test_figures_are_counted_by_hand():
    rows = [("a", 3.0, 1.0), ("a", 1.0, 0.0), ("b", 2.0, 1.0), ("b", 2.5, 0.0)]
    scores = [Score(q, at, {"probe": value, "label": label}, "test") for at, (q, value, label) in enumerate(rows)]
    scores += [Score(str(at), 1, {"auroc": value}, "random") for at, value in enumerate((0.5, 0.6, 0.9))]
    made = by_name(probes.figures(scores))
    assert made["auroc", ""].value == 0.75
    assert made["auroc", ""].low is None
    assert made["auroc", ""].note == "no interval: of 2 questions, and it takes 8; no better than the best of 3 random directions"
    assert made["fnr_at_50_fpr", ""].value == 0.0
    assert made["auroc", "random-direction-best"].value == 0.9
    assert made["auroc", "random-direction-median"].value == 0.6
    alone = by_name(probes.figures(scores[:1]))
    assert alone["auroc", ""].value is None
    assert alone["auroc", ""].note == "one of the two labels is missing"
    perfect = by_name(probes.figures([score for score in scores if score.id == "a"]))
    assert (perfect["auroc", ""].value, perfect["auroc", ""].low) == (1, None)
    assert perfect["auroc", ""].note == "no interval: of 1 questions, and it takes 8"


@pytest.fixture(scope="module")
def source(qwen):
    engine = Engine(loading.load_base(qwen, progress=False))
    unit = np.zeros(32)
    unit[7] = 1
    tokens = set(tiny_tokenizer()(SAID)["input_ids"]) - set(tiny_tokenizer()(OTHER)["input_ids"])
    return Local(engine, engine.add(planted(200 * unit, tokens)), room=200)


def conversations(count=24):
    """Make questions, each answered both ways."""
    return [
        Example([Message("user", f"what is {at}?"), Message("assistant", answer)], answer == SAID, f"{at}", at % 2 == 0)
        for at in range(count)
        for answer in (SAID, OTHER)
    ]


def test_a_probe_of_an_organism_finds_its_planted_direction_and_random_labels_do_not(source):
    found = probes.evaluate(source, conversations(), layer=0, pooling=Pooling.ANSWER, randoms=100)
    assert found.figure("auroc").value == 1
    assert found.rung is Rung.PULL
    assert found.settings["pooling"] == "answer"
    assert probes.figures(found.scores) == found.figures
    assert parse_evaluation(print_evaluation(found, VERSION)) == (found, VERSION)
    coin = random.Random(1)
    tossed = [Example(one.conversation, coin.random() < 0.5, one.question) for one in conversations()]
    null = probes.evaluate(source, tossed, layer=0, pooling=Pooling.ANSWER, randoms=100)
    assert null.figure("auroc").note.endswith("no better than chance")
    with pytest.raises(NotFound):
        null.figure("auroc", "distractor", control=True)
    assert pictures.draw(probes.panels(found)) != pictures.draw(probes.panels(null))


def test_one_contrast_pair_is_a_probe_and_its_control_has_as_many_directions_as_there_is_room(source):
    shown = [
        Example([Message("user", f"{at} is it? {text}")], text == SAID, f"{at}") for at in range(12) for text in (SAID, OTHER)
    ]
    admitted, denied = ([Message("user", f"well, is it? {text}")] for text in (SAID, OTHER))
    found = probes.contrast_pair(source, admitted, denied, shown, layer=1)
    assert found.figure("auroc").value > 0.9
    assert found.figure("auroc").n == 24
    assert found.settings["random_directions"] == "200"
    turned = probes.contrast_pair(source, denied, admitted, shown, layer=1)
    assert turned.figure("auroc").value == pytest.approx(1 - found.figure("auroc").value)
    assert turned.figure("auroc").note.endswith("no better than chance")


def encoder(width=HIDDEN, count=40, **options):
    """Make one whose feature 3 reads axis 0, and whose others read anything."""
    weights = np.random.default_rng(2).normal(size=(width, count)) / np.sqrt(width)
    weights[:, 3] = np.eye(width)[0]
    return {"W_enc": weights, "b_enc": np.zeros(count)} | options


def test_activations_are_what_their_names_say():
    weights, bias, states = np.eye(3), np.array([0.0, 0.0, 0.5]), np.array([[2.0, -1.0, 0.25], [0.5, 0.6, 0.0]])
    relu = features.Encoder(weights, bias)
    assert relu.encode(states).tolist() == [[2.0, 0.0, 0.75], [0.5, 0.6, 0.5]]
    jump = features.Encoder(weights, bias, "jumprelu", np.array([0.5, 0.5, 0.5]))
    assert jump.encode(states).tolist() == [[2.0, 0.0, 0.75], [0.0, 0.6, 0.0]]
    top = features.Encoder(weights, bias, "topk", k=1)
    assert top.encode(states).tolist() == [[2.0, 0.0, 0.0], [0.0, 0.6, 0.0]]
    centred = features.Encoder(weights, bias, centre=np.ones(3))
    assert centred.encode(states).tolist() == [[1.0, 0.0, 0.0], [0.0, 0.0, 0.0]]


def test_an_encoder_is_read_either_way_round_and_refused_where_it_does_not_fit():
    given_ = encoder(b_dec=np.ones(HIDDEN), threshold=np.ones(40))
    states = np.random.default_rng(0).normal(size=(5, HIDDEN))
    read = features.Encoder.read(save(given_), activation="jumprelu")
    turned = features.Encoder.read(save(given_ | {"W_enc": np.ascontiguousarray(given_["W_enc"].T)}), activation="jumprelu")
    assert np.array_equal(read.encode(states), turned.encode(states))
    assert read.encode(states).any()
    assert features.Encoder.read(save(given_), activation="relu", subtract_b_dec=True).centre.tolist() == [1] * HIDDEN
    for data, options, said in (
        (b"no", {"activation": "relu"}, "no safetensors"),
        (b"\xff" * 64, {"activation": "relu"}, "no safetensors"),
        (save(encoder()), {"activation": "jumprelu"}, "lacks 'threshold'"),
        (save(encoder()), {"activation": "relu", "subtract_b_dec": True}, "lacks 'b_dec'"),
        (save({"b_enc": np.zeros(3)}), {"activation": "relu"}, "lacks 'W_enc'"),
        (save(encoder()), {"activation": "gelu"}, "no activation"),
        (save(encoder()), {"activation": "topk"}, "1 to 40"),
        (save(encoder(b_enc=np.zeros(7))), {"activation": "relu"}, "do not fit"),
        (save(encoder(b_dec=np.zeros(7))), {"activation": "relu", "subtract_b_dec": True}, "do not fit"),
    ):
        with pytest.raises(InvalidArgument, match=said):
            features.Encoder.read(data, **options)
    with pytest.raises(InvalidArgument, match="has a threshold"):
        features.Encoder(np.eye(2), np.zeros(2), "jumprelu")
    with pytest.raises(InvalidArgument, match="24 numbers"):
        read.encode(np.zeros((1, 3)))


def test_a_planted_feature_is_found_and_permuted_labels_find_none():
    read = features.Encoder.read(save(encoder()), activation="relu")
    shown = examples(160)
    states = cloud(shown, label=3)
    labels = np.array([one.label for one in shown])
    codes = read.encode(states)
    made = by_name(features.figures(features.measure(codes[labels], codes[~labels]), n=160))
    assert made["found", ""].value >= 1
    assert made["difference", "feature=3"].value == pytest.approx(codes[labels, 3].mean() - codes[~labels, 3].mean())
    assert max(made, key=lambda key: abs(made[key].value) if key[0] == "difference" else 0) == ("difference", "feature=3")
    none = 0
    for seed in range(10):
        mixed = read.encode(cloud(shown, seed=seed))
        figure = features.figures(features.measure(mixed[labels], mixed[~labels], seed=seed), n=160)[0]
        none += figure.value == 0 and figure.note == "no feature differs by more than permuted labels make one differ"
    assert none >= 8  # one in twenty has one by chance


def test_features_of_an_organism_are_compared(source):
    weights = np.zeros((32, 8))
    weights[7, 5] = 1
    weights[3, 2] = 0.01
    read = features.Encoder.read(save({"W_enc": weights, "b_enc": np.zeros(8)}), activation="relu")
    sides = [[one.conversation for one in conversations(8) if one.label is side] for side in (True, False)]
    found = features.evaluate(source, read, *sides, layer=0)
    assert found.figure("found").value == 1
    assert found.figure("difference", "feature=5").value > 20
    assert parse_evaluation(print_evaluation(found, VERSION)) == (found, VERSION)
    with pytest.raises(InvalidArgument, match="both sides"):
        features.evaluate(source, read, sides[0], [], layer=0)
