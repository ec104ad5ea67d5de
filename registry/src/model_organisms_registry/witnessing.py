"""`mo-registry witness`: what an operator of a witness types. It needs no registry, and knows nothing of one."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path

import click

_WITNESS = click.option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("witness-data"),
    show_default=True,
    help="Folder of the witness; if it is lost, so is the witness.",
)

_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")


@click.group()
def witness() -> None:
    """Cosign the checkpoints of other people's ledgers (c2sp.org/tlog-witness). A witness needs no registry, and no database."""


@witness.command("init")
@_WITNESS
@click.option("--name", required=True, help="Name of its key, like witness.example.org.")
@_JSON
def witness_init(*, folder: Path, name: str, as_json: bool) -> None:
    """Make a witness, and print its verifier key for those who shall rely on it."""
    from model_organisms_registry.ledger.witness import create

    key = create(folder, name)
    click.echo(json.dumps({"name": name, "key": key}) if as_json else key)


@witness.command("add")
@_WITNESS
@click.argument("vkey")
@_JSON
def witness_add(*, folder: Path, vkey: str, as_json: bool) -> None:
    """Begin to watch the ledger with this verifier key; a witness that runs takes it up at its next start."""
    from model_organisms_registry.ledger.witness import add

    origin = add(folder, vkey)
    click.echo(json.dumps({"origin": origin, "watched": True}) if as_json else f"{origin} is watched.")


@witness.command("serve")
@_WITNESS
@click.option("--listen", default="127.0.0.1:7610", show_default=True, help="Address; put TLS in front of it.")
def witness_serve(*, folder: Path, listen: str) -> None:
    """Answer POST /add-checkpoint until SIGTERM."""
    from model_organisms_registry.ledger.witness import serve as run

    logging.basicConfig(level="INFO", format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    run(folder, listen)
