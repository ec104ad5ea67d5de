"""Figures of evaluations for a person to read, beside what the publisher expects. What a figure is, `formats.evaluation` says."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from model_organisms.cli.render import facts, inert, table
from model_organisms.formats import provenance as provenances
from model_organisms.formats.expected import beside, expected

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from model_organisms.client.evaluations import AttestedEvaluation
    from model_organisms.evaluate.comparing import Comparison, Row
    from model_organisms.formats.evaluation import Evaluation, Figure
    from model_organisms.formats.expected import Beside
    from model_organisms.records import Attestation, Version

_AGREES = {True: "yes", False: "NO", None: ""}


def rows(version: Version, attested: Sequence[AttestedEvaluation]) -> tuple[Beside, ...]:
    """Set what a version's signed provenance expects beside what is attested of it."""
    stated = provenances.verify(version.provenance, version.publisher_key, digest=version.digest)
    return beside(expected(stated), [(_by(one), one.evaluation) for one in attested])


def found(version: Version, attested: Sequence[AttestedEvaluation]) -> None:
    """Print expected and observed figures, where there are any."""
    shown = rows(version, attested)
    if not shown:
        return
    columns = ("Figure", "Expected", "Observed", "95 % interval", "n", "Within", "Judge", "By")
    table("Expected and observed", columns, [_row(one) for one in shown])


def statements_of(attested: Sequence[Attestation]) -> None:
    """Print what is attested of a version, whatever it says."""
    shown = ((item.name, item.predicate_type, item.author, item.create_time) for item in attested)
    table("Attestations", ("Attestation", "What", "Who", "When"), shown)


def figures(evaluation: Evaluation) -> None:
    """Print every figure of one evaluation."""
    columns = ("Figure", "Over", "Value", "95 % interval", "n", "Counts", "Note")
    table(f"{evaluation.suite} {evaluation.suite_version}", columns, [_figure(one) for one in evaluation.figures])


def compared(found: Comparison, attested: Mapping[str, AttestedEvaluation]) -> None:
    """Print the figures of several organisms side by side, and first whose word they are and what was not the same."""
    facts((version, f"by {_by(one)}") for version, one in attested.items())
    for sentence in (*found.differs, *found.own):
        click.echo(inert(sentence), err=True)
    columns = ("Figure", "Over", *found.evaluations)
    table(f"{found.suite}, side by side", columns, [_across(row, found.evaluations) for row in found.rows])


def _across(row: Row, organisms: Iterable[str]) -> tuple[object, ...]:
    given = (row.figures.get(who) for who in organisms)
    told = ("" if one is None else " ".join(filter(None, (_value(one), _brackets(one), f"n {one.n}"))) for one in given)
    return f"{row.name} (control)" if row.control else row.name, row.split or "all", *told


def _brackets(one: Figure) -> str:
    return "" if one.low is None or one.high is None else f"[{one.low:.3g}, {one.high:.3g}]"


def _by(one: AttestedEvaluation) -> str:
    return one.by if one.signed else f"{one.by} (says the registry)"


def _row(one: Beside) -> tuple[object, ...]:
    name = " ".join(filter(None, (f"{one.suite}.{one.figure}", one.split)))
    wanted = f"{one.expected.value:.4g}" if one.expected else ""
    source = f" ({one.expected.source})" if one.expected and one.expected.source else ""
    observed, interval, n = (
        ("", "", "") if one.observed is None else (_value(one.observed), _interval(one.observed), one.observed.n)
    )
    return name, wanted + source, observed, interval, n, _AGREES[one.agrees], one.judge, one.by


def _figure(one: Figure) -> tuple[object, ...]:
    name = f"{one.name} (control)" if one.control else one.name
    return name, one.split or "all", _value(one), _interval(one), one.n, one.comparator, one.note


def _value(one: Figure) -> str:
    return "none" if one.value is None else f"{one.value:.4g}"


def _interval(one: Figure) -> str:
    return "" if one.low is None or one.high is None else f"{one.low:.3g} to {one.high:.3g} ({one.interval.value})"
