"""Auditing games on the wire: messages in, messages out; the steps are in `workflows/games.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from model_organisms import wire
from model_organisms.records import Guess, PlayerTools, Tool
from model_organisms.v1 import games_pb2, records_pb2

from model_organisms_registry.domain.games import Sheet
from model_organisms_registry.workflows.games import Asked

if TYPE_CHECKING:
    from model_organisms.records import Game, Receipt, Reveal

    from model_organisms_registry.domain.permits import Call
    from model_organisms_registry.workflows.games import Games


class GamesRooms:
    """`GamesService`."""

    SERVICE: ClassVar[Any] = games_pb2.DESCRIPTOR.services_by_name["GamesService"]

    def __init__(self, games: Games) -> None:
        """Keep the workflows."""
        self._games = games

    def create_game(self, call: Call, request: games_pb2.CreateGameRequest) -> games_pb2.CreateGameResponse:
        """Draw a game up."""
        sheet = Sheet(
            title=request.title,
            question=request.question,
            choices=tuple(request.choices),
            budget=wire.budget(request, "budget"),
            deadline=wire.time(request.deadline),
            tools=tuple(wire.enum_member(tool, games_pb2.Tool.DESCRIPTOR, Tool) for tool in request.tools),
            player_tools=tuple(wire.from_message(own, PlayerTools) for own in request.player_tools),
        )
        seats = [Asked(seat.version, seat.base, seat.organism, seat.answer) for seat in request.seats]
        game, receipt = self._games.create(call, sheet, seats, players=tuple(request.players))
        return games_pb2.CreateGameResponse(game=_game(game), receipt=_receipt(receipt))

    def get_game(self, call: Call, request: games_pb2.GetGameRequest) -> games_pb2.GetGameResponse:
        """Read a game."""
        return games_pb2.GetGameResponse(game=_game(self._games.get(call, request.name)))

    def list_games(self, call: Call, request: games_pb2.ListGamesRequest) -> games_pb2.ListGamesResponse:
        """List games the caller may see."""
        page = self._games.list(call, page_size=request.page_size, page_token=request.page_token)
        return games_pb2.ListGamesResponse(games=map(_game, page.items), next_page_token=page.next_page_token)

    def join_game(self, call: Call, request: games_pb2.JoinGameRequest) -> games_pb2.JoinGameResponse:
        """Take one's seat."""
        game, receipt = self._games.join(call, request.name)
        return games_pb2.JoinGameResponse(game=_game(game), receipt=_receipt(receipt))

    def submit_guess(self, call: Call, request: games_pb2.SubmitGuessRequest) -> games_pb2.SubmitGuessResponse:
        """Take a guess."""
        said = Guess(
            alias=request.alias,
            player=call.user.name,
            organism=request.organism,
            probability=request.probability if request.HasField("probability") else None,
            answer=request.answer,
            count=0,
            create_time=call.time,
        )
        guess, receipt = self._games.guess(call, said)
        return games_pb2.SubmitGuessResponse(guess=wire.to_message(guess, games_pb2.Guess), receipt=_receipt(receipt))

    def list_guesses(self, call: Call, request: games_pb2.ListGuessesRequest) -> games_pb2.ListGuessesResponse:
        """Read one's own guesses."""
        found = self._games.guesses(call, request.game)
        return games_pb2.ListGuessesResponse(guesses=[wire.to_message(guess, games_pb2.Guess) for guess in found])

    def get_truth(self, call: Call, request: games_pb2.GetTruthRequest) -> games_pb2.GetTruthResponse:
        """Read the truth."""
        return games_pb2.GetTruthResponse(reveal=_reveal(self._games.truth(call, request.game)))

    def reveal_game(self, call: Call, request: games_pb2.RevealGameRequest) -> games_pb2.RevealGameResponse:
        """Have the truth told."""
        reveal, receipt = self._games.reveal(call, request.name)
        return games_pb2.RevealGameResponse(reveal=_reveal(reveal), receipt=_receipt(receipt) if receipt else None)


def _game(game: Game) -> games_pb2.Game:
    return wire.to_message(game, games_pb2.Game)


def _reveal(reveal: Reveal) -> games_pb2.Reveal:
    return wire.to_message(reveal, games_pb2.Reveal)


def _receipt(receipt: Receipt) -> records_pb2.Receipt:
    return wire.to_message(receipt, records_pb2.Receipt)
