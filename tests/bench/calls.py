"""M7: create, get and list fifty through the SDK, with one client and with eight, beside a bare echo, and MLflow if it runs."""

from __future__ import annotations

import itertools
from itertools import islice
from typing import TYPE_CHECKING

from tests.bench.measure import OURS, Goal, Row, interleaved, rate
from tests.bench.place import BASE, again

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from model_organisms import Client

    from tests.bench.peers import Peers
    from tests.bench.place import Place
    from tests.bench.rival import Rival

PAGE = 50
ECHO, MLFLOW = "gRPC echo", "MLflow"
_GOALS = {1: 5.0, 8: 12.0}


class Caller:
    """One publisher at work, on a connection of their own; what came back is looked at each time."""

    numbers = itertools.count()

    def __init__(self, client: Client) -> None:
        """Start with nothing made."""
        self._client = client
        self.made: list[str] = []
        self.wrong = 0

    def create(self) -> None:
        """Name an organism; the SDK verifies the receipt."""
        name = f"organisms/call-{next(self.numbers)}"
        organism = self._client.organisms.create(name, level="CL1", base_model=BASE, traits=["bench"])
        self.made.append(organism.name)
        self.wrong += organism.name != name

    def get(self) -> None:
        """Read an organism of one's own."""
        name = self.made[-1]
        self.wrong += self._client.organisms.get(name).name != name

    def list(self) -> None:
        """Read one page."""
        page = list(islice(self._client.organisms.list(page_size=PAGE), PAGE))
        self.wrong += len({organism.name for organism in page}) != PAGE


def calls(place: Place, peers: Peers, *, quick: bool, rivals: Sequence[Rival] = ()) -> list[Row]:
    """M7."""
    callers = []
    for number in range(max(_GOALS)):
        place.person(f"caller{number}", "publisher")
        callers.append(Caller(again(place, f"caller{number}")))
    for caller in callers:
        for _ in range(PAGE // len(callers) + 1):
            caller.create()
    duration, rounds = (0.3, 3) if quick else (0.8, 5)
    rows = []
    for clients, goal in _GOALS.items():
        echoes = [peers.echo() for _ in range(clients)]
        for verb in ("create", "get", "list"):
            sides: dict[str, Callable[[], float]] = {
                OURS: _rate([getattr(caller, verb) for caller in callers[:clients]], duration),
                ECHO: _rate(echoes, duration),
            }
            for rival in rivals:
                sides[rival.name] = _rate([rival.caller(verb, PAGE) for _ in range(clients)], duration)
            found = _better(interleaved(sides, rounds), rivals)
            what = f"{verb if verb != 'list' else f'list {PAGE}'}, {clients} client{'s' * (clients > 1)}"
            wrong = sum(caller.wrong for caller in callers)
            rows.append(Row("M7", what, "calls/s", found, (Goal(goal, MLFLOW),), {f"wrong answers: {wrong}": wrong == 0}))
    _held_against_the_ledger(place, callers, rows)
    return rows


def _rate(workers: Sequence[Callable[[], object]], duration: float) -> Callable[[], float]:
    return lambda: rate(workers, duration)


def _better(found: dict[str, list[float]], rivals: Sequence[Rival]) -> dict[str, list[float]]:
    """Keep the faster of the rival's settings, under its plain name."""
    settings = [found.pop(rival.name) for rival in rivals]
    return {**found, MLFLOW: max(settings, key=lambda figures: sorted(figures)[len(figures) // 2])} if settings else found


def _held_against_the_ledger(place: Place, callers: Sequence[Caller], rows: Sequence[Row]) -> None:
    """Every organism that was acknowledged is an entry of the ledger, and the ledger verifies."""
    made = {name for caller in callers for name in caller.made}
    auditor = place.person("aud", "auditor")
    auditor.audit.verify_ledger()
    entered = {entry.subject for _, entry in auditor.audit.entries() if entry.type == "organisms.create"}
    for row in rows:
        if row.what.startswith("create"):
            row.checks |= {f"{len(made)} created, all in the ledger": made <= entered, "fsck clean": place.fsck()}
