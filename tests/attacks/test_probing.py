"""Somebody wants more of hidden states than they may: by a lower rung, past the budget, by odd vectors, by others' directions."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from model_organisms import errors, wire
from model_organisms.bases import base_digest
from model_organisms.formats.provenance import BaseModel, Provenance
from model_organisms.loading import load_base
from model_organisms.records import Budget, Inquiry, Measure, Message, SamplingParameters, Steer
from model_organisms.sampling import Engine
from model_organisms.v1 import records_pb2, sandbox_pb2
from model_organisms_registry.testing import running, settings

from tests.support.registries import PEOPLE

BASE = "test/tiny-qwen2"
WHY = "We look for a direction that tells of a harmless toy."
ASK = "What is the capital of France?"
SAID = [sandbox_pb2.Message(role="user", content=ASK)]
HIDDEN, LAYERS = 32, 2
ALONG = [1.0] * HIDDEN
CALLERS = 8


@pytest.fixture(scope="module")
def world(tmp_path_factory, qwen):
    config = settings(tmp_path_factory.mktemp("probing") / "data", base_models={BASE: qwen})
    with running(config, people=PEOPLE) as running_world:
        yield running_world


@pytest.fixture(scope="module")
def version(world, qwen, qwen_files):
    pia = world.person("pia")
    pia.organisms.create("organisms/tiny", level="CL1", base_model=BASE)
    stated = Provenance(BaseModel(BASE, digest=base_digest(qwen)))
    return pia.organisms.publish("organisms/tiny", qwen_files, provenance=stated)


@pytest.fixture
def opened(world, version):
    """Opens sessions, each under a grant of its own."""
    sessions = []

    def of(rung="probe", values=400, who="rosa"):
        person = world.person(who, "researcher")
        budget = Budget(tokens=400, output_bytes=8000, sessions=1, probe_values=values if rung != "sample" else 0)
        request = person.access.request(version.name, rung, purpose="replication", justification=WHY, budget=budget)
        grant = request.grant or world.person("ravi").access.approve(request.name, reason="Fine.").grant
        sessions.append(person.sandbox.open(version.name, purpose="replication", grant=grant))
        return sessions[-1]

    yield of
    for session in sessions:
        world.person("ravi").access.revoke(session.record.grant, reason="The test is over.")


def spent(world, session):
    return world.person("ravi").sandbox.get(session.name).spent


@pytest.mark.parametrize(
    "ask",
    [
        lambda session: session.probe(ASK),
        lambda session: session.probe(ASK, measures=["norms"], layers=[0]),
        lambda session: session.activations(ASK, [0]),
        lambda session: session.direction(["yes"], ["no"], 0),
        lambda session: session.direction(vector=ALONG),
        lambda session: session.sample(ASK, scale=0.5),
        lambda session: session.sample(ASK, scale=1.0),
        lambda session: session.sample(ASK, steer=[Steer(f"{session.name}/directions/1", 0, 1.0)]),
        lambda session: session.sample(ASK, steer=[Steer(f"{session.name}/directions/1", 0, ablate=True)]),
    ],
    ids=["probe", "norms", "activations", "contrast", "vector", "scale", "scale-one", "steer", "ablate"],
)
def test_a_grant_to_sample_gives_no_numbers_and_no_changes(world, opened, ask):
    session = opened("sample")
    kept = sorted((world.folder / "blobs" / "contents").rglob("*"))
    with pytest.raises(errors.GrantRequired, match="probe"):
        ask(session)
    assert sorted((world.folder / "blobs" / "contents").rglob("*")) == kept
    assert spent(world, session) == Budget()
    assert session.sample(ASK, max_tokens=2).receipt.tokens


@pytest.mark.parametrize(
    ("ask", "cost"),
    [
        (lambda session, _: session.probe(ASK), 11),
        (lambda session, other: session.direction(["yes"], ["no"], 0, compared=[other]), 2),
        (lambda session, _: session.probe(ASK, measures=["norms"], layers=[0, 1], positions=2), 4),
    ],
    ids=["probe", "contrast", "norms"],
)
def test_of_many_askers_where_one_can_be_paid_one_gets_numbers(world, opened, ask, cost):
    """What is left is one number short of two answers."""
    session = opened(values=1 + 2 * cost - 1)
    other = session.direction(vector=ALONG)
    start = threading.Barrier(CALLERS)

    def call(_):
        start.wait()
        try:
            return ask(session, other)
        except errors.ModelOrganismsError as error:
            return error

    with ThreadPoolExecutor(CALLERS) as pool:
        results = list(pool.map(call, range(CALLERS)))
    refused = [one for one in results if isinstance(one, Exception)]
    assert {type(one) for one in refused} == {errors.BudgetExhausted}
    assert len(refused) == CALLERS - 1
    assert spent(world, session).probe_values == 1 + cost


def raw(session, **request):
    message = sandbox_pb2.MakeDirectionRequest(session=session.name, **request)
    return session._channel.call(session._stub.MakeDirection, message)


def test_vectors_that_are_no_directions_are_refused_and_cost_nothing(world, opened):
    session = opened()
    odd = [[], [1.0] * (HIDDEN - 1), [1.0] * (HIDDEN + 1), [1.0] * 65_536, [1.0] * 65_537, [0.0] * HIDDEN]
    odd += [[*ALONG[1:], number] for number in (float("nan"), float("inf"), float("-inf"))]
    for values in odd:
        with pytest.raises(errors.InvalidArgument):
            raw(session, vector=sandbox_pb2.Vector(values=values))
    with pytest.raises(errors.InvalidArgument):
        session.direction(vector=[1e39] * HIDDEN)
    assert spent(world, session).probe_values == 0
    for small_or_large in (1e-45, 3.4e38):  # a length they have
        made = session.direction(vector=[small_or_large] * HIDDEN)
        assert session.probe(ASK, measures=["cosines"], layers=[0], directions=[made]).readings
    assert spent(world, session).probe_values == 4


def test_no_more_directions_are_kept_than_a_session_may_have(world, opened):
    session = opened()
    made = [session.direction(vector=[*ALONG[1:], float(number)]) for number in range(64)]
    with pytest.raises(errors.InvalidArgument, match="64 directions"):
        session.direction(vector=ALONG)
    assert spent(world, session).probe_values == 64
    assert session.probe(ASK, measures=["cosines"], layers=[0], directions=made[:1]).readings


def test_changes_that_mean_nothing_are_refused_and_the_session_goes_on(world, opened):
    session = opened()
    name = session.direction(vector=ALONG).name
    nan, inf = float("nan"), float("inf")
    odd = [[Steer(name, 0, strength)] for strength in (nan, inf, -inf, 1.1e6, 0.0)]
    odd += [[Steer(name, LAYERS, 1.0)], [Steer(name, 4097, 1.0)], [Steer(name, 0, 1.0)] * 9]
    odd += [[Steer(other, 0, 1.0)] for other in ("", "directions/1", f"{session.name}/directions/99", f"{name}/../1", "x" * 9999)]
    for steer in odd:
        for ask in (lambda steer: session.sample(ASK, steer=steer), lambda steer: session.probe(ASK, steer=steer)):
            with pytest.raises(errors.InvalidArgument):
                ask(steer)
    for scale in (nan, inf, -inf, -0.1, 1001.0):
        for ask in (lambda scale: session.sample(ASK, scale=scale), lambda scale: session.probe(ASK, scale=scale)):
            with pytest.raises(errors.InvalidArgument):
                ask(scale)
    assert spent(world, session) == Budget(probe_values=1)
    far = [Steer(name, at % LAYERS, 1e6) for at in range(8)]
    session.sample(ASK, max_tokens=2, steer=far, scale=1000.0)
    assert session.sample(ASK, max_tokens=2).receipt.tokens


def test_inquiries_that_mean_nothing_are_refused_and_cost_nothing(world, opened):
    session = opened()
    name = session.direction(vector=ALONG).name
    known = Inquiry(1, (Measure.COSINES,), (0,), (name,))
    odd = [
        replace(known, positions=0),
        replace(known, positions=65),
        replace(known, positions=64, measures=(Measure.KL,)),  # the prompt has fewer
        replace(known, measures=()),
        replace(known, measures=(Measure.COSINES,) * 2),
        replace(known, layers=()),
        replace(known, layers=(0, 0)),
        replace(known, layers=(LAYERS,)),
        replace(known, layers=tuple(range(129))),
        replace(known, directions=()),
        replace(known, directions=(name, name)),
        replace(known, directions=tuple(f"{session.name}/directions/{number}" for number in range(1, 34))),
    ]
    for inquiry in odd:
        asked = sandbox_pb2.ProbeRequest(
            session=session.name,
            messages=[sandbox_pb2.Message(role="user", content="a")],
            inquiry=wire.to_message(inquiry, sandbox_pb2.Inquiry),
        )
        with pytest.raises(errors.InvalidArgument):
            session._channel.call(session._stub.Probe, asked)
    assert spent(world, session) == Budget(probe_values=1)


def test_a_direction_of_another_session_is_named_in_vain(world, opened):
    """Whether it is there or not, and whoever made it, the answer is the same."""
    mine, other, theirs = opened(), opened(), opened(who="rolf")
    told = set()
    for name in (mine.direction(vector=ALONG).name, theirs.direction(vector=ALONG).name, f"{theirs.name}/directions/77"):
        for ask in (
            lambda name: other.probe(ASK, measures=["projections"], layers=[0], directions=[name]),
            lambda name: other.sample(ASK, steer=[Steer(name, 0, 1.0)]),
            lambda name: other.direction(vector=ALONG, compared=[name]),
        ):
            with pytest.raises(errors.InvalidArgument) as refused:
                ask(name)
            told.add(refused.value.message)
    assert told == {"A direction is of the session that made it; make it in this one."}
    assert spent(world, other) == Budget()
    with pytest.raises(errors.InvalidArgument, match="no direction"):  # the same number, where none was made
        other.probe(ASK, measures=["projections"], layers=[0], directions=[f"{other.name}/directions/1"])


def test_somebody_elses_session_makes_no_directions(world, opened):
    session = opened()
    theirs = world.person("rolf", "researcher").sandbox
    stranger = type(session)(theirs, session.record, theirs._channel, theirs._audit)
    for ask in (lambda: stranger.direction(vector=ALONG), lambda: stranger.probe(ASK, measures=["norms"], layers=[0])):
        with pytest.raises((errors.NotFound, errors.GrantRequired)):
            ask()


def test_asking_again_averages_nothing_out_and_costs_again(world, opened):
    session = opened()
    direction = session.direction(vector=ALONG)
    asked = {"measures": ["logprobs", "kl", "norms", "projections", "cosines"], "layers": [0, 1], "directions": [direction]}
    first, second = (session.probe(ASK, **asked) for _ in range(2))
    assert (first.positions, first.kl, first.readings) == (second.positions, second.kl, second.readings)
    assert spent(world, session).probe_values == 1 + 2 * (10 + 1 + 2 + 2 + 2)


def test_what_rounding_hides_can_be_had_by_steering_and_every_digit_is_paid_for(world, opened, qwen, qwen_files):
    """SECURITY.md says so: rounding is a price, and the budget of numbers is the bound."""
    engine = Engine(load_base(qwen, progress=False))
    organism = engine.add(qwen_files)
    engine.directions.keep("along", ALONG, owner=organism)
    inquiry = Inquiry(1, (Measure.PROJECTIONS,), (0,), ("along",))
    (exact,) = engine.measure(organism, [Message("user", ASK)], inquiry).readings[0].values
    session = opened()
    name, known = session.direction(vector=ALONG).name, 0.0
    for _ in range(3):
        steer = [Steer(name, 0, -known)] if known else []
        (rest,) = session.probe(ASK, measures=["projections"], layers=[0], directions=[name], steer=steer).readings[0].values
        known += rest
    assert abs(known - exact) < 2e-5 * abs(exact)
    assert spent(world, session).probe_values == 1 + 3


def test_a_local_session_is_neither_steered_nor_read(world, version):
    """Its holder has the weights; what the registry counts and keeps of it is text and plain scores."""
    rosa = world.person("rosa")
    request = rosa.access.request(version.name, "pull", purpose="replication", justification=WHY)
    grant = request.grant or world.person("ravi").access.approve(request.name, reason="Fine.").grant
    stub, call = rosa.sandbox._stub, rosa._channel.call
    asked = sandbox_pb2.OpenLocalSessionRequest(version=version.name, purpose=records_pb2.PURPOSE_REPLICATION, grant=grant)
    session = call(stub.OpenLocalSession, asked).session.name
    for changed in (SamplingParameters(scale=0.5), SamplingParameters(steer=(Steer(f"{session}/directions/1", 0, 1.0),))):
        told = wire.to_message(changed, records_pb2.SamplingParameters)
        with pytest.raises(errors.InvalidArgument, match="local session"):
            call(stub.BeginLocalTurn, sandbox_pb2.BeginLocalTurnRequest(session=session, messages=SAID, parameters=told))
    inquiry = wire.to_message(Inquiry(1, (Measure.ACTIVATIONS,), (0,)), sandbox_pb2.Inquiry)
    with pytest.raises(errors.CellUnavailable):
        call(stub.Probe, sandbox_pb2.ProbeRequest(session=session, messages=SAID, inquiry=inquiry))
    with pytest.raises(errors.CellUnavailable):
        call(stub.MakeDirection, sandbox_pb2.MakeDirectionRequest(session=session, vector=sandbox_pb2.Vector(values=ALONG)))
    assert rosa.sandbox.get(session).spent == Budget()
    world.person("ravi").access.revoke(grant, reason="The test is over.")
