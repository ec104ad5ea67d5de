"""Auditing games, what their aliases stand for, and guesses, as rows. Who may read which of it is decided elsewhere."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from model_organisms import names
from model_organisms.errors import Conflict, NotFound
from model_organisms.formats import games as formats
from model_organisms.records import Game, GameState, Guess, Level, Page, PlayerTools, Rung, Tool, Truth, VersionRef
from sqlalchemy import select, update

from model_organisms_registry.storage import schema
from model_organisms_registry.storage.catalog import budgets, rows
from model_organisms_registry.storage.codecs import dump_conditions, dump_texts, load_conditions, load_texts
from model_organisms_registry.storage.paging import page

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from model_organisms.records import Budget
    from sqlalchemy import Connection, Row, Select


@dataclass(frozen=True, slots=True)
class Veil:
    """An alias, and what it stands for."""

    game: str
    alias: VersionRef
    """The alias with its blind digest."""
    version: VersionRef
    base: bool


def add_game(tx: Connection, game: Game, truth: Sequence[Truth], nonce: str) -> None:
    """Add a draft with its truth.

    Raises:
        AlreadyExists: The name is taken.
    """
    values = {
        "name": game.name,
        "master": game.master,
        "title": game.title,
        "question": game.question,
        "choices": dump_texts(game.choices),
        "rung": game.rung.value,
        "level": game.level.value,
        **budgets.dump("budget", game.budget),
        "conditions": dump_conditions(game.conditions),
        "commitment": game.commitment,
        "nonce": nonce,
        "state": game.state.value,
        "create_time": game.create_time,
        "deadline": game.deadline,
    }
    rows.add(tx, schema.games, values, name=game.name)
    aliases = [
        {
            "alias": one.alias,
            "game": game.name,
            "number": number,
            "blind": alias.digest,
            "version": one.version.name,
            "digest": one.version.digest,
            "base": one.base,
            "organism": one.organism,
            "answer": one.answer,
        }
        for number, (one, alias) in enumerate(zip(truth, game.aliases, strict=True), 1)
    ]
    rows.add_all(tx, schema.game_aliases, aliases)
    players = [
        {"game": game.name, "user": user, "position": at, "grant": "", "tools": dump_texts(formats.tools(game, user))}
        for at, user in enumerate(game.players)
    ]
    rows.add_all(tx, schema.game_players, players)


def game(tx: Connection, name: str, *, user: str = "", lock: bool = False) -> Game:
    """Read a game as one user sees it: with their own grant, where they joined.

    Raises:
        NotFound: There is none of that name.
    """
    return _read(tx, [rows.get(tx, schema.games, name, lock=lock)], user)[0]


def games(tx: Connection, *, user: str, every: bool, page_size: int = 0, page_token: str = "") -> Page[Game]:
    """List games, newest first: all, or those that a user made or may play."""
    table, played = schema.games, schema.game_players
    statement: Select[Any] = select(table)
    if not every:
        own = select(played.c.game).where(played.c.user == user)
        statement = statement.where((table.c.master == user) | table.c.name.in_(own))
    return page(
        tx,
        statement,
        key=table.c.name,
        newest_first=True,
        listing=("games", user, every),
        page_size=page_size,
        page_token=page_token,
        read=lambda found: _read(tx, found, user),
    )


def move(tx: Connection, name: str, before: GameState, after: GameState) -> None:
    """Move a game to its next state (compare and swap).

    Raises:
        NotFound: There is none of that name.
        Conflict: It has moved in between.
    """
    table = schema.games
    statement = update(table).where(table.c.name == name, table.c.state == before.value)
    if tx.execute(statement.values(state=after.value)).rowcount != 1:
        now = rows.get(tx, table, name).state
        raise Conflict(f"'{name}' is {now} by now; read it again.", name=name, state=now)


def join(tx: Connection, name: str, user: str, grant: str) -> None:
    """Note the grant of a player who joins.

    Raises:
        Conflict: They have joined before, or are no player.
    """
    table = schema.game_players
    statement = update(table).where(table.c.game == name, table.c.user == user, table.c.grant == "")
    if tx.execute(statement.values(grant=grant)).rowcount != 1:
        raise Conflict("You have joined this game already; go on with your grant.", game=name)


def tools(tx: Connection, alias: str, user: str) -> tuple[Tool, ...]:
    """Read what somebody may do with an alias; who is no player, nothing."""
    table = schema.game_players
    row = rows.find(tx, table, table.c.game == names.home_of(alias), table.c.user == user)
    return () if row is None else _tools(row)


def truth(tx: Connection, name: str) -> tuple[tuple[Truth, ...], str]:
    """Read what the aliases of a game stand for, in their order, and its nonce.

    Raises:
        NotFound: There is no such game.
    """
    table = schema.game_aliases
    found = tx.execute(select(table).where(table.c.game == name).order_by(table.c.number))
    told = (
        Truth(row.alias, VersionRef(row.version, row.digest), bool(row.base), bool(row.organism), row.answer) for row in found
    )
    return tuple(told), str(rows.get(tx, schema.games, name).nonce)


def veil(tx: Connection, alias: str) -> Veil:
    """Read what an alias stands for; for those who load it, and nobody who tells of it.

    Raises:
        NotFound: There is no such alias.
    """
    table = schema.game_aliases
    row = rows.find(tx, table, table.c.alias == alias)
    if row is None:
        raise NotFound.named(alias)
    return Veil(row.game, VersionRef(row.alias, row.blind), VersionRef(row.version, row.digest), bool(row.base))


def knowing(tx: Connection, organisms: Sequence[str], *, deadline: datetime) -> frozenset[str]:
    """Name the users who know organisms: by a grant, or from a game that is told at another time than one of this deadline.

    Seats are under aliases, so they are found by what those stand for. Of two games with the same deadline neither is told while
    the other runs; a draft is never told.
    """
    of, stood, version = schema.grant_versions, schema.game_aliases, schema.versions
    played, game = schema.game_players, schema.games
    granted = select(of.c.user).where(of.c.organism.in_(organisms)).distinct()
    seated = (
        select(played.c.user)
        .join(game, game.c.name == played.c.game)
        .join(stood, stood.c.game == game.c.name)
        .join(version, version.c.name == stood.c.version)
        .where(version.c.organism.in_(organisms), game.c.state != GameState.DRAFT.value, game.c.deadline != deadline)
        .distinct()
    )
    return frozenset(tx.scalars(granted)) | frozenset(tx.scalars(seated))


def guess(tx: Connection, alias: str, player: str) -> Guess | None:
    """Read a player's last guess at an alias."""
    table = schema.guesses
    row = rows.find(tx, table, table.c.alias == alias, table.c.player == player)
    return None if row is None else _guess(row)


def put_guess(tx: Connection, said: Guess) -> None:
    """Put a guess in the place of the one before; the player's seat is held in this transaction."""
    table = schema.guesses
    values = {
        "organism": said.organism,
        "probability": None if said.probability is None else repr(said.probability),
        "answer": said.answer,
        "times": said.count,
        "create_time": said.create_time,
    }
    if not rows.added(tx, table, {"alias": said.alias, "player": said.player, **values}):
        tx.execute(update(table).where(table.c.alias == said.alias, table.c.player == said.player).values(values))


def guesses(tx: Connection, game: str, *, player: str = "") -> tuple[Guess, ...]:
    """Read the last guesses in a game, of one player or of all."""
    table, of = schema.guesses, schema.game_aliases
    statement = select(table).join(of, of.c.alias == table.c.alias).where(of.c.game == game)
    if player:
        statement = statement.where(table.c.player == player)
    return tuple(_guess(row) for row in tx.execute(statement.order_by(of.c.number, table.c.player)))


def _guess(row: Row[Any]) -> Guess:
    probability = None if row.probability is None else float(row.probability)
    return Guess(row.alias, row.player, bool(row.organism), probability, row.answer, row.times, row.create_time)


def _tools(row: Row[Any]) -> tuple[Tool, ...]:
    return tuple(map(Tool, load_texts(row.tools)))


def _left(tx: Connection, grants: Iterable[str]) -> dict[str, Budget]:
    """What is left of each of these grants."""
    table = schema.grants
    found = tx.execute(select(table).where(table.c.name.in_(list(grants))))
    return {row.name: budgets.load("budget", row).minus(budgets.load("spent", row)) for row in found}


def _read(tx: Connection, found: Sequence[Row[Any]], user: str) -> list[Game]:
    """Turn rows into records; aliases, players and grants of all of them come in one statement each."""
    listed = [row.name for row in found]
    of, played = schema.game_aliases, schema.game_players
    aliases: dict[str, list[VersionRef]] = defaultdict(list)
    for row in tx.execute(select(of).where(of.c.game.in_(listed)).order_by(of.c.game, of.c.number)):
        aliases[row.game].append(VersionRef(row.alias, row.blind))
    players: dict[str, list[PlayerTools]] = defaultdict(list)
    own: dict[str, str] = {}
    for row in tx.execute(select(played).where(played.c.game.in_(listed)).order_by(played.c.game, played.c.position)):
        players[row.game].append(PlayerTools(row.user, _tools(row)))
        if row.user == user and row.grant:
            own[row.game] = row.grant
    left = _left(tx, own.values()) if own else {}
    return [
        Game(
            name=row.name,
            master=row.master,
            title=row.title,
            question=row.question,
            choices=load_texts(row.choices),
            aliases=tuple(aliases[row.name]),
            players=tuple(one.player for one in players[row.name]),
            rung=Rung(row.rung),
            level=Level(row.level),
            budget=budgets.load("budget", row),
            conditions=load_conditions(row.conditions),
            commitment=row.commitment,
            state=GameState(row.state),
            create_time=row.create_time,
            deadline=row.deadline,
            grant=own.get(row.name, ""),
            tools=tuple(players[row.name]),
            left=left.get(own.get(row.name, "")),
        )
        for row in found
    ]
