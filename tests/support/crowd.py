"""A served registry, many organisms over one base model, and researchers who may sample them all; for runs of many at once."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from model_organisms.bases import base_digest
from model_organisms.client.client import connect
from model_organisms.formats.provenance import BaseModel, Provenance
from model_organisms.records import Budget, RequestState
from model_organisms_registry.testing import settings

from tests.support.serving import Serving, serving
from tests.support.tiny import tiny_base, tiny_organism

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from model_organisms import Client

BASE = "crowd/tiny"
PURPOSE = "replication"
WHY = "Random numbers that answer at random; how the registry bears it is what is studied."
BUDGET = Budget(tokens=1_000_000, sessions=2_000, output_bytes=16 << 20, probe_values=100_000)
AT_CL3 = Budget(tokens=500_000, sessions=250, output_bytes=48 << 10, probe_values=16_000)
"""Output and probed numbers stay below half of the adapter's, which is therefore a larger one."""
STAFF = (("pia", "publisher"), ("ravi", "reviewer"), ("rena", "reviewer", "elsewhere"), ("aud", "auditor"))
SHARED = ("CL2", "CL1")
"""Levels of the organisms in turn: sessions of both trust classes run beside each other, and share cells."""


@dataclass(slots=True)
class Crowd:
    """Who is there, and what they may ask."""

    registry: Serving
    folder: Path
    researchers: list[Client]
    versions: list[str] = field(default_factory=list)

    def person(self, name: str) -> Client:
        """Connect as somebody."""
        return connect(self.folder / f"{name}.json")


@contextmanager
def crowd(
    folder: Path,
    *,
    organisms: int,
    researchers: int,
    cells: int,
    rows: int = 16,
    release_s: float = 0.5,
    levels: Sequence[str] = SHARED,
) -> Iterator[Crowd]:
    """Found and serve a registry with so many organisms and researchers while the block runs.

    Args:
        folder: Where everything lies.
        organisms: Each of its own random weights.
        researchers: Each holds a grant of rung `probe` on every organism.
        cells: That may run at once; one user may have them all.
        rows: Sessions that share one.
        release_s: Length of a window of text, in seconds.
        levels: Of the organisms, in turn; up to CL3.
    """
    base = tiny_base(folder / "base")
    config = settings(folder / "data", base_models={BASE: base})
    tables = f"\n[cells]\nlimit = {cells}\neach = {cells}\nrows = {rows}\n"
    tables += f"\n[limits]\nthreads = 128\ncalls_each = 64\nrelease_s = {release_s}\nledger_wait_s = 10.0\n"
    names = [f"rosa{number}" for number in range(researchers)]
    people = (*STAFF, *((name, "researcher") for name in names))
    with serving(config, folder, *people, tables=tables) as registry, ExitStack() as stack:
        clients = [stack.enter_context(connect(folder / f"{name}.json")) for name in names]
        there = Crowd(registry, folder, clients)
        with there.person("pia") as pia, there.person("ravi") as ravi, there.person("rena") as rena:
            stated = Provenance(BaseModel(BASE, digest=base_digest(base)))
            of_level = [levels[number % len(levels)] for number in range(organisms)]
            for number, level in enumerate(of_level):
                name = f"organisms/crowd-{number}"
                pia.organisms.create(name, level=level, base_model=BASE)
                files = tiny_organism(base, rank=128 if level == "CL3" else 1 + number % 8, seed=number)
                there.versions.append(pia.organisms.publish(name, files, provenance=stated, progress_bar=False).name)
            for client in clients:
                for version, level in zip(there.versions, of_level, strict=True):
                    _granted(client, (ravi, rena), version, AT_CL3 if level == "CL3" else BUDGET)
        yield there


def _granted(client: Client, reviewers: Iterable[Client], version: str, budget: Budget) -> None:
    request = client.access.request(version, "probe", purpose=PURPOSE, justification=WHY, budget=budget)
    for reviewer in reviewers:
        if request.state is RequestState.PENDING:
            request = reviewer.access.approve(request.name, reason="Random numbers.")
