"""Types lines at `mo`, as a terminal would, in this process; and lists its commands."""

from __future__ import annotations

import io
import sys
from contextlib import redirect_stderr, redirect_stdout
from typing import TYPE_CHECKING

import click
from model_organisms.cli import main

if TYPE_CHECKING:
    from collections.abc import Iterator


class Terminal(io.StringIO):
    """Standard input at which somebody sits."""

    def isatty(self) -> bool:
        return True


def typed(*words: object, stdin: str | Terminal = "") -> tuple[int, str, str]:
    """Type a line as its program would get it; give status, output and errors."""
    out, err, before = io.StringIO(), io.StringIO(), (sys.argv, sys.stdin)
    sys.argv, sys.stdin = ["mo", *(str(word) for word in words)], io.StringIO(stdin) if isinstance(stdin, str) else stdin
    try:
        with redirect_stdout(out), redirect_stderr(err):
            main.main()
        status = 0
    except SystemExit as end:
        status = end.code
    finally:
        sys.argv, sys.stdin = before
    return status, out.getvalue(), err.getvalue()


def leaves(group: click.Group, above: tuple[str, ...] = ()) -> Iterator[tuple[str, click.Command]]:
    """List the commands of a program by the words that name them, groups left out."""
    for name, below in group.commands.items():
        if isinstance(below, click.Group):
            yield from leaves(below, (*above, name))
        else:
            yield " ".join((*above, name)), below
