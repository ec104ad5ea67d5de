"""M1 and M2: many organisms in one batch, beside the bare base, PEFT's mixed batch, vLLM, and what the machine allows."""

from __future__ import annotations

import gc
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psutil
from model_organisms.sampling import Engine

from tests.bench import agreement, loops, roofline
from tests.bench.flock import DOWN, EVERY, ONE, PROMPT, SPREADS, bare_again, wear
from tests.bench.measure import OURS, Goal, Row, interleaved, tried

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator
    from pathlib import Path

    from tests.bench.flock import Flock
    from tests.bench.loops import Decoded

LOOP, GENERATE, NOBODY, MIXER = (
    "bare base, shortest loop",
    "transformers generate",
    "our engine, bare base",
    "our mixer, shortest loop",
)
PEFT, VLLM, LIMIT = "PEFT mixed batch", "vLLM", "the machine's limit"
FEW = ((32, 1, DOWN), (32, 1, EVERY), (32, 8, EVERY), (8, 8, EVERY), (1, 8, EVERY), (128, 1, DOWN))
"""What is measured unless all is asked for: organisms, rank, spread."""
WHOLE = tuple((count, rank, spread) for count in (32, 8, 1, 128) for spread in (ONE, DOWN, EVERY) for rank in (1, 8, 64))
_LARGE = 128
"""A batch of which one run of one side takes minutes, so it is timed less often, without sides that explain others."""
_GOALS = {(32, 1, DOWN): 0.97, (32, 1, EVERY): 0.90, (32, 8, EVERY): 0.83}
_FLOAT, _COPIES = 4, 4
"""Bytes of a number, and how often a row's adapters lie in memory: bundles, our bank and tables, PEFT's layers."""
_VLLM_ITSELF = 2 << 30
_VLLM_FEW = ((32, 8, EVERY),)


@dataclass(frozen=True, slots=True)
class Asked:
    """How long to measure."""

    rounds: int
    new: int
    warm: int = 1

    @classmethod
    def of(cls, count: int, *, quick: bool, whole: bool) -> Asked:
        """Few rounds of few tokens for a look, or where so much is asked for that it would take a day."""
        if quick:
            return cls(1, 12)
        if count >= _LARGE:
            return cls(2, 8, warm=0)
        return cls(3, 12 if whole else 24)


def many(
    flock: Flock, folder: Path, *, quick: bool, whole: bool, vllm: str, counts: Collection[int] = (), ranks: Collection[int] = ()
) -> list[Row]:
    """M1 and M2, one row for each count, rank and spread."""
    chosen = WHOLE if whole else FEW[:3] if quick else FEW
    rows = []
    for count, rank, spread in chosen:
        if (counts and count not in counts) or (ranks and rank not in ranks):
            continue
        print(f"  {count} organisms, rank {rank}, {SPREADS[spread]} ...", file=sys.stderr, flush=True)
        # vLLM has room for every layer in each slot, whatever its adapters change, and keeps them beside the slots.
        ours, theirs = _COPIES * _bytes(flock, count, rank, spread), _VLLM_ITSELF
        theirs += _bytes(flock, count, rank, spread) + _bytes(flock, count, rank, EVERY)
        python = vllm if whole or (count, rank, spread) in _VLLM_FEW else ""
        if not _free("not measured", ours):
            continue
        if python and not _free("without vLLM", ours + theirs):
            python = ""
        asked = Asked.of(count, quick=quick, whole=whole)
        where = folder / f"{count}-{rank}-{spread}"
        rows += tried("M1, M2", lambda: [_one(flock, where, count, rank, spread, asked=asked, vllm=python)])  # noqa: B023 - called at once
        flock.made.clear()
        gc.collect()
    return rows


def _bytes(flock: Flock, count: int, rank: int, spread: str) -> int:
    return count * rank * flock.widths(spread) * _FLOAT


def _free(otherwise: str, needed: int) -> bool:
    """Whether there is memory for it; says what comes of it where there is not."""
    enough = needed <= psutil.virtual_memory().available
    if not enough:
        print(f"  {otherwise}: it would need about {needed / 2**30:.0f} GiB, which are not free", file=sys.stderr, flush=True)
    return enough


def _one(flock: Flock, folder: Path, count: int, rank: int, spread: str, *, asked: Asked, vllm: str) -> Row:
    bundles = [flock.files(rank, spread, number) for number in range(count)]
    prompts, names = flock.prompts(count), [str(number) for number in range(count)]
    last: dict[str, Decoded] = {}
    worn = wear(flock.peft, bundles)
    runs = Engine(flock.base, rows=count, adapter_bytes=sum(map(_size, bundles)) + (64 << 20))
    organisms = [runs.add(files) for files in bundles]
    sides: dict[str, Callable[[], Decoded]] = {
        OURS: lambda: loops.engine(runs, organisms, prompts, asked.new),
        LOOP: lambda: loops.plain(flock.bare, prompts, asked.new),
        PEFT: lambda: loops.plain(worn, prompts, asked.new, adapter_names=names),
    }
    if count < _LARGE:
        sides |= {
            MIXER: lambda: loops.mixed(runs.mixer, flock.base.model, organisms, prompts, asked.new),
            NOBODY: lambda: loops.engine(runs, [None] * count, prompts, asked.new),
            GENERATE: lambda: loops.generated(flock.bare, prompts, asked.new),
        }
    with _beside(vllm, flock, bundles, folder, rank) as rival:
        if rival:
            sides[VLLM] = lambda: rival.run(prompts.tolist(), asked.new)
        found = interleaved({name: _kept(name, side, last) for name, side in sides.items()}, asked.rounds, warm=asked.warm)
    step = roofline.step(
        flock.base, rows=count, organisms=count, rank=rank, widths=flock.widths(spread), length=PROMPT + asked.new // 2
    )
    found[LIMIT] = [count / step.seconds(str(flock.base.device), flock.base.dtype)]
    tell = {"oracle": last[PEFT].ids, "tokenizer": flock.base.tokenizer, "dtype": flock.base.dtype}
    checks = {}
    for name, side in ((OURS, "engine"), (MIXER, "mixer")):
        if name in last:
            seen = agreement.verdict(last[name], worn, prompts, names, **tell)
            checks[f"{side}: {seen}"] = seen.right
    checks["nobody left early"] = all(set(one.counts) == {asked.new} for one in last.values())
    for organism in organisms:
        runs.remove(organism)
    runs.mixer.close()
    bare_again(worn)
    goals = [Goal(_GOALS[count, rank, spread], LOOP)] if (count, rank, spread) in _GOALS else []
    goals += [Goal(9.0 if count == 128 else 4.0, PEFT)] if count >= 32 else []
    goals += [Goal(2.0, VLLM)] if count >= 32 else []
    what = f"{count} organisms of rank {rank} on {SPREADS[spread]}; {step}"
    return Row("M1, M2", what, "tokens/s", found, tuple(goals), checks)


def _kept(name: str, side: Callable[[], Decoded], last: dict[str, Decoded]) -> Callable[[], float]:
    def run() -> float:
        last[name] = side()
        return last[name].tokens_per_s

    return run


@contextmanager
def _beside(vllm: str, flock: Flock, bundles: list[dict[str, bytes]], folder: Path, rank: int) -> Iterator[Any]:
    """Start vLLM, where its Python was given."""
    if not vllm:
        yield None
        return
    from tests.bench.vllm_side import running

    with running(vllm, flock, bundles, folder, rank=rank) as rival:
        yield rival


def _size(files: dict[str, bytes]) -> int:
    return sum(map(len, files.values()))
