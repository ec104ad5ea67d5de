"""`mo access`."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from datetime import timedelta
from typing import TYPE_CHECKING

import click

from model_organisms.cli import stating
from model_organisms.cli.render import emit, facts, table
from model_organisms.cli.showing import progress, show_grant, show_request, spent, told
from model_organisms.errors import Conflict
from model_organisms.records import BUDGET_FIELDS, Budget, GrantState, Purpose, RequestState

if TYPE_CHECKING:
    from model_organisms.cli.context import Context
    from model_organisms.records import Request, Stated

_PURPOSES = click.Choice([purpose.value for purpose in Purpose])
_RUNGS = click.Choice(["sample", "probe", "pull"])

_REVISION = click.option("--revision", type=int, help="Sign only this revision, the one you read; nothing is asked then.")
_YES = click.option("--yes", is_flag=True, help="Sign what stands now; nothing is asked then.")


@click.group("access")
def group() -> None:
    """Ask for access, decide on requests, look at and revoke grants."""


@group.command()
@click.argument("versions", nargs=-1, required=True)
@click.option("--rung", required=True, type=_RUNGS, help="How close you must come.")
@click.option("--purpose", required=True, type=_PURPOSES, help="Why, by a standard word.")
@click.option("--justification", default="", help="Why, in your words; reviewers read it.")
@click.option("--need", default="", help="Why text and numbers are not enough, where you ask for weights.")
@click.option("--days", type=float, help="How long; the level's default where absent.")
@click.option(
    "--budget", multiple=True, metavar="WHAT=NUMBER", help=f"Repeat for each of {', '.join(BUDGET_FIELDS)}; default: the level's."
)
@stating.options
@click.pass_obj
def request(
    context: Context,
    *,
    versions: tuple[str, ...],
    rung: str,
    purpose: str,
    justification: str,
    need: str,
    days: float | None,
    budget: tuple[str, ...],
    stated: Stated | None,
) -> None:
    """Ask for a rung on VERSIONS.

    A budget holds what you name and nothing else, such as --budget tokens=200000 --budget sessions=9.
    """
    asked = _budget(budget)
    with context.connect() as client:
        made = client.access.request(
            versions,
            rung,
            purpose=purpose,
            justification=justification,
            need=need,
            budget=asked,
            duration=timedelta(days=days) if days else None,
            stated=stated,
        )
    told(context, made)


@group.command()
@click.argument("versions", nargs=-1, required=True)
@click.option("--rung", required=True, type=_RUNGS, help="How close you must come.")
@click.option("--purpose", required=True, type=_PURPOSES, help="Why, by a standard word.")
@click.option("--days", type=float, help="How long.")
@stating.options
@click.pass_obj
def match(
    context: Context, *, versions: tuple[str, ...], rung: str, purpose: str, days: float | None, stated: Stated | None
) -> None:
    """Tell how a request for VERSIONS would fit what their owners ask; nothing is asked yet."""
    duration = timedelta(days=days) if days else None
    with context.connect() as client:
        found = client.access.match(versions, rung, purpose=purpose, duration=duration, stated=stated)
    emit(found) if context.as_json else facts(stating.fits(found))


@group.command("list")
@click.option("--state", type=click.Choice([state.value for state in RequestState]))
@click.option("--requester", default="", help="Only this user's; reviewers see all.")
@click.pass_obj
def list_(context: Context, *, state: str | None, requester: str) -> None:
    """List requests: your own, or for reviewers all."""
    with context.connect() as client:
        found = list(client.access.list(state=state, requester=requester))
    if context.as_json:
        emit(found)
        return
    rows = (
        (item.name, item.requester, item.rung, item.level, item.purpose, progress(item), item.state, item.create_time)
        for item in found
    )
    table("Requests", ("Request", "Who", "Rung", "Level", "Purpose", "Approvals", "State", "Asked"), rows)


@group.command()
@click.argument("name")
@click.pass_obj
def show(context: Context, *, name: str) -> None:
    """Show a request or a grant."""
    with context.connect() as client:
        if name.startswith("grants/"):
            grant = client.access.grant(name)
            emit(grant) if context.as_json else show_grant(grant)
            return
        told(context, client.access.get(name))


@group.command()
@click.argument("name")
@click.option("--reason", default="", help="Said with the signature.")
@_REVISION
@_YES
@click.pass_obj
def approve(context: Context, *, name: str, reason: str, revision: int | None, yes: bool) -> None:
    """Sign a yes to a request, with your own key; it is shown first."""
    with context.connect() as client:
        read = _read(client.access.get(name), "Sign a yes to this?", revision=revision, yes=yes)
        told(context, client.access.approve(read, reason=reason))


@group.command()
@click.argument("name")
@click.option("--reason", required=True, help="The requester reads it.")
@_REVISION
@_YES
@click.pass_obj
def reject(context: Context, *, name: str, reason: str, revision: int | None, yes: bool) -> None:
    """Sign a no to a request; it is shown first."""
    with context.connect() as client:
        read = _read(client.access.get(name), "Sign a no to this?", revision=revision, yes=yes)
        told(context, client.access.reject(read, reason=reason))


@group.command()
@click.argument("name")
@click.pass_obj
def withdraw(context: Context, *, name: str) -> None:
    """Take your undecided request back."""
    with context.connect() as client:
        told(context, client.access.withdraw(name))


@group.command()
@click.argument("name")
@click.option("--justification", help="New reasons.")
@click.option("--need", help="New need for weights.")
@click.option("--days", type=float, help="New length.")
@click.option("--budget", multiple=True, metavar="WHAT=NUMBER", help="New budget, as for `request`.")
@stating.options
@click.pass_obj
def amend(
    context: Context,
    *,
    name: str,
    justification: str | None,
    need: str | None,
    days: float | None,
    budget: tuple[str, ...],
    stated: Stated | None,
) -> None:
    """Change your undecided request; approvals given so far are void."""
    duration = timedelta(days=days) if days else None
    asked = _budget(budget)
    with context.connect() as client:
        read = client.access.get(name)
        changed = client.access.amend(
            read, justification=justification, need=need, budget=asked, duration=duration, stated=stated
        )
    told(context, changed)


@group.command()
@click.argument("name")
@click.option("--justification", default="", help="What changed; reviewers see what was refused. Absent: as before.")
@click.option("--need", default="", help="New need for weights.")
@click.option("--days", type=float, help="New length.")
@click.option("--budget", multiple=True, metavar="WHAT=NUMBER", help="New budget, as for `request`.")
@stating.options
@click.pass_obj
def reapply(
    context: Context,
    *,
    name: str,
    justification: str,
    need: str,
    days: float | None,
    budget: tuple[str, ...],
    stated: Stated | None,
) -> None:
    """Ask again for what was refused, withdrawn or left to lapse; what you do not say is carried over."""
    duration, asked = timedelta(days=days) if days else None, _budget(budget)
    with context.connect() as client:
        again = client.access.reapply(
            name, justification=justification, need=need, budget=asked, duration=duration, stated=stated
        )
    told(context, again)


@group.command()
@click.option("--user", default="", help="Only this user's; reviewers see all.")
@click.option("--version", default="", help="Only those that cover this version.")
@click.option("--state", type=click.Choice([state.value for state in GrantState]))
@click.pass_obj
def grants(context: Context, *, user: str, version: str, state: str | None) -> None:
    """List grants and what is spent of them."""
    with context.connect() as client:
        found = list(client.access.grants(user=user, version=version, state=state))
    if context.as_json:
        emit(found)
        return
    rows = (
        (item.name, item.user, item.rung, [ref.name for ref in item.versions], spent(item), item.state, item.expire_time)
        for item in found
    )
    table("Grants", ("Grant", "Who", "Rung", "Versions", "Spent", "State", "Until"), rows)


@group.command()
@click.argument("name")
@click.option("--reason", required=True, help="Its user reads it.")
@click.pass_obj
def revoke(context: Context, *, name: str, reason: str) -> None:
    """Take a grant back; sessions under it end."""
    with context.connect() as client:
        grant = client.access.revoke(name, reason=reason)
    emit(grant) if context.as_json else show_grant(grant)


@group.command()
@click.argument("name")
@click.option("--justification", default="")
@click.option("--days", type=float)
@stating.options
@click.pass_obj
def renew(context: Context, *, name: str, justification: str, days: float | None, stated: Stated | None) -> None:
    """Ask again for what a grant gave."""
    with context.connect() as client:
        duration = timedelta(days=days) if days else None
        again = client.access.renew(name, justification=justification, duration=duration, stated=stated)
    told(context, again)


@group.command()
@click.argument("action")
@click.argument("resource", default="registry")
@click.option("--rung", type=_RUNGS, help="With the action `request`: what you would ask for.")
@click.pass_obj
def explain(context: Context, *, action: str, resource: str, rung: str | None) -> None:
    """Say how ACTION on RESOURCE would be decided for you, and what would change that.

    Actions are those of the policies, such as pull, openSession, probe, request, review.
    """
    with context.connect() as client:
        told = client.access.explain(action, resource, rung=rung)
    if context.as_json:
        emit(told)
        return
    facts(
        [
            ("Call", f"{told.action} on {told.resource}"),
            ("Answer", "allowed" if told.allowed else "denied"),
            ("By", told.policies or "no policy that permits it"),
            *([] if told.allowed else [("Says", told.message), *(("Lacking", change) for change in told.changes)]),
        ]
    )


@group.command()
@click.pass_obj
def policies(context: Context) -> None:
    """Say which policies decide, and what lies ready to; two admins adopt that by `mo motions propose adopt-policies`."""
    with context.connect() as client:
        status = client.access.policies()
    if context.as_json:
        emit(status)
        return
    others = (("In the folder", status.candidate), ("Problem", status.problem))
    facts([("Standing", status.standing), *((name, said) for name, said in others if said)])


def _budget(given: tuple[str, ...]) -> Budget | None:
    asked: dict[str, int] = {}
    for text in given:
        field, _, number = text.partition("=")
        if field not in BUDGET_FIELDS or not number.isdecimal():
            raise click.BadParameter(
                f"'{text}' is not WHAT=NUMBER with one of {', '.join(BUDGET_FIELDS)}.", param_hint="--budget"
            )
        asked[field] = int(number)
    return Budget(**asked) if asked else None


def _read(request_: Request, question: str, *, revision: int | None, yes: bool) -> Request:
    """Show what is about to be signed, and ask; without a terminal the caller must have said which revision."""
    if revision is not None and revision != request_.revision:
        msg = f"The request is at revision {request_.revision}, not {revision}; read it again, and sign that or do not."
        raise Conflict(msg, request=request_.name)
    if yes or revision is not None:
        return request_
    if not sys.stdin.isatty():
        raise click.UsageError("Without a terminal say which revision you read, by --revision NUMBER; or --yes.")
    with redirect_stdout(sys.stderr):
        show_request(request_)
    click.confirm(question, abort=True, err=True)
    return request_
