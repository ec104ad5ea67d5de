"""One cell for several sessions, with real, tiny models: who may share it, what each hears, and what is left of who has gone."""

from __future__ import annotations

import os
import secrets
import signal
import threading
import time
from dataclasses import replace

import pytest
from model_organisms.cells.frames import Ask, CellInfo, Direct, Directed, Draw, Load, Numbers, Piece
from model_organisms.errors import CellUnavailable, InvalidArgument, KnownAnswerFailed
from model_organisms.formats import manifest
from model_organisms.records import Inquiry, Level, Message, NewDirection, SamplingParameters
from model_organisms_registry.config import Cells
from model_organisms_registry.isolation.local import local
from model_organisms_registry.isolation.pool import CellPool

from tests.support.cells import eventually, permit
from tests.support.needles import holding_memory, needles_in_any_form
from tests.support.processes import innermost, shared_clean
from tests.support.tiny import tiny_base, tiny_organism

DRAWN = SamplingParameters(max_tokens=24, temperature=1.0, seed=7)
LONG = replace(DRAWN, max_tokens=200)
SCALE = 16.0
"""Alpha over rank of `tiny_organism`, which an engine may fold into a factor."""
ROOT = os.geteuid() == 0
FEW = NewDirection(positive=((Message("user", "yes"),),), negative=((Message("user", "no"),),), layer=1, name="few")


def asked(text="what is the capital of France?"):
    return (Message("user", text),)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tiny_base(tmp_path_factory.mktemp("base") / "tiny", talkative=True)


@pytest.fixture(scope="module")
def organisms(base):
    return [tiny_organism(base, seed=secrets.randbits(31)) for _ in range(3)]


@pytest.fixture(scope="module")
def pool():
    with CellPool(limit=4, rows=3, start_timeout_s=120) as kept:
        yield kept


@pytest.fixture
def room(pool, base):
    """Opens sessions in the pool, and closes them after the test."""
    opened = []

    def into(files, level=Level.CL1, **options):
        listed = manifest.build(files)
        packed = memoryview(b"".join(manifest.pack(listed.data, files)))
        opened.append(pool.open(permit(), level=level, base=base, bundle=packed, version_digest=listed.digest, **options))
        return opened[-1]

    yield into
    for tenant in opened:
        tenant.close()
    assert eventually(lambda: not pool.cells)


@pytest.fixture(scope="module")
def expected(base, organisms):
    """What each organism says when it is alone."""
    from model_organisms import loading
    from model_organisms.sampling import Engine

    engine = Engine(loading.load_base(base, progress=False), rows=1)
    return [said(engine.generate(engine.add(files), asked(), DRAWN)) for files in organisms]


def said(pieces):
    return "".join(piece.text for piece in pieces)


def test_sessions_at_one_level_share_a_cell_and_each_hears_its_own_organism(room, pool, organisms, expected):
    tenants = [room(files) for files in organisms]
    assert len({tenant.cell for tenant in tenants}) == len(pool.cells) == 1
    assert not any(tenant.alone for tenant in tenants)
    heard = [None] * len(tenants)

    def ask(number):
        heard[number] = [said(tenants[number].sample(asked(), DRAWN, max_seconds=60)) for _ in range(3)]

    asking = [threading.Thread(target=ask, args=(number,)) for number in range(len(tenants))]
    for thread in asking:
        thread.start()
    for thread in asking:
        thread.join(60)
    assert heard == [[text] * 3 for text in expected]
    assert len(set(expected)) == len(expected)
    scores = [tenant.probe(asked()) for tenant in tenants]
    assert len({score.kl for score in scores}) == len(tenants)


def test_levels_do_not_meet_and_from_cl3_on_nobody_does(room, organisms):
    low, other = room(organisms[0]), room(organisms[1], Level.CL2)
    high, highest = room(organisms[2], Level.CL3), room(organisms[2], Level.CL4)
    assert len({tenant.cell for tenant in (low, other, high, highest)}) == 4
    assert [tenant.alone for tenant in (low, other, high, highest)] == [False, False, True, True]
    assert room(organisms[2]).cell is low.cell
    assert room(organisms[0], Level.CL2).cell is other.cell
    with pytest.raises(CellUnavailable, match="All 4 cells"):
        room(organisms[0], Level.CL3)


def test_a_full_cell_is_followed_by_another(room, organisms):
    first = [room(organisms[number % 3]) for number in range(3)]
    fourth = room(organisms[0])
    assert len({tenant.cell for tenant in first}) == 1
    assert fourth.cell is not first[0].cell
    first[0].close()
    assert room(organisms[0]).cell is first[1].cell


def test_sessions_that_open_at_one_moment_start_one_cell(room, pool, organisms):
    opening = [threading.Thread(target=room, args=(files,)) for files in organisms]
    for thread in opening:
        thread.start()
    for thread in opening:
        thread.join(120)
    assert len(pool.cells) == 1
    assert len(pool.cells[0].tenants) == 3


def test_a_killed_session_says_nothing_more_and_its_neighbour_goes_on(room, pool, organisms, expected):
    killed, neighbour = room(organisms[0]), room(organisms[1])
    pieces, others = killed.sample(asked(), LONG, max_seconds=60), neighbour.sample(asked(), LONG, max_seconds=60)
    next(pieces), next(others)
    killed.kill()
    with pytest.raises(CellUnavailable, match="closed"):
        list(pieces)
    assert not killed.alive
    assert list(others)[-1].finish_reason in {"length", "stop"}
    assert said(neighbour.sample(asked(), DRAWN, max_seconds=60)) == expected[1]
    with pytest.raises(CellUnavailable, match="open a new session"):
        next(killed.sample(asked(), DRAWN, max_seconds=5))
    assert pool.cells[0].tenants == (neighbour,)


def test_a_cell_that_is_killed_tells_each_of_its_sessions_once(room, pool, organisms):
    deaths = [[], [], []]
    tenants = [room(files, died=told.append) for files, told in zip(organisms, deaths, strict=True)]
    tenants[0].close()
    pool.cells[0].process.kill()
    assert eventually(lambda: all(deaths[1:]))
    assert [len(told) for told in deaths] == [0, 1, 1]
    assert eventually(lambda: not pool.cells)
    assert room(organisms[0]).alive  # the next opening starts another


def test_a_bundle_that_does_not_go_in_leaves_the_others_alone(room, pool, base, organisms, expected):
    there = room(organisms[0])
    with pytest.raises(InvalidArgument):
        pool.open(permit(), level=Level.CL1, base=base, bundle=memoryview(b"junk"), version_digest="0" * 64)
    assert said(there.sample(asked(), DRAWN, max_seconds=60)) == expected[0]
    assert len(pool.cells[0].tenants) == 1


def test_of_what_did_not_go_in_nothing_is_in_the_cells_memory(room, organisms, base):
    if not ROOT:
        pytest.skip("only root reads a cell's memory")
    stays = room(organisms[0])
    pid = innermost(stays.cell.process.pid)
    untrue = {"v": 1, "dtype": "float32", "token_ids": [5, 6, 7], "top_ids": [1, 2]}
    untrue |= {"with_adapter": [1.0, 2.0], "without_adapter": [0.0, 0.0]}
    for _ in range(2):
        files = tiny_organism(base, seed=secrets.randbits(31))
        with pytest.raises(KnownAnswerFailed):
            room(files, known_answer=untrue)
        assert holding_memory(pid, needles_in_any_form(files["adapter_model.safetensors"], SCALE)) == set()
    assert holding_memory(pid, needles_in_any_form(organisms[0]["adapter_model.safetensors"], SCALE))


def test_a_call_for_an_organism_that_is_not_there_is_refused_and_the_others_go_on(room, organisms, expected):
    stays, left = room(organisms[0]), room(organisms[1])
    left.close()
    for slot in (left.slot, 0, 99):
        requests = {Draw(asked(), DRAWN, slot): Piece, Ask(asked(), Inquiry(), slot): Numbers, Direct(FEW, slot): Directed}
        for request, kind in requests.items():
            with pytest.raises(InvalidArgument, match="no such organism"):
                stays.cell.begin(request, kind).take(time.monotonic() + 20)
    for slot in (stays.slot, 77):  # taken, and without a bundle
        with pytest.raises(InvalidArgument, match="did not come"):
            stays.cell.begin(Load("0" * 64, "", slot), CellInfo).take(time.monotonic() + 20)
    assert said(stays.sample(asked(), DRAWN, max_seconds=60)) == expected[0]


def test_of_who_left_nothing_is_in_the_cells_memory(room, organisms):
    if not ROOT:
        pytest.skip("only root reads a cell's memory")
    stays, leaves = room(organisms[0]), room(organisms[1])
    for tenant in (stays, leaves):
        assert list(tenant.sample(asked(), DRAWN, max_seconds=60))
    pid = innermost(leaves.cell.process.pid)
    kept, gone = (needles_in_any_form(files["adapter_model.safetensors"], SCALE) for files in organisms[:2])
    assert holding_memory(pid, gone)  # or the search would prove nothing
    leaves.close()
    assert holding_memory(pid, gone) == set()
    assert holding_memory(pid, kept)


@pytest.mark.parametrize(
    "kind",
    [
        {},
        {"rank": 1, "targets": ("down_proj",)},  # the last module's factors are few, and nothing overwrites them by chance
        {"dtype": "float16"},
        {"dtype": "bfloat16"},
    ],
    ids=str,
)
def test_of_who_only_came_and_left_nothing_is_in_the_cells_memory(room, base, organisms, kind):
    if not ROOT:
        pytest.skip("only root reads a cell's memory")
    pid = innermost(room(organisms[0]).cell.process.pid)
    for number in range(2):
        files = tiny_organism(base, seed=secrets.randbits(31), **kind)
        files["README.md"] += b"\n" * number  # it stands before the weights, of which one so begins where values are not aligned
        gone = needles_in_any_form(files["adapter_model.safetensors"], 64.0 / kind.get("rank", 4))
        leaves = room(files)
        assert number or holding_memory(pid, gone)
        leaves.close()
        assert holding_memory(pid, gone) == set()


def test_two_cells_share_the_pages_of_their_base(room, base, organisms):
    if not ROOT:
        pytest.skip("only root sees a cell's pages")
    size = (base / "model.safetensors").stat().st_size
    with (base / "model.safetensors").open("rb") as weights:
        os.fsync(weights.fileno())  # pages that are not on the disk yet count as dirty
    cells = [room(files, Level.CL3).cell for files in organisms[:2]]
    for cell in cells:
        pages = shared_clean(innermost(cell.process.pid), "model.safetensors")
        assert pages.shared >= 0.9 * size // 4096 * 4096
        assert pages.private == 0


def test_cells_that_end_as_they_start_are_not_started_in_a_loop(base, tmp_path):
    broken = tmp_path / "bwrap"
    broken.write_text("#!/bin/sh\nexit 1\n")
    broken.chmod(0o755)
    packed = memoryview(b"junk")
    with CellPool(limit=1, rows=3, bubblewrap=str(broken)) as crashing:
        for told in ["ended while it started"] * 3 + ["keep ending"] * 2:
            with pytest.raises(CellUnavailable, match=told):
                crashing.open(permit(), level=Level.CL1, base=base, bundle=packed, version_digest="0" * 64)
        assert not crashing.cells


def test_a_cell_in_which_nobody_is_left_ends(room, organisms):
    tenants = [room(files) for files in organisms]
    process = tenants[0].cell.process
    for tenant in tenants:
        assert process.alive
        started = time.monotonic()
        tenant.close()
        assert time.monotonic() - started < 4
    assert eventually(lambda: not process.alive)


def test_a_cell_that_is_about_to_end_makes_room_for_who_comes_next(base, organisms):
    listed = manifest.build(organisms[0])
    packed = b"".join(manifest.pack(listed.data, organisms[0]))
    with CellPool(limit=1, start_timeout_s=120) as pool:

        def opened():
            whose = {"level": Level.CL3, "base": base, "version_digest": listed.digest}
            return pool.open(permit(), bundle=memoryview(packed), **whose)

        ending = opened()
        os.kill(ending.cell.process.pid, signal.SIGSTOP)  # its end takes until it is killed
        closing = threading.Thread(target=ending.close)
        closing.start()
        assert eventually(lambda: not ending.alive)
        assert ending.cell.process.alive
        assert opened().alive
        assert not ending.cell.process.alive
        closing.join()


def test_cells_compute_in_what_the_settings_say(base, organisms):
    listed = manifest.build(organisms[0])
    packed = memoryview(b"".join(manifest.pack(listed.data, organisms[0])))
    with local(Cells(limit=1, dtype="bfloat16")) as pool:
        tenant = pool.open(permit(), level=Level.CL1, base=base, bundle=packed, version_digest=listed.digest)
        assert tenant.info.engine.endswith("cpu/bfloat16")
        assert list(tenant.sample(asked(), DRAWN, max_seconds=60))[-1].finish_reason
