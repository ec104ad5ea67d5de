"""`mo sandbox`."""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING

import click

from model_organisms.cli.probing import probe
from model_organisms.cli.render import console, emit, facts, inert, plain, table
from model_organisms.records import BUDGET_FIELDS, Purpose, SessionState, UtteranceKind

if TYPE_CHECKING:
    from collections.abc import Iterator

    from model_organisms.cli.context import Context
    from model_organisms.client.sandbox import Session
    from model_organisms.records import Sample, Utterance
    from model_organisms.records import Session as SessionRecord

_TOKENS, _TEMPERATURE = click.IntRange(1, 8192), click.FloatRange(0, 10)
"""As the registry takes them; refused here, they cost no session."""
_PURPOSES = click.Choice([purpose.value for purpose in Purpose])


@click.group("sandbox")
def group() -> None:
    """Sample and probe organisms where their weights are; watch and stop sessions."""


@group.command()
@click.argument("version")
@click.option("--prompt", "prompts", multiple=True, required=True, help="What to say; repeat for more. `-` reads standard input.")
@click.option("--purpose", required=True, type=_PURPOSES, help="The purpose of your grant.")
@click.option("--grant", default="", help="The grant to use, where you have several.")
@click.option("--max-tokens", type=_TOKENS, default=128, show_default=True)
@click.option("--temperature", type=_TEMPERATURE, default=1.0, show_default=True)
@click.option("--samples", type=click.IntRange(1), default=1, show_default=True, help="Answers to each prompt.")
@click.option("--scale", type=float, help="Dose of the organism: 0 is the bare base, 1 as published. Needs a grant to probe.")
@click.pass_obj
def sample(
    context: Context,
    *,
    version: str,
    prompts: tuple[str, ...],
    purpose: str,
    grant: str,
    max_tokens: int,
    temperature: float,
    samples: int,
    scale: float | None,
) -> None:
    """Open a session on VERSION, sample, and close it.

    Output is shown with control characters escaped: it is the output of a misaligned model.
    """
    with context.connect() as client, client.sandbox.open(version, purpose=purpose, grant=grant) as session:
        _sample(context, session, prompts, samples=samples, max_tokens=max_tokens, temperature=temperature, scale=scale)


@group.command()
@click.argument("version")
@click.option("--prompt", "prompts", multiple=True, required=True, help="What to say; repeat for more. `-` reads standard input.")
@click.option("--purpose", required=True, type=_PURPOSES, help="The purpose of your grant.")
@click.option("--grant", default="", help="The grant to use, where you have several.")
@click.option("--base", default=None, help="Folder or hub id of the base model; by default the one that the provenance names.")
@click.option("--device", default="auto", show_default=True, help="`cpu`, `cuda`, or `auto`.")
@click.option("--max-tokens", type=_TOKENS, default=128, show_default=True)
@click.option("--temperature", type=_TEMPERATURE, default=1.0, show_default=True)
@click.option("--samples", type=click.IntRange(1), default=1, show_default=True, help="Answers to each prompt.")
@click.pass_obj
def local(
    context: Context,
    *,
    version: str,
    prompts: tuple[str, ...],
    purpose: str,
    grant: str,
    base: str | None,
    device: str,
    max_tokens: int,
    temperature: float,
    samples: int,
) -> None:
    """Sample VERSION in a jail on this machine, under a grant to pull; the registry keeps every answer.

    It needs Linux, bubblewrap, and `pip install 'model-organisms[cells]'`. Output is shown with control characters escaped.
    """
    with (
        context.connect() as client,
        client.sandbox.local(version, purpose=purpose, grant=grant, base=base, device=device) as session,
    ):
        _sample(context, session, prompts, samples=samples, max_tokens=max_tokens, temperature=temperature)


group.add_command(probe)


@group.command("list")
@click.option("--state", type=click.Choice([state.value for state in SessionState]))
@click.option("--user", default="", help="Only this user's; reviewers see all.")
@click.option("--watch", "every", type=click.FloatRange(min=1), metavar="SECONDS", help="Show the list anew, again and again.")
@click.pass_obj
def list_(context: Context, *, state: str | None, user: str, every: float | None) -> None:
    """List sessions: your own, or for reviewers all."""
    with context.connect() as client:
        while True:
            found = list(client.sandbox.list(state=state, user=user))
            if every and console().is_terminal:
                console().clear()
            if context.as_json:
                emit(found)
            else:
                rows = ((item.name, item.user, item.version.name, item.state, _spent(item), item.create_time) for item in found)
                table("Sessions", ("Session", "Who", "Version", "State", "Spent", "Opened"), rows)
            if not every:
                return
            time.sleep(every)


@group.command()
@click.argument("name")
@click.option("--new", "only_new", is_flag=True, help="Leave out what was said before.")
@click.pass_obj
def watch(context: Context, *, name: str, only_new: bool) -> None:
    """Read what is said in somebody's session while it is said; for reviewers and admins.

    Your look is written into the ledger. Text is shown with control characters escaped: it is the output of a misaligned model.
    """
    with context.connect() as client:
        _read_out(context, client.sandbox.watch(name, only_new=only_new))


@group.command()
@click.argument("name")
@click.pass_obj
def transcript(context: Context, *, name: str) -> None:
    """Read what was said in somebody's session so far; for reviewers and admins. Your look is written into the ledger."""
    with context.connect() as client:
        _read_out(context, client.sandbox.transcript(name))


@group.command()
@click.argument("name")
@click.pass_obj
def show(context: Context, *, name: str) -> None:
    """Show a session."""
    with context.connect() as client:
        _told(context, client.sandbox.get(name))


@group.command()
@click.argument("name")
@click.pass_obj
def close(context: Context, *, name: str) -> None:
    """End your own session."""
    with context.connect() as client:
        _told(context, client.sandbox.close(name))


@group.command()
@click.argument("name")
@click.option("--reason", required=True, help="Its user reads it.")
@click.pass_obj
def kill(context: Context, *, name: str, reason: str) -> None:
    """End somebody's session at once; for reviewers and admins."""
    with context.connect() as client:
        _told(context, client.sandbox.kill(name, reason=reason))


def _sample(
    context: Context,
    session: Session,
    prompts: tuple[str, ...],
    *,
    samples: int,
    max_tokens: int,
    temperature: float,
    scale: float | None = None,
) -> None:
    drawn: list[dict[str, object]] = []
    for prompt in (sys.stdin.read() if text == "-" else text for text in prompts):
        for _ in range(samples):
            answer = session.sample(prompt, max_tokens=max_tokens, temperature=temperature, scale=scale)
            drawn.append({"prompt": prompt, "sample": answer})
            if not context.as_json:
                _show(prompt, answer)
    if context.as_json:
        emit(drawn)


def _show(prompt: str, answer: Sample) -> None:
    out = console()
    out.print(f"> {inert(prompt)}", style="bold")
    out.print(inert(answer.text))
    told = answer.receipt
    out.print(f"[{answer.finish_reason}; {told.tokens} tokens; ledger {told.ledger_index}; {told.sample}]\n", style="dim")


def _read_out(context: Context, told: Iterator[Utterance]) -> None:
    """Print each as it comes: as JSON, one object a line."""
    out = console()
    for one in told:
        if context.as_json:
            print(json.dumps(plain(one)), flush=True)
            continue
        where = f"{one.time:%H:%M:%S} {one.subject} [{one.ledger_index}]"
        if one.kind is UtteranceKind.PROMPT:
            out.print(inert(where), style="dim")
            for turn in one.messages:
                out.print(f"{inert(turn.role)}> {inert(turn.content)}", style="bold")
        elif one.kind in {UtteranceKind.TEXT, UtteranceKind.NUMBERS}:
            out.print(inert(one.text))
        else:
            out.print(f"{inert(where)} {one.kind.value} {inert(one.text)}", style="dim")


def _told(context: Context, session: SessionRecord) -> None:
    if context.as_json:
        emit(session)
        return
    facts(
        [
            ("Session", session.name),
            ("State", session.state),
            ("User", session.user),
            ("Version", session.version.name),
            ("Purpose", session.purpose),
            ("Spent", _spent(session)),
            ("Walls", session.walls or "NONE: this cell is not jailed"),
            *([("Cell", "on its holder's machine; the walls are what its holder reported")] if session.local else []),
            ("Until", session.expire_time),
            *([("Reason", session.reason)] if session.reason else []),
        ]
    )


def _spent(session: SessionRecord) -> str:
    shown = ((field, getattr(session.spent, field), getattr(session.budget, field)) for field in BUDGET_FIELDS)
    return ", ".join(f"{field} {used}/{limit}" for field, used, limit in shown if limit)
