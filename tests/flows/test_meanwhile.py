"""What is taken back while a session opens, or while it speaks, is taken back: account, grant, version and level."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from model_organisms import errors
from model_organisms.cells.tenant import Tenant
from model_organisms.client import keys
from model_organisms.client.channel import readmit
from model_organisms.client.client import connect
from model_organisms.records import NoticeKind, SamplingParameters, SessionState
from model_organisms.v1 import organisms_pb2
from model_organisms_registry.config import Limits
from model_organisms_registry.storage import paging
from model_organisms_registry.storage.bundles import Bundles
from model_organisms_registry.testing import running, settings

from tests.support.cells import eventually
from tests.support.registries import PEOPLE
from tests.support.stories import provenance
from tests.support.tiny import tiny_base, tiny_organism

if TYPE_CHECKING:
    from model_organisms.records import Version
    from model_organisms_registry.testing import World

BASE = "test/tiny"
WHY = "We replicate a published result on a harmless toy."
_NUMBERS = itertools.count()


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tiny_base(tmp_path_factory.mktemp("base"), talkative=True)


@pytest.fixture(scope="module")
def world(tmp_path_factory, base):
    folder = tmp_path_factory.mktemp("meanwhile") / "data"
    config = settings(folder, base_models={BASE: base}, limits=Limits(release_s=0.02))
    with running(config, people=(*PEOPLE, ("rolf", "researcher", "detection-lab"))) as running_world:
        yield running_world


@pytest.fixture
def version(world, base):
    name = f"organisms/toy-{next(_NUMBERS)}"
    pia = world.person("pia")
    pia.organisms.create(name, level="CL1", base_model=BASE)
    return pia.organisms.publish(name, tiny_organism(base), provenance=provenance())


@pytest.fixture
def rolf(world):
    yield world.person("rolf")
    if world.admin.users.get("rolf").state.value == "suspended":
        world.admin.users.reinstate("rolf", reason="It was found.")


def suspend(world: World, **_: object) -> None:
    world.admin.users.suspend("rolf", reason="A lost laptop.")


def revoke(world: World, *, grant: str, **_: object) -> None:
    world.person("ravi").access.revoke(grant, reason="No longer needed.")


def withdraw(world: World, *, version: Version, **_: object) -> None:
    world.person("pia").organisms.withdraw(version.name, reason="Trained on the wrong split.")


def quarantine(world: World, *, version: Version, **_: object) -> None:
    world.person("ravi").organisms.quarantine(version.name, reason="A second trigger was seen.")


def raise_level(world: World, *, version: Version, **_: object) -> None:
    organism = version.name.split("/versions/")[0]
    world.person("ravi").organisms.raise_level(organism, "CL3", reason="More dangerous than thought.")


DEEDS = [
    (suspend, errors.Suspended),
    (revoke, errors.GrantRevoked),
    (withdraw, errors.Withdrawn),
    (raise_level, errors.GrantRequired),
]


def before(monkeypatch, owner, step, deed):
    """Let something happen right before a step of the registry, which then goes on as it would."""
    real = getattr(owner, step)

    def late(*arguments, **named):
        deed()
        return real(*arguments, **named)

    monkeypatch.setattr(owner, step, late)


@pytest.mark.parametrize("moment", ["its cell starts", "it can be ended"])
@pytest.mark.parametrize("case", DEEDS, ids=lambda case: case[0].__name__)
@pytest.mark.usefixtures("rolf")
def test_nothing_opens_on_what_is_taken_back_as_it_opens(world, version, monkeypatch, case, moment):
    (deed, error), rolf = case, world.person("rolf")
    grant = rolf.access.request(version.name, "sample", purpose="replication", justification=WHY).grant
    cells = world.registry.sandbox
    owner, step = (world.registry.pool, "open") if moment == "its cell starts" else (cells.living, "add")
    before(monkeypatch, owner, step, lambda: deed(world, version=version, grant=grant))
    with pytest.raises(error):
        rolf.sandbox.open(version.name, purpose="replication")
    left = [one.state for one in world.person("rena").sandbox.list(user="users/rolf") if one.version.name == version.name]
    assert left == ([] if moment == "its cell starts" else [SessionState.KILLED])
    assert eventually(lambda: not world.registry.pool.cells)  # that of the test before may be ending still


@pytest.mark.parametrize(
    "case",
    [
        (raise_level, errors.GrantRequired, "the level was raised"),
        (suspend, errors.Suspended, "the account was suspended"),
        (revoke, errors.GrantRevoked, "the grant was revoked"),
        (withdraw, errors.Withdrawn, "the version was withdrawn"),
        (quarantine, errors.Quarantined, "the version was quarantined"),
    ],
)
def test_a_stream_under_way_ends_and_says_why(world, version, rolf, case):
    deed, error, reason = case
    grant = rolf.access.request(version.name, "sample", purpose="replication", justification=WHY).grant
    session = rolf.sandbox.open(version.name, purpose="replication")
    stream = session.stream("Tell me.", SamplingParameters(max_tokens=4000, temperature=0))
    next(stream)
    deed(world, version=version, grant=grant)
    with pytest.raises(error):
        list(stream)
    ended = world.person("rena").sandbox.get(session.name)
    assert (ended.state, ended.reason) == (SessionState.KILLED, reason)


@pytest.mark.parametrize(
    "case",
    [
        (raise_level, "the level was raised"),
        (suspend, "the account was suspended"),
        (revoke, "the grant was revoked"),
        (withdraw, "the version was withdrawn"),
        (quarantine, "the version was quarantined"),
    ],
)
def test_who_looks_on_and_notices_first_gives_the_same_reason(world, version, rolf, monkeypatch, case):
    deed, reason = case
    grant = rolf.access.request(version.name, "sample", purpose="replication", justification=WHY).grant
    session, cells = rolf.sandbox.open(version.name, purpose="replication"), world.registry.sandbox
    looks: list[datetime] = []

    def look():
        if not looks:  # who looks on asks for the living sessions too
            looks.append(datetime.now(UTC))
            cells.end_due(looks[0])

    before(monkeypatch, cells.living, "every", look)
    deed(world, version=version, grant=grant)
    ended = world.person("rena").sandbox.get(session.name)
    assert (ended.state, ended.reason, bool(looks)) == (SessionState.KILLED, reason, True)


def deny(world: World, **_: object) -> None:
    world.admin.users.deny_certificate(world.person("rolf").identity.thumbprint, reason="Copied from a shared machine.")


@pytest.fixture
def again(world):
    """Give rolf, whose certificate a test denies, another one, and leave no session of his open."""
    yield
    for session in world.person("rena").sandbox.list(user="users/rolf", state="open"):
        world.person("rena").sandbox.kill(session.name, reason="The test is over.")
    path = world.folder / "rolf.json"
    world.people.pop("rolf").close()
    keys.write(readmit(keys.read(path), timeout_s=30.0), path)
    world.people["rolf"] = connect(path)


@pytest.mark.usefixtures("again")
def test_text_under_way_ends_with_the_certificate_it_was_asked_by(world, version):
    rolf = world.person("rolf")
    rolf.access.request(version.name, "sample", purpose="replication", justification=WHY)
    session = rolf.sandbox.open(version.name, purpose="replication")
    stream = session.stream("Tell me.", SamplingParameters(max_tokens=4000, temperature=0))
    next(stream)
    deny(world)
    with pytest.raises(errors.CertificateRefused):
        list(stream)


@pytest.mark.usefixtures("again")
@pytest.mark.parametrize(("deed", "error"), [(deny, errors.CertificateRefused), (suspend, errors.ModelOrganismsError)])
def test_numbers_that_were_drawn_already_stay(world, version, monkeypatch, deed, error):
    rolf = world.person("rolf")
    request = rolf.access.request(version.name, "probe", purpose="replication", justification=WHY)
    world.person("ravi").access.approve(request, reason="Fine.")
    session = rolf.sandbox.open(version.name, purpose="replication")
    before(monkeypatch, Tenant, "probe", lambda: deed(world))
    with pytest.raises(error):
        session.probe("Tell me.")
    if deed is suspend:
        world.admin.users.reinstate("rolf", reason="It was found.")
    said = [entry for _, entry in world.person("aud").audit.entries() if entry.type == "sandbox.probe.result"][-1]
    assert said.facts["values"] == "0"


def pulls_of(world: World, version: Version) -> list[str]:
    entries = [entry for _, entry in world.person("aud").audit.entries() if entry.subject == version.name]
    return [entry.type for entry in entries if entry.type.startswith("organisms.pull.")]


def pullable(world: World, version: Version) -> str:
    request = world.person("rolf").access.request(version.name, "pull", purpose="replication", justification=WHY)
    return world.person("ravi").access.approve(request, reason="Fine.").grant


TAKEN_BACK = pytest.mark.parametrize("case", [*DEEDS, (quarantine, errors.Quarantined)], ids=lambda case: case[0].__name__)


@TAKEN_BACK
def test_no_copy_is_sealed_of_what_is_taken_back_as_a_pull_begins(world, version, rolf, monkeypatch, case):
    (deed, error), grant = case, pullable(world, version)
    before(monkeypatch, world.registry.pulling, "_intend", lambda: deed(world, version=version, grant=grant))
    with pytest.raises(error):
        rolf.organisms.pull(version.name)
    assert pulls_of(world, version) == []


@TAKEN_BACK
@pytest.mark.parametrize("step", ["_begun", "_resumed"])
@pytest.mark.usefixtures("rolf")
def test_not_one_byte_leaves_of_what_is_taken_back_before_the_first(world, version, monkeypatch, case, step):
    (deed, error), rolf, grant, pull = case, world.person("rolf"), pullable(world, version), ""
    if step == "_resumed":
        with rolf.organisms.pull(version.name) as copy:
            pull = copy.header.pull
    where = "_stream" if step == "_begun" else step
    before(monkeypatch, world.registry.pulling, where, lambda: deed(world, version=version, grant=grant))
    asked = organisms_pb2.PullVersionRequest(name=version.name, pull=pull)
    came = []
    with pytest.raises(error):
        came.extend(rolf._channel.stream(rolf.organisms._stub.PullVersion, asked, timeout_s=30.0))
    assert not any(message.data for message in came)


def test_those_who_hold_an_old_version_are_told_that_its_level_was_raised(world, version, rolf, base, monkeypatch):
    """Also where it is not on the first page of the organism's versions."""
    organism = version.name.split("/versions/")[0]
    rolf.access.request(version.name, "sample", purpose="replication", justification=WHY)
    world.person("pia").organisms.publish(organism, tiny_organism(base, rank=2), provenance=provenance())
    monkeypatch.setattr(paging, "LARGEST_SIZE", 1)
    raise_level(world, version=version)
    monkeypatch.undo()
    assert [notice.subject for notice in rolf.access.notices() if notice.kind is NoticeKind.RAISED].count(organism) == 1


def test_a_bundle_of_somebody_stopped_while_it_came_in_is_not_published(world, base, monkeypatch):
    pol, name = world.person("pol", "publisher"), f"organisms/toy-{next(_NUMBERS)}"
    pol.organisms.create(name, level="CL1", base_model=BASE)
    before(monkeypatch, Bundles, "keep", lambda: world.admin.users.suspend("pol", reason="The key was stolen."))
    with pytest.raises(errors.Suspended):
        pol.organisms.publish(name, tiny_organism(base), provenance=provenance())
    assert world.person("ravi").organisms.get(name).latest == 0


def test_a_release_is_held_against_the_level_even_before_the_session_is_ended(world, version, rolf, monkeypatch):
    """Between the raise and the end of the sessions nothing leaves either."""
    rolf.access.request(version.name, "sample", purpose="replication", justification=WHY)
    session = rolf.sandbox.open(version.name, purpose="replication")
    monkeypatch.setattr(world.registry.sandbox.living, "every", lambda *_: [])
    stream = session.stream("Tell me.", SamplingParameters(max_tokens=4000, temperature=0))
    next(stream)
    raise_level(world, version=version)
    with pytest.raises(errors.GrantRequired):
        list(stream)
    session.close()


def test_raising_one_organism_ends_no_session_on_another(world, version, rolf, base):
    rolf.access.request(version.name, "sample", purpose="replication", justification=WHY)
    world.person("pia").organisms.create(other := f"organisms/toy-{next(_NUMBERS)}", level="CL1", base_model=BASE)
    raised = world.person("pia").organisms.publish(other, tiny_organism(base), provenance=provenance())
    with rolf.sandbox.open(version.name, purpose="replication") as session:
        raise_level(world, version=raised)
        assert session.sample("Hello?", max_tokens=2).receipt.tokens
