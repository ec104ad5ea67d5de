"""Probes and directions in a cell that sessions share, with real, tiny models: who waits for whom, and whose is what."""

from __future__ import annotations

import secrets
import threading
import time

import pytest
from model_organisms.cells.frames import Ask, Direct, Directed, Numbers
from model_organisms.errors import DeadlineExceeded, InvalidArgument, Unavailable
from model_organisms.formats import manifest
from model_organisms.loading import load_base
from model_organisms.records import Inquiry, Level, Measure, Message, NewDirection, SamplingParameters
from model_organisms.sampling import Engine
from model_organisms_registry.isolation.pool import CellPool

from tests.support.cells import permit
from tests.support.tiny import tiny_base, tiny_organism

DRAWN = SamplingParameters(max_tokens=24, temperature=1.0, seed=7)
WORDY = "many words of which a mean is to be taken, each of them read with care, " * 4
LONG = "one long text, " * 400
FEW = NewDirection(positive=((Message("user", "yes"),),), negative=((Message("user", "no"),),), layer=1, name="few")
"""A contrast that takes no time."""
MANY = NewDirection(
    positive=tuple((Message("user", f"{WORDY} {number}"),) for number in range(64)),
    negative=tuple((Message("user", f"no {WORDY} {number}"),) for number in range(64)),
    layer=1,
    name="many",
)
"""As large as one may be."""


def asked(text="what is the capital of France?"):
    return (Message("user", text),)


def said(pieces):
    return "".join(piece.text for piece in pieces)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tiny_base(tmp_path_factory.mktemp("base") / "tiny", talkative=True)


@pytest.fixture(scope="module")
def organisms(base):
    return [tiny_organism(base, seed=secrets.randbits(31)) for _ in range(3)]


@pytest.fixture(scope="module")
def pool():
    with CellPool(limit=2, rows=3, start_timeout_s=120) as kept:
        yield kept


@pytest.fixture
def room(pool, base):
    """Opens sessions in one cell, and closes them after the test."""
    opened = []

    def into(files):
        listed = manifest.build(files)
        packed = memoryview(b"".join(manifest.pack(listed.data, files)))
        opened.append(pool.open(permit(), level=Level.CL1, base=base, bundle=packed, version_digest=listed.digest))
        return opened[-1]

    yield into
    for tenant in opened:
        tenant.close()


@pytest.fixture(scope="module")
def expected(base, organisms):
    """What each organism says when it is alone."""
    engine = Engine(load_base(base, progress=False))
    return [said(engine.generate(engine.add(files), asked(), DRAWN)) for files in organisms]


def test_a_contrast_of_many_prompts_holds_up_nobody_who_shares_the_cell(room, organisms, expected):
    busy, other = room(organisms[0]), room(organisms[1])
    made = []
    making = threading.Thread(target=lambda: made.append(busy.direct(MANY)))
    making.start()
    pieces = other.sample(asked(), DRAWN, max_seconds=60)
    first = next(pieces)
    assert making.is_alive()
    assert first.text + said(pieces) == expected[1]
    making.join(60)
    assert made[0].norm > 0


def test_many_probes_at_once_hold_up_nobody_who_shares_the_cell(room, organisms, expected):
    busy, other = room(organisms[0]), room(organisms[1])
    probes = [busy.cell.begin(Ask(asked(WORDY), slot=busy.slot), Numbers) for _ in range(200)]
    assert said(other.sample(asked(), DRAWN, max_seconds=60)) == expected[1]
    with pytest.raises(DeadlineExceeded):  # who came last is not answered yet
        probes[-1].take(time.monotonic())
    assert all(probe.take(time.monotonic() + 60).kl for probe in probes)


def test_a_long_probe_holds_up_nobody_who_shares_the_cell(room, organisms, expected):
    busy, other = room(organisms[0]), room(organisms[1])
    probe = busy.cell.begin(Ask(asked(LONG), slot=busy.slot), Numbers)  # of some 60 chunks, and the base as many
    assert said(other.sample(asked(), DRAWN, max_seconds=60)) == expected[1]
    with pytest.raises(DeadlineExceeded):  # 24 tokens were drawn in between
        probe.take(time.monotonic())
    cut = busy.cell.begin(Ask(asked(LONG), slot=busy.slot), Numbers)
    assert probe.take(time.monotonic() + 60).kl
    busy.cell.cancel(cut)
    with pytest.raises(Unavailable):
        cut.take(time.monotonic() + 20)


def test_a_contrast_that_is_cancelled_or_whose_session_is_killed_ends_and_the_others_go_on(room, organisms, expected):
    patient, killed, other = (room(files) for files in organisms)
    call = patient.cell.begin(Direct(MANY, patient.slot), Directed)
    patient.cell.cancel(call)
    with pytest.raises(Unavailable, match="fewer prompts"):
        call.take(time.monotonic() + 20)
    cut = patient.cell.begin(Direct(MANY, killed.slot), Directed)
    killed.close()
    with pytest.raises(Unavailable):
        cut.take(time.monotonic() + 20)
    assert said(other.sample(asked(), DRAWN, max_seconds=60)) == expected[2]
    with pytest.raises(InvalidArgument, match="direction"):  # it was not made
        patient.probe(asked(), inquiry=Inquiry(1, (Measure.COSINES,), (1,), ("many",)))
    assert patient.direct(FEW).norm > 0


def test_a_direction_is_found_by_the_session_that_made_it_alone(room, organisms):
    mine, other = room(organisms[0]), room(organisms[0])
    mine.direct(FEW)
    along = Inquiry(1, (Measure.PROJECTIONS,), (1,), ("few",))
    assert mine.probe(asked(), inquiry=along).readings
    with pytest.raises(InvalidArgument, match="direction"):
        other.probe(asked(), inquiry=along)
