"""The command `mo` itself: its groups, its global options, and how errors end it.

Exit status: 0 done; 1 the registry or a check said no; 2 the command was typed wrong; 3 the registry cannot be reached, or cannot
serve this now; 4 something signed or hashed did not verify. `--json` may stand anywhere in the line.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import click

from model_organisms.cli import access, audit, evaluate, games, holding, importing, keyring, motions, organisms, sandbox, users
from model_organisms.cli.context import NEW_PASSPHRASE, Context, new_passphrase
from model_organisms.cli.render import emit, facts, inert, plain
from model_organisms.client import client, keys
from model_organisms.errors import ModelOrganismsError, Suspended, Unavailable, VerificationFailed

if TYPE_CHECKING:
    from collections.abc import Mapping

_STATUS = ((VerificationFailed, 4), (Unavailable, 3), (ModelOrganismsError, 1))


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option(
    "--identity",
    type=click.Path(path_type=Path, dir_okay=False),
    envvar=keys.ENVIRONMENT,
    help="Identity file; `mo login` writes it.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs, errors included.")
@click.option("--timeout", type=float, default=30.0, show_default=True, help="Deadline of ordinary calls, in seconds.")
@click.version_option("0.1.0", prog_name="mo")
@click.pass_context
def cli(context: click.Context, *, identity: Path | None, as_json: bool, timeout: float) -> None:
    """Find, request, pull and sandbox-sample model organisms.

    First `mo login TICKET`, with the ticket an admin of the registry gave you.
    """
    context.obj = Context(identity or keys.default_path(), as_json=as_json, timeout_s=timeout)


@cli.command()
@click.argument("ticket")
@click.option("--issuer", default="", help="Log in at this identity provider, where the registry trusts several.")
@click.option("--token-file", type=click.File(errors="replace"), help="A service's token, in place of a person's login.")
@click.option("--force", is_flag=True, help="Replace the identity that is there.")
@click.option("--passphrase", is_flag=True, help=f"Lock the file; asks for a passphrase, or takes {NEW_PASSPHRASE}.")
@click.pass_obj
def login(context: Context, *, ticket: str, issuer: str, token_file: TextIO | None, force: bool, passphrase: bool) -> None:
    """Enrol with a TICKET: make keys on this machine and get a certificate. `-` reads it from standard input.

    A ticket with a one-time code is enough; with the public ticket of a registry, you log in at its identity provider.
    """
    if context.identity.exists() and not force:
        raise click.UsageError(f"There is an identity at {context.identity}; name another with --identity, or pass --force.")
    text = sys.stdin.read() if ticket == "-" else ticket
    token = token_file.read().strip() if token_file else ""
    locked = new_passphrase() if passphrase else ""
    with client.login(text, context.identity, passphrase=locked, issuer=issuer, token=token) as connected:
        who = connected.identity
        try:
            unread, suspended = holding.unread(connected), False
        except Suspended:  # whose keys were lost is let in again before an admin reinstates them
            unread, suspended = 0, True
    if context.as_json:
        said = {"user": who.user, "identity": str(context.identity), "certificate_expires": who.certificate_expires}
        emit({**said, "suspended": suspended})
        return
    facts([("Enrolled as", who.user), ("at", who.registry), ("keys in", context.identity), ("key id", who.key_id)])
    if suspended:
        click.echo("Your account is suspended until an admin reinstates it.")
    holding.told_of(unread)


@cli.command()
@click.pass_obj
def whoami(context: Context) -> None:
    """Say who the registry takes you for."""
    with context.connect() as connected:
        said, who, unread = connected.users.whoami(), connected.identity, holding.unread(connected)
    if context.as_json:
        emit(plain(said) | {"unread_notices": unread})
        return
    user = said.user
    shown = [("User", user.name), ("Organisation", user.organisation), ("Roles", sorted(user.roles)), ("Key", who.key_id)]
    facts([*shown, ("Registry", f"{said.origin} at {who.registry}"), ("Certificate until", said.certificate_expire_time)])
    holding.told_of(unread)


cli.add_command(organisms.group)
organisms.group.add_command(importing.import_)
cli.add_command(organisms.pull)
cli.add_command(access.group)
cli.add_command(sandbox.group)
cli.add_command(audit.group)
cli.add_command(users.group)
cli.add_command(keyring.group)
cli.add_command(motions.group)
cli.add_command(games.group)
cli.add_command(evaluate.group)


def main() -> None:
    """Run a command; an error becomes a sentence, or JSON, and an exit status."""
    words = [word for word in sys.argv[1:] if word != "--json"]
    as_json = len(words) < len(sys.argv) - 1
    try:
        cli(["--json", *words] if as_json else words, standalone_mode=False)
    except ModelOrganismsError as error:
        _tell(error.reason, error.message, error.details, as_json=as_json)
        sys.exit(next(status for kind, status in _STATUS if isinstance(error, kind)))
    except click.ClickException as error:
        if as_json:
            _tell("USAGE", error.format_message(), {}, as_json=True)
        else:
            error.show()
        sys.exit(error.exit_code)
    except click.Abort:
        click.echo("Stopped.", err=True)
        sys.exit(130)


def _tell(reason: str, message: str, details: Mapping[str, str], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"error": reason, "message": message, "details": dict(details)}), file=sys.stderr)
    else:
        click.echo(f"mo: {inert(message)}", err=True)
