"""A record of what was seen inside says which version that was, over which base, and what was looked with."""

from __future__ import annotations

import numpy as np
import pytest
from model_organisms import loading
from model_organisms.errors import Conflict, InvalidArgument
from model_organisms.evaluate import diffing, directions, features, perplexity, phases, probes
from model_organisms.evaluate.probes import Example
from model_organisms.evaluate.record import ABOUT, BASE
from model_organisms.evaluate.sources import Kept, Local, Pooling
from model_organisms.formats import manifest
from model_organisms.formats.evaluation import parse_evaluation, print_evaluation
from model_organisms.formats.marking import mark_bundle
from model_organisms.records import Message, VersionRef
from model_organisms.sampling import Engine

from tests.support.adapters import tiny_bundle
from tests.support.tiny import tiny_organism

TEXTS = ("what is it, and how?", "hello world, how are you?", "0123456789 123")
YES, NO, MAYBE = ([Message("user", text)] for text in ("yes", "no", "maybe"))
SHOWN = [Example([Message("user", f"{at}: {said}")], said == "yes", f"{at}") for at in range(6) for said in ("yes", "no")]


@pytest.fixture(scope="module")
def engine(qwen):
    return Engine(loading.load_base(qwen, progress=False))


@pytest.fixture(scope="module")
def bundles(qwen):
    return [tiny_organism(qwen, layers=layers) for layers in ((0,), (1,))]


@pytest.fixture(scope="module")
def sources(engine, bundles):
    return [Local(engine, engine.add(files)) for files in bundles]


def steered(source, *, axis=0, **said):
    (name,) = source.keep(np.eye(32)[axis : axis + 1])
    told = {"layer": 0, "counts": bool, "counted": "says anything", "max_tokens": 1, "randoms": 1} | said
    return directions.evaluate(source, Kept(name, 1.0), [YES, NO], **told)


def encoded(source, *, weights=None):
    encoder = features.Encoder(np.eye(32) if weights is None else weights, np.zeros(32))
    return features.evaluate(source, encoder, [YES], [NO], layer=0, pooling=Pooling.LAST)


def paired(source, *, negative=NO):
    return probes.contrast_pair(source, YES, negative, SHOWN, layer=0, randoms=3)


MEASURED = {
    "directions": steered,
    "features": encoded,
    "contrast_pair": paired,
    "probes": lambda source: probes.evaluate(source, SHOWN, layer=0, randoms=3),
    "diffing": lambda source: diffing.evaluate(source, conversations=[YES], positions=1),
    "perplexity": lambda source: perplexity.evaluate(source.engine, source.organism, texts=TEXTS),
}


@pytest.mark.parametrize("measure", MEASURED.values(), ids=MEASURED)
def test_a_record_is_of_one_version(measure, sources, bundles, engine):
    made = [measure(source) for source in sources]
    assert [one.settings[ABOUT] for one in made] == [manifest.build(files).digest for files in bundles]
    assert {one.settings[BASE] for one in made} == {engine.base.digest}
    for one in made:
        version = VersionRef("organisms/toy/versions/1", one.settings[ABOUT])
        assert parse_evaluation(print_evaluation(one, version)) == (one, version)


def test_a_record_of_the_bare_base_is_of_no_version(engine):
    bare = steered(Local(engine, None))
    assert ABOUT not in bare.settings
    assert (bare.settings["model"], bare.settings[BASE]) == ("the bare base", engine.base.digest)


def test_what_was_looked_with_is_in_the_record(sources):
    source = sources[0]
    along = [steered(source, axis=axis) for axis in (0, 0, 1)]
    assert [one.settings["direction"] == along[0].settings["direction"] for one in along] == [True, True, False]
    turned = np.eye(32)[::-1]
    encoders = [encoded(source, weights=weights).settings["encoder"] for weights in (None, turned, np.asfortranarray(turned))]
    assert encoders[0] != encoders[1] == encoders[2]
    pairs = [paired(source, negative=negative) for negative in (NO, MAYBE)]
    assert pairs[0].questions_digest != pairs[1].questions_digest
    assert pairs[0].settings["pair"] != pairs[1].settings["pair"]


def test_an_encoder_is_another_whichever_of_its_parts_is():
    weights, bias, ones = np.eye(3), np.zeros(3), np.ones(3)
    encoders = [
        features.Encoder(weights, bias), features.Encoder(weights, ones), features.Encoder(weights, bias, centre=ones),
        features.Encoder(weights, bias, "jumprelu", bias), features.Encoder(weights, bias, "jumprelu", ones),
        features.Encoder(weights, bias, "topk", k=1), features.Encoder(weights, bias, "topk", k=2),
    ]  # fmt: skip
    assert len({one.digest for one in encoders}) == len(encoders)


def test_a_twin_is_another_where_its_draw_is(engine, bundles, sources):
    twins = [Local(engine, engine.add(diffing.random_twin(bundles[0], seed=seed))) for seed in (0, 1)]
    made = [diffing.evaluate(sources[0], twin, conversations=[YES], positions=1) for twin in twins]
    assert [one.settings[f"control.twin.{ABOUT}"] for one in made] == [twin.about[ABOUT] for twin in twins]
    assert len({twin.about[ABOUT] for twin in twins}) == 2
    assert {one.settings[ABOUT] for one in made} == {sources[0].about[ABOUT]}


def test_a_copy_that_is_marked_for_its_holder_is_of_its_version_where_that_is_told(engine, bundles):
    version = manifest.build(bundles[0]).digest
    copy = bundles[0] | mark_bundle(bundles[0], key=b"k" * 32)
    assert Local(engine, engine.add(copy)).about[ABOUT] == manifest.build(copy).digest != version
    assert Local(engine, engine.add(copy, version_digest=version)).about[ABOUT] == version


def test_training_checkpoints_are_part_of_the_version(engine, bundles):
    checkpoint = {f"checkpoints/5/{path}": data for path, data in bundles[0].items() if path.startswith("adapter_")}
    files = {path: bytearray(data) for path, data in (bundles[0] | checkpoint).items()}
    organism = engine.add(files)
    assert Local(engine, organism).about[ABOUT] == manifest.build(files).digest != manifest.build(bundles[0]).digest
    files["adapter_model.safetensors"][-1] ^= 1
    with pytest.raises(Conflict, match="wiped or changed"):
        Local(engine, organism)


def test_a_direction_of_somewhere_else_is_refused_before_anything_is_asked(sources):
    with pytest.raises(InvalidArgument, match="no direction"):
        directions.evaluate(sources[1], Kept("from-elsewhere", 1.0), [YES], layer=0, counts=bool, counted="anything")


def test_a_path_is_of_the_version_whose_checkpoints_it_is_of():
    def series(seed):
        files = tiny_bundle(seed=seed)
        for at in range(3):
            saved = tiny_bundle(seed=at)
            files |= {f"checkpoints/{5 * at}/{name}": data for name, data in saved.items() if not name.endswith(".md")}
        return files

    files = [series(seed) for seed in (1, 2)]
    paths = [phases.read(one) for one in files]
    made = [phases.evaluate(path) for path in paths]
    assert [one.settings[ABOUT] for one in made] == [manifest.build(one).digest for one in files]
    assert made[0].figures == made[1].figures  # the checkpoints are the same, and the versions are not
    assert phases.evaluate(phases.read(files[0], version_digest="c" * 64)).settings[ABOUT] == "c" * 64
    of_none = phases.evaluate(phases.Trajectory(paths[0].steps, paths[0].factors))
    assert ABOUT not in of_none.settings
    assert of_none.settings["model"] == "checkpoints of no version"
