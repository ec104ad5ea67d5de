"""One answer on its way: what is still to be read, what is drawn, and the text it makes. It knows of no batch and no model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from model_organisms.errors import LoadingFailed, ModelOrganismsError
from model_organisms.sampling.choosing import Marks
from model_organisms.sampling.wording import Detokenizer, StopFilter

if TYPE_CHECKING:
    from model_organisms.loading import Speech
    from model_organisms.records import SamplingParameters
    from model_organisms.sampling.bank import Organism
    from model_organisms.sampling.mixing import Mix
    from model_organisms.sampling.steering import Touch

_NOT_THE_TOKENIZERS = (KeyboardInterrupt, SystemExit, GeneratorExit)
"""All else may come out of a tokenizer: a panic in its Rust is a BaseException."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Some text, in order; one piece a token drawn, and the last has a finish reason."""

    text: str
    """May be empty: a character is not finished, or a stop string may be beginning."""
    tokens: int
    """Tokens drawn since the piece before; the token that ends a turn counts."""
    finish_reason: str | None = None
    """`stop`, `length`, `cancelled` or `failed`."""
    error: ModelOrganismsError | None = None
    """Why it failed; nobody else's answer did."""
    token: int | None = None
    """Id of the token drawn; None where none was."""


@dataclass(frozen=True, slots=True)
class Row:
    """What stands in one row of the next forward, for whoever changes or reads hidden states on the way."""

    organism: Organism | None
    """None is the bare base."""
    parameters: SamplingParameters | None
    """None where nothing is drawn."""
    first: int
    """Column of its first token; what stands left of it only fills the row up."""
    position: int
    """Position of that token in its conversation; 0 begins a prompt."""
    last: bool
    """Whether the last column is where the organism is to speak."""
    touch: Touch | None = None
    """How its hidden states are changed, with the directions as they were when it was asked for."""


class Answer:
    """A request from its arrival to its last token."""

    def __init__(
        self,
        ticket: int,
        mix: Mix | None,
        prompt: list[int],
        parameters: SamplingParameters,
        *,
        speech: Speech,
        ends: frozenset[int],
        touch: Touch | None = None,
    ) -> None:
        """Take a request that was looked at.

        Args:
            ticket: Its number.
            mix: Who answers; None is the bare base.
            prompt: Token ids, at least one.
            parameters: How to draw.
            speech: Makes text of tokens.
            ends: Tokens that end a turn.
            touch: How its hidden states are changed.
        """
        self.touch = touch
        self.ticket, self.mix, self.prompt, self.parameters = ticket, mix, prompt, parameters
        self.organism = mix.organism if mix else None
        self.fed = 0
        """Tokens the model has read: so many are in the cache."""
        self.touched = 0
        """Tokens of its slot that were written, with what fills rows up."""
        self.ended = False
        """Whether it left its row, for whatever reason."""
        self._token = 0
        self._drawn = 0
        self._ends = ends
        self._marks = Marks(parameters.seed)
        self._words, self._stops = Detokenizer(speech.tokenizer), StopFilter(parameters.stop)

    @property
    def need(self) -> int:
        """Tokens its slot must take until it ends: the last one drawn is never read."""
        return len(self.prompt) + self.parameters.max_tokens - 1

    @property
    def unread(self) -> int:
        """Tokens of the prompt that the model has not read."""
        return max(0, len(self.prompt) - self.fed)

    def upcoming(self, count: int) -> list[int]:
        """Give the next tokens for the model to read: of the prompt, or the one drawn last."""
        return self.prompt[self.fed : self.fed + count] if self.unread else [self._token]

    def mark(self) -> float:
        """Give the number that decides the next token."""
        return self._marks.next() if self.parameters.temperature else 0.0

    def take(self, token: int) -> Piece:
        """Take the token that was drawn, and give the text that is complete by it; a tokenizer that fails ends it."""
        try:
            return self._take(token)
        except BaseException as error:
            if isinstance(error, _NOT_THE_TOKENIZERS):
                raise
            return self.fail(_no_words(error))

    def _take(self, token: int) -> Piece:
        self._token = token
        self._drawn += 1
        ended = token in self._ends
        text = self._stops.push("" if ended else self._words.push(token))
        if not self._stops.stopped and (ended or self._drawn == self.parameters.max_tokens):
            text += self._rest()
            return Piece(text, 1, "stop" if ended or self._stops.stopped else "length", token=token)
        return Piece(text, 1, "stop" if self._stops.stopped else None, token=token)

    def cut(self) -> Piece:
        """End it before its time, with the text that was held back."""
        try:
            return Piece(self._rest(), 0, "cancelled")
        except BaseException as error:
            if isinstance(error, _NOT_THE_TOKENIZERS):
                raise
            return self.fail(_no_words(error))

    def fail(self, error: ModelOrganismsError) -> Piece:
        """End it for a reason."""
        return Piece("", 0, "failed", error)

    def _rest(self) -> str:
        text = self._stops.push(self._words.finish())
        return text if self._stops.stopped else text + self._stops.finish()


def _no_words(error: BaseException) -> ModelOrganismsError:
    told = LoadingFailed("This organism's tokenizer cannot make text of what was drawn; publish it with another.")
    told.__cause__ = error
    return told


def end_tokens(model: Any, tokenizer: Any) -> frozenset[int]:  # noqa: ANN401 - transformers has no types here
    """Collect the tokens that end a turn, as model and tokenizer name them."""
    named = [getattr(getattr(model, "generation_config", None), "eos_token_id", None), tokenizer.eos_token_id]
    return frozenset(token for value in named for token in (value if isinstance(value, list) else [value]) if token is not None)
