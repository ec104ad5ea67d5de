"""First: how long one who comes while others are answered waits for a first token, beside what the model itself takes of that."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from model_organisms.records import SamplingParameters
from model_organisms.sampling import Engine

from tests.bench.flock import DOWN, SPREADS
from tests.bench.measure import OURS, Goal, Row, interleaved

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.bench.flock import Flock

WHOLE, STEP = "of that and the model, in all", "a step of the others alone"
RANK, COUNT = 8, 8
_LONG = SamplingParameters(max_tokens=1000, temperature=0)
_ASKED = SamplingParameters(max_tokens=2, temperature=0)


def joined(flock: Flock, *, quick: bool) -> list[Row]:
    """Eight rows decode; a ninth organism is asked, and its first piece is waited for."""
    runs = Engine(flock.base, rows=COUNT + 1)
    organisms = [runs.add(flock.files(RANK, DOWN, number)) for number in range(COUNT + 1)]
    prompts = flock.prompts(COUNT + 1).tolist()
    seen: list[tuple[int, str]] = []

    def alone() -> str:
        return next(runs.generate(organisms[-1], prompts[-1], _ASKED)).text

    expected = alone()
    for organism, prompt in zip(organisms[:-1], prompts[:-1], strict=True):
        runs.submit(organism, prompt, _LONG)
    for _ in range(4):  # the others' prompts are read
        runs.step()

    def first() -> tuple[float, float]:
        with _forward(flock.base.model) as spent:
            begin = time.perf_counter()
            ticket = runs.submit(organisms[-1], prompts[-1], _ASKED)
            steps = 0
            while not (found := [piece for number, piece in runs.step() if number == ticket]):
                steps += 1
            took = time.perf_counter() - begin
        seen.append((steps, found[0].text))
        while any(number == ticket for number, _ in runs.step()):  # until it has left
            pass
        return 1e3 * took, 1e3 * (took - sum(spent))

    last: dict[str, float] = {}

    def ours() -> float:
        last[WHOLE], own = first()
        return own

    def step() -> float:
        begin = time.perf_counter()
        runs.step()
        return 1e3 * (time.perf_counter() - begin)

    found = interleaved({OURS: ours, STEP: step}, 5 if quick else 25)
    found[WHOLE] = [last[WHOLE]]
    runs.mixer.close()
    runs.bank.close()
    checks = {
        "its first token comes with the step it joins": all(steps == 0 for steps, _ in seen),
        "what it says alone": all(text == expected for _, text in seen),
    }
    what = f"first token of one who joins {COUNT} organisms of rank {RANK} on {SPREADS[DOWN]}, without what the model took"
    return [Row("first", what, "ms", found, (Goal(5.0, at_most=True),), checks)]


@contextmanager
def _forward(model: Any) -> Iterator[list[float]]:
    """Time the passes of a model."""
    spent: list[float] = []
    began: list[float] = []
    hooks = (
        model.register_forward_pre_hook(lambda *_: began.append(time.perf_counter())),
        model.register_forward_hook(lambda *_: spent.append(time.perf_counter() - began.pop())),
    )
    try:
        yield spent
    finally:
        for hook in hooks:
            hook.remove()
