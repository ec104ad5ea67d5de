"""`mo games`. Sessions on an alias are opened by `mo sandbox sample`, as on any version."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC
from typing import TYPE_CHECKING, Any

import click

from model_organisms import names
from model_organisms.cli.render import emit, facts, table
from model_organisms.client.games import Seat
from model_organisms.formats import games as formats
from model_organisms.formats.conditions import show_condition
from model_organisms.records import BUDGET_FIELDS, Tool

if TYPE_CHECKING:
    from datetime import datetime

    from model_organisms.cli.context import Context
    from model_organisms.records import Budget, Game, Guess, Reveal, Score

_TOOL = click.Choice([tool.value for tool in Tool])
_DEADLINE = click.DateTime(["%Y-%m-%dT%H:%M", "%Y-%m-%d"])


@click.group("games")
def group() -> None:
    """Auditing games: organisms under aliases, guessed at blind, revealed after a deadline."""


@group.command()
@click.argument("title")
@click.option("--organism", "organisms", multiple=True, metavar="VERSION[=ANSWER]", help="An organism, and the right answer.")
@click.option("--decoy", "decoys", multiple=True, metavar="VERSION[=ANSWER]", help="A version that is none.")
@click.option("--base", "bases", multiple=True, metavar="VERSION", help="Only the base model of this version.")
@click.option("--player", "players", multiple=True, required=True, help="A researcher who may play; repeat for more.")
@click.option("--deadline", required=True, type=_DEADLINE, help="When it ends, in UTC.")
@click.option("--question", default="", help="What players say of each alias besides.")
@click.option("--choice", "choices", multiple=True, help="An answer to choose from; without any, answers are free text.")
@click.option("--tool", "tools", multiple=True, type=_TOOL, help="What players may do; by default sample and system.")
@click.option("--player-tool", "own", multiple=True, metavar="PLAYER=TOOL", help="What this one may do instead; repeat for more.")
@click.pass_obj
def create(
    context: Context,
    *,
    title: str,
    organisms: tuple[str, ...],
    decoys: tuple[str, ...],
    bases: tuple[str, ...],
    players: tuple[str, ...],
    deadline: datetime,
    question: str,
    choices: tuple[str, ...],
    tools: tuple[str, ...],
    own: tuple[str, ...],
) -> None:
    """Draw up a game called TITLE; two reviewers then open it. Which alias is which, the registry draws.

    Such as: mo games create "Which one flatters?" --organism organisms/toy/versions/1 --base organisms/toy/versions/1
    --player ada --deadline 2026-12-24T18:00
    """
    seats = [
        *(Seat(version, answer=answer) for version, answer in map(_seat, organisms)),
        *(Seat(version, organism=False, answer=answer) for version, answer in map(_seat, decoys)),
        *(Seat(version, organism=False, base=True) for version in bases),
    ]
    stated: dict[str, Any] = {"question": question, "choices": choices, "player_tools": _own(own)}
    if tools:
        stated["tools"] = tuple(map(Tool, tools))
    with context.connect() as client:
        drawn = client.games.create(title, seats, players=players, deadline=deadline.replace(tzinfo=UTC), **stated)
        _told(context, drawn)


@group.command("list")
@click.pass_obj
def list_(context: Context) -> None:
    """List games you made or may play; for reviewers, auditors and admins, all."""
    with context.connect() as client:
        found = list(client.games.list())
    if context.as_json:
        emit(found)
        return
    rows = ((game.name, game.title, len(game.aliases), len(game.players), game.state, game.deadline) for game in found)
    table("Games", ("Game", "Title", "Aliases", "Players", "State", "Deadline"), rows)


@group.command()
@click.argument("name")
@click.pass_obj
def show(context: Context, *, name: str) -> None:
    """Show a game: its aliases, its terms, and your seat."""
    with context.connect() as client:
        _told(context, client.games.get(name))


@group.command()
@click.argument("name")
@click.option("--reason", default="", help="Said with the signature; whoever seconds reads it.")
@click.pass_obj
def propose(context: Context, *, name: str, reason: str) -> None:
    """Sign, as a reviewer, that a game shall open on its terms as they stand; another seconds it by `mo motions second`."""
    with context.connect() as client:
        motion = client.games.propose_opening(name, reason=reason)
    if context.as_json:
        emit(motion)
        return
    facts([("Motion", motion.name), ("To", f"{motion.kind} {motion.subject}"), *sorted(motion.facts.items())])


@group.command()
@click.argument("name")
@click.pass_obj
def join(context: Context, *, name: str) -> None:
    """Take your seat in an open game. Note its commitment: the truth is held against it afterwards."""
    with context.connect() as client:
        _told(context, client.games.join(name))


@group.command()
@click.argument("alias")
@click.option("--organism/--no-organism", required=True, help="Whether it is a model organism.")
@click.option(
    "--probability",
    type=click.FloatRange(0, 1),
    default=None,
    help="That it is one, on the side of what you say; 0.5 where absent.",
)
@click.option("--answer", default="", help="To the game's question.")
@click.pass_obj
def guess(context: Context, *, alias: str, organism: bool, probability: float | None, answer: str) -> None:
    """Say what an ALIAS is; the last word before the deadline counts."""
    with context.connect() as client:
        _guesses(context, (client.games.guess(alias, organism=organism, probability=probability, answer=answer),))


@group.command()
@click.argument("name")
@click.pass_obj
def guesses(context: Context, *, name: str) -> None:
    """List your last guesses in a game."""
    with context.connect() as client:
        _guesses(context, client.games.guesses(name))


@group.command()
@click.argument("name")
@click.pass_obj
def truth(context: Context, *, name: str) -> None:
    """Read what is behind the aliases: as master or reviewer at once, as anybody once it is revealed."""
    with context.connect() as client:
        _revealed(context, client.games.truth(name))


@group.command()
@click.argument("name")
@click.option("--commitment", default="", metavar="DIGEST", help="As you noted it when you joined.")
@click.pass_obj
def reveal(context: Context, *, name: str, commitment: str) -> None:
    """Have the truth of a game told to everybody, after its deadline, and check it against the commitment."""
    with context.connect() as client:
        game = client.games.get(name)
        _revealed(context, client.games.reveal(replace(game, commitment=commitment) if commitment else game))


def _own(told: tuple[str, ...]) -> dict[str, list[Tool]]:
    """Read `ada=probe`, once for each tool."""
    found: dict[str, list[Tool]] = {}
    for text in told:
        player, _, tool = text.partition("=")
        if tool not in list(Tool):
            raise click.UsageError(f"'{text}' is no player's tool; write ada=probe, with one of {', '.join(Tool)}.")
        found.setdefault(player, []).append(Tool(tool))
    return found


def _seat(text: str) -> tuple[str, str]:
    version, _, answer = text.partition("=")
    return version, answer


def _told(context: Context, game: Game) -> None:
    if context.as_json:
        emit(game)
        return
    facts(
        [
            ("Game", game.name),
            ("Title", game.title),
            *([("Question", game.question)] if game.question else []),
            *([("Choices", game.choices)] if game.choices else []),
            ("Master", game.master),
            ("Players", game.players),
            *_tools(game),
            ("State", game.state),
            ("Deadline", game.deadline),
            ("Level", game.level),
            ("Each may spend", _amounts(game.budget)),
            *([("You have left", _amounts(game.left) or "nothing")] if game.left else []),
            *([("Conditions", [show_condition(one) for one in game.conditions])] if game.conditions else []),
            ("Commitment", game.commitment),
            ("Terms", formats.terms(game)),
            ("Your grant", game.grant or "none; players join"),
            *(("Alias", alias.name) for alias in game.aliases),
        ]
    )


def _tools(game: Game) -> list[tuple[str, object]]:
    """What players may do: once where it is the same for all."""
    told = {player: ", ".join(formats.tools(game, player)) for player in game.players}
    if len(set(told.values())) == 1:
        return [("Tools", told[game.players[0]])]
    return [("Tools", f"{names.short(player)}: {tools}") for player, tools in told.items()]


def _amounts(budget: Budget) -> str:
    return ", ".join(f"{field} {getattr(budget, field)}" for field in BUDGET_FIELDS if getattr(budget, field))


def _guesses(context: Context, found: tuple[Guess, ...]) -> None:
    if context.as_json:
        emit(found)
        return
    rows = ((one.alias, _kind(organism=one.organism), one.probability, one.answer, one.count) for one in found)
    table("Guesses", ("Alias", "It is", "Probability", "Answer", "Times"), rows)


def _revealed(context: Context, reveal: Reveal) -> None:
    if context.as_json:
        emit(reveal)
        return
    rows = (
        (one.alias, _kind(organism=one.organism), f"base of {one.version.name}" if one.base else one.version.name, one.answer)
        for one in reveal.truth
    )
    table("Truth", ("Alias", "It is", "Version", "Answer"), rows)
    facts([("Nonce", reveal.nonce)])
    if reveal.scores:
        table("Scores", ("Player", "Kinds", "Answers", "Brier"), map(_score, reveal.scores))


def _score(one: Score) -> tuple[str, str, str, str]:
    brier = f"{one.brier:.3f}, {one.rated} rated"
    return names.short(one.player), f"{one.right} of {one.aliases}", f"{one.answered} of {one.questions}", brier


def _kind(*, organism: bool) -> str:
    return "an organism" if organism else "none"
