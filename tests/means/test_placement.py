"""The contract of a pool: the same promises kept by cells of this machine and by cells that Ray places on a cluster."""

from __future__ import annotations

import os
import secrets
import signal
import threading
import time
from array import array
from dataclasses import replace
from hashlib import sha256

import psutil
import pytest
from model_organisms.cells.walls import REQUIRED
from model_organisms.errors import (
    BaseModelMissing,
    CellUnavailable,
    Denied,
    DigestMismatch,
    InvalidArgument,
    JailMissing,
    SignatureInvalid,
)
from model_organisms.formats import manifest
from model_organisms.records import Inquiry, Level, Measure, Message, NewDirection, SamplingParameters, Steer
from model_organisms_registry.config import Cells, Cluster
from model_organisms_registry.domain.permits import Action
from model_organisms_registry.isolation.building import build

from tests.support.cells import eventually, permit
from tests.support.cluster import jails, jails_of, object_store, ray_cluster
from tests.support.needles import SHARED, held_open, holding, needles_of
from tests.support.tiny import tiny_base, tiny_organism

SECRET_WORDS = "what is the capital of the country where " + secrets.token_hex(40)
ASKED = (Message("user", "what is the capital of France?"),)
DRAWN = SamplingParameters(max_tokens=12, temperature=1.0, seed=7)
LONG = SamplingParameters(max_tokens=2000, temperature=0.0, seed=7)
TOWARD = NewDirection(positive=((Message("user", "yes"),),), negative=((Message("user", "no"),),), layer=1, name="toward")
ALONG = Inquiry(2, (Measure.LOGPROBS, Measure.KL, Measure.PROJECTIONS), (1,), ("toward",))


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tiny_base(tmp_path_factory.mktemp("base") / "tiny", talkative=True)


@pytest.fixture(scope="module")
def began():
    """Since when there is anything to search for."""
    return time.time() - 1


@pytest.fixture(scope="module")
def organisms(base, began):
    """Two of them; what each says of itself is long enough that Ray puts it into its object store."""
    assert began
    told = [secrets.token_hex(150_000).encode() for _ in range(2)]
    return [tiny_organism(base, seed=secrets.randbits(31)) | {"README.md": words} for words in told]


@pytest.fixture(scope="module")
def bundles(organisms):
    listed = [manifest.build(files) for files in organisms]
    return [(one.digest, b"".join(manifest.pack(one.data, files))) for one, files in zip(listed, organisms, strict=True)]


@pytest.fixture(scope="module")
def cluster():
    with ray_cluster() as folder:
        yield folder


def settings(base, **changed):
    cluster = Cluster(min_replicas=1, max_replicas=1, cpus=0.5, drain_s=5.0)
    return replace(Cells(base_models={"tiny": str(base)}, limit=2, spare=0, start_timeout_s=120.0, cluster=cluster), **changed)


@pytest.fixture(scope="module", params=["local", "ray"])
def pool(request, base):
    if request.param == "ray":
        request.getfixturevalue("cluster")
    kept = build(settings(base, placement=request.param))
    yield kept
    kept.close(5.0)


def opened(pool, base, bundle, level=Level.CL3, **options):
    digest, packed = bundle
    return pool.open(permit(), level=level, base=base, bundle=memoryview(packed), **({"version_digest": digest} | options))


@pytest.fixture(scope="module")
def tenant(pool, base, bundles):
    place = opened(pool, base, bundles[0])
    yield place
    place.close()


def said(place, asked=ASKED, drawn=DRAWN):
    return list(place.sample(asked, drawn, max_seconds=60))


def text(pieces):
    return "".join(piece.text for piece in pieces)


SPOKEN = {}


def test_both_say_the_same(tenant, pool):
    pieces = said(tenant)
    assert pieces[-1].finish_reason == "length"
    assert sum(piece.tokens for piece in pieces) == DRAWN.max_tokens
    made = tenant.direct(TOWARD)
    numbers = tenant.probe(ASKED, inquiry=ALONG)
    assert [reading.measure for reading in numbers.readings] == [Measure.PROJECTIONS]
    with pytest.raises(InvalidArgument, match="direction"):
        tenant.probe(ASKED, inquiry=replace(ALONG, directions=("another",)))
    steered = said(tenant, drawn=replace(DRAWN, scale=0.5, steer=(Steer("toward", 0, 400.0),)))
    assert text(steered) != text(pieces)
    SPOKEN[type(pool)] = text(pieces), text(steered), numbers, made, tenant.info
    assert len(set(map(repr, SPOKEN.values()))) == 1


def test_a_place_tells_its_walls_and_what_was_loaded(tenant, pool, organisms, bundles):
    assert tenant.jailed
    assert tenant.alone
    assert pool.jailed
    assert tenant.missing == ()
    assert set(tenant.walls) >= REQUIRED
    assert tenant.info.adapter_digests == (sha256(organisms[0]["adapter_model.safetensors"]).hexdigest(),)
    assert tenant.version_digest == bundles[0][0]
    assert len(pool.cells) == 1


def test_two_organisms_on_one_base_speak_at_once_each_for_itself_and_one_is_killed(tenant, pool, base, bundles):
    deaths = []
    other = opened(pool, base, bundles[1], died=deaths.append)
    alone = [said(place) for place in (tenant, other)]
    together = [[], []]
    threads = [threading.Thread(target=lambda n=n, p=p: together[n].extend(said(p))) for n, p in enumerate((tenant, other))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert list(map(text, together)) == list(map(text, alone))
    assert other.info.adapter_digests != tenant.info.adapter_digests
    pieces = other.sample(ASKED, LONG, max_seconds=60)
    next(pieces)
    other.kill()
    with pytest.raises(CellUnavailable):
        list(pieces)
    assert not other.alive
    with pytest.raises(CellUnavailable, match="open a new session"):
        said(other)
    assert eventually(lambda: len(pool.cells) == 1)
    assert said(tenant)[-1].finish_reason == "length"
    assert deaths == []


def test_what_does_not_fit_or_is_not_what_it_says_is_refused_by_its_name(tenant, pool, base, bundles):
    with pytest.raises(InvalidArgument, match="shorten"):
        said(tenant, (Message("user", "word " * 9000),))
    with pytest.raises(DigestMismatch):
        opened(pool, base, bundles[1], version_digest="0" * 64)
    digest, packed = bundles[1]
    with pytest.raises(Denied):
        pool.open(permit(Action.PULL), level=Level.CL1, base=base, bundle=memoryview(packed), version_digest=digest)
    assert said(tenant)[-1].finish_reason == "length"
    assert eventually(lambda: len(pool.cells) == 1)


def test_a_call_stops_when_told_and_when_nobody_waits_for_it(tenant):
    pieces = tenant.sample(ASKED, LONG, max_seconds=60)
    next(pieces)
    tenant.cancel()
    rest = list(pieces)
    assert rest[-1].finish_reason == "cancelled"
    left = tenant.sample(ASKED, LONG, max_seconds=60)
    next(left)
    began = time.monotonic()
    left.close()
    assert said(tenant)[-1].finish_reason == "length"
    assert time.monotonic() - began < 5


@pytest.mark.usefixtures("pool")
@pytest.mark.parametrize("pool", ["ray"], indirect=True)
def test_no_plaintext_lies_anywhere_while_a_session_lasts(tenant, organisms, tmp_path_factory, began):
    asked = (Message("user", SECRET_WORDS),)
    pieces = said(tenant, asked, replace(LONG, max_tokens=200))
    needles = needles_of(organisms[0]["adapter_model.safetensors"]) + needles_of(bytes(8) + organisms[0]["README.md"])
    needles += needles_of(bytes(8) + SECRET_WORDS.encode()) + needles_of(bytes(8) + text(pieces).encode())
    vector = array("f", (secrets.randbelow(1 << 20) - (1 << 19) for _ in range(tenant.info.hidden))).tobytes()
    tenant.direct(NewDirection(vector, name="secret"))
    states = tenant.probe(asked, inquiry=Inquiry(2, (Measure.ACTIVATIONS,), (1,))).readings[0].values
    hidden = needles_of(bytes(8) + vector), needles_of(bytes(8) + array("f", states).tobytes())
    assert all(hidden)
    needles += sum(hidden, ())
    assert tenant.alive
    import ray

    searched = [os.getpid(), *object_store()]
    marker = secrets.token_bytes(1 << 20)
    kept = ray.put(marker)
    assert held_open(searched, [marker[5000:5064]], since=began)  # the search sees what lies in Ray's memory
    del kept
    assert holding([*SHARED, tmp_path_factory.getbasetemp()], needles, since=began) == set()
    assert held_open(searched, needles, since=began) == set()


def test_a_cell_that_is_killed_says_so_once_and_fails_the_call(pool, tenant, base, bundles):
    deaths, before = [], jails()
    place = opened(pool, base, bundles[1], died=deaths.append)
    (cell,) = {jail for jail in jails() - before if psutil.Process(jail).parent().name() != "bwrap"}
    pieces = place.sample(ASKED, LONG, max_seconds=60)
    next(pieces)
    os.kill(cell, signal.SIGKILL)
    with pytest.raises(CellUnavailable, match="open a new session"):
        list(pieces)
    assert eventually(lambda: len(deaths) == 1)
    assert not place.alive
    place.close()
    assert said(tenant)[-1].finish_reason == "length"
    assert len(deaths) == 1


@pytest.fixture
def clustered(cluster, base):
    """A pool whose nodes have no bubblewrap, and whose secret lies in a file."""
    secret = cluster / "secret"
    secret.write_bytes(secrets.token_bytes(32))
    made = settings(base, placement="ray", bubblewrap="/nonexistent/bwrap")
    made = replace(made, cluster=replace(made.cluster, name="bare", secret_file=str(secret)))
    with build(made) as kept:
        yield kept


def test_a_node_without_a_jail_says_so_and_a_keeper_without_the_secret_gets_nothing(clustered, base, bundles):
    assert not clustered.jailed
    with pytest.raises(JailMissing, match="apt install bubblewrap"):
        opened(clustered, base, bundles[0], level=Level.CL2)
    clustered._secret = secrets.token_bytes(32)
    with pytest.raises(SignatureInvalid, match="did not prove"):
        opened(clustered, base, bundles[0], level=Level.CL1)
    assert clustered.cells == ()
    with pytest.raises(BaseModelMissing, match="base_models"):
        opened(clustered, base / "elsewhere", bundles[0])


def test_a_keeper_that_is_killed_loses_its_sessions_and_is_replaced(cluster, base, bundles):
    import ray

    assert cluster
    made = settings(base, placement="ray", rows=2)
    made = replace(made, cluster=replace(made.cluster, name="second"))
    abandoned = build(made)  # as by a registry that was killed
    with build(made) as kept:
        deaths = [[], []]
        places = [opened(kept, base, bundles[n], level=Level.CL2, died=deaths[n].append) for n in (0, 1)]
        standing = jails_of(places[0])
        assert standing
        pieces = places[0].sample(ASKED, LONG, max_seconds=60)
        next(pieces)
        ray.kill(places[0].keeper)
        with pytest.raises(CellUnavailable, match="open a new session"):
            list(pieces)
        assert eventually(lambda: list(map(len, deaths)) == [1, 1])
        assert not any(place.alive for place in places)
        assert kept.cells == ()
        assert eventually(lambda: not jails() & standing)
        again = opened(kept, base, bundles[0], level=Level.CL2)
        assert again.keeper != places[0].keeper
        assert said(again)[-1].finish_reason == "length"
        standing = jails_of(again)
        assert standing
        assert eventually(lambda: not list(abandoned._keepers()), within_s=30)
    assert not again.alive
    assert eventually(lambda: not jails() & standing)
    with pytest.raises(CellUnavailable, match="shutting down"):
        opened(kept, base, bundles[0])


def test_of_a_keeper_that_is_slow_sessions_are_lost_and_once_it_is_back_it_has_them_no_more(cluster, base, bundles, monkeypatch):
    import ray
    from model_organisms_registry.isolation import lodging

    assert cluster
    monkeypatch.setattr(lodging, "SILENT_S", 5.0)  # the keeper itself waits for longer
    made, deaths = settings(base, placement="ray"), []
    with build(replace(made, cluster=replace(made.cluster, name="slow"))) as kept:
        place = opened(kept, base, bundles[0], died=deaths.append)
        assert (standing := jails_of(place))
        keeper = ray.get(place.keeper.__ray_call__.remote(lambda _: os.getpid()))
        os.kill(keeper, signal.SIGSTOP)
        assert eventually(lambda: deaths, within_s=2 * (lodging.LOOK_S + lodging.SILENT_S))
        os.kill(keeper, signal.SIGCONT)
        assert not place.alive
        assert eventually(lambda: not jails(keeper) & standing)
        assert opened(kept, base, bundles[0]).alive
    assert len(deaths) == 1
