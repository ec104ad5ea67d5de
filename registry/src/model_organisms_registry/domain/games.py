"""Auditing games: what may be in one, who plays, when it is open, and what an alias looks like from above.

- The registry draws which alias is which, and commits to it before anybody plays. Nothing of a game changes after that but its
  state: draft, open, closed, revealed.
- Whatever could tell the aliases apart without asking them is the same for all: base model, level, and whether they are served.
  They stand and fall together.
- Players are researchers without oversight, without a part in any of the organisms, and cannot see them: all are hidden. Nor
  were they in another game of one, whose truth tells what is in this.
- Two reviewers open a game, as a grant to each player would take; who joins gets that grant. It ends with the deadline.
- The truth is told to everybody after the deadline, and not before.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING

from model_organisms import names
from model_organisms.errors import Conflict, Denied, InvalidArgument
from model_organisms.formats import games as formats
from model_organisms.records import (
    Budget,
    FileKind,
    Game,
    GameState,
    Grant,
    GrantState,
    Guess,
    Level,
    Organism,
    PlayerTools,
    Purpose,
    Role,
    Rung,
    Tool,
    Truth,
    Version,
    VersionRef,
    VersionState,
)

from model_organisms_registry.domain import purposes, seating, terms, tools
from model_organisms_registry.domain.organisms import Subject, plain, served

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence
    from datetime import datetime

    from model_organisms.records import User

    from model_organisms_registry.domain.hazard import Demands, HazardTable

HIGHEST = Level.CL2
"""Above it a session's turns are said again and compared, which needs to name what was loaded."""
SHORTEST = timedelta(minutes=1)
MOST_ALIASES = 64
MOST_GUESSES = 100
"""At one alias, by one player."""
ANSWER_LIMIT = 200
_EVEN = 0.5
_WORDS = frozenset({FileKind.PROMPT, FileKind.TOKENIZER})
_SIGNERS = 2
_ORDER = (VersionState.PUBLISHED, VersionState.QUARANTINED, VersionState.WITHDRAWN, VersionState.DESTROYED)


@dataclass(frozen=True, slots=True)
class Seated:
    """What a master puts behind an alias."""

    subject: Subject
    base: bool
    organism: bool
    answer: str


@dataclass(frozen=True, slots=True)
class Sheet:
    """What a master says of a game before it is drawn up."""

    title: str
    question: str
    choices: tuple[str, ...]
    budget: Budget | None
    deadline: datetime
    tools: tuple[Tool, ...] = ()
    """Of each player who has none of their own."""
    player_tools: tuple[PlayerTools, ...] = ()


@dataclass(frozen=True, slots=True)
class Drawn:
    """A game with its truth."""

    game: Game
    truth: tuple[Truth, ...]
    nonce: str


def draw(
    name: str,
    sheet: Sheet,
    seats: Sequence[Seated],
    *,
    master: User,
    players: Sequence[User],
    knowing: Collection[str],
    nonce: str,
    now: datetime,
    table: HazardTable,
) -> Drawn:
    """Draw a game up, and commit to its truth.

    Args:
        name: Name of the new game.
        sheet: What is said of it.
        seats: What is behind its aliases, in an order drawn by lot.
        master: Who makes it.
        players: Who may play.
        knowing: Users who hold or held a grant on any of its organisms, or were in a game of one that is told at another time.
        nonce: 32 random bytes in hex.
        now: The call's time.
        table: The hazard table of this deployment.

    Returns:
        A draft.

    Raises:
        InvalidArgument: Too few, too many, too long, or out of bounds.
        Denied: A version, a player or the master has no place in a game.
        Withdrawn: A version is.
        PurposeRefused: It does not fit what an owner asks.
    """
    if not 1 <= len(seats) <= MOST_ALIASES:
        raise InvalidArgument(f"A game has 1 to {MOST_ALIASES} aliases.", field="seats")
    subjects = [seat.subject for seat in seats]
    given = tools.stated([player.name for player in players], sheet.tools, sheet.player_tools)
    rung = tools.rung(tools.together(given))
    level = _level(subjects, rung, table)
    _check_rights(master, subjects)
    seating.check(players, master=master, subjects=subjects, knowing=knowing)
    choices = tuple(plain(choice, "choices", limit=ANSWER_LIMIT) for choice in sheet.choices)
    truth = tuple(_truth(name, number, seat, choices) for number, seat in enumerate(seats, 1))
    asks = terms.conditions(subjects)
    duration = sheet.deadline - now
    longest = purposes.longest(asks, table.rules_of(level).max_duration)
    if not SHORTEST <= duration <= longest:
        raise InvalidArgument(f"A game lasts from {SHORTEST} to {longest}; set its deadline so.", field="deadline")
    seating.fit(zip(players, given, strict=True), subjects, asks, duration)
    budget = tools.budget(sheet.budget, given, level, subjects)
    game = Game(
        name=names.check("game", name),
        master=master.name,
        title=plain(sheet.title, "title", limit=ANSWER_LIMIT),
        question=plain(sheet.question, "question", limit=2000),
        choices=choices,
        aliases=tuple(VersionRef(one.alias, formats.blind(one, nonce)) for one in truth),
        players=tuple(player.name for player in players),
        rung=rung,
        level=level,
        budget=budget,
        conditions=asks,
        commitment=formats.commitment(name, truth, nonce),
        state=GameState.DRAFT,
        create_time=now,
        deadline=ends(sheet),
        tools=given,
    )
    return Drawn(game, truth, nonce)


def ends(sheet: Sheet) -> datetime:
    """When a game ends, to the second, as its terms say it."""
    return sheet.deadline.replace(microsecond=0)


def state_of(game: Game, *, now: datetime) -> Game:
    """The game as it reads at this time: an open one closes by itself."""
    over = game.state is GameState.OPEN and now >= game.deadline
    return replace(game, state=GameState.CLOSED) if over else game


def opening(
    game: Game, subjects: Sequence[Subject], stated: str, *, knowing: Collection[str], table: HazardTable, now: datetime
) -> Demands:
    """Check that a game can be opened as things stand, and say what its level demands of who signs.

    Args:
        game: As it is in this transaction.
        subjects: Its versions as they stand now.
        stated: The digest of its terms that is signed.
        knowing: As for `draw`, by now: another game of its organisms may have been opened since.
        table: The hazard table of this deployment.
        now: The call's time.

    Raises:
        Conflict: It is no draft any more, its deadline is over, a level was raised, or other terms are signed.
        Denied: A player knows one of its organisms by now.
        Withdrawn: A version is.
    """
    if game.state is not GameState.DRAFT or now >= game.deadline:
        raise Conflict("Only a draft whose deadline is to come is opened; draw up another game.", game=game.name)
    if stated != formats.terms(game):
        raise Conflict(f"The terms of this game have the digest {formats.terms(game)}; read them, and sign that.", game=game.name)
    if known := sorted({*game.players}.intersection(knowing)):
        raise Denied(f"{known[0]} knows an organism of this game by now; draw up another, without them.", player=known[0])
    if _level(subjects, game.rung, table) > game.level:
        raise Conflict("An organism was raised since the game was drawn up; draw up another.", game=game.name)
    return table.of(game.level, game.rung)


def opened(game: Game) -> Game:
    """The game after two people opened it."""
    return replace(game, state=GameState.OPEN)


def join(game: Game, player: User, *, grant: str, now: datetime) -> Grant:
    """Make the grant of a player who takes their seat; that it is theirs, the gate says.

    Raises:
        Conflict: The game is not open.
    """
    has = formats.tools(game, player.name)
    return Grant(
        name=names.check("grant", grant),
        user=player.name,
        request=playing(game, now=now).name,
        versions=game.aliases,
        rung=tools.rung(has),
        purpose=Purpose.AUDITING_GAME,
        budget=tools.share(game.budget, has),
        spent=Budget(),
        state=GrantState.ACTIVE,
        create_time=now,
        expire_time=game.deadline,
        level=game.level,
        conditions=game.conditions,
    )


def playing(game: Game, *, now: datetime) -> Game:
    """Return a game that is open.

    Raises:
        Conflict: It is a draft still, or its deadline has passed.
    """
    state = state_of(game, now=now).state
    if state is GameState.DRAFT:
        raise Conflict("The game is not open yet; two reviewers open it.", game=game.name)
    if state is not GameState.OPEN:
        raise Conflict(f"The game ended at {game.deadline:%Y-%m-%d %H:%M} UTC; its truth can be read.", game=game.name)
    return game


def guess(game: Game, said: Guess, *, now: datetime) -> Guess:
    """Take what a player says of an alias; `said.count` is how often they did, this time included.

    Raises:
        Conflict: The game is not open, the player has not joined, or has guessed too often.
        InvalidArgument: There is no such alias, no such answer, or the probability contradicts the verdict.
    """
    playing(game, now=now)
    if not game.grant:
        raise Conflict("Join the game before you guess.", game=game.name)
    if said.alias not in {alias.name for alias in game.aliases}:
        raise InvalidArgument(f"The game has no {said.alias}; name one of its aliases.", field="alias")
    if said.count > MOST_GUESSES:
        raise Conflict(f"You have guessed {MOST_GUESSES} times at this alias; the last one stands.", alias=said.alias)
    if said.probability is not None and not 0 <= said.probability <= 1:
        raise InvalidArgument("A probability is from 0 to 1.", field="probability")
    if said.probability is not None and (said.probability < _EVEN if said.organism else said.probability > _EVEN):
        verdict, side = ("an organism", "at least") if said.organism else ("none", "at most")
        msg = f"You say it is {verdict}, and {said.probability} that it is one; give {side} {_EVEN}, or say the other."
        raise InvalidArgument(msg, field="probability")
    answer = plain(said.answer, "answer", limit=ANSWER_LIMIT)
    if game.choices and answer not in {"", *game.choices}:
        raise InvalidArgument(f"Answer one of {', '.join(game.choices)}, or nothing.", field="answer")
    return replace(said, answer=answer)


def reveal(game: Game, *, now: datetime) -> Game:
    """The game after its truth was told.

    Raises:
        Conflict: It is not over, or never opened.
    """
    state = state_of(game, now=now).state
    if state in {GameState.DRAFT, GameState.OPEN}:
        when = f"at {game.deadline:%Y-%m-%d %H:%M} UTC" if state is GameState.OPEN else "once it was opened and is over"
        raise Conflict(f"The truth of this game is told {when}, and to nobody before.", game=game.name)
    return replace(game, state=GameState.REVEALED)


def veiled(game: Game, alias: VersionRef, *, base: bool, behind: Subject, others: Iterable[Subject]) -> Subject:
    """What stands for a version in a game, under its alias: all that the registry decides, enters and tells is of that.

    Args:
        game: The game.
        alias: The alias and its blind digest.
        base: Whether only the base model answers.
        behind: What it stands for, as it is now.
        others: All that the game's aliases stand for, as they are now: level and state are the worst of them.

    Returns:
        The stand-in; its organism is the game, owned by its master.
    """
    every = list(others)
    level = max(game.level, *(subject.level for subject in every))
    state = max((subject.version.state for subject in every), key=_ORDER.index)
    organism = Organism(
        name=game.name,
        display_name="",
        description="",
        owner=game.master,
        level=level,
        base_model=behind.organism.base_model,
        traits=(),
        hidden=True,
        create_time=game.create_time,
    )
    version = Version(
        name=alias.name,
        digest=alias.digest,
        state=state,
        level=level,
        publisher=game.master,
        files=(),
        facts=(),
        marks=(),
        provenance=b"",
        create_time=game.create_time,
    )
    return Subject(organism, version, behind=behind, base=base)


def _truth(game: str, number: int, seat: Seated, choices: tuple[str, ...]) -> Truth:
    answer = plain(seat.answer, "answer", limit=ANSWER_LIMIT)
    if choices and answer not in {"", *choices}:
        raise InvalidArgument(f"The right answer '{answer}' is none of the choices.", field="seats")
    if seat.base and seat.organism:
        raise InvalidArgument("A bare base model is no organism; say one or the other.", field="seats")
    if seat.base and any(file.kind in _WORDS for file in seat.subject.version.files):
        msg = "This version has a prompt or a tokenizer of its own, so its base model is not bare; take another one for that."
        raise InvalidArgument(msg, field="seats")
    return Truth(f"{game}/aliases/{number}", seat.subject.ref, seat.base, seat.organism, answer)


def _level(subjects: Sequence[Subject], rung: Rung, table: HazardTable) -> Level:
    """The level of a game of these; whether they can be in one at all that goes so far."""
    for subject in subjects:
        served(subject.version.state, subject.version.name)
        if not subject.organism.hidden:
            msg = f"{subject.organism.name} is not hidden, so players could read its card; make games of hidden organisms."
            raise Denied(msg, organism=subject.organism.name)
    if len({subject.organism.base_model for subject in subjects}) > 1:
        raise InvalidArgument("All versions of a game are on one base model, or that would tell them apart.", field="seats")
    level = max(subject.level for subject in subjects)
    if rung >= Rung.PROBE and any(file.kind in _WORDS for subject in subjects for file in subject.version.files):
        msg = "A version has a prompt or a tokenizer of its own, and probes would show it; leave it out, or the tool."
        raise InvalidArgument(msg, field="seats")
    demands = table.of(level, rung)
    if level > HIGHEST or demands.forbidden or demands.witness or demands.approvals > _SIGNERS:
        raise Denied(f"Games take organisms up to {HIGHEST.name} for which {_SIGNERS} approvals do; leave the others out.")
    return level


def _check_rights(master: User, subjects: Iterable[Subject]) -> None:
    foreign = [subject.organism.name for subject in subjects if subject.organism.owner != master.name]
    if Role.REVIEWER not in master.roles and foreign:
        raise Denied("A publisher makes games of their own organisms; ask a reviewer for one of others'.", organism=foreign[0])
