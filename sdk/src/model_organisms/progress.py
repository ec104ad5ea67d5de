"""Shows long work on the terminal, on standard error, and only while it lasts. Nothing here decides anything."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


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
    if not show:
        yield lambda _more: None
        return
    from rich.console import Console
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
    with Progress(*columns, console=Console(file=sys.stderr), transient=True) as progress:
        task = progress.add_task(title, total=total)
        yield lambda more: progress.advance(task, more)


@contextmanager
def waiting(title: str, *, show: bool = True) -> Iterator[None]:
    """Show a spinner while the block runs, where there is nothing to count."""
    if not show:
        yield
        return
    from rich.console import Console

    with Console(file=sys.stderr).status(title):
        yield
