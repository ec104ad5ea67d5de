"""`mo audit monitor`, and `mo audit verify` from public files."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from model_organisms.cli.render import emit, facts, inert, plain
from model_organisms.client.monitor import WATCHED, Monitor, gravest
from model_organisms.client.published import Published
from model_organisms.errors import LedgerForked, Unavailable
from model_organisms.formats import merkle, note

if TYPE_CHECKING:
    from collections.abc import Sequence

    from model_organisms.cli.context import Context
    from model_organisms.client.monitor import Alarm

_COMMAND_S = 60
_FORKED, _UNREACHABLE, _WATCHED = 4, 3, 1
"""Exit statuses, as those of `mo`: something did not verify; nothing could be read; something is to be looked at."""

FILES = click.option("--files", metavar="FOLDER|URL", default="", help="The ledger's public files; without them, the registry.")
KEY = click.option("--key", "vkey", metavar="VKEY", default="", help="The ledger's verifier key, where files are read.")
PIN = click.option(
    "--pin", type=click.Path(path_type=Path, dir_okay=False), help="File that keeps the last verified checkpoint between runs."
)
WITNESS = click.option("--witness", "witnesses", multiple=True, metavar="VKEY", help="A witness to expect; repeat for more.")
QUORUM = click.option("--quorum", type=int, default=None, help="How many of the witnesses must have cosigned; all by default.")


@click.command()
@FILES
@KEY
@PIN
@WITNESS
@QUORUM
@click.option("--every", default=60.0, show_default=True, help="Seconds between two looks.")
@click.option("--once", is_flag=True, help="Look once, for cron.")
@click.option("--lag", default=600.0, show_default=True, help="How old the newest cosigned checkpoint may be, in seconds.")
@click.option("--stale", default=0.0, show_default=True, help="How long no entry may come, in seconds; 0 is for ever.")
@click.option(
    "--watch", multiple=True, default=tuple(WATCHED), show_default=True, help="What entries to tell of: a name, or a type."
)
@click.option("--command", default="", help="Program to run for each alarm, which gets it as JSON on its standard input.")
@click.pass_obj
def monitor(
    context: Context,
    *,
    files: str,
    vkey: str,
    pin: Path | None,
    witnesses: tuple[str, ...],
    quorum: int | None,
    every: float,
    once: bool,
    lag: float,
    stale: float,
    watch: tuple[str, ...],
    command: str,
) -> None:
    """Follow a ledger; tell of forks, rollbacks, silence, missing witnesses and entries to look at (--json: one object a line).

    Exit status, with --once: 0 all is well, 1 an entry to look at, 3 unreachable or silent, 4 it does not verify. Without, it
    runs until it is stopped, and ends with 4 at a fork or a rollback.
    """
    keys = [note.parse_vkey(text) for text in witnesses]
    rules = {"pin": pin, "witnesses": keys, "quorum": len(keys) if quorum is None else quorum}

    def follow(made: Monitor) -> None:
        sys.exit(_followed(made, every=None if once else every, command=command, as_json=context.as_json))

    if files:
        with published(files, vkey) as source:
            follow(Monitor(source, source.key, source.origin, **rules, lag_s=lag, stale_s=stale, watch=watch))  # type: ignore[arg-type] # by name
    with context.connect() as client:
        who = client.identity
        key = note.parse_vkey(who.ledger_key)
        follow(Monitor(client.audit, key, who.origin, **rules, lag_s=lag, stale_s=stale, watch=watch))  # type: ignore[arg-type] # by name


def published(files: str, vkey: str) -> Published:
    """Open public files."""
    if not vkey:
        raise click.UsageError("--files needs --key, the ledger's verifier key, from somebody else than who serves the files.")
    return Published(files, vkey)


def verify_files(
    context: Context, files: str, vkey: str, *, pin: Path | None, witnesses: Sequence[str], quorum: int | None
) -> None:
    """Verify a ledger from nothing but its public files and a key, and print what was found."""
    keys = [note.parse_vkey(text) for text in witnesses]
    needed = len(keys) if quorum is None else quorum
    with published(files, vkey) as source:
        found = source.verify()
        looker = Monitor(source, source.key, source.origin, pin, keys, needed, lag_s=float("inf"), watch=())
        for alarm in looker.look(datetime.now(UTC)):
            raise (Unavailable if alarm.kind == "unreachable" else LedgerForked)(alarm.message)
    shown: dict[str, object] = {"origin": source.origin, "size": found.head.size, "root": found.head.root.hex()}
    shown = {**shown, "entries": found.entries, "tiles": found.tiles, "witnesses": needed, "verified": True}
    if context.as_json:
        emit(shown)
        return
    read = "every entry is under the signed head" if found.entries else "every hash is; the entries are not among the files"
    facts([("Origin", source.origin), ("Entries", found.head.size), ("Tiles", found.tiles), ("Root", shown["root"])])
    facts([*([("Cosigned by", f"at least {needed} of {len(keys)} witnesses")] if keys else []), ("Result", read)])


def _followed(made: Monitor, *, every: float | None, command: str, as_json: bool) -> int:
    """Look, tell, wait; the exit status."""
    while True:
        now = datetime.now(UTC)
        alarms = made.look(now)
        at: dict[str, object] = {"time": now.isoformat(timespec="seconds"), "origin": made.origin, "size": made.seen}
        at |= {"unread": made.unread}
        for alarm in alarms:
            line = {**at, "alarm": alarm.kind, "message": inert(alarm.message)}
            line |= {"index": alarm.index, "entry": plain(alarm.entry)} if alarm.index >= 0 else {}
            _print(line, as_json=as_json)
            if command:
                _run(command, line)
        if not alarms:
            _print({**at, "alarm": None, "message": _fine(made)}, as_json=as_json)
        if every is None or {alarm.kind for alarm in alarms} & {"fork", "rollback"}:
            return _status(alarms)
        time.sleep(every)


def _fine(made: Monitor) -> str:
    """Say that nothing is wrong, and what was not looked at."""
    root = made.head.root if made.head else merkle.EMPTY_ROOT
    said = f"all is well; the root is {root.hex()}"
    if made.unread and made.watch:
        said += f"; {made.unread} entries cannot be read here, so {', '.join(made.watch)} were not watched in them"
    return said


def _print(line: dict[str, object], *, as_json: bool) -> None:
    said = f"{line['time']} {line['origin']}, {line['size']} entries: {line['alarm'] or 'fine'}: {line['message']}"
    print(json.dumps(line) if as_json else said, flush=True)


def _run(command: str, line: dict[str, object]) -> None:
    """Hand an alarm to the operator's program. One that fails does not end the monitor."""
    try:
        subprocess.run(shlex.split(command), input=json.dumps(line).encode(), timeout=_COMMAND_S, check=True)
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        click.echo(f"mo: the alarm's program failed: {error}", err=True)


def _status(alarms: Sequence[Alarm]) -> int:
    worst = gravest(alarms)
    if worst is None:
        return _WATCHED if alarms else 0
    return _UNREACHABLE if issubclass(worst, Unavailable) else _FORKED
