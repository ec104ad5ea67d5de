"""`mo audit`."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

import click

from model_organisms.cli.monitor import FILES, KEY, PIN, QUORUM, WITNESS, monitor, verify_files
from model_organisms.cli.render import console, emit, facts, table
from model_organisms.formats import entry as entries

if TYPE_CHECKING:
    from pathlib import Path

    from model_organisms.cli.context import Context


@click.group("audit")
def group() -> None:
    """Read and verify the ledger."""


@group.command()
@click.pass_obj
def checkpoint(context: Context) -> None:
    """Fetch the newest signed head, and hold it against the one you saw last."""
    with context.connect() as client:
        head = client.audit.checkpoint()
    if context.as_json:
        emit(head)
    else:
        facts([("Origin", head.origin), ("Size", head.size), ("Root", head.root.hex()), ("Consistent with your pin", "yes")])


@group.command()
@click.pass_obj
def key(context: Context) -> None:
    """Print the ledger's verifier key, for a witness, a monitor or an outsider who is to check it. Compare it with others."""
    with context.connect() as client:
        shown = client.identity.ledger_key
    if context.as_json:
        emit({"origin": client.identity.origin, "key": shown})
    else:
        click.echo(shown)


@group.command("entries")
@click.option("--start", type=click.IntRange(0), help="First index; without it, the newest are listed.")
@click.option("--count", type=click.IntRange(1), default=50, show_default=True, help="How many indices to look at.")
@click.pass_obj
def list_entries(context: Context, *, start: int | None, count: int) -> None:
    """List ledger entries: all for auditors, reviewers and admins; your own for others."""
    with context.connect() as client:
        size = client.audit.checkpoint().size
        first = max(0, size - count) if start is None else start
        found = list(client.audit.entries(first, count))
    if context.as_json:
        emit([{"index": index, "entry": entry} for index, entry in found])
        return
    rows = ((i, e.time, e.type, e.actor, e.subject, e.decision, ",".join(e.reasons)) for i, e in found)
    table("Entries", ("Index", "Time", "What", "Who", "On", "Decision", "Reasons"), rows)
    if first:
        click.echo(f"{min(first, size)} older: mo audit entries --start {max(0, first - count)} --count {count}")
    if first + count < size:
        click.echo(f"{size - first - count} newer: mo audit entries --start {first + count} --count {count}")


@group.command()
@click.argument("index", type=int)
@click.pass_obj
def receipt(context: Context, *, index: int) -> None:
    """Fetch and verify the proof of one entry."""
    with context.connect() as client:
        proof = client.audit.receipt(index)
    if context.as_json:
        emit(proof)
        return
    entry = entries.parse(proof.entry)
    shown = [("Index", proof.index), ("What", entry.type), ("Who", entry.actor), ("On", entry.subject), ("Time", entry.time)]
    facts([*shown, ("Facts", ", ".join(f"{k}={v}" for k, v in entry.facts.items())), ("Proof", "verified")])


@group.command()
@click.argument("old_size", type=int)
@click.argument("new_size", type=int)
@click.pass_obj
def consistency(context: Context, *, old_size: int, new_size: int) -> None:
    """Print the proof that the ledger of NEW_SIZE entries continues that of OLD_SIZE, one base64 hash a line (RFC 9162)."""
    with context.connect() as client:
        proof = client.audit.consistency(old_size, new_size)
    if context.as_json:
        emit(proof)
        return
    for step in proof:
        console().print(base64.b64encode(step).decode())


@group.command()
@FILES
@KEY
@PIN
@WITNESS
@QUORUM
@click.pass_obj
def verify(context: Context, *, files: str, vkey: str, pin: Path | None, witnesses: tuple[str, ...], quorum: int | None) -> None:
    """Recompute the whole ledger and hold it against the signed head; entries you may not read count by their hash.

    With --files and --key nothing else is needed: no account, no registry.
    """
    if files:
        verify_files(context, files, vkey, pin=pin, witnesses=witnesses, quorum=quorum)
        return
    if vkey or pin or witnesses:
        raise click.UsageError("--key, --pin and --witness are for --files; your identity knows the ledger's key and its pin.")
    with context.connect() as client:
        head = client.audit.verify_ledger()
    if context.as_json:
        emit({"size": head.size, "root": head.root.hex(), "verified": True})
    else:
        facts([("Entries verified", head.size), ("Root", head.root.hex()), ("Result", "every entry is under the signed head")])


group.add_command(monitor)
