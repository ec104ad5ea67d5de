"""Who types what, for each command of `mo`: filled by `tests/sdk/test_cli.py`, and by the stories of rooms that have many."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from model_organisms_registry.testing import World

NUMBERS = itertools.count()


@dataclass(frozen=True)
class Stage:
    """What a command is played on."""

    world: World
    folder: Path
    base: Path
    files: dict[str, bytes]


Setting = Callable[[Stage], tuple[Any, list[Any], str]]
"""Gives who types, what after the command's words, and what the answer must have in it."""
COMMANDS: dict[str, Setting] = {}


def command(words: str) -> Callable[[Setting], Setting]:
    """Note a setting of a command; it gives something fresh every time."""

    def noted(setting: Setting) -> Setting:
        COMMANDS[words] = setting
        return setting

    return noted
