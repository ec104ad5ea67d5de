"""Prints for people: tables on a terminal, JSON on request, and model output made inert. Nothing here calls the registry.

Text of an organism is hostile: it may hold escape codes that rewrite a terminal, or characters that reverse what is read. `inert`
shows them instead of letting them act, and everything that a registry or a model said goes through it.
"""

from __future__ import annotations

import base64
import dataclasses
import json
import sys
import unicodedata
from datetime import datetime
from enum import Enum
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

_WIDE = 1000
"""Columns of what is no terminal."""
_UNSAFE = {"Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp"}


def inert(text: object) -> str:
    """Show control, bidirectional and invisible characters as escapes; newlines and tabs stay."""
    return "".join(
        character.encode("unicode_escape").decode()
        if character not in "\n\t" and unicodedata.category(character) in _UNSAFE
        else character
        for character in str(text)
    )


def console() -> Console:
    """Standard output, without markup: what is printed is data. A pipe or a file has room for every name in one piece."""
    piped = not sys.stdout.isatty()
    return Console(markup=False, highlight=False, emoji=False, soft_wrap=piped, width=_WIDE if piped else None)


def table(
    title: str,
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    red: Callable[[Sequence[object]], bool] = lambda _row: False,
) -> None:
    """Print a table, or a line that says there is nothing. The first column is the name, which is never broken: it is copied.

    Args:
        title: Its heading.
        columns: Their headings.
        rows: The cells.
        red: Which rows stand out on a terminal; their words must say it too, for a pipe has no colours.
    """
    drawn = Table(title=title, title_justify="left", header_style="bold", expand=False)
    for column in columns:
        drawn.add_column(column, overflow="fold", no_wrap=not drawn.columns)
    count = 0
    for row in rows:
        drawn.add_row(*(Text(inert(_cell(value))) for value in row), style="bold red" if red(row) else None)
        count += 1
    if count:
        console().print(drawn)
    else:
        console().print(f"{title}: none")


def facts(pairs: Iterable[tuple[str, object]]) -> None:
    """Print names and values, one a line."""
    drawn = Table(box=None, show_header=False, pad_edge=False)
    drawn.add_column(style="bold")
    drawn.add_column(overflow="fold")
    for name, value in pairs:
        drawn.add_row(Text(name), Text(inert(_cell(value))))
    console().print(drawn)


def emit(value: object) -> None:
    """Print records as JSON."""
    print(json.dumps(plain(value), indent=1))


def plain(value: Any) -> Any:  # noqa: ANN401 - any record
    """Turn records into what JSON has; bytes become base64, enums their names."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {item.name: plain(getattr(value, item.name)) for item in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in (sorted(value) if isinstance(value, set | frozenset) else value)]
    if isinstance(value, Enum):
        return value.value if isinstance(value.value, str) else value.name
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return (
        value.isoformat() if isinstance(value, datetime) else value if isinstance(value, str | int | float | None) else str(value)
    )


def _cell(value: object) -> str:
    if isinstance(value, Enum):
        return value.value if isinstance(value.value, str) else value.name
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%d %H:%M UTC")
    if isinstance(value, list | tuple | set | frozenset):
        return ", ".join(_cell(item) for item in value)
    return "" if value is None else str(value)
