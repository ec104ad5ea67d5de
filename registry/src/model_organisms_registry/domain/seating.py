"""Who has a seat in an auditing game: nobody who could know what is behind its aliases, or whom owners do not let near.

For `games.py`, which says what may be in a game, and when it moves.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from model_organisms.errors import Denied, InvalidArgument
from model_organisms.records import Purpose, Role, Stated, UserState

from model_organisms_registry.domain import purposes, tools
from model_organisms_registry.domain.identity import OVERSIGHT

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence
    from datetime import timedelta

    from model_organisms.records import Condition, PlayerTools, User

    from model_organisms_registry.domain.organisms import Subject

MOST_PLAYERS = 64


def check(players: Sequence[User], *, master: User, subjects: Sequence[Subject], knowing: Collection[str]) -> None:
    """Check that all who are to play may; `knowing` is as for `games.draw`.

    Raises:
        InvalidArgument: None, too many, or one twice.
        Denied: One oversees, made or knows something, or is no active researcher.
    """
    if not 1 <= len(players) <= MOST_PLAYERS or len({player.name for player in players}) != len(players):
        raise InvalidArgument(f"A game has 1 to {MOST_PLAYERS} players, each once.", field="players")
    makers = {subject.organism.owner for subject in subjects}.union(*(subject.authors for subject in subjects))
    for player in players:
        if player.state is not UserState.ACTIVE or Role.RESEARCHER not in player.roles:
            raise Denied(f"{player.name} is no active researcher; name players who are.", player=player.name)
        if player.name == master.name or not OVERSIGHT.isdisjoint(player.roles):
            raise Denied(f"{player.name} could read the truth, and cannot play; name others.", player=player.name)
        if player.name in makers or player.name in knowing:
            raise Denied(f"{player.name} knows an organism of this game, and cannot play; name others.", player=player.name)


def fit(
    players: Iterable[tuple[User, PlayerTools]], subjects: Sequence[Subject], asks: Sequence[Condition], duration: timedelta
) -> None:
    """Hold the game against what owners ask; who joins accepts what can be promised.

    Raises:
        PurposeRefused: It does not fit.
    """
    strictest_last = sorted(asks, key=lambda condition: condition.duration_s)
    promised = {one.modifier: one for one in strictest_last if one.modifier in purposes.PROMISES}
    organisms = [subject.organism for subject in subjects]
    for player, given in players:
        accepted = Stated(accepts=tuple(promised.values()))
        asked = purposes.Asked(player.organisation, tools.rung(given.tools), Purpose.AUDITING_GAME, duration, accepted)
        purposes.refuse_unfit(purposes.match(organisms, asked))
