"""`mo users`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from model_organisms import names
from model_organisms.cli.render import emit, facts, table
from model_organisms.formats.dsse import key_id
from model_organisms.records import Role

if TYPE_CHECKING:
    from model_organisms.cli.context import Context
    from model_organisms.records import User


@click.group("users")
def group() -> None:
    """Accounts, for admins."""


@group.command()
@click.argument("user")
@click.option("--organisation", required=True, help="Such as example-lab.")
@click.option("--role", "roles", multiple=True, required=True, type=click.Choice([role.value for role in Role]))
@click.option("--display-name", default="")
@click.pass_obj
def invite(context: Context, *, user: str, organisation: str, roles: tuple[str, ...], display_name: str) -> None:
    """Create an account and print its one-time ticket.

    Where there are two admins, it takes both to make a reviewer or an admin: `mo motions propose appoint`.
    """
    with context.connect() as client:
        made = client.users.invite(user, organisation=organisation, roles=roles, display_name=display_name)
    if context.as_json:
        emit(made)
        return
    facts([("Invited", made.user.name), ("Ticket until", made.expire_time)])
    click.echo(f"\nHand this to them over a channel you trust:\n  mo login {made.ticket}")


@group.command("list")
@click.pass_obj
def list_(context: Context) -> None:
    """List accounts."""
    with context.connect() as client:
        found = list(client.users.list())
    if context.as_json:
        emit(found)
        return
    rows = (
        (names.short(user.name), user.display_name, user.organisation, sorted(user.roles), user.state, _key(user))
        for user in found
    )
    table("Users", ("User", "Name", "Organisation", "Roles", "State", "Key"), rows)


@group.command()
@click.argument("user")
@click.option("--reason", required=True)
@click.pass_obj
def suspend(context: Context, *, user: str, reason: str) -> None:
    """Stop an account; its next call is refused."""
    with context.connect() as client:
        _told(context, client.users.suspend(user, reason=reason))


@group.command()
@click.argument("user")
@click.option("--reason", required=True)
@click.pass_obj
def reinstate(context: Context, *, user: str, reason: str) -> None:
    """Let a stopped account stand again."""
    with context.connect() as client:
        _told(context, client.users.reinstate(user, reason=reason))


@group.command("deny-certificate")
@click.argument("thumbprint")
@click.option("--reason", required=True)
@click.pass_obj
def deny_certificate(context: Context, *, thumbprint: str, reason: str) -> None:
    """Refuse one certificate from now on, by its SHA-256; its owner gets another by their identity key."""
    with context.connect() as client:
        client.users.deny_certificate(thumbprint, reason=reason)
    if context.as_json:
        emit({"certificate": thumbprint.lower(), "state": "denied"})
    else:
        facts([("Denied", thumbprint.lower())])


def _key(user: User) -> str:
    return key_id(user.identity_key) if user.identity_key else ""


def _told(context: Context, user: User) -> None:
    if context.as_json:
        emit(user)
    else:
        facts([("User", user.name), ("State", user.state), ("Roles", sorted(user.roles))])
