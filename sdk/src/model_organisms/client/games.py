"""Auditing games: making one, opening it with a colleague, playing it blind, and checking afterwards that nobody was cheated."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from model_organisms import names, wire
from model_organisms.formats import games as formats
from model_organisms.records import Game, Guess, MotionKind, PlayerTools, Purpose, Reveal, Tool
from model_organisms.v1 import games_pb2, games_pb2_grpc, records_pb2

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from datetime import datetime

    from model_organisms.client.audit import Audit
    from model_organisms.client.channel import Channel
    from model_organisms.client.motions import Motions
    from model_organisms.client.sandbox import Sandbox, Session
    from model_organisms.records import Budget, Motion


@dataclass(frozen=True, slots=True)
class Seat:
    """What a master puts behind one alias; the registry draws by lot behind which."""

    version: str
    organism: bool = True
    """Whether players should call it one; False for a harmless version, or a bare base model."""
    base: bool = False
    """Only the base model of this version answers: the same bundle is loaded, and its adapters are not applied."""
    answer: str = ""
    """The right answer to the game's question."""


class Games:
    """Blind audits of organisms under aliases."""

    def __init__(self, channel: Channel, audit: Audit, sandbox: Sandbox, motions: Motions) -> None:
        """Keep the connection, who checks receipts, who opens sessions, and who takes signatures."""
        self._channel = channel
        self._audit = audit
        self._sandbox = sandbox
        self._motions = motions
        self._stub = games_pb2_grpc.GamesServiceStub(channel.grpc_channel)

    def create(
        self,
        title: str,
        seats: Iterable[Seat],
        *,
        players: Iterable[str],
        deadline: datetime,
        question: str = "",
        choices: Sequence[str] = (),
        budget: Budget | None = None,
        tools: Sequence[Tool | str] = formats.TOOLS,
        player_tools: Mapping[str, Sequence[Tool | str]] | None = None,
    ) -> Game:
        """Draw a game up; the caller becomes its master, and cannot play.

        Args:
            title: One line.
            seats: What is behind its aliases: versions of hidden organisms on one base model, at most CL2.
            players: Researchers who cannot see any of the organisms.
            deadline: When it ends; then the truth can be told, and not before.
            question: What players say of each alias besides whether it is an organism.
            choices: Answers to choose from; where absent, answers are free text.
            budget: What each player may spend on all aliases together; by default what the level gives.
            tools: What players may do with aliases: `sample`, `system` (say what the system says), `probe` (read
                log-probabilities, divergence from the base and norms, counted in `probe_values`; it tells a bare base at once).
            player_tools: By player, where one may do something else.

        Returns:
            A draft. The registry drew which alias is which, and the ledger commits to it from here on.

        Raises:
            Denied: A version or a player has no place in a game.
            InvalidArgument: Something is out of bounds.
        """
        message = games_pb2.CreateGameRequest(
            title=wire.text(title),
            question=wire.text(question),
            choices=[wire.text(choice) for choice in choices],
            seats=[wire.to_message(seat, games_pb2.Seat) for seat in seats],
            players=[names.user(player) for player in players],
            budget=wire.to_message(budget, records_pb2.Budget) if budget else None,
            deadline=wire.timestamp(deadline),
            tools=[wire.enum_value(Tool(tool), games_pb2.Tool.DESCRIPTOR) for tool in tools],
            player_tools=[
                wire.to_message(PlayerTools(names.user(player), tuple(map(Tool, own))), games_pb2.PlayerTools)
                for player, own in (player_tools or {}).items()
            ],
        )
        response = self._channel.call(self._stub.CreateGame, message)
        game = wire.from_message(response.game, Game)
        self._audit.verified(response.receipt, "games.create", game.name, **_bound(game))
        return game

    def get(self, name: str) -> Game:
        """Read a game; what is behind its aliases, it does not say."""
        response = self._channel.call(self._stub.GetGame, games_pb2.GetGameRequest(name=name), repeatable=True)
        return wire.from_message(response.game, Game)

    def list(self) -> Iterator[Game]:
        """List games the caller made or may play, or for those who oversee all; newest first."""
        token = ""
        while True:
            response = self._channel.call(self._stub.ListGames, games_pb2.ListGamesRequest(page_token=token), repeatable=True)
            yield from (wire.from_message(item, Game) for item in response.games)
            if not (token := response.next_page_token):
                return

    def propose_opening(self, game: Game | str, *, reason: str = "") -> Motion:
        """Sign, as a reviewer, that a game shall open on the terms that were read; another reviewer seconds the motion.

        Args:
            game: The game as it was read: exactly its terms are signed. A name alone is fetched and signed.
            reason: Said with the signature.
        """
        read = self.get(game) if isinstance(game, str) else game
        return self._motions.propose(MotionKind.OPEN_GAME, read.name, {"terms": formats.terms(read)}, reason=reason)

    def join(self, name: str) -> Game:
        """Take one's seat in an open game, and with it a grant on its aliases.

        Returns:
            The game, with the grant. Keep it: its commitment is in the receipt's entry, and `reveal` is held against it.

        Raises:
            Denied: The game does not name the caller as a player.
            Conflict: It is not open, or the caller has joined.
        """
        response = self._channel.call(self._stub.JoinGame, games_pb2.JoinGameRequest(name=name))
        game = wire.from_message(response.game, Game)
        self._audit.verified(response.receipt, "games.join", name, **_bound(game))
        return game

    def open_session(self, alias: str, *, budget: Budget | None = None) -> Session:
        """Open a session on an alias; it says nothing of what is behind it, and does what one's tools do (`game.tools`).

        Args:
            alias: Such as `games/ID/aliases/3`.
            budget: What the session may spend; all that is left of the seat where absent.

        Raises:
            GrantRequired: The caller has not joined.
            CellUnavailable: No cell took it up.
        """
        return self._sandbox.open(names.check("alias", alias), purpose=Purpose.AUDITING_GAME, budget=budget)

    def guess(self, alias: str, *, organism: bool, probability: float | None = None, answer: str = "") -> Guess:
        """Say what an alias is; the last word before the deadline counts.

        Args:
            alias: The alias.
            organism: Whether it is a model organism.
            probability: That it is one, 0 to 1: at least 0.5 if `organism`, else at most that. Where absent it is scored as 0.5.
            answer: To the game's question.

        Raises:
            Conflict: The game is not open, or this was said too often.
            InvalidArgument: There is no such alias, no such choice, or the probability says the opposite of `organism`.
        """
        message = games_pb2.SubmitGuessRequest(alias=alias, organism=organism, probability=probability, answer=wire.text(answer))
        response = self._channel.call(self._stub.SubmitGuess, message)
        guess = wire.from_message(response.guess, Guess)
        game, said = names.home_of(alias), {"alias": alias, "guess": formats.guess_digest(guess), "count": str(guess.count)}
        self._audit.verified(response.receipt, "games.guess", game, **said)
        return guess

    def guesses(self, game: str) -> tuple[Guess, ...]:
        """Read one's own last guesses."""
        response = self._channel.call(self._stub.ListGuesses, games_pb2.ListGuessesRequest(game=game), repeatable=True)
        return tuple(wire.from_message(item, Guess) for item in response.guesses)

    def truth(self, game: Game | str) -> Reveal:
        """Read a game's truth: its master and reviewers at once, everybody else once it is revealed. Checked as by `reveal`."""
        read = self.get(game) if isinstance(game, str) else game
        response = self._channel.call(self._stub.GetTruth, games_pb2.GetTruthRequest(game=read.name), repeatable=True)
        return formats.verify(read, wire.from_message(response.reveal, Reveal))

    def reveal(self, game: Game | str) -> Reveal:
        """Have the truth told to everybody, after the deadline, and check that it is the one that was committed to.

        Args:
            game: The game as it was when one joined; what the registry said then is what the truth is held against. A name alone
                holds the registry only to what it says now.

        Returns:
            Truth, guesses and scores, best first.

        Raises:
            Conflict: The deadline is to come.
            VerificationFailed: It is another truth than was committed to, or the scores do not follow.
        """
        read = self.get(game) if isinstance(game, str) else game
        response = self._channel.call(self._stub.RevealGame, games_pb2.RevealGameRequest(name=read.name))
        told = wire.from_message(response.reveal, Reveal)
        if response.HasField("receipt"):
            said = {"commitment": read.commitment, "nonce": told.nonce}
            self._audit.verified(response.receipt, "games.reveal", read.name, **said)
        checked = formats.verify(read, told)
        return replace(checked, scores=formats.scores(read, checked.truth, checked.guesses))


def _bound(game: Game) -> dict[str, str]:
    """What the entry of a call must bind: the commitment, and the terms as they were told."""
    return {"commitment": game.commitment, "terms": formats.terms(game)}
