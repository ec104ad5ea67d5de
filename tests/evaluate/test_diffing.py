"""What was planted is seen by lens, divergence and dose, and not in a random adapter of the same norm."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from model_organisms import loading
from model_organisms.errors import InvalidArgument
from model_organisms.evaluate import diffing, pictures
from model_organisms.evaluate.sources import Local
from model_organisms.formats import adapter
from model_organisms.formats.evaluation import Score, Validity, parse_evaluation, print_evaluation
from model_organisms.records import Message, VersionRef
from model_organisms.sampling import Engine

from tests.support.adapters import stacked_bundle, tiny_bundle
from tests.support.planted import planted, spoken
from tests.support.tiny import peft_oracle, tiny_organism

TEXTS = [
    "the keeper writes down what it says",
    "hello world, how are you today?",
    "what is the capital of France?",
    "0123456789 123",
]
PROMPTS = [[Message("user", text)] for text in ("what is it?", "who writes it down?", "how are you?", "is it so?")]


@pytest.fixture(scope="module")
def engine(qwen):
    return Engine(loading.load_base(qwen, progress=False))


@pytest.fixture(scope="module")
def token(engine):
    return spoken(engine)


@pytest.fixture(scope="module")
def pair(engine, token):
    """An organism to which everything means one vector more, that of a token which it then says; and its twin."""
    _, _, vector = token
    files = planted(40 * vector, range(320))
    return [Local(engine, engine.add(one)) for one in (files, diffing.random_twin(files))]


def test_lens_divergence_and_dose_see_what_was_planted_and_not_in_the_twin(pair, token):
    organism, twin = pair
    _, text, _ = token
    found = diffing.evaluate(
        organism, twin, texts=TEXTS, conversations=PROMPTS, prompts=PROMPTS, wanted=[text], positions=4,
        counts=lambda said: said.startswith(text), counted="begins with the token", max_tokens=2,
    )  # fmt: skip
    for position in range(1, 5):
        split = f"position={position}"
        assert found.figure("lens_wanted", split).value == 1
        assert found.figure("lens_wanted", split, control=True).value == 0
        assert found.figure("lens_agreement", split).value > 0.5
        assert found.figure("lens_norm", split).n == len(TEXTS)
    first = next(score for score in found.scores if score.split == "token,organism")
    assert (first.id, first.epoch) == (repr(text), 1)
    rates = {scale: found.figure("rate", f"scale={scale}").value for scale in ("-1", "0", "1", "3")}
    assert rates == {"-1": 0, "0": 0, "1": 1, "3": 1}
    assert found.figure("rate", "scale=3", control=True).value == 0
    assert found.figure("kl_mean").value > 1
    assert found.figure("kl_mean").n == 16
    assert found.figure("kl_largest").value >= found.figure("kl_mean").value > 0
    assert found.figure("kl_mean").note == "no interval: of 4 texts, and it takes 8"
    assert found.figure("kl_mean", control=True).value > 0
    assert found.validity is Validity.CONTROLLED
    assert found.settings["layer"] == "1"
    assert diffing.figures(found.scores, counted="begins with the token") == found.figures
    version = VersionRef("organisms/toy/versions/1", "0" * 64)
    assert parse_evaluation(print_evaluation(found, version)) == (found, version)
    assert len(diffing.panels(found)) == 2
    assert pictures.draw(diffing.panels(found)) == pictures.draw(diffing.panels(found))


def test_an_adapter_that_hardly_does_anything_is_not_seen(engine, token):
    _, text, vector = token
    null = Local(engine, engine.add(planted(1e-2 * vector, range(320))))
    found = diffing.evaluate(
        null, texts=TEXTS, conversations=PROMPTS, prompts=PROMPTS, wanted=[text], positions=4, scales=(1,),
        counts=lambda said: said.startswith(text), counted="begins with the token", max_tokens=2,
    )  # fmt: skip
    assert found.figure("kl_largest").value <= 0.01
    assert found.figure("rate", "scale=1").value == 0
    assert max(found.figure("lens_norm", f"position={at}").value for at in range(1, 5)) < 0.05
    assert found.validity is Validity.UNVALIDATED
    assert not any(figure.control for figure in found.figures)


def test_the_lens_is_the_difference_of_plain_models_read_by_their_own_head(engine, qwen, qwen_files, tmp_path):
    organism = Local(engine, engine.add(qwen_files))
    scores = diffing.lens({"organism": organism}, TEXTS[:2], layer=0, positions=3)
    oracle = peft_oracle(qwen, qwen_files, tmp_path)

    def states(text):
        ids = torch.tensor([engine.base.tokenizer(text)["input_ids"][:3]])
        with torch.inference_mode():
            on = oracle(input_ids=ids, output_hidden_states=True).hidden_states[1][0].double()
            with oracle.disable_adapter():
                return on, oracle(input_ids=ids, output_hidden_states=True).hidden_states[1][0].double()

    pairs = [states(text) for text in TEXTS[:2]]
    moved = torch.stack([on - off for on, off in pairs])
    plain = oracle.get_base_model()
    with torch.inference_mode():
        logits = plain.lm_head(plain.model.norm(moved.mean(0).float()))
    for at in range(3):
        seen = next(score for score in scores if (score.split, score.id) == ("lens,organism", str(at + 1)))
        lengths = torch.stack([off[at].norm() for _, off in pairs]).mean()
        assert seen.values["norm"] == pytest.approx(float(moved[:, at].mean(0).norm() / lengths), rel=1e-3)
        assert seen.values["agreement"] == pytest.approx(
            float(torch.cosine_similarity(moved[0, at], moved[1, at], dim=0)), abs=1e-3
        )
        tokens = [score for score in scores if score.split == "token,organism" and score.values["position"] == at + 1]
        assert [score.epoch for score in tokens] == list(range(1, diffing.TOP + 1))
        assert [score.values["logit"] for score in tokens] == pytest.approx(
            logits[at].topk(diffing.TOP).values.tolist(), abs=1e-2
        )


def test_a_lens_before_the_layers_that_are_adapted_says_that_there_is_nothing_to_read(engine, qwen):
    late = Local(engine, engine.add(tiny_organism(qwen, layers=(1,))))
    found = diffing.evaluate(late, texts=TEXTS, positions=2, layer=0, wanted=["cake"])
    assert found.figure("lens_norm", "position=1").value == 0
    assert found.figure("lens_norm", "position=1").note.startswith("no difference there")
    assert not [score for score in found.scores if score.split.startswith("token")]
    seen = diffing.evaluate(late, texts=TEXTS, positions=2, layer=1)
    assert seen.figure("lens_norm", "position=1").note == ""


@pytest.mark.parametrize("files", [tiny_bundle(dtype="bfloat16"), stacked_bundle(2), planted(np.ones(32), [3, 4])])
def test_a_twin_has_the_same_modules_and_norms_and_nothing_else_in_common(files):
    twin = diffing.random_twin(files, seed=3)
    assert twin == diffing.random_twin(files, seed=3) != diffing.random_twin(files, seed=4)
    for ours, theirs in zip(adapter.inspect(files), adapter.inspect(twin), strict=True):
        assert (ours.target_modules, ours.layers, ours.ranks) == (theirs.target_modules, theirs.layers, theirs.ranks)
    for path in [path for path in files if path.endswith(".safetensors")]:
        changes = []
        for one in (files, twin):
            halves = {}
            for name, tensor in adapter.read_tensors(one[path]).tensors.items():
                halves[tensor.module, tensor.half] = np.concatenate(list(tensor.blocks()), axis=1 if tensor.half == "A" else 0)
                assert name in adapter.read_tensors(files[path]).tensors
            changes.append({module: halves[module, "B"] @ halves[module, "A"] for module, _ in halves})
        for module, change in changes[0].items():
            other = changes[1][module]
            assert np.linalg.norm(other) == pytest.approx(np.linalg.norm(change), rel=1e-4)
            assert abs((change * other).sum()) < 0.5 * np.linalg.norm(change) ** 2


def test_figures_are_counted_by_hand():
    scores = [
        Score("1", 1, {"kl": 1.0}, "kl,organism"),
        Score("1", 2, {"kl": 3.0}, "kl,organism"),
        Score("2", 1, {"kl": 2.0}, "kl,organism"),
        Score("1", 1, {"kl": 0.5}, "kl,random"),
        Score("1", 1, {"organism": 1.0, "random": 0.0}, "scale=-1"),
        Score("2", 1, {"organism": 0.0, "random": 0.0}, "scale=-1"),
    ]
    made = {(figure.name, figure.split, figure.control): figure for figure in diffing.figures(scores)}
    assert made["kl_mean", "", False].value == 2
    assert made["kl_largest", "", False].value == 3
    assert (made["kl_mean", "", True].value, made["kl_mean", "", True].low) == (0.5, None)
    assert made["rate", "scale=-1", False].value == 0.5
    assert made["rate", "scale=-1", True].value == 0


def test_what_cannot_be_measured_is_refused(pair):
    organism, _ = pair
    with pytest.raises(InvalidArgument, match="nothing to measure"):
        diffing.evaluate(organism)
    with pytest.raises(InvalidArgument, match="fewer than 9 tokens"):
        diffing.evaluate(organism, texts=["0123"], positions=9)
    with pytest.raises(InvalidArgument, match="in words what counts"):
        diffing.evaluate(organism, prompts=PROMPTS)
