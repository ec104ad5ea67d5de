"""`python -m tests.fuzz`: gives each parser bytes that atheris finds by coverage, beginning from the corpora beside this.

Each target runs in a process of its own, since a crash ends it. What it finds new stays in build/fuzz; an input that breaks a
parser is saved there and printed: it becomes a file of the corpus, and the parser is mended.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import click

from tests.fuzz.targets import LIMIT, TARGETS
from tests.support.tree import ROOT

CORPUS = Path(__file__).parent / "corpus"
BUILD = ROOT / "build" / "fuzz"
_RUNS = re.compile(r"stat::number_of_executed_units:\s+(\d+)")
_COVERED = re.compile(r"cov: (\d+)")
_SLOWEST_S, _MEMORY_MB = 10, 2048


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("names", nargs=-1, metavar="[TARGET]...")
@click.option("--seconds", default=60, show_default=True, help="How long each target is fuzzed.")
def main(*, names: tuple[str, ...], seconds: int) -> None:
    """Fuzz the parsers named, or all of them."""
    if unknown := sorted(set(names) - TARGETS.keys()):
        raise click.BadParameter(f"{unknown[0]} is no target; choose from {', '.join(TARGETS)}", param_hint="TARGET")
    crashed = [name for name in names or TARGETS if not fuzzed(name, seconds)]
    sys.exit(f"{len(crashed)} broke: {', '.join(crashed)}" if crashed else 0)


def fuzzed(name: str, seconds: int) -> bool:
    """Fuzz one target, print what came of it, and say whether it held."""
    found = BUILD / name
    found.mkdir(parents=True, exist_ok=True)
    limits = [f"-max_total_time={seconds}", f"-max_len={LIMIT}", f"-timeout={_SLOWEST_S}", f"-rss_limit_mb={_MEMORY_MB}"]
    places = [f"-artifact_prefix={BUILD}/broke-{name}-", str(found), str(CORPUS / name)]
    command = [sys.executable, "-m", "tests.fuzz.fuzzed", name, *limits, "-print_final_stats=1", *places]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, errors="replace", check=False)
    held, runs, covered = done.returncode == 0, _RUNS.findall(done.stderr), _COVERED.findall(done.stderr)
    click.echo(f"{name:16} {'held' if held else 'BROKE'} {(runs or ['?'])[-1]:>10} runs, coverage {(covered or ['?'])[-1]}")
    if not held:
        click.echo("\n".join(line for line in (done.stdout + done.stderr).splitlines() if not line.startswith("#"))[:6000])
    return held


if __name__ == "__main__":
    main()
