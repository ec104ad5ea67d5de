"""`mo-registry serve` as a process of its own, for tests that kill it, watch it from outside, or time its start."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
from model_organisms.client.client import login
from model_organisms_registry.founding import found

if TYPE_CHECKING:
    from collections.abc import Iterator

    from model_organisms_registry.config import Config

SERVE = (str(Path(sys.executable).with_name("mo-registry")), "serve", "--folder")


class Serving:
    """A registry's process; it may be started again after it was killed."""

    def __init__(self, config: Config, *, wrapper: tuple[str, ...] = ()) -> None:
        self.config = config
        self.log = config.folder / "serve.log"
        self._command = (*wrapper, *SERVE, str(config.folder))
        self.start()

    def start(self) -> None:
        """Start it, and wait until it listens."""
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(self._command, stderr=log, stdout=log)
        until = time.monotonic() + 60
        while b"listens" not in self.log.read_bytes():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < until, self.log.read_text()
            time.sleep(0.02)

    def kill(self) -> None:
        """End it as a power cut would."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(timeout=30)

    def below(self) -> list[psutil.Process]:
        """Everything it started that runs: its signer, wrappers and cells."""
        return psutil.Process(self.process.pid).children(recursive=True)

    def cells(self) -> list[psutil.Process]:
        """What it started for sessions: wrappers and cells."""
        return [one for one in self.below() if "signer" not in one.cmdline()]


@contextmanager
def serving(config: Config, people: Path, *roles: tuple[str, ...], tables: str = "") -> Iterator[Serving]:
    """Found a registry, serve it from a process, and enrol people; their identities lie in `people`, as NAME.json.

    Each has a name, a role, and an organisation where it is not `lab`.

    What founding does not write down of its settings is given as `tables`, and added to its registry.toml.
    """
    ticket = found(config, now=datetime.now(UTC))
    with (config.folder / "registry.toml").open("a", encoding="utf-8") as file:
        file.write(tables)
    registry = Serving(config)
    try:
        with login(str(ticket), people / "admin.json") as admin:
            for name, role, *elsewhere in roles:
                invitation = admin.users.invite(name, organisation=(*elsewhere, "lab")[0], roles=[role])
                login(invitation.ticket, people / f"{name}.json").close()
        yield registry
    finally:
        registry.kill()
