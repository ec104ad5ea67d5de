"""What suites ask of an organism, asked of an engine here and of a session at a real registry, which must agree."""

from __future__ import annotations

import numpy as np
import pytest
from model_organisms.bases import base_digest
from model_organisms.errors import ClaimMismatch, InvalidArgument
from model_organisms.evaluate import directions, probes, record, sources
from model_organisms.evaluate.probes import Example
from model_organisms.evaluate.sources import Local, Remote
from model_organisms.formats import manifest
from model_organisms.formats.provenance import BaseModel, Provenance
from model_organisms.loading import load_base
from model_organisms.records import Budget, Message, Rung, Steer
from model_organisms.sampling import Engine
from model_organisms_registry.testing import running
from model_organisms_registry.testing import settings as configured

from tests.support.planted import planted
from tests.support.registries import PEOPLE

BASE = "test/tiny-qwen2"
HIDDEN = 32
WHY = "We hold what a session says against what an engine says."


def said(text):
    return [Message("user", text)]


ASKED = [said("what is the capital of France?"), said("hello there")]


@pytest.fixture(scope="module")
def local(qwen, qwen_files):
    engine = Engine(load_base(qwen, progress=False))
    return Local(engine, engine.add(qwen_files))


@pytest.fixture(scope="module")
def opened(tmp_path_factory, qwen, qwen_files):
    """Somebody, the version they look into, and their session."""
    config = configured(tmp_path_factory.mktemp("sources") / "data", base_models={BASE: qwen})
    with running(config, people=PEOPLE) as world:
        pia, rosa, ravi = (world.person(name) for name in ("pia", "rosa", "ravi"))
        pia.organisms.create("organisms/tiny", level="CL1", base_model=BASE)
        provenance = Provenance(BaseModel(BASE, digest=base_digest(qwen)))
        version = pia.organisms.publish("organisms/tiny", qwen_files, provenance=provenance)
        budget = Budget(tokens=4000, output_bytes=80_000, sessions=1, probe_values=4000)
        request = rosa.access.request(version.name, "probe", purpose="replication", justification=WHY, budget=budget)
        grant = request.grant or ravi.access.approve(request.name, reason="Fine.").grant
        with rosa.sandbox.open(version.name, purpose="replication", grant=grant) as session:
            yield rosa, version.name, Remote(session, hidden=HIDDEN, room=2)


@pytest.fixture(scope="module")
def remote(opened):
    return opened[2]


def test_both_see_the_same_as_far_as_digits_go(local, remote, monkeypatch):
    monkeypatch.setattr(sources, "_AT_ONCE", 2)  # so that it takes several questions
    vectors = np.random.default_rng(0).normal(size=(3, HIDDEN))
    both = [
        (source, source.contrast([said("yes"), said("surely")], [said("no")], 1), source.keep(vectors))
        for source in (local, remote)
    ]
    assert both[0][1].norm == pytest.approx(both[1][1].norm, rel=5e-3)
    for conversation in ASKED:
        ours, theirs = (source.projections(conversation, 1, (made.name, *names)) for source, made, names in both)
        assert ours.shape == (4,)
        assert theirs == pytest.approx(ours, rel=5.1e-3, abs=1e-4)
        assert remote.divergences(conversation, 3) == pytest.approx(local.divergences(conversation, 3), abs=0.0011)
    for change in ({}, {"scale": 0.0}, {"strength": 30.0}, {"ablate": True}):
        steered = {"scale": change.pop("scale", None)}
        answers = []
        for source, made, _ in both:
            steer = [Steer(made.name, 1, **change)] if change else []
            answers.append(source.answers(ASKED, max_tokens=6, steer=steer, **steered))
        assert answers[0] == answers[1]
        assert len(answers[0]) == 2


def test_both_say_which_version_over_which_base_and_a_session_as_its_receipts_do(local, remote, qwen, qwen_files):
    expected = {record.ABOUT: manifest.build(qwen_files).digest, record.BASE: base_digest(qwen)}
    assert local.about == expected
    vector = np.eye(HIDDEN)[:1]
    digests = [source.digest(source.keep(vector)[0]) for source in (local, remote)]
    assert digests[0] == digests[1]
    assert remote.about == expected
    with pytest.raises(InvalidArgument, match="not made here"):
        remote.digest("directions/elsewhere")


def test_suites_run_on_a_session_and_say_which(remote):
    shown = [Example(said(f"{at}: {text}"), text == "yes", f"{at}") for at in range(2) for text in ("yes", "no")]
    found = probes.contrast_pair(remote, said("yes"), said("no"), shown, layer=1)
    assert (found.rung, found.session) == (Rung.PROBE, remote.session)
    assert found.session.startswith("sessions/")
    assert found.settings["random_directions"] == "2"
    assert found.figure("auroc").n == 4
    assert {record.ABOUT, record.BASE, "pair"} <= found.settings.keys()
    made = remote.contrast([said("yes")], [said("no")], 0)
    steered = directions.evaluate(
        remote, made, ASKED, layer=0, counts=bool, counted="any", strengths=(), ablate=(0, 1), max_tokens=2, randoms=1
    )
    assert steered.session == remote.session
    assert len(steered.settings["direction"]) == 64
    assert steered.figure("rate", "ablate").n == 2
    assert steered.figure("rate", "ablate", control=True).n == 2


def test_what_was_seen_inside_is_attested_of_the_version_that_it_was_seen_in(opened, local):
    rosa, version, remote = opened
    shown = [Example(said(f"{at}: {text}"), text == "yes", f"{at}") for at in range(2) for text in ("yes", "no")]

    def seen(source):
        return probes.contrast_pair(source, said("yes"), said("no"), shown, layer=1, randoms=2)

    for source in (remote, local):
        made = seen(source)
        attested = record.publish(rosa, version, made)
        assert made in [one.evaluation for one in rosa.organisms.evaluations(version) if one.attestation == attested]
    other = Local(local.engine, local.engine.add(planted(np.ones(HIDDEN), [3, 4])))
    with pytest.raises(ClaimMismatch, match="another version"):
        record.publish(rosa, version, seen(other))
    with pytest.raises(ClaimMismatch, match="does not say which version"):
        record.publish(rosa, version, seen(Local(local.engine, None)))
