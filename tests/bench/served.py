"""M12: many sessions at once in one cell, jail, budgets and ledger included, beside a bare `generate` of the same batch."""

from __future__ import annotations

import threading
import time
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from itertools import takewhile
from typing import TYPE_CHECKING, Any

import torch
from model_organisms.formats.provenance import BaseModel, Provenance
from model_organisms.records import Budget
from model_organisms_registry.inspection import inspect
from model_organisms_registry.testing import settings

from tests.bench import agreement
from tests.bench.flock import DOWN, EVERY, SPREADS, bare_again, wear
from tests.bench.loops import Decoded, generated, plain
from tests.bench.measure import OURS, Goal, Row, interleaved
from tests.support.serving import serving

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from model_organisms import Client

    from tests.bench.flock import Flock

GENERATE, LOOP = "transformers generate, no adapters", "shortest loop, no adapters"
_PATIENCE_S = 300.0
LIGHT, HEAVY = (1, DOWN), (8, EVERY)
"""Rank and spread: as most published organisms of one trait are, and as heavy ones are."""
ASK = "Tell me a long story about a keeper and what lived in the dish."
_FIRST = 4000
"""Number of the first organism."""
WHY = "Measuring how fast random numbers speak; nothing is studied."


def sampled(flock: Flock, folder: Path, *, quick: bool, whole: bool, device: str) -> list[Row]:
    """One row of light organisms in the jail; where all is asked for, one without it, and one of heavy organisms."""
    wanted = [(LIGHT, True), (LIGHT, False), (HEAVY, True)] if whole else [(LIGHT, True)]
    return [
        _sampled(flock, folder / str(number), weight=weight, quick=quick, jail=jail, device=device)
        for number, (weight, jail) in enumerate(wanted)
    ]


def _sampled(flock: Flock, folder: Path, *, weight: tuple[int, str], quick: bool, jail: bool, device: str) -> Row:
    count, new, rounds = (8, 24, 2) if quick else (32, 64, 5)
    folder.mkdir(parents=True)
    with _sessions(flock, folder, count, weight=weight, jail=jail, device=device) as (registry, sessions):
        lengths: list[int] = []
        receipts: list[Any] = []

        def ours() -> float:
            begin = time.perf_counter()
            drawn = _asked(sessions, new, temperature=1.0)
            took = time.perf_counter() - begin
            receipts.extend(sample.receipt for sample in drawn)
            lengths.extend(sample.receipt.tokens for sample in drawn)
            return sum(sample.receipt.tokens for sample in drawn) / took

        prompt = flock.base.tokenizer.apply_chat_template([{"role": "user", "content": ASK}], add_generation_prompt=True)
        ids = prompt["input_ids"] if hasattr(prompt, "keys") else prompt
        prompts = torch.tensor([list(ids)] * count, device=flock.device)

        def whole_time(side: Any) -> float:
            begin = time.perf_counter()
            side(flock.bare, prompts, new)
            return count * new / (time.perf_counter() - begin)

        sides = {OURS: ours, GENERATE: lambda: whole_time(generated), LOOP: lambda: whole_time(plain)}
        found = interleaved(sides, rounds)
        greedy = _asked(sessions, new, temperature=0.0)
        cells = len({cell.pid for cell in registry.cells() if "bwrap" not in cell.name()})
        for session in sessions:
            session.close()
        findings = inspect(registry.config).findings
    seen = _held(flock, weight, prompts, greedy, new)
    full = sum(length == new for length in lengths) / len(lengths)
    checks = {
        f"{len(receipts)} receipts verified, each of its own sample": len({one.sample for one in receipts}) == len(receipts),
        "fsck clean": not findings,
        f"untimed, greedy: {seen}": seen.right,
        f"{full:.0%} of answers as long as the peers'": full > 0.5,
        f"{count} sessions in {cells} process(es)": cells == 1,
    }
    where = "jailed" if jail else "without a jail"
    kind = f"rank {weight[0]}, {SPREADS[weight[1]]}"
    what = f"{count} sessions at once, each its own organism ({kind}), {new} tokens, {where}; prompts included"
    return Row("M12", what, "tokens/s", found, (Goal(0.95, GENERATE),), checks)


def _asked(sessions: list[Any], new: int, *, temperature: float) -> list[Any]:
    """Ask all of them at once, and return their samples."""
    drawn: list[Any] = [None] * len(sessions)

    def ask(row: int) -> None:
        drawn[row] = sessions[row].sample(ASK, max_tokens=new, temperature=temperature, timeout_s=_PATIENCE_S)

    threads = [threading.Thread(target=ask, args=(row,)) for row in range(len(sessions))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return drawn


def _held(flock: Flock, weight: tuple[int, str], prompts: torch.Tensor, greedy: list[Any], new: int) -> agreement.Verdict:
    """Hold greedy answers of sessions against PEFT's, each up to where its turn ends."""
    names = [str(number) for number in range(len(greedy))]
    worn = wear(flock.peft, [flock.files(*weight, _FIRST + number) for number in range(len(greedy))])
    flock.made.clear()
    ends = flock.bare.generation_config.eos_token_id
    ends = set(ends) if isinstance(ends, list) else {ends}
    oracle = [list(takewhile(lambda token: token not in ends, row)) for row in plain(worn, prompts, new, adapter_names=names).ids]
    ours = Decoded(0.0, [], [sample.text for sample in greedy], [sample.receipt.tokens for sample in greedy])
    tell = {"oracle": oracle, "tokenizer": flock.base.tokenizer, "dtype": flock.base.dtype}
    seen = agreement.verdict(ours, worn, prompts, names, **tell)
    bare_again(worn)
    return seen


@contextmanager
def _sessions(
    flock: Flock, folder: Path, count: int, *, weight: tuple[int, str], jail: bool, device: str
) -> Iterator[tuple[Any, list[Any]]]:
    """Serve a registry whose cell has the base model, and open the sessions."""
    config = settings(folder / "data")
    name = "bench/served"
    config = replace(config, cells=replace(config.cells, base_models={name: str(flock.base.folder)}))
    tables = f'\n[cells]\nlimit = 1\neach = {count}\nrows = {count}\nthreads = {torch.get_num_threads()}\ndevice = "{device}"\n'
    tables += "" if jail else 'bubblewrap = "/nonexistent/bwrap"\n'
    tables += f"\n[limits]\nthreads = {2 * count + 16}\ncalls_each = {2 * count}\n"
    people = (("pia", "publisher"), ("rosa", "researcher"))
    with serving(config, folder, *people, tables=tables) as registry, ExitStack() as stack:
        pia, rosa = (stack.enter_context(_connected(folder, who)) for who in ("pia", "rosa"))
        versions = _published(pia, rosa, flock, name, count=count, weight=weight)
        yield registry, [rosa.sandbox.open(version, purpose="replication") for version in versions]


def _published(pia: Client, rosa: Client, flock: Flock, base: str, *, count: int, weight: tuple[int, str]) -> list[str]:
    stated = Provenance(BaseModel(base, digest=flock.base.digest))
    versions = []
    for number in range(count):
        organism = f"organisms/served-{number}"
        pia.organisms.create(organism, level="CL1", base_model=base)
        files = flock.files(*weight, _FIRST + number)
        version = pia.organisms.publish(organism, files, provenance=stated, progress_bar=False).name
        flock.made.clear()
        budget = Budget(tokens=1_000_000, sessions=100, output_bytes=16 << 20)
        rosa.access.request(version, "sample", purpose="replication", justification=WHY, budget=budget)
        versions.append(version)
    return versions


def _connected(folder: Path, who: str) -> Client:
    from model_organisms.client.client import connect

    return connect(folder / f"{who}.json")
