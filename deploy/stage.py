"""What the demonstration stands on: how it prints, and how it starts and ends other programs. The story itself is demo.py's."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING

import model_organisms as mo
from model_organisms.cli.render import inert
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Iterator

out = Console(markup=False, highlight=False, emoji=False, width=min(100, Console().width) if sys.stdout.isatty() else 100)


class Failed(Exception):
    """The story cannot go on, or does not end as it must."""


@dataclass(slots=True)
class Story:
    """What has happened so far, for the table at the end."""

    rows: list[tuple[str, str]] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)

    def chapter(self, title: str) -> None:
        """Say what comes now."""
        out.print(f"\n{time.monotonic() - self.began:6.1f} s  {title}", style="bold")

    def tell(self, what: str, seen: str, *, width: int = 18) -> None:
        """Say what was seen."""
        line = Table.grid(padding=(0, 2))
        line.add_column(width=width, style="cyan")
        line.add_column()
        line.add_row(Text(what), Text(inert(seen)))
        out.print(Padding(line, (0, 0, 0, 10)))

    def note(self, what: str, seen: str) -> None:
        """Say it, and keep it for the table."""
        self.tell(what, seen)
        self.rows.append((what, seen))


@contextmanager
def running(arguments: list[str], log: IO[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """Run a process while the block runs, and end it whatever happens."""
    # A session of its own: Ctrl-C is for us to hear, and then to stop it in order.
    process = subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(timeout=40)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def enrol(ticket: str, path: Path, server: subprocess.Popen[bytes], log: Path) -> mo.Client:
    """Enrol as soon as the registry answers."""
    for _ in range(200):
        if server.poll() is not None:
            break
        try:
            return mo.login(ticket, path)
        except mo.RegistryUnreachable:
            time.sleep(0.1)
    said = log.read_text("utf-8", errors="replace").strip().splitlines() or ["nothing"]
    raise Failed(f"the registry did not come up; its last words in {near(log)}: {said[-1]}")


def program(name: str) -> str:
    """A command of this environment."""
    return str(Path(sys.executable).with_name(name))


def command(name: str, *arguments: str) -> str:
    """Run a command of this environment, and return what it printed."""
    done = subprocess.run([program(name), *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise Failed(f"`{name} {arguments[0]}` ended with status {done.returncode}: {(done.stderr or done.stdout).strip()}")
    return done.stdout


def near(path: str | Path) -> str:
    """A path as one would type it here."""
    shown = os.path.relpath(path)
    return str(path) if shown.startswith("..") else shown
