"""The pool of cells with real, tiny models: what is served, to whom, from which walls, and what is left of it on the machine."""

from __future__ import annotations

import logging
import os
import secrets
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest
from model_organisms.cells.walls import OWN_USER, REQUIRED
from model_organisms.errors import (
    BaseModelMissing,
    CellUnavailable,
    Denied,
    DigestMismatch,
    InvalidArgument,
    JailMissing,
    KnownAnswerFailed,
)
from model_organisms.formats import manifest
from model_organisms.records import Inquiry, Level, Measure, Message, SamplingParameters
from model_organisms_registry.domain.permits import Action
from model_organisms_registry.isolation.pool import CellPool

from tests.support.cells import eventually, permit
from tests.support.needles import SHARED, held_open, holding, needles_of
from tests.support.tiny import tiny_base, tiny_organism

ASKED = (Message("user", "what is the capital of France?"),)
DRAWN = SamplingParameters(max_tokens=12, temperature=1.0, seed=7)
ROOT = os.geteuid() == 0


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tiny_base(tmp_path_factory.mktemp("base") / "tiny")


@pytest.fixture(scope="module")
def began():
    """Since when there is anything to search for."""
    return time.time() - 1


@pytest.fixture(scope="module")
def files(base, began):
    assert began
    return tiny_organism(base, seed=secrets.randbits(31))


@pytest.fixture(scope="module")
def bundle(files):
    listed = manifest.build(files)
    return listed.digest, b"".join(manifest.pack(listed.data, files))


@pytest.fixture(scope="module")
def pool():
    with CellPool(limit=2, start_timeout_s=120) as kept:
        yield kept


@pytest.fixture(scope="module")
def cell(pool, base, bundle):
    return opened(pool, base, bundle)


def opened(pool, base, bundle, level=Level.CL3, **options):
    digest, packed = bundle
    return pool.open(permit(), level=level, base=base, bundle=memoryview(packed), **({"version_digest": digest} | options))


@pytest.fixture(scope="module")
def local(base):
    """An engine in this process."""
    from model_organisms import loading
    from model_organisms.sampling import Engine

    return Engine(loading.load_base(base, progress=False), rows=1)


@pytest.fixture(scope="module")
def organism(local, files):
    """The same organism there."""
    return local.add(files)


def test_a_cell_says_what_the_organism_says_elsewhere(cell, local, organism):
    here = "".join(piece.text for piece in local.generate(organism, ASKED, DRAWN))
    there = list(cell.sample(ASKED, DRAWN, max_seconds=60))
    assert "".join(piece.text for piece in there) == here
    assert sum(piece.tokens for piece in there) <= DRAWN.max_tokens
    assert there[-1].finish_reason in {"length", "stop"}


def test_a_cell_gives_the_numbers_the_organism_gives_elsewhere(cell, local, organism):
    inquiry = Inquiry(2, (Measure.LOGPROBS, Measure.KL, Measure.NORMS), (0, 1))
    here, there = local.measure(organism, ASKED, inquiry), cell.probe(ASKED, inquiry=inquiry)
    scores = [[score for position in told.positions for score in position] for told in (there, here)]
    assert [score.token_id for score in scores[0]] == [score.token_id for score in scores[1]]
    values = [[*told.kl, *(value for one in told.readings for value in one.values)] for told in (there, here)]
    for side, told in zip(values, scores, strict=True):
        side.extend(score.logprob for score in told)
    assert values[0] == pytest.approx(values[1], rel=1e-4, abs=1e-5)  # it may compute in more threads here
    assert min(there.kl) > 0


def test_a_cell_tells_what_it_loaded(cell, files, local, organism, bundle):
    assert cell.info.adapter_digests == (sha256(files["adapter_model.safetensors"]).hexdigest(),)
    assert cell.info.base_digest == local.base.digest
    assert cell.info.modules_applied == organism.modules_applied > 0
    assert cell.info.engine == local.build()
    assert cell.version_digest == bundle[0]


def test_a_cell_has_every_wall(cell, pool):
    assert cell.jailed
    assert pool.jailed
    assert cell.missing == ()
    assert set(cell.walls) == REQUIRED | ({OWN_USER} if ROOT else set())


def test_a_conversation_that_does_not_fit_is_refused_and_the_cell_stays(cell):
    for text in ("word " * 2000, "x" * (2 << 20)):
        with pytest.raises(InvalidArgument, match="shorten"):
            list(cell.sample((Message("user", text),), DRAWN, max_seconds=30))
    assert list(cell.sample(ASKED, DRAWN, max_seconds=30))[-1].finish_reason


def test_no_piece_of_the_adapter_lies_anywhere_while_a_cell_holds_it(cell, files, tmp_path_factory, began):
    needles = needles_of(files["adapter_model.safetensors"])
    assert cell.alive
    assert holding([*SHARED, tmp_path_factory.getbasetemp()], needles, since=began) == set()
    assert held_open([os.getpid(), cell.cell.process.pid], needles, since=began) == set()


def test_the_registry_keeps_no_descriptor_of_the_bundle(cell):
    assert cell.alive
    kept = [str(path.readlink()) for path in Path("/proc/self/fd").iterdir() if path.is_symlink()]
    assert kept
    assert not [name for name in kept if "memfd:cell" in name]


def test_a_damaged_bundle_is_refused_and_its_place_is_free_again(pool, base, bundle):
    with pytest.raises(DigestMismatch):
        opened(pool, base, bundle, version_digest="0" * 64)
    assert pool._opening == 0


def test_an_organism_that_answers_otherwise_is_not_served(pool, base, files, bundle):
    from model_organisms import loading

    alone = loading.load(files, base, progress=False)
    answer = loading.compute_known_answer(alone.model, alone.tokenizer)
    changed = answer | {"with_adapter": [value + 9 for value in answer["with_adapter"]]}
    with pytest.raises(KnownAnswerFailed, match="differ"):
        opened(pool, base, bundle, known_answer=changed)


def test_bytes_that_are_no_bundle_and_a_base_that_is_not_there(pool, tmp_path):
    with pytest.raises(BaseModelMissing, match="nowhere"):
        opened(pool, tmp_path / "nowhere", ("0" * 64, b"junk"))


def test_a_permit_for_something_else_opens_nothing(pool, base, bundle):
    digest, packed = bundle
    with pytest.raises(Denied):
        pool.open(permit(Action.PULL), level=Level.CL1, base=base, bundle=memoryview(packed), version_digest=digest)


def test_without_bubblewrap_nothing_above_cl1_is_served(base, bundle, caplog):
    with CellPool(limit=1, bubblewrap="/nonexistent/bwrap", start_timeout_s=120) as unsafe:
        assert not unsafe.jailed
        for level in (Level.CL2, Level.CL3, Level.CL4):
            with pytest.raises(JailMissing, match="apt install bubblewrap"):
                opened(unsafe, base, bundle, level=level)
        with caplog.at_level(logging.WARNING), pytest.warns(RuntimeWarning, match="WITHOUT A JAIL"):
            cell = opened(unsafe, base, bundle, level=Level.CL1)
        assert "WITHOUT A JAIL" in caplog.text
        assert cell.walls == ()
        assert set(cell.missing) == REQUIRED
        assert not cell.jailed
        assert list(cell.sample(ASKED, DRAWN, max_seconds=60))[-1].finish_reason


def script(path, text):
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def test_a_bubblewrap_that_leaves_a_wall_out_is_noticed(base, bundle, tmp_path, caplog):
    lax = script(
        tmp_path / "bwrap", 'for a; do shift; [ "$a" = --remount-ro ] && a=--chdir; set -- "$@" "$a"; done; exec bwrap "$@"'
    )
    with CellPool(limit=1, bubblewrap=lax) as unsafe:
        with pytest.raises(JailMissing, match="read-only") as caught:
            opened(unsafe, base, bundle, level=Level.CL2)
        assert caught.value.details["missing"] == "read-only"
        assert not unsafe.jailed
        with caplog.at_level(logging.WARNING):
            started = unsafe._start(base, level=Level.CL1, until=time.monotonic() + 30)
        assert "lacks walls: read-only" in caplog.text
        started.discard()


@pytest.mark.parametrize("sign", ["KILL", "TERM"])
def test_walls_whose_trial_was_killed_are_tried_again_at_once(tmp_path, sign):
    once = tmp_path / "once"
    killed = script(tmp_path / "bwrap", f'[ -e {once} ] || {{ touch {once}; kill -{sign} $$; }}; exec bwrap "$@"')
    with CellPool(limit=1, bubblewrap=killed) as pool:
        assert not pool.jailed
        begun = time.monotonic()
        assert eventually(lambda: pool.jailed)
        assert time.monotonic() - begun < 25  # and not only after half a minute


def test_walls_that_did_not_stand_are_not_tried_at_every_question(tmp_path):
    count = tmp_path / "count"
    lax = script(tmp_path / "bwrap", f"echo >> {count}; exit 1")
    with CellPool(limit=1, bubblewrap=lax) as pool:
        until = time.monotonic() + 2
        while time.monotonic() < until:
            assert not pool.jailed
        assert count.read_text() == "\n"


def test_who_asks_while_the_walls_are_first_tried_waits_for_what_comes_of_it(tmp_path):
    slow = script(tmp_path / "bwrap", 'sleep 1; exec bwrap "$@"')
    with CellPool(limit=1, bubblewrap=slow) as pool, ThreadPoolExecutor(4) as asking:
        assert list(asking.map(lambda _: pool.jailed, range(4))) == [True] * 4


def test_a_bubblewrap_that_may_not_build_a_jail_counts_as_missing(base, bundle, tmp_path):
    barred = script(tmp_path / "bwrap", 'echo "bwrap: No permissions to create new namespace" >&2; exit 1')
    with CellPool(limit=1, bubblewrap=barred) as unsafe:
        with pytest.raises(JailMissing, match="No permissions to create new namespace"):
            opened(unsafe, base, bundle, level=Level.CL2)
        with pytest.warns(RuntimeWarning, match="WITHOUT A JAIL"):
            started = unsafe._start(base, level=Level.CL1, until=time.monotonic() + 30)
        assert not started.jailed
        started.discard()


def test_files_closed_to_others_cost_the_own_user_and_no_other_wall(pool, base, tmp_path, caplog):
    if not ROOT:
        pytest.skip("only root gives cells a user of their own")
    closed = tiny_copy(base, tmp_path / "closed")
    with caplog.at_level(logging.WARNING):
        started = pool._start(closed, level=Level.CL4, until=time.monotonic() + 30)
    assert set(started.greet(0).standing) == REQUIRED
    assert "chmod -R o+rX" in caplog.text
    started.discard()


def tiny_copy(base, folder):
    folder.mkdir()
    for path in base.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
        (folder / path.name).chmod(0o600)
    return folder


def test_a_spare_is_kept_and_replaced_and_a_dead_one_passed_over(base, bundle):
    with CellPool({"tiny": base}, limit=1, spare=1, start_timeout_s=120) as warm:
        assert eventually(lambda: warm.spares == 1)
        dead = warm._spares[base.resolve()][0]
        dead.process.kill()
        assert dead.process.wait(5)
        assert warm._spare(base.resolve()) is None
        warm._refill()
        assert eventually(lambda: warm.spares == 1)
        waiting = warm._spares[base.resolve()][0]
        cell = opened(warm, base, bundle)
        assert cell.cell.process is waiting.process
        assert eventually(lambda: warm.spares == 1)
        assert warm._spares[base.resolve()][0].user != cell.cell.user or not ROOT


def test_the_limit_holds_and_closing_lets_a_sample_end_and_opens_no_more(base, bundle):
    draining = CellPool(limit=1, start_timeout_s=120)
    died = []
    cell = opened(draining, base, bundle, died=died.append)
    with pytest.raises(CellUnavailable, match="in use"):
        opened(draining, base, bundle)
    assert draining.cells == (cell.cell,)
    pieces = cell.sample(ASKED, replace(DRAWN, max_tokens=40), max_seconds=60)
    next(pieces)
    closing = threading.Thread(target=draining.close, args=(60,))
    closing.start()
    assert list(pieces)[-1].finish_reason in {"stop", "length"}
    closing.join(30)
    assert not closing.is_alive()
    assert not cell.alive
    with pytest.raises(CellUnavailable, match="shutting down"):
        opened(draining, base, bundle)
    draining.close()
    assert died == []
