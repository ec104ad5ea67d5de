"""`python -m tests.bench`: measures the registry beside bare transports in one run, prints a table, writes build/bench.json.

Nothing here is a test: a slow machine fails nothing. The exit status is 1 only if what was timed was not right.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import torch
from rich.console import Console
from rich.table import Table

from tests.bench import (
    attach,
    calls,
    capture,
    flock,
    gate,
    inspecting,
    join,
    ledger,
    mixed,
    peers,
    place,
    pull,
    ready,
    rival,
    served,
    start,
    sweep,
)
from tests.bench.measure import OURS, tried
from tests.support.tree import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from tests.bench.measure import Row

SERVED = ("M7", "M6", "M5", "ready")
MODELS = ("M1", "first", "M3", "M10", "M11", "M12", "M4", "M9")
"""Those that need a base model in memory; M1 has M2 beside it."""
ALL = ("M13", "M8", "M14", *SERVED, *MODELS)
_LIBRARIES = (
    "grpcio",
    "protobuf",
    "cryptography",
    "sqlalchemy",
    "cedarpy",
    "obstore",
    "torch",
    "transformers",
    "peft",
    "inspect-ai",
)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--quick", is_flag=True, help="Fewer and shorter rounds, and 34 MB in place of 271: a look, not a figure.")
@click.option(
    "--all", "whole", is_flag=True, help="Every count, rank and spread of M1 and M2, PEFT beside 128, M12 without a jail."
)
@click.option("--counts", default="", help="Of M1 and M2, only rows of so many organisms: some of 1,8,32,128.")
@click.option("--ranks", default="", help="Of M1 and M2, only rows of these ranks: some of 1,8,64.")
@click.option("--only", default="", help=f"Some of {','.join(ALL)}, separated by commas.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON in place of the table.")
@click.option(
    "--mlflow", default="", metavar="COMMAND", help="An `mlflow` command, of any environment, to measure in the same run."
)
@click.option("--vllm", default="", metavar="PYTHON", help="The Python of an environment with vLLM, to measure in the same run.")
@click.option("--device", default="cpu", show_default=True, help="Where models compute: cpu, cuda, cuda:1.")
@click.option("--dtype", default="auto", show_default=True, help="What they compute in; the model's own on a GPU where absent.")
@click.option("--base", default="smollm2-135m-instruct", show_default=True, help="The base model of M1 to M4 and M9 to M12.")
@click.option("--threads", default=0, help="Threads of torch, ours and peers'; its own choice where absent.")
def main(*, only: str, as_json: bool, threads: int, counts: str, ranks: str, **asked: Any) -> None:
    """Measure, print, and write build/bench.json."""
    chosen = [name for name in ALL if name in (only.split(",") if only else ALL)]
    if only and len(chosen) != len(only.split(",")):
        raise click.BadParameter(f"choose from {', '.join(ALL)}", param_hint="--only")
    if threads:
        torch.set_num_threads(threads)
    build = ROOT / "build"
    build.mkdir(exist_ok=True)
    begin, before = time.monotonic(), os.getloadavg()
    # Beside the repository's own files, because a temporary folder may be in memory, where nothing is durable and all is fast.
    with tempfile.TemporaryDirectory(prefix="bench-", dir=build) as folder:
        Path(folder).chmod(0o755)  # a cell under a user of its own reads what lies there
        wanted = Wanted(counts=_numbers(counts, "--counts"), ranks=_numbers(ranks, "--ranks"), **asked)
        rows = _measured(chosen, Path(folder), wanted)
    report = {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(time.monotonic() - begin),
        "quick": wanted.quick,
        "load": {"before": before, "after": os.getloadavg()},
        "machine": {"cores": os.cpu_count(), "processor": _processor(), "python": platform.python_version()}
        | {"device": wanted.device, "threads": torch.get_num_threads(), "base": wanted.base},
        "versions": {name: version(name) for name in _LIBRARIES},
        "rows": [row.as_json() for row in rows],
    }
    (build / "bench.json").write_text(json.dumps(report, indent=1) + "\n", "utf-8")
    print(json.dumps(report, indent=1)) if as_json else _show(rows, report)
    sys.exit(0 if all(row.right for row in rows) else 1)


@dataclass(frozen=True, slots=True)
class Wanted:
    """How it was asked for."""

    quick: bool
    whole: bool
    mlflow: str
    vllm: str
    device: str
    dtype: str
    base: str
    counts: tuple[int, ...]
    ranks: tuple[int, ...]


def _numbers(text: str, option: str) -> tuple[int, ...]:
    try:
        return tuple(int(one) for one in text.split(",") if one)
    except ValueError as error:
        raise click.BadParameter("write numbers, separated by commas", param_hint=option) from error


def _measured(chosen: Collection[str], folder: Path, wanted: Wanted) -> list[Row]:
    quick = wanted.quick
    alone = {
        "M13": lambda: gate.decisions(quick=quick),
        "M8": lambda: ledger.acknowledged(folder / "ledger", quick=quick),
        "M14": lambda: start.cold(folder / "start", quick=quick),
    }
    rows = _run(alone, chosen)
    if not {*chosen} - {*alone}:
        return rows
    with ExitStack() as stack:
        commands = (1, 4) if wanted.mlflow else ()
        rivals = [stack.enter_context(rival.running(wanted.mlflow, folder / f"mlflow{n}", n)) for n in commands]
        one = rivals[0] if rivals else None
        if {*chosen} & {*SERVED, "M4", "M9"}:
            here = stack.enter_context(place.running(folder / "registry"))
        if {*chosen} & {*SERVED}:
            bare = stack.enter_context(peers.running(folder / "peers"))
            served_rows = {
                "M7": lambda: calls.calls(here, bare, quick=quick, rivals=rivals),
                "M6": lambda: pull.small(here, bare, quick=quick, rival=one),
                "M5": lambda: pull.large(here, bare, quick=quick, rival=one),
                "ready": lambda: ready.ready(here, folder, quick=quick),
            }
            rows += _run(served_rows, chosen)
        if {*chosen} & {*MODELS}:
            rows += _models(chosen, folder, wanted, here if {*chosen} & {"M4", "M9"} else None, one)
    return rows


def _models(
    chosen: Collection[str], folder: Path, wanted: Wanted, here: place.Place | None, one: rival.Rival | None
) -> list[Row]:
    """The rows that need a base model."""
    models = flock.flock(wanted.base, device=wanted.device, dtype=wanted.dtype)
    how = {"quick": wanted.quick, "whole": wanted.whole}
    parts = {
        "M1": lambda: mixed.many(models, folder / "many", vllm=wanted.vllm, counts=wanted.counts, ranks=wanted.ranks, **how),
        "first": lambda: join.joined(models, quick=wanted.quick),
        "M3": lambda: attach.attached(models, folder / "attach", vllm=wanted.vllm, **how),
        "M10": lambda: capture.captured(models, quick=wanted.quick),
        "M11": lambda: inspecting.asked(models, quick=wanted.quick, dtype=wanted.dtype),
        "M12": lambda: served.sampled(models, folder / "served", device=wanted.device, **how),
        "M4": lambda: sweep.swept(models, here, folder / "sweep", **how),
        "M9": lambda: sweep.cold(models, here, folder / "cold", quick=wanted.quick, rival=one),
    }
    return _run(parts, chosen)


def _run(parts: Mapping[str, Callable[[], list[Row]]], chosen: Collection[str]) -> list[Row]:
    rows: list[Row] = []
    for name, measure in parts.items():
        if name in chosen:
            print(f"{name} ...", file=sys.stderr, flush=True)
            rows += tried(name, measure)
    return rows


def _show(rows: list[Row], report: dict[str, Any]) -> None:
    table = Table(title="Medians of interleaved rounds, all in one run", title_justify="left")
    for heading in ("", "what", "ours", "beside (ours / theirs)", "goal", "correct"):
        table.add_column(heading, justify="right" if heading == "ours" else "left", overflow="fold")
    for row in rows:
        beside = [f"{name} {_figure(row.figure(name))} ({row.ratio(name):.3g})" for name in row.sides if name != OURS]
        goals = [f"{goal} {_MARKS[row.reached(goal)]}" for goal in row.goals]
        checks = [f"{'yes' if held else '[red]NO[/red]'}: {what}" for what, held in row.checks.items()]
        ours = f"{_figure(row.figure())} {row.unit}"
        table.add_row(row.mark, row.what, ours, "\n".join(beside), "\n".join(goals), "\n".join(checks), end_section=True)
    console = Console(width=None if sys.stdout.isatty() else 150)
    console.print(table)
    load = " to ".join(f"{report['load'][when][0]:.1f}" for when in ("before", "after"))
    quick = " A quick look: too few rounds for a figure." if report["quick"] else ""
    print(f"{report['machine']['cores']} cores ({report['machine']['processor']}), load {load}, {report['seconds']} s.{quick}")
    print("Written to build/bench.json.")


_MARKS = {True: "[green]reached[/green]", False: "[yellow]not reached[/yellow]", None: "[dim]peer did not run[/dim]"}


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


if __name__ == "__main__":
    main()
