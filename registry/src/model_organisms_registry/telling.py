"""`mo-registry notify`: makes a secret for a receiver of letters, tries the receivers out, and lists what they did not take."""

from __future__ import annotations

import json
import secrets
import sys
from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path

import click

from model_organisms_registry.config import load

_FOLDER = click.option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("registry-data"),
    show_default=True,
    help="Data folder of the registry.",
)
_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
_MOST = 1000
_KEY = 32


@click.group()
def notify() -> None:
    """See to the systems that are told what happens; registry.toml names them in [[notify]]."""


@notify.command()
def secret() -> None:
    """Print a fresh secret, for a secret_file and for its receiver."""
    from model_organisms.formats import webhooks

    click.echo(webhooks.print_secret(secrets.token_bytes(_KEY)))


@notify.command()
@_FOLDER
@_JSON
def test(*, folder: Path, as_json: bool) -> None:
    """Send each receiver a message of the type `notify.test`, now.

    Exit status 0 means all took it, 1 that one did not.
    """
    from model_organisms.formats import strict_json

    from model_organisms_registry import hooks

    config, now = load(folder), datetime.now(UTC)
    body = strict_json.canonical({"type": "notify.test", "timestamp": now.isoformat(), "data": {"subject": config.origin}})
    said = {
        hook.name: hooks.post(hook, body, identifier=secrets.token_hex(16), now=now)
        for hook in hooks.opened(config.notify, config.folder)
    }
    if as_json:
        click.echo(json.dumps(said, indent=1))
    else:
        click.echo("\n".join(f"{name}: {why or 'taken'}" for name, why in said.items()) or "No [[notify]] in registry.toml.")
    sys.exit(1 if any(said.values()) else 0)


@notify.command()
@_FOLDER
@_JSON
def pending(*, folder: Path, as_json: bool) -> None:
    """List what receivers have not taken: what is tried again, and what was given up."""
    from model_organisms_registry.domain.outbox import Letter
    from model_organisms_registry.storage.catalog import outbox
    from model_organisms_registry.storage.database import Database

    database = Database(load(folder).database_url)
    with database.read() as tx:
        found = outbox.pending(tx, most=_MOST)
    database.close()
    if as_json:
        shown = [field.name for field in fields(Letter) if field.name != "body"]
        click.echo(json.dumps([{name: _plain(getattr(letter, name)) for name in shown} for letter in found], indent=1))
        return
    for letter in found:
        again = f"again at {letter.next_time:%Y-%m-%d %H:%M:%S} UTC" if letter.next_time else "given up"
        click.echo(f"{letter.id} {letter.type} for {letter.hook}: {letter.attempts} attempts, {again} {letter.error}".rstrip())
    click.echo(f"{'At least ' if len(found) == _MOST else ''}{len(found)} not taken.")


def _plain(value: object) -> object:
    return value.isoformat() if isinstance(value, datetime) else value
