"""Shows long work on the terminal, on standard error, and only while it lasts. Nothing here decides anything."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.console import Console


@contextmanager
def bar(title: str, total: int, *, unit: str = "bytes", show: bool = True) -> Iterator[Callable[[int], None]]:
    """Show a bar while the block runs.

    Args:
        title: What is going on.
        total: How much there is to do.
        unit: `bytes`, or what is counted.
        show: False shows nothing, so that callers need no second path.

    Yields:
        A function that takes how much more is done.
    """
    console = _terminal() if show else None
    if console is None:
        yield lambda _more: None
        return
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    counts = (DownloadColumn(), TransferSpeedColumn()) if unit == "bytes" else (MofNCompleteColumn(), TextColumn(unit))
    columns = (TextColumn("{task.description}"), BarColumn(), *counts, TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(title, total=total)
        yield lambda more: progress.advance(task, more)


@contextmanager
def waiting(title: str, *, show: bool = True) -> Iterator[None]:
    """Show a spinner while the block runs, where there is nothing to count."""
    console = _terminal() if show else None
    if console is None:
        yield
        return
    with console.status(title):
        yield


def _terminal() -> Console | None:
    """Give standard error where somebody watches it; in a file, bars are blank lines."""
    from rich.console import Console

    console = Console(file=sys.stderr)
    return console if console.is_terminal or console.is_jupyter else None
