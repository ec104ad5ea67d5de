"""`python -m tests.faults`: fails each system call of the write paths in turn, prints a table, and writes docs/faults.md.

`make faults` runs it whole, for a quarter of an hour or more; `make test` runs `--short`, one fault of every other call.
The exit status is 1 if anything acknowledged was lost, anything left without its entry, or a check found anything.
"""

from __future__ import annotations

import logging
import platform
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tests.faults.matrix import KINDS, STORIES, Case, Matrix, Outcome, forked
from tests.faults.served import STORY, Served
from tests.support.tree import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

DOCUMENT = ROOT / "docs" / "faults.md"
HEADING = "## What became of them\n"
COLUMNS = ("story", "system call", "faults", "refused", "went on", "killed", "slowest answer, s", "lost or unlogged")
_SERVED_SHORT, _LANES = 3, 4


@dataclass(slots=True)
class Row:
    """What became of the faults of one call in one story."""

    faults: int = 0
    refused: int = 0
    went_on: int = 0
    killed: int = 0
    slowest_s: float = 0.0
    wrong: int = 0

    def add(self, outcome: Outcome) -> None:
        """Count one."""
        self.faults += 1
        self.killed += outcome.killed
        self.refused += bool(outcome.refused) and not outcome.killed
        self.went_on += not outcome.refused and not outcome.killed
        self.slowest_s = max(self.slowest_s, outcome.slowest_s)
        self.wrong += bool(outcome.wrong)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--short", is_flag=True, help="One fault of every other call in each story; docs/faults.md stays.")
@click.option("--only", default="", help="The stories whose name begins so.")
def main(*, short: bool, only: str) -> None:
    """Fail each system call in turn; restart; look for everything."""
    logging.disable()  # the registry says at length what failed, and here that is all that happens
    build = ROOT / "build"
    build.mkdir(exist_ok=True)
    begun = time.monotonic()
    # Beside the repository's own files, because a temporary folder may be in memory, where a sync is nothing.
    with tempfile.TemporaryDirectory(prefix="faults-", dir=build) as folder:
        outcomes = _played(Path(folder), short=short, only=only)
    rows: dict[tuple[str, str], Row] = defaultdict(Row)
    for outcome in outcomes:
        if outcome.hit:
            rows[outcome.case.story, outcome.case.call].add(outcome)
    click.echo(table(rows))
    wrong = [outcome for outcome in outcomes if outcome.wrong]
    missed = sum(not outcome.hit for outcome in outcomes)
    took = time.monotonic() - begun
    click.echo(f"{len(outcomes) - missed} faults in {took:.0f} s, {missed} did not come about, {len(wrong)} wrong")
    if not short and not only:
        DOCUMENT.write_text(_document(rows), encoding="utf-8")
    sys.exit(1 if wrong or missed > len(outcomes) // 5 else 0)


def table(rows: dict[tuple[str, str], Row]) -> str:
    """Print the outcomes."""
    lines = ["| " + " | ".join(COLUMNS) + " |", "|---|---|" + "--:|" * (len(COLUMNS) - 2)]
    for (story, call), row in sorted(rows.items()):
        cells = (story, f"`{call}`", row.faults, row.refused, row.went_on, row.killed, f"{row.slowest_s:.1f}", row.wrong)
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def few(cases: Sequence[Case]) -> list[Case]:
    """One case of every other call in each story; kinds, places and calls take turns, so that all of them come up."""
    groups: dict[tuple[str, str], list[Case]] = defaultdict(list)
    for case in cases:
        groups[case.story, case.call].append(case)
    kinds, calls = list(KINDS), sorted({case.call for case in cases})
    return [
        next((case for case in group[7 * n % len(group) :] if case.kind == kinds[n % len(kinds)]), group[-1])
        for n, group in enumerate(groups.values())
        if (calls.index(group[0].call) + STORIES.index(group[0].story)) % 2 == 0
    ]


def _played(folder: Path, *, short: bool, only: str) -> list[Outcome]:
    """Play all stories side by side: much of a fault's time is waiting."""
    lanes: list[Callable[[], Any]] = []
    if STORY.startswith(only):
        lanes.append(lambda: _lane_served(folder / "served", short=short))
    (told,) = forked(lambda: [asdict(case) for case in Matrix(folder / "cases").cases()])
    cases = [Case(**said) for said in told if said["story"].startswith(only)]
    chosen = few(cases) if short else cases
    lanes += [partial(_lane, folder / f"lane-{n}", chosen[n::_LANES]) for n in range(_LANES)]
    return [Outcome.from_json(said) for lane in forked(*lanes) for said in lane]


def _lane(folder: Path, cases: Sequence[Case]) -> list[dict[str, Any]]:
    return _each(cases, Matrix(folder).play)


def _lane_served(folder: Path, *, short: bool) -> list[dict[str, Any]]:
    """In a process of its own also because what gRPC begins does not survive the forks of the other stories."""
    served = Served(folder)
    try:
        cases = served.cases()
        return _each(cases[:: len(cases) // _SERVED_SHORT] if short else cases, served.play)
    finally:
        served.stop()


def _each(cases: Sequence[Case], play: Callable[[Case], Outcome]) -> list[dict[str, Any]]:
    found = []
    for case in cases:
        outcome = play(case)
        found.append(outcome.as_json())
        if outcome.wrong:
            click.echo(f"WRONG {case}: {'; '.join(outcome.wrong)}", err=True)
    return found


def _document(rows: dict[tuple[str, str], Row]) -> str:
    faults, wrong = sum(row.faults for row in rows.values()), sum(row.wrong for row in rows.values())
    prose, _, _ = DOCUMENT.read_text(encoding="utf-8").partition(HEADING)
    machine = f"Linux {platform.release().split('-')[0]}, Python {platform.python_version()}, SQLite"
    measured = (
        f"Run on {datetime.now(UTC):%Y-%m-%d} ({machine}): {faults} faults, of which {wrong} lost or left anything unlogged."
    )
    return f"{prose}{HEADING}\n{measured}\n\n{table(rows)}\n"


if __name__ == "__main__":
    main()
