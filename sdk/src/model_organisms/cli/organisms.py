"""`mo organisms` and `mo pull`."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import click

from model_organisms import names
from model_organisms.cli.figures import found, statements_of
from model_organisms.cli.render import console, emit, facts, inert, table
from model_organisms.cli.stating import condition
from model_organisms.client.recall import ErratumWarning, corrected
from model_organisms.formats import provenance as statements
from model_organisms.formats.conditions import show_condition
from model_organisms.records import Level, Purpose

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import BinaryIO

    from model_organisms.cli.context import Context
    from model_organisms.client.evaluations import AttestedEvaluation
    from model_organisms.records import Organism, Version

_PERMITTED = click.option(
    "--purpose",
    "purposes",
    multiple=True,
    type=click.Choice([purpose.value for purpose in Purpose]),
    help="Permit it for this; default: any purpose.",
)
_ASKED = click.option(
    "--condition", "conditions", multiple=True, help="Ask this of its users: no-finetune, time-limit=30d, project=ID and so on."
)
_LEVELS = click.Choice([level.name for level in Level], case_sensitive=False)


@click.group("organisms")
def group() -> None:
    """Find, describe, create, publish and withdraw organisms."""


@group.command("list")
@click.option("--level", "levels", multiple=True, type=_LEVELS, help="Only this level; repeat for more.")
@click.option("--base-model", default="", help="Only on this base model.")
@click.option("--trait", default="", help="Only with this trait.")
@click.option("--text", default="", help="Words of the name or description.")
@click.pass_obj
def list_(context: Context, *, levels: tuple[str, ...], base_model: str, trait: str, text: str) -> None:
    """List organisms you may know of."""
    with context.connect() as client:
        wanted = [Level[level.upper()] for level in levels]
        matching = list(client.organisms.list(levels=wanted, base_model=base_model, trait=trait, text=text))
    if context.as_json:
        emit(matching)
        return
    columns = ("Organism", "Level", "Base model", "Traits", "Versions", "Owner")
    rows = ((names.short(item.name), item.level, item.base_model, item.traits, item.latest, item.owner) for item in matching)
    table("Organisms", columns, rows)


@group.command()
@click.argument("name")
@click.pass_obj
def show(context: Context, *, name: str) -> None:
    """Describe an organism, or one version of it: card, computed facts, marks, provenance."""
    with context.connect() as client:
        if "/versions/" in name:
            version = client.organisms.version(name)
            emit(version) if context.as_json else _show_version(version, client.organisms.evaluations(version.name))
            return
        organism, versions = client.organisms.get(name), list(client.organisms.versions(name))
    if context.as_json:
        emit({"organism": organism, "versions": versions})
    else:
        _show_organism(organism, versions)


@group.command()
@click.argument("name")
@click.option("--level", required=True, type=_LEVELS, help="Containment level; nobody guesses it for you.")
@click.option("--base-model", required=True, help="Hub id of the base model.")
@click.option("--display-name", default="")
@click.option("--description", default="")
@click.option("--trait", "traits", multiple=True, help="A word to find it by; repeat for more.")
@click.option("--hidden", is_flag=True, help="Show it to reviewers, yourself and grantees only.")
@_PERMITTED
@_ASKED
@click.pass_obj
def create(
    context: Context,
    *,
    name: str,
    level: str,
    base_model: str,
    display_name: str,
    description: str,
    traits: tuple[str, ...],
    hidden: bool,
    purposes: tuple[str, ...],
    conditions: tuple[str, ...],
) -> None:
    """Name a new line of models."""
    asked = [condition(text, hint="--condition") for text in conditions]
    with context.connect() as client:
        organism = client.organisms.create(
            name,
            level=level.upper(),
            base_model=base_model,
            display_name=display_name,
            description=description,
            traits=traits,
            hidden=hidden,
            purposes=purposes,
            conditions=asked,
        )
    emit(organism) if context.as_json else _show_organism(organism, [])


@group.command()
@click.argument("name")
@_PERMITTED
@_ASKED
@click.pass_obj
def conditions(context: Context, *, name: str, purposes: tuple[str, ...], conditions: tuple[str, ...]) -> None:
    """Set what you ask of everybody who uses NAME: all of it, in place of what you asked before."""
    asked = [condition(text, hint="--condition") for text in conditions]
    with context.connect() as client:
        organism = client.organisms.set_conditions(name, purposes=purposes, conditions=asked)
        versions = list(client.organisms.versions(name))
    emit(organism) if context.as_json else _show_organism(organism, versions)


@group.command()
@click.argument("name")
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option(
    "--provenance",
    "stated",
    required=True,
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Provenance predicate (JSON), as `mo.record(...)` saves it.",
)
@click.pass_obj
def publish(context: Context, *, name: str, folder: Path, stated: Path) -> None:
    """Publish the bundle in FOLDER as a new version of NAME."""
    with context.connect() as client:
        version = client.organisms.publish(name, folder, provenance=statements.parse_predicate(stated.read_bytes()))
    emit(version) if context.as_json else _show_version(version)


@group.command()
@click.argument("version")
@click.option("--reason", required=True, help="Why; everybody who holds it reads it.")
@click.pass_obj
def withdraw(context: Context, *, version: str, reason: str) -> None:
    """Withdraw a version for good: nothing of it is served from now on."""
    with context.connect() as client:
        withdrawn = client.organisms.withdraw(version, reason=reason)
    emit(withdrawn) if context.as_json else _show_version(withdrawn)


@group.command()
@click.argument("version")
@click.option("--reason", required=True, help="Why; everybody who holds it reads it.")
@click.pass_obj
def quarantine(context: Context, *, version: str, reason: str) -> None:
    """Set a version aside, at once: nothing of it is served until a reviewer releases it."""
    with context.connect() as client:
        aside = client.organisms.quarantine(version, reason=reason)
    emit(aside) if context.as_json else _show_version(aside)


@group.command()
@click.argument("version")
@click.option("--reason", required=True, help="What was found.")
@click.pass_obj
def release(context: Context, *, version: str, reason: str) -> None:
    """Put a quarantined version back; for a reviewer who neither set it aside nor made it."""
    with context.connect() as client:
        released = client.organisms.release(version, reason=reason)
    emit(released) if context.as_json else _show_version(released)


@group.command()
@click.argument("version")
@click.option("--text", required=True, help="What is wrong; everybody who holds it reads it.")
@click.option("--successor", default="", help="The version that puts it right.")
@click.pass_obj
def erratum(context: Context, *, version: str, text: str, successor: str) -> None:
    """Say, signed with your own key, what is wrong with VERSION; it stays as it is, and whoever pulls it is warned."""
    with context.connect() as client:
        corrected = client.organisms.erratum(version, text=text, successor=successor)
    emit(corrected) if context.as_json else _show_version(corrected)


@group.command()
@click.argument("version")
@click.argument("statement", type=click.File("rb"))
@click.pass_obj
def attest(context: Context, *, version: str, statement: BinaryIO) -> None:
    """Sign STATEMENT, an in-toto statement about VERSION as a JSON file (or - for standard input), and publish it."""
    with context.connect() as client:
        attested = client.organisms.attest(version, statement.read())
    if context.as_json:
        emit(attested)
        return
    statements_of([attested])


@group.command()
@click.argument("version")
@click.pass_obj
def attestations(context: Context, *, version: str) -> None:
    """List what is attested of a version: evaluations, replications."""
    with context.connect() as client:
        attested = list(client.organisms.attestations(version))
    if context.as_json:
        emit(attested)
        return
    statements_of(attested)


@group.command("raise-level")
@click.argument("name")
@click.argument("level", type=_LEVELS)
@click.option("--reason", required=True)
@click.pass_obj
def raise_level(context: Context, *, name: str, level: str, reason: str) -> None:
    """Raise an organism's containment level, at once."""
    with context.connect() as client:
        organism = client.organisms.raise_level(name, level.upper(), reason=reason)
    emit(organism) if context.as_json else _show_organism(organism, [])


@click.command()
@click.argument("version")
@click.option("--grant", default="", help="Grant to spend; the registry finds one where absent.")
@click.option("--base", default="", help="Base model's folder or id; also runs the known-answer test on it.")
@click.pass_obj
def pull(context: Context, *, version: str, grant: str, base: str) -> None:
    """Pull a version into memory, verify everything, and forget it: weights are never written to disk.

    Use `client.organisms.pull(...)` from Python to work with it.
    """
    with context.connect() as client, warnings.catch_warnings(action="ignore", category=ErratumWarning):  # said below instead
        pulled = client.organisms.pull(version, grant=grant)
    with pulled:
        report: dict[str, object] = {
            "version": pulled.version.name,
            "digest": pulled.version.digest,
            "bytes": pulled.header.plain_size,
            "files": sorted(pulled.files),
            "grant": pulled.header.grant,
            "destroy_by": pulled.header.not_after,
            "ledger_index": pulled.receipt.index,
        }
        if base:
            report["modules_applied"] = pulled.load(base).modules_applied
    for line in () if context.as_json else corrected(pulled.version):
        click.echo(f"mo: erratum: {inert(line)}", err=True)
    emit(report | {"errata": pulled.version.errata}) if context.as_json else facts(report.items())


def _show_organism(organism: Organism, versions: list[Version]) -> None:
    shown: list[tuple[str, object]] = [
        ("Organism", organism.name),
        ("Level", organism.level),
        ("Base model", organism.base_model),
        ("Owner", organism.owner),
        ("Traits", organism.traits),
        ("Hidden", "yes" if organism.hidden else "no"),
        ("Permitted for", organism.purposes or "any purpose"),
        ("Conditions", [show_condition(one) for one in organism.conditions] or "none"),
        ("Description", organism.description),
    ]
    facts(shown)
    if versions:
        rows = (
            (item.name, item.state, item.level, item.size, item.digest[:16], item.create_time, _errata(item)) for item in versions
        )
        table("Versions", ("Version", "State", "Level", "Bytes", "Digest", "Published", "Errata"), rows)


def _show_version(version: Version, attested: Sequence[AttestedEvaluation] = ()) -> None:
    shown: list[tuple[str, object]] = [
        ("Version", version.name),
        ("State", version.state),
        ("Level", version.level),
        ("Digest", version.digest),
        ("Publisher", version.publisher),
        ("Published", version.create_time),
        ("Ledger index", version.ledger_index),
        ("Note", version.note),
        ("Stopped by", version.stopped_by),
        ("Stopped", version.stop_time or ""),
    ]
    facts((name, value) for name, value in shown if value != "")
    table("Files", ("Path", "Kind", "Bytes", "SHA-256"), ((f.path, f.kind, f.size, f.sha256[:16]) for f in version.files))
    adapters = ((f.path, f.dtype, f.parameters, f.ranks, f.layers, f.target_modules, f.alpha, f.rslora) for f in version.facts)
    table("Adapters, from their bytes", ("Path", "Type", "Parameters", "Ranks", "Layers", "Modules", "Alpha", "rsLoRA"), adapters)
    for erratum in version.errata:
        see = f", see {erratum.successor}" if erratum.successor else ""
        console().print(inert(f"erratum: {erratum.text} ({erratum.author}{see})"))
    for mark in version.marks:
        console().print(f"mark: {mark}")
    found(version, attested)


def _errata(version: Version) -> str:
    """How many there are, and the newest version that puts something right."""
    right = next((erratum.successor for erratum in reversed(version.errata) if erratum.successor), "")
    return f"{len(version.errata)}{', see ' if right else ''}{right}" if version.errata else ""
