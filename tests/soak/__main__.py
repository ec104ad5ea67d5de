"""`python -m tests.soak`: thousands of samples through sessions that open and close, while memory of registry and cells is read.

Flat means: after a warm-up of a fifth, the line through the readings rises by no more than `--bound` bytes a sample, the upper
end of its 95 % interval included; once for the registry with its signer, once for all cells together. What is read is memory that
is a process's own (RssAnon and RssShmem of /proc/PID/status, so sealed memory counts): files that are mapped come and go as the
system likes. Readings are taken between two rounds, when the same few sessions are open and nothing runs.
"""

from __future__ import annotations

import json
import os
import platform
import re
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import click
from model_organisms.errors import LedgerUnavailable
from model_organisms_registry.inspection import inspect

from tests.chaos.__main__ import reconciled
from tests.soak.flat import slope
from tests.support.crowd import PURPOSE, crowd
from tests.support.tree import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterable

    import psutil

    from tests.support.crowd import Crowd

LANES, ORGANISMS = 4, 8
EACH = 5
"""Samples of a session that is opened and closed again."""
WARM = 0.2
_TRIES = 5
_OWN = re.compile(r"^Rss(?:Anon|Shmem):\s+(\d+) kB$", re.MULTILINE)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--samples", default=10_000, show_default=True, help="Samples in all.")
@click.option("--bound", default=2048, show_default=True, help="Bytes a sample by which memory may grow.")
@click.option("--rounds", default=100, show_default=True, help="Readings of memory, evenly spread.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON in place of sentences.")
def main(*, samples: int, bound: int, rounds: int, as_json: bool) -> None:
    """Sample for long, and see whether anything grows."""
    build = ROOT / "build"
    build.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="soak-", dir=build) as folder:
        Path(folder).chmod(0o755)  # a cell under a user of its own reads the base model in it
        report = _soaked(Path(folder), samples=samples, bound=bound, rounds=rounds)
    (build / "soak.json").write_text(json.dumps(report, indent=1) + "\n", "utf-8")
    print(json.dumps(report, indent=1)) if as_json else _say(report)
    sys.exit(1 if report["wrong"] else 0)


def _soaked(folder: Path, *, samples: int, bound: int, rounds: int) -> dict[str, Any]:
    load, begun = os.getloadavg(), time.monotonic()
    print("founding and publishing ...", file=sys.stderr, flush=True)
    with crowd(folder, organisms=ORGANISMS, researchers=LANES, cells=4 * LANES) as there, ExitStack() as stack:
        # Two sessions stay open throughout, one of each trust class: their cells are as old as the run.
        stays = [there.researchers[0].sandbox.open(version, purpose=PURPOSE) for version in there.versions[:2]]
        for session in stays:
            stack.callback(session.close)
        done, again, readings = 0, 0, []
        size = max(1, samples // rounds)
        while done < samples:
            drawn, refused = _round(there, number=len(readings), size=size)
            done, again = done + drawn, again + refused
            readings.append((done, *_memory(there)))
            if len(readings) % max(1, rounds // 10) == 0:
                _, registry, cells = readings[-1]
                told = f"{done} samples, registry {registry / 2**20:.1f} MiB, cells {cells / 2**20:.1f} MiB"
                print(told, file=sys.stderr, flush=True)
        took = time.monotonic() - begun
        stack.close()
        wrong = [f"fsck: {finding}" for finding in inspect(there.registry.config).findings]
        wrong += reconciled(there.registry.config.folder)
    kept = readings[int(len(readings) * WARM) :]
    report: dict[str, Any] = {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "samples": done,
        "sessions": 2 + done // EACH,
        "visits_begun_again": again,
        "seconds": round(took),
        "machine": {"cores": os.cpu_count(), "python": platform.python_version(), "load": [load, os.getloadavg()]},
        "bound_bytes_a_sample": bound,
    }
    for place, name in ((1, "registry"), (2, "cells")):
        fit = slope([one[0] for one in kept], [one[place] for one in kept])
        report[name] = {
            "first_MiB": round(kept[0][place] / 2**20, 1),
            "last_MiB": round(kept[-1][place] / 2**20, 1),
            "bytes_a_sample": round(fit.value, 1),
            "interval_half": round(fit.half, 1),
        }
        if not fit.most <= bound:
            wrong.append(f"{name}: grows by {fit.value:.0f} ± {fit.half:.0f} bytes a sample, above {bound}")
    return {**report, "wrong": wrong, "readings": readings}


def _round(there: Crowd, *, number: int, size: int) -> tuple[int, int]:
    """Let every lane open, sample and close, until they have drawn `size` samples together.

    Returns:
        Samples drawn, and visits that were begun again.
    """
    visits = max(1, round(size / EACH / LANES))
    failures: list[BaseException] = []
    again: list[int] = []

    def lane(which: int) -> None:
        chance = Random(f"{number}/{which}")
        try:
            again.append(sum(_visit(there, which, chance) for _ in range(visits)))
        except BaseException as error:  # noqa: BLE001 - raised again below, in the thread that asked
            failures.append(error)

    lanes = [threading.Thread(target=lane, args=(which,)) for which in range(LANES)]
    for one in lanes:
        one.start()
    for one in lanes:
        one.join()
    if failures:
        raise failures[0]
    return visits * EACH * LANES, sum(again)


def _visit(there: Crowd, which: int, chance: Random) -> int:
    """Open, sample, close; begun again where a busy disk kept the ledger for too long. Returns how often."""
    version = chance.choice(there.versions)
    for tried in range(_TRIES):
        try:
            with there.researchers[which].sandbox.open(version, purpose=PURPOSE) as session:
                for _ in range(EACH):
                    session.sample(f"hello {chance.random()}", max_tokens=chance.randint(1, 12))
        except LedgerUnavailable:
            if tried + 1 == _TRIES:
                raise
            time.sleep(1)
        else:
            break
    return tried


def _memory(there: Crowd) -> tuple[int, int]:
    """Bytes of the registry with its signer, and of all cells with what wraps them, once no cell is just ending."""
    cells = there.registry.cells()
    for _ in range(50):
        time.sleep(0.1)
        again = there.registry.cells()
        if {one.pid for one in again} == {one.pid for one in cells}:
            break
        cells = again
    pids = {one.pid for one in cells}
    others = [one for one in there.registry.below() if one.pid not in pids]
    return own(there.registry.process.pid) + _sum(others), _sum(cells)


def own(pid: int) -> int:
    """Bytes that are a process's own; none of one that has ended."""
    try:
        return 1024 * sum(map(int, _OWN.findall(Path(f"/proc/{pid}/status").read_text("utf-8"))))
    except (FileNotFoundError, ProcessLookupError):
        return 0


def _sum(processes: Iterable[psutil.Process]) -> int:
    return sum(own(one.pid) for one in processes)


def _say(report: dict[str, Any]) -> None:
    print(
        f"{report['samples']} samples in {report['sessions']} sessions ({report['visits_begun_again']} begun again), "
        f"{report['seconds']} s, load {report['machine']['load']}"
    )
    for name in ("registry", "cells"):
        found = report[name]
        print(
            f"{name}: {found['first_MiB']} to {found['last_MiB']} MiB after the warm-up, "
            f"{found['bytes_a_sample']} ± {found['interval_half']} bytes a sample (at most {report['bound_bytes_a_sample']})"
        )
    for what in report["wrong"]:
        print(f"WRONG: {what}")


if __name__ == "__main__":
    main()
