"""`mo motions`."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from typing import TYPE_CHECKING

import click

from model_organisms import names
from model_organisms.cli.render import emit, facts, inert, table
from model_organisms.records import MotionKind, MotionState

if TYPE_CHECKING:
    from model_organisms.cli.context import Context
    from model_organisms.records import Motion, Signature

_YES = click.option("--yes", is_flag=True, help="Sign what stands there; nothing is asked then.")


@click.group("motions")
def group() -> None:
    """Acts that take two people: propose, second, reject."""


@group.command("list")
@click.option("--state", type=click.Choice([state.value for state in MotionState]))
@click.option("--kind", type=click.Choice([kind.value for kind in MotionKind]))
@click.pass_obj
def list_(context: Context, *, state: str | None, kind: str | None) -> None:
    """List motions: your own, or for reviewers, auditors and admins all."""
    with context.connect() as client:
        found = list(client.motions.list(state=state, kind=kind))
    if context.as_json:
        emit(found)
        return
    rows = ((item.name, item.kind, item.subject, item.proposer, _progress(item), item.state, item.expire_time) for item in found)
    table("Motions", ("Motion", "Kind", "Subject", "Proposed by", "Signatures", "State", "Lapses"), rows)


@group.command()
@click.argument("name")
@click.pass_obj
def show(context: Context, *, name: str) -> None:
    """Show a motion."""
    with context.connect() as client:
        _told(context, client.motions.get(name))


@group.command()
@click.argument("kind", type=click.Choice([kind.value for kind in MotionKind]))
@click.argument("subject")
@click.option("--fact", "stated", multiple=True, metavar="NAME=VALUE", help="Repeat for each fact of the kind; you sign them.")
@click.option("--reason", default="", help="Said with the signature; whoever seconds reads it.")
@click.pass_obj
def propose(context: Context, *, kind: str, subject: str, stated: tuple[str, ...], reason: str) -> None:
    """Propose an act of KIND on SUBJECT, with your own signature; another person must second it within 72 hours.

    Such as: mo motions propose lower-level organisms/toy --fact from=CL3 --fact to=CL2
    """
    asked = dict(_fact(text) for text in stated)
    with context.connect() as client:
        _told(context, client.motions.propose(kind, subject, asked, reason=reason))


@group.command()
@click.argument("name")
@click.option("--reason", default="", help="Said with the signature.")
@_YES
@click.pass_obj
def second(context: Context, *, name: str, reason: str, yes: bool) -> None:
    """Sign a yes to another person's motion, with your own key; it is shown first. The last signature needed does the act."""
    with context.connect() as client:
        read = _read(client.motions.get(name), "Sign a yes to this?", yes=yes)
        _told(context, client.motions.second(read, reason=reason))


@group.command()
@click.argument("name")
@click.option("--reason", required=True, help="Its proposer reads it.")
@_YES
@click.pass_obj
def reject(context: Context, *, name: str, reason: str, yes: bool) -> None:
    """Sign a no to a motion, which ends it; it is shown first."""
    with context.connect() as client:
        read = _read(client.motions.get(name), "Sign a no to this?", yes=yes)
        _told(context, client.motions.reject(read, reason=reason))


@group.command()
@click.argument("name")
@click.pass_obj
def withdraw(context: Context, *, name: str) -> None:
    """Take your open motion back."""
    with context.connect() as client:
        _told(context, client.motions.withdraw(name))


def _fact(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise click.BadParameter(f"'{text}' is not NAME=VALUE.", param_hint="--fact")
    return name, value


def _read(motion: Motion, question: str, *, yes: bool) -> Motion:
    """Show what is about to be signed, and ask. A motion never changes, so there is no revision to name."""
    if yes:
        return motion
    if not sys.stdin.isatty():
        raise click.UsageError("Without a terminal say --yes, once you have read the motion.")
    with redirect_stdout(sys.stderr):
        _show(motion)
    click.confirm(question, abort=True, err=True)
    return motion


def _told(context: Context, motion: Motion) -> None:
    emit(motion) if context.as_json else _show(motion)


def _show(motion: Motion) -> None:
    facts(
        [
            ("Motion", motion.name),
            ("To", f"{motion.kind} {motion.subject}"),
            *sorted(motion.facts.items()),
            ("Proposed by", motion.proposer),
            ("State", f"{motion.state}; lapses {motion.expire_time:%Y-%m-%d %H:%M} UTC if not carried"),
            ("Signatures", _progress(motion)),
            *((f"{names.short(given.signer)} said", _said(given)) for given in motion.signatures),
            *((name, value) for name, value in sorted(motion.outcome.items()) if name != "ticket"),
        ]
    )
    if ticket := motion.outcome.get("ticket"):
        click.echo(f"\nNobody sees this again. Hand it to them over a channel you trust:\n  mo login {inert(ticket)}")


def _said(given: Signature) -> str:
    answer = "yes" if given.approve else "no"
    return f"{answer}, for {given.organisation}, signed by key {given.key_id}: {given.reason or 'no reason given'}"


def _progress(motion: Motion) -> str:
    given = [names.short(signature.signer) for signature in motion.signatures if signature.approve]
    return f"{len(given)} of {motion.needed} ({', '.join(given)})"
