"""What the global options say, handed to each command."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from model_organisms.client import keys
from model_organisms.client.client import Client, connect

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

NEW_PASSPHRASE = "MODEL_ORGANISMS_NEW_PASSPHRASE"  # noqa: S105 - the name of a variable
"""Variable with the passphrase that a file shall get, for programs at which nobody sits."""


@dataclass(frozen=True, slots=True)
class Context:
    """Options of one run of `mo`."""

    identity: Path
    as_json: bool
    timeout_s: float

    def connect(self) -> Client:
        """Connect as this identity."""
        return connect(self.identity, passphrase=passphrase(), timeout_s=self.timeout_s)


def passphrase() -> Callable[[], str] | None:
    """What asks for a passphrase when one is needed; None where the environment has it, or nobody sits here."""
    if os.environ.get(keys.PASSPHRASE) or not sys.stdin.isatty():
        return None
    return lambda: str(click.prompt("Passphrase", hide_input=True, err=True))


def new_passphrase() -> str:
    """Ask twice for a new passphrase; where nobody sits here, the environment has it.

    Raises:
        UsageError: It has not.
    """
    if sys.stdin.isatty():
        return str(click.prompt("New passphrase", hide_input=True, confirmation_prompt="Once more", err=True))
    if said := os.environ.get(NEW_PASSPHRASE):
        return said
    raise click.UsageError(f"Without a terminal set {NEW_PASSPHRASE}.")
