"""Auditing games, step by step. What may be in one is in `domain/games.py`; sessions on an alias are opened by `sandbox.py`."""

from __future__ import annotations

import secrets
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from model_organisms import names
from model_organisms.errors import NotFound
from model_organisms.formats import games as formats
from model_organisms.records import GameState, Guess, Page, Reveal

from model_organisms_registry.domain import games as rules
from model_organisms_registry.domain.audit import Event, entry
from model_organisms_registry.domain.budgets import stated
from model_organisms_registry.domain.identity import OVERSIGHT
from model_organisms_registry.domain.motions import Stakes
from model_organisms_registry.domain.permits import Action
from model_organisms_registry.gate import entities
from model_organisms_registry.storage.catalog import games as rows
from model_organisms_registry.storage.catalog import grants as grant_rows
from model_organisms_registry.storage.catalog import identity as accounts
from model_organisms_registry.workflows import finding
from model_organisms_registry.workflows.changes import name as fresh
from model_organisms_registry.workflows.changes import seq
from model_organisms_registry.workflows.granting import conditioned
from model_organisms_registry.workflows.motions import Act

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from model_organisms.records import Game, Motion, Receipt

    from model_organisms_registry.domain.games import Sheet
    from model_organisms_registry.domain.hazard import HazardTable
    from model_organisms_registry.domain.permits import Call
    from model_organisms_registry.gate.gate import Gate
    from model_organisms_registry.storage.database import Connection
    from model_organisms_registry.workflows.changes import Change, Changes


class Asked(NamedTuple):
    """What a master names to be behind an alias."""

    version: str
    base: bool
    organism: bool
    answer: str


class Games:
    """Games.

    Args:
        changes: Opens transactions.
        gate: Decides who may.
        table: The hazard table of this deployment.
    """

    def __init__(self, changes: Changes, gate: Gate, table: HazardTable) -> None:
        """Keep them."""
        self._changes = changes
        self._gate = gate
        self._table = table

    def create(self, call: Call, sheet: Sheet, seats: Sequence[Asked], *, players: Sequence[str]) -> tuple[Game, Receipt]:
        """Draw a game up: a draft, whose truth the ledger commits to.

        1. The gate lets the caller make games, and see what they put into this one.
        2. The registry draws which alias is which, and a nonce.
        3. Game, truth and entry are one transaction.

        Args:
            call: Who is its master.
            sheet: What is said of it.
            seats: What shall be behind its aliases.
            players: Who may play.
        """
        with self._changes.open() as change:
            permit = self._gate.permit(call, Action.CREATE_GAME, entities.registry())
            seated = [self._seat(change.tx, call, seat) for seat in seats]
            secrets.SystemRandom().shuffle(seated)
            organisms = sorted({seat.subject.organism.name for seat in seated})
            drawn = rules.draw(
                fresh("games", call.time),
                sheet,
                seated,
                master=call.user,
                players=[accounts.user(change.tx, player) for player in players],
                knowing=rows.knowing(change.tx, organisms, deadline=rules.ends(sheet)),
                nonce=secrets.token_bytes(formats.NONCE_BYTES).hex(),
                now=call.time,
                table=self._table,
            )
            game = drawn.game
            rows.add_game(change.tx, game, drawn.truth, drawn.nonce)
            facts = _bound(game) | {
                "level": game.level.name,
                "aliases": str(len(game.aliases)),
                "players": str(len(game.players)),
                "deadline": game.deadline.isoformat(timespec="seconds"),
            }
            change.enter(entry(Event.CREATE_GAME, call, seq=seq(), subject=game.name, permit=permit, facts=facts))
        return game, change.receipt

    def get(self, call: Call, name: str) -> Game:
        """Read a game as the caller sees it."""
        with self._changes.database.read() as tx:
            game = self._found(tx, call, Action.VIEW_GAME, name)
        self._gate.permit(call, Action.VIEW_GAME, entities.game(game))
        return rules.state_of(game, now=call.time)

    def list(self, call: Call, *, page_size: int, page_token: str) -> Page[Game]:
        """List games: those one made or may play, or for those who oversee all."""
        self._gate.permit(call, Action.LIST, entities.registry())
        every = not OVERSIGHT.isdisjoint(call.user.roles)
        with self._changes.database.read() as tx:
            page = rows.games(tx, user=call.user.name, every=every, page_size=page_size, page_token=page_token)
        return Page(tuple(rules.state_of(game, now=call.time) for game in page.items), page.next_page_token)

    def join(self, call: Call, name: str) -> tuple[Game, Receipt]:
        """Take one's seat: the grant, the seat and their entries are one transaction; the receipt is of the seat's."""
        with self._changes.open() as change:
            game = self._found(change.tx, call, Action.JOIN_GAME, name, lock=True)
            permit = self._gate.permit(call, Action.JOIN_GAME, entities.game(game))
            grant = rules.join(game, call.user, grant=fresh("grants", call.time), now=call.time)
            rows.join(change.tx, name, call.user.name, grant.name)
            grant_rows.add_grant(change.tx, grant)
            facts = {
                "rung": grant.rung.name.lower(),
                "level": grant.level.name,
                "purpose": grant.purpose.value,
                "versions": str(len(grant.versions)),
                "expires": grant.expire_time.isoformat(timespec="seconds"),
                "request": name,
                "budget": stated(grant.budget),
                **conditioned(grant),
            }
            change.enter(entry(Event.GRANT, call, seq=seq(), subject=grant.name, grant=grant.name, facts=facts))
            change.enter(entry(Event.JOIN_GAME, call, seq=seq(), subject=name, permit=permit, facts=_bound(game)))
        return replace(game, grant=grant.name, left=grant.budget), change.receipt

    def guess(self, call: Call, said: Guess) -> tuple[Guess, Receipt]:
        """Take a guess; the one before gives way to it."""
        name = names.home_of(said.alias)
        with self._changes.open() as change:
            game = self._found(change.tx, call, Action.GUESS, name, lock=True)
            permit = self._gate.permit(call, Action.GUESS, entities.game(game))
            before = rows.guess(change.tx, said.alias, call.user.name)
            count = before.count + 1 if before else 1
            mine = replace(said, player=call.user.name, count=count, create_time=call.time)
            taken = rules.guess(game, mine, now=call.time)
            rows.put_guess(change.tx, taken)
            facts = {"alias": taken.alias, "guess": formats.guess_digest(taken), "count": str(taken.count)}
            change.enter(entry(Event.GUESS, call, seq=seq(), subject=name, permit=permit, facts=facts))
        return taken, change.receipt

    def guesses(self, call: Call, name: str) -> tuple[Guess, ...]:
        """Read one's own last guesses."""
        with self._changes.database.read() as tx:
            game = self._found(tx, call, Action.VIEW_GAME, name)
            self._gate.permit(call, Action.VIEW_GAME, entities.game(game))
            return rows.guesses(tx, name, player=call.user.name)

    def truth(self, call: Call, name: str) -> Reveal:
        """Read the truth; guesses and scores are told with it once everybody may have it."""
        with self._changes.database.read() as tx:
            game = self._found(tx, call, Action.VIEW_TRUTH, name)
            self._gate.permit(call, Action.VIEW_TRUTH, entities.game(game))
            return _told(tx, game)

    def reveal(self, call: Call, name: str) -> tuple[Reveal, Receipt | None]:
        """Have the truth told to everybody, after the deadline; whoever asks first makes the entry."""
        with self._changes.database.read() as tx:
            game = self._found(tx, call, Action.VIEW_GAME, name)
            self._gate.permit(call, Action.VIEW_GAME, entities.game(game))
            rules.reveal(game, now=call.time)
            if game.state is GameState.REVEALED:
                return _told(tx, game), None
        with self._changes.open() as change:
            game = self._found(change.tx, call, Action.VIEW_GAME, name, lock=True)
            permit = self._gate.permit(call, Action.VIEW_GAME, entities.game(game))
            after = rules.reveal(game, now=call.time)
            told = _told(change.tx, after)
            if game.state is GameState.REVEALED:  # another was first
                return told, None
            rows.move(change.tx, name, GameState.OPEN, after.state)
            facts = {"commitment": game.commitment, "nonce": told.nonce, "guesses": str(len(told.guesses))}
            change.enter(entry(Event.REVEAL_GAME, call, seq=seq(), subject=name, permit=permit, facts=facts))
        return told, change.receipt

    def opening(self) -> Act:
        """What a motion to open a game does."""
        return Act(self._weigh, self._open)

    def _weigh(self, tx: Connection, call: Call, motion: Motion) -> Stakes:
        """Who signs has an open eye on the truth, and no part in any of its organisms."""
        game = self._found(tx, call, Action.VIEW_TRUTH, motion.subject)
        self._gate.permit(call, Action.VIEW_TRUTH, entities.game(game))
        subjects = finding.played(tx, game.name)
        organisms = sorted({subject.organism.name for subject in subjects})
        knowing = rows.knowing(tx, organisms, deadline=game.deadline)
        demands = rules.opening(game, subjects, motion.facts["terms"], knowing=knowing, table=self._table, now=call.time)
        barred = {*game.players}.union(*({subject.organism.owner} | subject.authors for subject in subjects))
        return Stakes(frozenset(barred), demands.distinct_organisations)

    def _open(self, change: Change, call: Call, motion: Motion) -> Mapping[str, str]:
        game = rows.game(change.tx, motion.subject, lock=True)
        rows.move(change.tx, game.name, GameState.DRAFT, rules.opened(game).state)
        facts = _bound(game) | {"motion": motion.name}
        change.enter(entry(Event.OPEN_GAME, call, seq=seq(), subject=game.name, facts=facts))
        return {"game": game.name}

    def _seat(self, tx: Connection, call: Call, asked: Asked) -> rules.Seated:
        found = finding.version(tx, self._gate, call, Action.DESCRIBE, asked.version)
        self._gate.permit(call, Action.DESCRIBE, found.resource, grants=found.grants)
        return rules.Seated(found.subject, asked.base, asked.organism, asked.answer)

    def _found(self, tx: Connection, call: Call, action: Action, name: str, *, lock: bool = False) -> Game:
        try:
            return rows.game(tx, name, user=call.user.name, lock=lock)
        except NotFound:
            self._gate.absent(call, action, "game", name)


def _bound(game: Game) -> dict[str, str]:
    """What every entry of a game binds."""
    return {"commitment": game.commitment, "terms": formats.terms(game)}


def _told(tx: Connection, game: Game) -> Reveal:
    truth, nonce = rows.truth(tx, game.name)
    if game.state is not GameState.REVEALED:
        return Reveal(truth, nonce, (), ())
    guesses = rows.guesses(tx, game.name)
    return Reveal(truth, nonce, guesses, formats.scores(game, truth, guesses))
