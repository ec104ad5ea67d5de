"""`mo-registry signer`: the process that signs for a ledger; a registry that serves starts it, nobody types it."""

from __future__ import annotations

from pathlib import Path

import click


@click.command(hidden=True)
@click.option("--folder", type=click.Path(path_type=Path, file_okay=False), required=True)
@click.option("--socket", "descriptor", type=int, required=True)
def signer(*, folder: Path, descriptor: int) -> None:
    """Sign for a ledger, as the child of a registry that serves."""
    from model_organisms.cells.confine import undumpable

    from model_organisms_registry.ledger.seat import serve

    undumpable()
    serve(folder, descriptor)
