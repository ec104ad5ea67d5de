"""What the global options say, handed to each command."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from model_organisms.client.client import Client, connect

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Context:
    """Options of one run of `mo`."""

    identity: Path
    as_json: bool
    timeout_s: float

    def connect(self) -> Client:
        """Connect as this identity."""
        return connect(self.identity, timeout_s=self.timeout_s)
