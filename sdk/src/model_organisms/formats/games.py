"""What a registry commits to before an auditing game opens, and how guesses are scored; who plays and when is `domain/games.py`.

Digests, each SHA-256 in hex over a line that names it, and canonical JSON (RFC 8785):

- the *commitment*: nonce and truth. It says nothing of the truth until the nonce is known, and holds the registry to it
- the *blind digest* of one alias: nonce, and what that alias stands for. Receipts bind it in the place of a version's digest
- the *terms*: all that players and reviewers see of a game, the commitment among it. This is what two people sign
- one of a guess, for its entry
"""

from __future__ import annotations

import hashlib
import re
from datetime import UTC
from typing import TYPE_CHECKING, Any

from model_organisms import names
from model_organisms.errors import VerificationFailed
from model_organisms.formats import conditions, strict_json
from model_organisms.formats.statements import TIME
from model_organisms.records import BUDGET_FIELDS, Score, Tool

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from model_organisms.records import Game, Guess, Reveal, SampleReceipt, Truth

TOOLS = (Tool.SAMPLE, Tool.SYSTEM)
"""What a player may do of whom nothing else is said."""
NONCE_BYTES = 32
_UNSAID = 0.5
_NONCE = re.compile(r"[0-9a-f]{64}", re.ASCII)


def commitment(game: str, truth: Sequence[Truth], nonce: str) -> str:
    """Commit to a game's truth.

    Args:
        game: Its name.
        truth: What each alias stands for, in the order of the aliases.
        nonce: 32 random bytes in hex.

    Returns:
        The digest.

    Raises:
        VerificationFailed: The nonce is none.
    """
    return _digest("truth", {"game": names.check("game", game), "nonce": _checked(nonce), "truth": [*map(_plain, truth)]})


def blind(one: Truth, nonce: str) -> str:
    """Digest that stands for a version in a game.

    Raises:
        VerificationFailed: The nonce is none.
    """
    return _digest("alias", {"nonce": _checked(nonce), "truth": _plain(one)})


def guess_digest(guess: Guess) -> str:
    """Digest of what a guess says, as its entry has it."""
    return _digest("guess", {"organism": guess.organism, "probability": guess.probability, "answer": guess.answer})


def terms(game: Game) -> str:
    """Digest of all that is said of a game before it opens."""
    said = {
        "game": game.name,
        "master": game.master,
        "title": game.title,
        "question": game.question,
        "choices": list(game.choices),
        "aliases": [[alias.name, alias.digest] for alias in game.aliases],
        "players": list(game.players),
        "rung": game.rung.name,
        "level": game.level.name,
        "budget": {field: getattr(game.budget, field) for field in BUDGET_FIELDS},
        "conditions": conditions.digest(game.conditions),
        "commitment": game.commitment,
        "deadline": game.deadline.astimezone(UTC).strftime(TIME),
    }
    # Left out where it is empty, as in the terms of games from before there were tools.
    others = [[one.player, sorted(one.tools)] for one in game.tools if sorted(one.tools) != sorted(TOOLS)]
    return _digest("terms", said | ({"tools": others} if others else {}))


def tools(game: Game, player: str) -> tuple[Tool, ...]:
    """What a player may do with the game's aliases."""
    return next((one.tools for one in game.tools if one.player == player), TOOLS)


def verify(game: Game, reveal: Reveal) -> Reveal:
    """Check that a truth is the one that was committed to, and that each alias stood for what it says.

    Args:
        game: As it was read before it opened, or as a player joined it.
        reveal: What the registry says now.

    Returns:
        The same.

    Raises:
        VerificationFailed: It is another truth, or scores that do not follow from it.
    """
    stated = tuple((one.alias, blind(one, reveal.nonce)) for one in reveal.truth)
    if stated != tuple((alias.name, alias.digest) for alias in game.aliases):
        raise VerificationFailed("The aliases did not stand for what is told now; keep what you have, and tell the operator.")
    if commitment(game.name, reveal.truth, reveal.nonce) != game.commitment:
        raise VerificationFailed("This is not the truth that was committed to; keep what you have, and tell the operator.")
    if reveal.scores and scores(game, reveal.truth, reveal.guesses) != reveal.scores:
        raise VerificationFailed("The scores are not what the guesses come to; count them yourself, and tell the operator.")
    return reveal


def behind(receipt: SampleReceipt, reveal: Reveal) -> Truth:
    """Bind the receipt of a sample of an alias to what it stood for.

    Args:
        receipt: As the player has it.
        reveal: A truth that was verified.

    Returns:
        What the alias of the receipt stood for.

    Raises:
        VerificationFailed: The receipt is of no alias of this game, or of something else than the truth says.
    """
    for one in reveal.truth:
        if (receipt.version, receipt.version_digest) == (one.alias, blind(one, reveal.nonce)):
            return one
    raise VerificationFailed("This receipt is not of what the truth says stood behind its alias; keep it, and tell the operator.")


def scores(game: Game, truth: Sequence[Truth], guesses: Iterable[Guess]) -> tuple[Score, ...]:
    """Score every player by the last guess at each alias.

    An answer is right if it is the key, apart from case and outer or repeated blanks. Brier (1950): the mean of (p - o)^2 over
    all aliases, where o is 1 for an organism. Where no p was given it is 0.5, so that nobody gains by rating only what they are
    sure of. No digest of a game says how it is scored, so what was committed to and signed before stays as it is.

    Args:
        game: Who plays.
        truth: What each alias stands for.
        guesses: The last of each player for each alias, in any order.

    Returns:
        Most kinds said rightly first, then most answers, then the lowest Brier score, then by name.
    """
    said = {(guess.player, guess.alias): guess for guess in guesses}
    found = [_score(player, truth, said) for player in game.players]
    return tuple(sorted(found, key=lambda one: (-one.right, -one.answered, one.brier, one.player)))


def _score(player: str, truth: Sequence[Truth], said: dict[tuple[str, str], Guess]) -> Score:
    pairs = [(one, said.get((player, one.alias))) for one in truth]
    rated = [None if guess is None else guess.probability for _, guess in pairs]
    errors = [((_UNSAID if p is None else p) - one.organism) ** 2 for one, p in zip(truth, rated, strict=True)]
    return Score(
        player=player,
        aliases=len(truth),
        right=sum(guess is not None and guess.organism == one.organism for one, guess in pairs),
        questions=sum(bool(one.answer) for one in truth),
        answered=sum(bool(one.answer) and guess is not None and _same(guess.answer, one.answer) for one, guess in pairs),
        rated=sum(p is not None for p in rated),
        brier=sum(errors) / len(errors),
    )


def _same(said: str, key: str) -> bool:
    return said.casefold().split() == key.casefold().split()


def _plain(one: Truth) -> dict[str, Any]:
    return {
        "alias": names.check("alias", one.alias),
        "version": names.check("version", one.version.name),
        "digest": one.version.digest,
        "base": one.base,
        "organism": one.organism,
        "answer": one.answer,
    }


def _checked(nonce: str) -> str:
    if not _NONCE.fullmatch(nonce):
        raise VerificationFailed("A game's nonce is 32 bytes in hex; read it again.")
    return nonce


def _digest(what: str, said: dict[str, Any]) -> str:
    return hashlib.sha256(f"model-organisms game {what} v1\n".encode() + strict_json.canonical(said)).hexdigest()
