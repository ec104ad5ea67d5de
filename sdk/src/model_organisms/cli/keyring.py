"""`mo keys`."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import click

from model_organisms.cli.context import new_passphrase, passphrase
from model_organisms.cli.render import emit, facts
from model_organisms.client import client, keys
from model_organisms.client.locking import Lock
from model_organisms.formats.dsse import key_id

if TYPE_CHECKING:
    from model_organisms.cli.context import Context
    from model_organisms.client.keys import Identity


@click.group("keys")
def group() -> None:
    """Your keys: look at them, lock their file, exchange them."""


@group.command()
@click.pass_obj
def show(context: Context) -> None:
    """Show which keys and which certificate the identity file holds; no secret, and no call."""
    _told(context, keys.read(context.identity, passphrase()))


@group.command("passphrase")
@click.option("--remove", is_flag=True, help="Leave the file open.")
@click.pass_obj
def passphrase_(context: Context, *, remove: bool) -> None:
    """Lock the identity file, or change what it is locked by; asks for the new passphrase twice.

    Where nobody sits at a terminal, the variables MODEL_ORGANISMS_PASSPHRASE and MODEL_ORGANISMS_NEW_PASSPHRASE have them.
    """
    held = keys.read(context.identity, passphrase())
    changed = replace(held, lock=None if remove else Lock.of(new_passphrase()))
    keys.write(changed, context.identity)
    _told(context, changed)


@group.command()
@click.pass_obj
def rotate(context: Context) -> None:
    """Exchange your identity and sealing keys, by a statement that the old and the new one sign.

    Grants stay. What you signed for pending requests counts no more, and capsules pulled before open with the old keys only. If
    the registry did not answer, run it again: it finds out which keys are good.
    """
    with client.rotate_keys(context.identity, passphrase=passphrase(), timeout_s=context.timeout_s) as connected:
        _told(context, connected.identity)


def _told(context: Context, held: Identity) -> None:
    shown = {
        "user": held.user,
        "registry": held.registry,
        "origin": held.origin,
        "identity_key": held.key_id,
        "sealing_key": key_id(held.sealing_key),
        "certificate": held.thumbprint,
        "certificate_expires": held.certificate_expires,
        "file": str(context.identity),
        "locked": held.lock is not None,
    }
    if context.as_json:
        emit(shown)
    else:
        facts([(name.replace("_", " ").capitalize(), value) for name, value in shown.items()])
