"""Tools of an auditing game: what each player may do with its aliases. Who plays, and when, is in `games.py`.

- Who may probe gets a grant of that rung; the gate refuses numbers to everybody else, as outside of games.
- What else that rung gives, no game does. Directions, steering and doses act on adapters, and behind an alias for a bare base
  there are some that must seem not to be there.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

from model_organisms.errors import Denied, InvalidArgument
from model_organisms.formats import games as formats
from model_organisms.records import Measure, PlayerTools, Rung, Tool

from model_organisms_registry.domain import terms
from model_organisms_registry.domain.budgets import check_budget, default_budget
from model_organisms_registry.domain.grants import PROBE_VALUES

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from model_organisms.records import Budget, Level

    from model_organisms_registry.domain.organisms import Subject

MEASURES = frozenset({Measure.LOGPROBS, Measure.KL, Measure.NORMS})
"""What the tool `probe` reads."""


def stated(players: Sequence[str], every: Sequence[Tool], own: Sequence[PlayerTools]) -> tuple[PlayerTools, ...]:
    """Say what each player may do.

    Args:
        players: Who plays.
        every: What those may do of whom nothing else is said; empty takes `formats.TOOLS`.
        own: Who may do something else.

    Returns:
        One for each player, in their order.

    Raises:
        InvalidArgument: Tools are given to who does not play, or twice, or they are of no use.
    """
    given = {one.player: one.tools for one in own}
    if len(given) < len(own) or not given.keys() <= set(players):
        raise InvalidArgument("Tools are given to players of the game, to each once.", field="player_tools")
    return tuple(PlayerTools(player, _useful(given.get(player, every or formats.TOOLS))) for player in players)


def rung(tools: Collection[Tool]) -> Rung:
    """How closely one comes with these."""
    return Rung.PROBE if Tool.PROBE in tools else Rung.SAMPLE


def together(given: Iterable[PlayerTools]) -> frozenset[Tool]:
    """All that some player may do."""
    return frozenset(tool for one in given for tool in one.tools)


def share(full: Budget, tools: Collection[Tool]) -> Budget:
    """What of a game's budget these can spend."""
    text = full if Tool.SAMPLE in tools else replace(full, tokens=0, output_bytes=0)
    return text if Tool.PROBE in tools else replace(text, probe_values=0)


def budget(wanted: Budget | None, given: Iterable[PlayerTools], level: Level, subjects: Sequence[Subject]) -> Budget:
    """What each player may spend; nothing of what no tool spends.

    Args:
        wanted: By the master; None takes what the level gives.
        given: Who may do what.
        level: The game's.
        subjects: Its versions.

    Raises:
        InvalidArgument: It is more than the level gives, or too few numbers for one probe where somebody may probe.
    """
    has, least = together(given), terms.smallest(subjects)
    furthest = rung(has)
    full = default_budget(level, furthest, **least) if wanted is None else check_budget(wanted, level, furthest, **least)
    if Tool.PROBE in has and full.probe_values < PROBE_VALUES:
        msg = f"Players of this game may probe, and one probe takes {PROBE_VALUES} numbers; give so many, or leave the tool out."
        raise InvalidArgument(msg, field="probe_values")
    return share(full, has)


def check(has: Collection[Tool], needed: Collection[Tool], *, beyond: bool) -> None:
    """Refuse what a player has no tool for; asked of every question, in the transaction that takes its cost.

    Args:
        has: What this player may do in this game.
        needed: What the question takes.
        beyond: It takes what no game gives: a direction, steering, a dose, or hidden states along a direction.

    Raises:
        Denied: So it is.
    """
    if beyond:
        raise Denied("No game gives directions, steering, doses, projections or cosines; ask without them.")
    lacking = ", ".join(sorted(set(needed).difference(has)))
    if lacking:
        msg = f"Your seat in this game has no tool {lacking}, only {', '.join(has) or 'none'}; ask without it."
        raise Denied(msg, lacking=lacking)


def _useful(tools: Sequence[Tool]) -> tuple[Tool, ...]:
    if max(Counter(tools).values(), default=0) > 1 or not {Tool.SAMPLE, Tool.PROBE} & set(tools):
        raise InvalidArgument("A player has sample, probe or both, and each tool once.", field="tools")
    return tuple(tool for tool in Tool if tool in tools)
