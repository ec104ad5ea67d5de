"""A registry as its operators run it, `mo-registry serve` in a process of its own, and the people who measure it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from model_organisms.client.client import connect, login
from model_organisms.formats.provenance import BaseModel, Provenance
from model_organisms.records import Budget, RequestState
from model_organisms_registry.founding import found
from model_organisms_registry.testing import settings

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from model_organisms import Client
    from model_organisms.records import Version
    from model_organisms_registry.config import Config

BASE = "bench/none"
PULLS = {"CL1": 2000, "CL2": 100}
"""The most that may be asked for."""


@dataclass(slots=True)
class Place:
    """A running registry, and its people by name."""

    config: Config
    folder: Path
    process: subprocess.Popen[bytes]
    admin: Client
    people: dict[str, Client] = field(default_factory=dict)

    def person(self, name: str, role: str) -> Client:
        """Invite and enrol somebody; the same name gives the same client again."""
        if name not in self.people:
            invitation = self.admin.users.invite(name, organisation=f"{name}-lab", roles=[role])
            self.people[name] = login(invitation.ticket, self.folder / f"{name}.json")
        return self.people[name]

    def publish(self, organism: str, files: Mapping[str, bytes], *, level: str = "CL1", base: BaseModel | None = None) -> Version:
        """Publish a bundle, and let the researcher pull it often."""
        publisher = self.person("pia", "publisher")
        stated = Provenance(base or BaseModel(BASE))
        publisher.organisms.create(organism, level=level, base_model=stated.base.id)
        version = publisher.organisms.publish(organism, files, provenance=stated, progress_bar=False)
        why = "Measuring how long a pull of random numbers takes; nothing is studied."
        asked = {"purpose": "replication", "justification": why, "budget": Budget(pulls=PULLS[level])}
        request = self.person("rosa", "researcher").access.request(version.name, "pull", **asked)
        if request.state is RequestState.PENDING:
            self.person("ravi", "reviewer").access.approve(request.name, reason="Random numbers.")
        return version

    def fsck(self) -> bool:
        """Whether the registry's own check of everything finds nothing wrong."""
        command = [program("mo-registry"), "fsck", "--folder", str(self.config.folder)]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0


def environment() -> dict[str, str]:
    """The environment of what is timed from its start: as on a user's machine, compiled modules are kept."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def program(name: str) -> str:
    """The command of this virtual environment."""
    return str(Path(sys.executable).with_name(name))


def serve(config: Config) -> subprocess.Popen[bytes]:
    """Start a registry; it answers a moment later."""
    with (config.folder / "serve.log").open("ab") as log:
        command = [program("mo-registry"), "serve", "--folder", str(config.folder)]
        return subprocess.Popen(command, env=environment(), stdout=log, stderr=log)


def listens(config: Config, process: subprocess.Popen[bytes], *, within_s: float = 60.0) -> None:
    """Wait until it does."""
    until = time.monotonic() + within_s
    log = config.folder / "serve.log"
    while b"listens" not in log.read_bytes():
        if process.poll() is not None or time.monotonic() > until:
            msg = f"The registry did not start:\n{log.read_text()}"
            raise RuntimeError(msg)
        time.sleep(0.02)


@contextmanager
def running(folder: Path) -> Iterator[Place]:
    """Found and serve a registry while the block runs."""
    config = settings(folder / "data")
    ticket = found(config, now=datetime.now(UTC))
    process = serve(config)
    place = None
    try:
        listens(config, process)
        place = Place(config, folder, process, login(str(ticket), folder / "admin.json"))
        yield place
    finally:
        for client in [place.admin, *place.people.values()] if place else []:
            client.close()
        process.terminate()
        process.wait(60)


def again(place: Place, name: str) -> Client:
    """Another connection of the same person."""
    return connect(place.folder / f"{name}.json")
