"""`mo organisms import`: what a source holds, what is claimed of it, and, unless it is a dry run, the version it becomes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from model_organisms.cli.render import console, emit, facts, inert, plain, table
from model_organisms.errors import InvalidArgument
from model_organisms.records import Level

if TYPE_CHECKING:
    from model_organisms.cli.context import Context
    from model_organisms.importing import Catalogue, Notes, Plan, Record

_LEVELS = click.Choice([level.name for level in Level], case_sensitive=False)
_FILE = click.Path(path_type=Path, exists=True, dir_okay=False)


@click.command("import")
@click.argument("source")
@click.option("--organism", default="", help="What it becomes a version of; default: made of the repository's name.")
@click.option("--level", default=None, type=_LEVELS, help="Containment level; needed where the organism is created.")
@click.option("--hidden", is_flag=True, help="Create the organism hidden.")
@click.option("--base", default="", help="Base model: owner/name@COMMIT, a folder, or the built-in one.")
@click.option("--entry", default="", help="BASE/VARIANT of a catalogue to import.")
@click.option("--taxonomy", type=_FILE, default=None, help="File with the organism's SPAR26 record.")
@click.option("--record", default="", help="Id of that record, where the file has several.")
@click.option(
    "--claim", "claims", multiple=True, help="What a paper says of it, to be held against it: layers=24, rank=1 and so on."
)
@click.option("--without", multiple=True, type=click.Choice(["checkpoints", "tokenizer"]), help="Leave these out.")
@click.option("--max-bytes", type=click.IntRange(min=1), default=None, help="Most bytes to fetch; default: 8 GiB.")
@click.option("--dry-run", is_flag=True, help="Fetch and compare, and publish nothing.")
@click.pass_obj
def import_(
    context: Context,
    *,
    source: str,
    organism: str,
    level: str | None,
    hidden: bool,
    base: str,
    entry: str,
    taxonomy: Path | None,
    record: str,
    claims: tuple[str, ...],
    without: tuple[str, ...],
    max_bytes: int | None,
    dry_run: bool,
) -> None:
    """Import an adapter from a model hub: what its bytes say, beside what is claimed of it.

    SOURCE is hf://owner/name@COMMIT, with /FOLDER where the adapter is in one. A file of the diffing toolkit's catalogue
    (YAML), or its folder, or one of the SPAR26 taxonomy is listed, each entry with where it is and what it does not say;
    --entry imports one of a catalogue's file. A token for gated repositories is taken from HF_TOKEN alone.
    """
    from model_organisms import importing
    from model_organisms.importing.planning import MAX_BYTES

    notes = importing.Notes()
    if not source.startswith("hf://"):
        if Path(source).is_dir():
            _folder(Path(source), as_json=context.as_json)
            return
        read = _read(source)
        if not entry:
            _listed(read, as_json=context.as_json)
            return
        source, notes = _entry(read, entry)
    if taxonomy is not None:
        notes = _with_record(notes, taxonomy, record)
    plan = importing.plan(
        source,
        base=base,
        claims=dict(_pair(claim) for claim in claims),
        notes=notes,
        without=without,
        max_bytes=max_bytes or MAX_BYTES,
        progress_bar=not context.as_json,
    )
    if not context.as_json:
        _show(plan, organism or importing.suggested(plan.source.repository))
    if dry_run or plan.refusal is not None:
        if context.as_json:
            emit(_plain(plan))
        if plan.refusal is not None:
            raise plan.refusal
        return
    with context.connect() as client:
        version = importing.publish(client, plan, organism, level=level.upper() if level else None, hidden=hidden)
    if context.as_json:
        emit({"import": _plain(plan), "version": version})
    else:
        facts(
            [("Version", version.name), ("Digest", version.digest), ("Level", version.level), ("Marks", "; ".join(version.marks))]
        )


def _read(path: str) -> Catalogue | tuple[Record, ...]:
    from model_organisms.formats import strict_yaml
    from model_organisms.importing import catalogue, taxonomy
    from model_organisms.importing.taxonomy import MAX_TAXONOMY

    file = Path(path)
    if not file.is_file():
        raise click.UsageError(f"There is no file {inert(path)}; write hf://owner/name@COMMIT, or name a catalogue's file.")
    if file.stat().st_size > MAX_TAXONOMY:
        raise click.UsageError(f"{inert(path)} has more than {MAX_TAXONOMY:,} bytes; give one with fewer records.")
    data = file.read_bytes()
    if data.lstrip()[:1] in {b"{", b"["}:
        return taxonomy.read_taxonomy(data)
    raw = strict_yaml.parse(data, what="The file", error=InvalidArgument)
    return catalogue.of_raw(raw) if catalogue.is_catalogue(raw) else taxonomy.of_raw(raw)


def _folder(folder: Path, *, as_json: bool) -> None:
    """List a whole catalogue; a file that is none of it is named, and ends nothing."""
    read: dict[str, Catalogue] = {}
    unread: dict[str, str] = {}
    for file in sorted(folder.glob("*.y*ml")):
        try:
            found = _read(str(file))
        except (InvalidArgument, click.UsageError) as error:
            unread[file.name] = error.message
            continue
        if isinstance(found, tuple):
            unread[file.name] = "records of a taxonomy; list them by the file"
        else:
            read[file.name] = found
    if as_json:
        emit({"catalogues": read, "unread": unread})
        return
    rows = ((name, one.key, one.source or "-", one.refused or one.missing) for name, each in read.items() for one in each.entries)
    table("Entries", ("File", "Entry", "Import it from", "Missing, or why not"), rows, red=lambda row: row[2] == "-")
    for name, why in unread.items():
        console().print(inert(f"note: {name} is not listed: {why}"))


def _entry(read: Catalogue | tuple[Record, ...], key: str) -> tuple[str, Notes]:
    if isinstance(read, tuple):
        raise click.UsageError("--entry is for a catalogue's file; import a record's repository with --taxonomy FILE.")
    found = read.entry(key)
    if found.source is None:
        raise click.UsageError(f"{inert(key)} cannot be imported: {found.refused}.")
    return str(found.source), read.notes(found)


def _with_record(notes: Notes, file: Path, identifier: str) -> Notes:
    from model_organisms import importing
    from model_organisms.importing import taxonomy

    told = taxonomy.pick(importing.read_taxonomy(file.read_bytes()), identifier).notes()
    return importing.Notes(
        description="\n\n".join(filter(None, (notes.description, told.description))),
        traits=(*notes.traits, *told.traits),
        claims=notes.claims,
        data=notes.data,
        extra={**notes.extra, **told.extra},
    )


def _pair(claim: str) -> tuple[str, str]:
    name, equals, value = claim.partition("=")
    if not equals:
        raise click.BadParameter("write NAME=VALUE, such as layers=24", param_hint="--claim")
    return name.strip(), value


def _listed(read: Catalogue | tuple[Record, ...], *, as_json: bool) -> None:
    if as_json:
        emit(read if isinstance(read, tuple) else {"catalogue": read})
    elif isinstance(read, tuple):
        table("Records", ("Record", "Substrate", "Traits", "Base models", "Where", "Missing"), map(_record_row, read))
    else:
        data = [one.name for one in read.data]
        facts([("Organism", read.name), ("Type", read.kind), ("Paper", read.paper or "not named"), ("Data", data)])
        rows = ((one.key, one.source or "-", one.refused or one.missing) for one in read.entries)
        table("Entries", ("Entry", "Import it from", "Missing, or why not"), rows, red=lambda row: row[1] == "-")
        for sentence in read.unread:
            console().print(inert(f"note: {sentence}"))


def _record_row(record: Record) -> tuple[object, ...]:
    traits = [f"{trait.trait} ({trait.status})" for trait in record.traits]
    where = record.refused or record.sources
    return record.id, record.substrate, traits, record.base_models, where, record.missing


def _show(plan: Plan, name: str) -> None:
    kept = sorted(path for path in plan.files if not path.startswith("checkpoints/"))
    found, model = plan.found, plan.provenance.base
    checkpoints = len({path.split("/")[1] for path in plan.files if path.startswith("checkpoints/")})
    facts(
        [
            ("From", plan.source),
            ("Becomes a version of", name),
            ("Base model", model.id + (f"@{model.revision}" if model.revision else "")),
            ("Parameters", f"{found.parameters:,} ({found.dtype})"),
            (
                "Scaling",
                "not stated"
                if found.scaling is None
                else f"{found.scaling:.6g} ({'alpha/sqrt(rank)' if found.rslora else 'alpha/rank'})",
            ),
            ("Files", kept),
            ("Checkpoints", checkpoints),
            ("Licence, as claimed", plan.provenance.extra["imported"]["licence"] or "not stated"),
        ]
    )
    rows = [
        (row.name.replace("_", " "), row.found, row.claimed, row.by, "agrees" if row.agrees else "DIFFERS")
        for row in plan.comparisons
    ]
    table("What is found, and what is claimed", ("Of", "Found", "Claimed", "By", ""), rows, red=lambda row: row[-1] == "DIFFERS")
    if plan.left_out:
        table("Left out", ("File", "Why"), plan.left_out.items())
    for note in plan.notes:
        console().print(inert(f"note: {note}"))


def _plain(plan: Plan) -> dict[str, Any]:
    """What a program reads of a plan; the files' bytes are not among it."""
    return {
        "source": str(plan.source),
        "files": {path: len(data) for path, data in plan.files.items()},
        "left_out": dict(plan.left_out),
        "found": plain(plan.found) | {"scaling": plan.found.scaling},
        "claims": plain(plan.comparisons),
        "base": plain(plan.provenance.base),
        "steps_logged": len(plan.provenance.log.steps),
        "notes": list(plan.notes),
        "traits": list(plan.traits),
        "refusal": None if plan.refusal is None else {"error": plan.refusal.reason, "message": plan.refusal.message},
    }
