"""`mo organisms holders`, and of `mo access` what is for those who hold copies."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from model_organisms.cli import access, organisms
from model_organisms.cli.render import console, emit, table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from model_organisms.cli.context import Context
    from model_organisms.client.client import Client
    from model_organisms.records import Holding


@organisms.group.command()
@click.argument("version")
@click.option("--outstanding", is_flag=True, help="Only copies whose destruction is to be attested.")
@click.pass_obj
def holders(context: Context, *, version: str, outstanding: bool) -> None:
    """Show who was sent copies of VERSION, under which grant, and whether they are attested to be destroyed."""
    with context.connect() as client:
        _told(context, list(client.organisms.holders(version, outstanding=outstanding)))


@access.group.command()
@click.option("--user", default="", help="Only this user's; reviewers, auditors and admins see all.")
@click.pass_obj
def outstanding(context: Context, *, user: str) -> None:
    """List copies whose destruction is to be attested: your own, or for those who oversee all."""
    with context.connect() as client:
        _told(context, list(client.access.outstanding(user=user)))


@access.group.command("attest-destroyed")
@click.argument("grant")
@click.option("--how", required=True, help="How the copies were destroyed; whoever asks later reads it.")
@click.option("--version", default="", help="Only the copies of this version; all where absent.")
@click.pass_obj
def attest_destroyed(context: Context, *, grant: str, how: str, version: str) -> None:
    """Sign, with your own key, that your copies under GRANT are destroyed. Destroy them first."""
    with context.connect() as client:
        _told(context, client.access.attest_destroyed(grant, how=how, version=version))


@access.group.command()
@click.option("--all", "every", is_flag=True, help="Also those that you have read.")
@click.option("--keep", is_flag=True, help="Do not say that you have read them.")
@click.pass_obj
def notices(context: Context, *, every: bool, keep: bool) -> None:
    """Show what you must know of versions you hold or may use, and say that you have read it."""
    with context.connect() as client:
        found = list(client.access.notices(unread=not every))
        if found and not keep:
            client.access.read_notices(found[0].name)
    if context.as_json:
        emit(found)
        return
    rows = ((item.name, item.kind, item.subject, item.text, item.create_time) for item in found)
    table("Notices", ("Notice", "What", "Of", "Why", "When"), rows)


def unread(client: Client) -> int:
    """Count the notices that the caller has not read."""
    return sum(1 for _ in client.access.notices(unread=True))


def told_of(count: int) -> None:
    """Say that there are notices."""
    if count:
        console().print(f"You have {count} unread {'notice' if count == 1 else 'notices'}: mo access notices")


def _told(context: Context, found: Sequence[Holding]) -> None:
    if context.as_json:
        emit(found)
        return
    columns = ("Pull", "Who", "Organisation", "Version", "Grant", "It is", "Pulled", "Copy", "Attest by")
    rows = (
        (
            held.pull,
            held.user,
            held.organisation,
            held.version.name,
            held.grant,
            held.grant_state,
            held.pull_time,
            held.state,
            held.due_time or "",
        )
        for held in found
    )
    table("Copies", columns, rows)
