"""M3: one more organism beside those that are held, from its bytes to ready; PEFT and vLLM read it from a plain folder."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import torch
from model_organisms.quiet import quiet_libraries
from model_organisms.sampling import Engine
from peft.utils.hotswap import hotswap_adapter

from tests.bench.flock import EVERY, bare_again, wear, written
from tests.bench.measure import OURS, Goal, Row, interleaved, seconds
from tests.bench.mixed import VLLM
from tests.bench.vllm_side import running

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.bench.flock import Flock

PLACE, LOAD, SWAP = "of that, into place", "PEFT load_adapter", "PEFT hotswap"
RANK = 8
_numbers = itertools.count(1000)


def attached(flock: Flock, folder: Path, *, quick: bool, whole: bool, vllm: str) -> list[Row]:
    """One row for each number held; PEFT beside 128 takes minutes to set up, so that only where all is asked for."""
    return [
        _beside(flock, folder / f"held-{held}", held, rounds=3 if quick else 9, peft=held < 100 or whole, vllm=vllm)
        for held in ((1, 31) if quick else (1, 31, 128))
    ]


def _beside(flock: Flock, folder: Path, held: int, *, rounds: int, peft: bool, vllm: str) -> Row:
    bundles = [flock.files(RANK, EVERY, number) for number in range(held)]
    size = sum(map(len, bundles[0].values()))
    runs = Engine(flock.base, rows=1, adapter_bytes=(held + 2) * 2 * size)
    for files in bundles:
        runs.add(files)
    probe = flock.prompts(1)[0].tolist()
    seen: list[torch.Tensor] = []

    def ours() -> float:
        files = flock.files(RANK, EVERY, next(_numbers))
        added: list[Any] = []
        took = seconds(lambda: added.append(runs.add(files)))
        seen.append(runs.logits(added[0], probe))
        runs.remove(added[0])
        flock.made.clear()
        return took * 1e3

    stays = runs.add(flock.files(RANK, EVERY, next(_numbers)))

    def place() -> float:
        runs.bank._leave(stays)
        return seconds(lambda: runs.bank.weights(stays)) * 1e3

    sides: dict[str, Callable[[], float]] = {OURS: ours, PLACE: place}
    worn = wear(flock.peft, bundles) if peft else None
    if worn is not None:
        sides |= {LOAD: lambda: _loaded(worn, flock, folder), SWAP: lambda: _swapped(worn, flock, folder)}
    if vllm and held == 31:
        with running(vllm, flock, bundles, folder / "vllm", rank=RANK) as rival:
            sides[VLLM] = lambda: rival.attach(_fresh(flock, folder)) * 1e3
            found = interleaved(sides, rounds)
    else:
        found = interleaved(sides, rounds)
    checks = {"each of another answer": len({row[-1].sum().item() for row in seen}) == len(seen)}
    if worn is not None:
        bare_again(worn)
        checks["as PEFT answers"] = _as_peft(flock, runs, probe)
    runs.mixer.close()
    runs.bank.close()
    what = f"one more of rank {RANK} on every linear layer ({size / 1e6:.0f} MB) with {held} held, check included"
    return Row("M3", what, "ms", found, (Goal(10.0, at_most=True),), checks)


def _fresh(flock: Flock, folder: Path) -> Path:
    number = next(_numbers)
    files = flock.files(RANK, EVERY, number)
    flock.made.clear()
    return written(files, folder / f"fresh-{number}")


def _loaded(worn: Any, flock: Flock, folder: Path) -> float:
    at = _fresh(flock, folder)
    with quiet_libraries():
        took = seconds(lambda: worn.load_adapter(str(at), adapter_name="more", local_files_only=True))
        worn.delete_adapter("more")
    return took * 1e3


def _swapped(worn: Any, flock: Flock, folder: Path) -> float:
    at = _fresh(flock, folder)
    with quiet_libraries():
        return seconds(lambda: hotswap_adapter(worn, str(at), adapter_name="0", torch_device=flock.device)) * 1e3


def _as_peft(flock: Flock, runs: Engine, ids: list[int]) -> bool:
    """Whether an organism that has just come says what PEFT says of it."""
    files = flock.files(RANK, EVERY, next(_numbers))
    organism = runs.add(files)
    worn = wear(flock.peft, [files])
    with torch.inference_mode():
        theirs = worn(input_ids=torch.tensor([ids], device=flock.device)).logits[0].float().cpu()
    mine = runs.logits(organism, ids)
    runs.remove(organism)
    bare_again(worn)
    bound = 2e-3 if flock.base.dtype == "float32" else 0.25
    return bool((mine - theirs).abs().max() <= bound)
