"""`mo sandbox probe`: what a probe asks, as options, and its numbers, as small tables."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

import click

from model_organisms.cli.render import emit, facts, table
from model_organisms.records import Measure, Purpose

if TYPE_CHECKING:
    from model_organisms.cli.context import Context
    from model_organisms.records import Probe

_MOST_BYTES = 4 << 20
_RANGE = re.compile(r"(\d{1,4})(?:-(\d{1,4}))?", re.ASCII)
_SHOWN = 8
"""Numbers of one row that are shown; `--json` has all."""


class _Layers(click.ParamType[tuple[int, ...]]):
    name = "layers"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        """Read `0-5,7`."""
        if isinstance(value, tuple):
            return value
        chosen: list[int] = []
        for part in str(value).split(","):
            found = _RANGE.fullmatch(part.strip())
            if not found:
                self.fail(f"'{part}' is no layer; write 3, or 0-5, or 0-5,7.", param, ctx)
            chosen += range(int(found[1]), int(found[2] or found[1]) + 1)
        return tuple(dict.fromkeys(chosen))


@click.command()
@click.argument("version")
@click.argument("prompt")
@click.option(
    "--purpose", required=True, type=click.Choice([purpose.value for purpose in Purpose]), help="The purpose of your grant."
)
@click.option("--grant", default="", help="The grant to use, where you have several.")
@click.option("--positions", default=1, show_default=True, help="How many positions, counted back from the end of the prompt.")
@click.option(
    "--measure",
    "measures",
    multiple=True,
    type=click.Choice([measure.value for measure in Measure]),
    help="What to read; repeat for more. By default log-probabilities and divergence. Activations need a grant to pull.",
)
@click.option("--layers", type=_Layers(), default=(), help="After which layers hidden states are read: 3, or 0-5,7.")
@click.option(
    "--direction",
    "vectors",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A JSON file with a list of numbers, one for each of a hidden state; repeat for more.",
)
@click.option("--positive", multiple=True, help="A prompt: a direction is made from the mean of these, ...")
@click.option("--negative", multiple=True, help="... less the mean of these, ...")
@click.option("--at", default=0, show_default=True, help="... after this layer.")
@click.option("--scale", type=float, help="Dose of the organism: 0 is the bare base, 1 as published.")
@click.pass_obj
def probe(
    context: Context,
    *,
    version: str,
    prompt: str,
    purpose: str,
    grant: str,
    positions: int,
    measures: tuple[str, ...],
    layers: tuple[int, ...],
    vectors: tuple[Path, ...],
    positive: tuple[str, ...],
    negative: tuple[str, ...],
    at: int,
    scale: float | None,
) -> None:
    """Show rounded numbers after PROMPT: next tokens, divergence from the base model, and what hidden states say.

    Each number is counted in your grant's budget.
    """
    sent = [(path.name, _vector(path)) for path in vectors]
    if bool(positive) != bool(negative):
        raise click.UsageError("A contrast has prompts on both sides; give --positive and --negative.")
    with context.connect() as client, client.sandbox.open(version, purpose=purpose, grant=grant) as session:
        named = {session.direction(vector=vector).name: name for name, vector in sent}
        if positive:
            named[session.direction(positive, negative, at).name] = f"contrast@{at}"
        numbers = session.probe(
            prompt,
            positions=positions,
            measures=measures or (Measure.LOGPROBS, Measure.KL),
            layers=layers,
            directions=tuple(named),
            scale=scale,
        )
    if context.as_json:
        emit(numbers)
        return
    _show(numbers, named)


def _show(numbers: Probe, named: dict[str, str]) -> None:
    for scores in numbers.positions:
        table("Next token", ("Token", "Id", "Log-probability"), ((repr(s.text), s.token_id, f"{s.logprob:.3f}") for s in scores))
    if numbers.readings:
        rows = ((r.measure, r.layer, named.get(r.direction, r.direction), _values(r.values)) for r in numbers.readings)
        table("Hidden states", ("Measure", "Layer", "Direction", "By position"), rows)
    told: list[tuple[str, object]] = []
    if numbers.kl_to_base is not None:
        told.append(("KL to base, nats", _values(numbers.kl, digits=".3f")))
    facts([*told, ("Ledger index", numbers.receipt.ledger_index)])


def _values(values: tuple[float, ...], *, digits: str = "g") -> str:
    shown = " ".join(format(value, digits) for value in values[:_SHOWN])
    return shown + (f" ... ({len(values)} in all)" if len(values) > _SHOWN else "")


def _vector(path: Path) -> list[float]:
    if path.stat().st_size > _MOST_BYTES:
        raise click.UsageError(f"{path} is too large for a direction; it is a JSON list of numbers.")
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        return [float(number) for number in value]
    except (ValueError, TypeError, RecursionError) as error:
        raise click.UsageError(f"{path} is no JSON list of numbers; write one number for each of a hidden state.") from error
