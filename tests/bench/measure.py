"""Sides measured against each other in one run: interleaved rounds, medians, ratios, and whether what was fast was also right."""

from __future__ import annotations

import math
import threading
import time
import traceback
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

OURS = "ours"


@dataclass(frozen=True, slots=True)
class Goal:
    """What a row is to reach: a share of a peer's figure, or an absolute figure."""

    bound: float
    beside: str = ""
    """The peer; empty means that `bound` is in the row's own unit."""
    at_most: bool = False

    def __str__(self) -> str:
        sign = "<=" if self.at_most else ">="
        return f"{sign} {self.bound:g}" + (f" x {self.beside}" if self.beside else "")


@dataclass(slots=True)
class Row:
    """One line of the table."""

    mark: str
    what: str
    unit: str
    sides: dict[str, list[float]]
    """Figures of each round by side; the one called `ours` is judged."""
    goals: tuple[Goal, ...] = ()
    checks: dict[str, bool] = field(default_factory=dict)
    """What was checked of the very work that was timed."""

    def figure(self, side: str = OURS) -> float:
        """Median of a side."""
        return median(self.sides[side])

    def ratio(self, side: str) -> float:
        """Our median over a peer's."""
        return self.figure() / self.figure(side)

    def reached(self, goal: Goal) -> bool | None:
        """Whether a goal is reached; nothing where its peer did not run."""
        if goal.beside and goal.beside not in self.sides:
            return None
        value = self.ratio(goal.beside) if goal.beside else self.figure()
        return value <= goal.bound if goal.at_most else value >= goal.bound

    @property
    def right(self) -> bool:
        """Whether every check held."""
        return bool(self.checks) and all(self.checks.values())

    def as_json(self) -> dict[str, Any]:
        """The row for programs."""
        return {
            "id": self.mark,
            "what": self.what,
            "unit": self.unit,
            "sides": {
                name: {"median": median(found), "lowest": min(found), "highest": max(found), "rounds": len(found)}
                for name, found in self.sides.items()
            },
            "ratios": {name: self.ratio(name) for name in self.sides if name != OURS},
            "goals": [{"goal": str(goal), "reached": self.reached(goal)} for goal in self.goals],
            "checks": self.checks,
        }


def tried(mark: str, measure: Callable[[], list[Row]]) -> list[Row]:
    """Measure; what breaks down is a row that says so, and the others of a long run are not lost."""
    try:
        return measure()
    except Exception as error:  # noqa: BLE001 - whatever it was, it is shown, and the run ends with status 1
        traceback.print_exc()
        return [
            Row(mark, f"broke down: {type(error).__name__}: {error}"[:300], "", {OURS: [math.nan]}, checks={"it ended": False})
        ]


def interleaved(sides: Mapping[str, Callable[[], float]], rounds: int, *, warm: int = 1) -> dict[str, list[float]]:
    """Run every side once a round, beginning with another one each time, so that a noisy minute falls on all of them.

    Args:
        sides: What to run, by name; each gives its figure.
        rounds: Rounds that count.
        warm: Rounds before them that do not.
    """
    found: dict[str, list[float]] = {name: [] for name in sides}
    names = list(sides)
    for number in range(warm + rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            figure = sides[name]()
            if number >= warm:
                found[name].append(figure)
    return found


def seconds(work: Callable[[], object]) -> float:
    """Time one piece of work."""
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def rate(workers: Sequence[Callable[[], object]], duration_s: float) -> float:
    """Let workers, each in its own thread, repeat their work for a while; how often they finished it together a second.

    The clock runs until the last of them is done, so work begun in time counts whole.
    """
    done, ready = [0] * len(workers), threading.Barrier(len(workers) + 1)
    failures: list[BaseException] = []

    def run(number: int) -> None:
        ready.wait()
        until = time.perf_counter() + duration_s
        try:
            while time.perf_counter() < until:
                workers[number]()
                done[number] += 1
        except BaseException as error:  # noqa: BLE001 - raised again below, in the thread that asked
            failures.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(workers))]
    for thread in threads:
        thread.start()
    ready.wait()
    begin = time.perf_counter()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return sum(done) / (time.perf_counter() - begin)


def each(found: Sequence[float]) -> Iterator[float]:
    """Give figures that were taken already to `interleaved`, one a round."""
    yield from found
