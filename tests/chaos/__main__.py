"""`python -m tests.chaos`: many sessions at once while cells and the registry are killed; then all must agree to the entry.

`make chaos` runs ten minutes of it; `make test` a short form. The exit status is 1 if anything a client holds is missing in the
ledger, if ledger, budgets and transcripts do not agree, or if a client saw an error that a kill does not explain.

The seed decides who asks what and who is killed when, as far as the machine's own timing lets it: the same seed gives the same
choices, not the same interleaving.
"""

from __future__ import annotations

import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from random import Random, SystemRandom
from typing import TYPE_CHECKING, Any

import click
import psutil
from model_organisms_registry.domain.audit import Event
from model_organisms_registry.inspection import inspect

from tests.chaos.agreeing import disagreements
from tests.chaos.clients import CELL, REGISTRY, Asker, Tally
from tests.chaos.held import missing
from tests.support.crowd import crowd
from tests.support.tree import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable

    from model_organisms.formats.entry import Entry

    from tests.support.crowd import Crowd
    from tests.support.serving import Serving

_DRAIN_S = 90
_LEVELS = ("CL2", "CL1", "CL2", "CL3", "CL2", "CL1", "CL2", "CL1")
"""Of the organisms, in turn. Each session at CL3 has a cell of its own, and some of its turns are said again in another."""
_RERUNS = {Event.RERUN.type, Event.RERUN_DIFFERS.type}
_CROWDED = 0.9
"""Share of the sessions that must have been open at once for a run to have been one of so many."""
_PATIENCE_S = 45.0
"""For so long the next kill waits until sessions crowd again; on a slow machine they may never."""


@dataclass(slots=True)
class Killer:
    """Ends a process every few seconds, with no warning."""

    registry: Serving
    random: Random
    pauses: tuple[float, float]
    registry_share: float
    tally: Tally
    """What clients hold, who are told of each kill."""
    between: int = 0
    """So many more must have come before the next is killed: a slow machine gets on all the same."""
    crowded: Callable[[], bool] = lambda: True
    """Whether as many sessions are open as should be."""
    most: int = 0
    """Kills after which it has done enough; 0 is no end."""
    cells: int = 0
    registries: int = 0
    slowest_start_s: float = 0.0
    wanted: int = 0
    patience_s: float = _PATIENCE_S
    latest: float = field(default_factory=lambda: time.monotonic() + _PATIENCE_S)

    def __post_init__(self) -> None:
        """Let the first answers come."""
        self.wanted = self.between

    @property
    def done(self) -> bool:
        """Tell whether it killed as many as it should, and answers have come since."""
        return 0 < self.most <= self.cells + self.registries and len(self.tally.held) >= self.wanted

    def work(self, until: float) -> None:
        """Kill, by chance a cell or the registry, until it is time."""
        while (left := until - time.monotonic()) > 0 and not self.done:
            time.sleep(min(left, self.random.uniform(*self.pauses)))
            if self.done or len(self.tally.held) < self.wanted or not (self.crowded() or time.monotonic() > self.latest):
                continue
            self.wanted, self.latest = len(self.tally.held) + self.between, time.monotonic() + self.patience_s
            if self._chosen() < self.registry_share:
                self._registry()
            else:
                self._cell()

    def _chosen(self) -> float:
        """Draw a number from 0 to 1; the last kill is of what was not killed yet."""
        drawn = self.random.random()
        if self.cells + self.registries != self.most - 1:
            return drawn
        return 0.0 if not self.registries else drawn if self.cells else 1.0

    def _cell(self) -> None:
        with suppress(psutil.NoSuchProcess, IndexError):
            victim = self.random.choice(self.registry.cells())
            self.tally.killed(CELL)
            victim.send_signal(signal.SIGKILL)
            self.cells += 1

    def _registry(self) -> None:
        self.tally.killed(REGISTRY, down=True)
        self.registry.kill()
        begun = time.monotonic()
        self.registry.start()
        self.tally.killed(REGISTRY)
        self.slowest_start_s = max(self.slowest_start_s, time.monotonic() - begun)
        self.registries += 1


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--seconds", default=600.0, show_default=True, help="How long things are killed.")
@click.option("--sessions", default=64, show_default=True, help="Sessions at once.")
@click.option("--organisms", default=16, show_default=True, help="Organisms they choose among.")
@click.option("--rows", default=16, show_default=True, help="Sessions that share a cell.")
@click.option("--kills", default=0, help="End as soon as so many were killed; no such end where absent.")
@click.option("--between", default=64, show_default=True, help="Answers that must have come before the next is killed.")
@click.option("--seed", default=0, help="Of the choices; one of chance where absent.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON in place of sentences.")
def main(*, seed: int, as_json: bool, **asked: Any) -> None:
    """Sample, kill, and look whether everything agrees."""
    seed = seed or SystemRandom().randint(1, 2**31)
    print(f"seed {seed}", file=sys.stderr, flush=True)
    build = ROOT / "build"
    build.mkdir(exist_ok=True)
    # Beside the repository's own files, because a temporary folder may be in memory, where a sync is nothing.
    with tempfile.TemporaryDirectory(prefix="chaos-", dir=build) as folder:
        Path(folder).chmod(0o755)  # a cell under a user of its own reads the base model in it
        report = _played(Path(folder), Wanted(seed=seed, **asked))
    (build / "chaos.json").write_text(json.dumps(report, indent=1) + "\n", "utf-8")
    print(json.dumps(report, indent=1)) if as_json else _say(report)
    sys.exit(1 if report["wrong"] else 0)


@dataclass(frozen=True, slots=True)
class Wanted:
    """How it was asked for."""

    seconds: float
    sessions: int
    organisms: int
    rows: int
    kills: int
    between: int
    seed: int


def _played(folder: Path, wanted: Wanted) -> dict[str, object]:
    tally, stop = Tally(), threading.Event()
    sessions, seed, seconds = wanted.sessions, wanted.seed, wanted.seconds
    researchers = max(1, sessions // 8)
    print("founding and publishing ...", file=sys.stderr, flush=True)
    size = {"organisms": wanted.organisms, "researchers": researchers, "cells": sessions + 8, "rows": wanted.rows}
    with crowd(folder, **size, release_s=0.05, levels=_LEVELS) as there:
        askers = [
            Asker(there.researchers[number % researchers], there.versions, seed=f"{seed}/{number}", tally=tally, stop=stop)
            for number in range(sessions)
        ]
        for asker in askers:
            asker.start()
        pauses = (1.0, 4.0) if seconds < 120 else (2.0, 8.0)
        killer = Killer(
            there.registry,
            Random(f"{seed}/killer"),
            pauses=pauses,
            registry_share=0.25,
            tally=tally,
            patience_s=min(_PATIENCE_S, seconds / 10),
            between=wanted.between,
            crowded=lambda: tally.open >= _CROWDED * sessions,
            most=wanted.kills,
        )
        begun, load = time.monotonic(), os.getloadavg()
        try:
            _watched(killer, tally, begun + seconds)
        finally:
            stop.set()
            for asker in askers:
                asker.join(_DRAIN_S)
        took = time.monotonic() - begun
        wrong = [f"{asker.name} never came back" for asker in askers if asker.is_alive()]
        wrong += tally.wrong + _hollow(wanted, killer, tally) + _agreement(there)
        entries = _verified(there)
        wrong += _ledger(there, tally, entries)
    finished = [one for one in tally.held if one.sample]
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "seed": seed,
        "rows": wanted.rows,
        "seconds": round(took),
        "machine": {"cores": os.cpu_count(), "python": platform.python_version(), "load": [load, os.getloadavg()]},
        "sessions": {"opened": tally.sessions, "at_once_at_most": tally.most_open},
        "killed": {"cells": killer.cells, "registries": killer.registries, "slowest_restart_s": round(killer.slowest_start_s, 2)},
        "held": {
            "answers": len(finished),
            "answers_cut_off": sum(1 for one in tally.held if one.windows and not one.sample),
            "probes": sum(1 for one in tally.held if one.probe),
            "windows": sum(len(one.windows) for one in tally.held),
            "tokens": sum(one.sample.receipt.tokens for one in finished),
        },
        "said_again": dict(Counter(entry.facts["verdict"] for entry in entries if entry.type in _RERUNS)),
        "borne": dict(tally.ended),
        "wrong": wrong,
    }


def _hollow(wanted: Wanted, killer: Killer, tally: Tally) -> list[str]:
    """Why a run proves less than it was asked for, if it does; one that ends by its kills may end before all have come."""
    wrong = []
    if not wanted.kills and tally.most_open < _CROWDED * wanted.sessions:
        wrong.append(f"only {tally.most_open} of {wanted.sessions} sessions were ever open at once; ask for fewer, or for longer")
    if not (killer.cells and killer.registries):
        wrong.append(f"{killer.cells} cells and {killer.registries} registries were killed; some of each are needed")
    return wrong


def _watched(killer: Killer, tally: Tally, until: float) -> None:
    """Let the killer work, and say now and then how it stands."""
    while time.monotonic() < until and not killer.done:
        killer.work(min(until, time.monotonic() + 15))
        print(
            f"{max(0, until - time.monotonic()):4.0f} s left: {tally.open} sessions, {len(tally.held)} answers held, "
            f"killed {killer.cells} cells and {killer.registries} registries",
            file=sys.stderr,
            flush=True,
        )


def _agreement(there: Crowd) -> list[str]:
    """Stop the registry in good order; then its own commands must find that all agrees."""
    process = there.registry.process
    process.send_signal(signal.SIGTERM)
    process.wait(_DRAIN_S)
    wrong = [f"fsck: {finding}" for finding in inspect(there.registry.config).findings]
    there.registry.start()  # what the stop left open is ended by the start
    return wrong + reconciled(there.registry.config.folder)


def reconciled(folder: Path) -> list[str]:
    """What `mo-registry reconcile` finds not to agree."""
    command = [str(Path(sys.executable).with_name("mo-registry")), "reconcile", "--json", "--folder", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return [] if done.returncode == 0 else [f"reconcile: {done.stdout[-2000:]}{done.stderr[-2000:]}"]


def _verified(there: Crowd) -> list[Entry]:
    """An auditor verifies the whole ledger, and reads it."""
    with there.person("aud") as auditor:
        auditor.audit.verify_ledger()
        return [entry for _, entry in auditor.audit.entries()]


def _ledger(there: Crowd, tally: Tally, entries: list[Entry]) -> list[str]:
    """Hold the ledger against what the clients kept, and against what sessions and grants say was spent."""
    if not any(one.sample for one in tally.held):
        return ["no answer was ever finished"]
    with there.person("ravi") as reviewer:
        sessions = list(reviewer.sandbox.list())
    grants = [grant for client in there.researchers for grant in client.access.grants()]
    differ = [f"said again, it differs: {entry.subject}" for entry in entries if entry.type == Event.RERUN_DIFFERS.type]
    return differ + missing(tally.held, entries) + disagreements(sessions, grants, entries)


def _say(report: dict[str, object]) -> None:
    for name, value in report.items():
        if name != "wrong":
            shown = ", ".join(f"{key} {count}" for key, count in value.items()) if isinstance(value, dict) else value
            print(f"{name}: {shown}")
    for what in report["wrong"]:
        print(f"WRONG: {what}")
    print("everything agrees" if not report["wrong"] else f"{len(report['wrong'])} wrong", flush=True)


if __name__ == "__main__":
    main()
