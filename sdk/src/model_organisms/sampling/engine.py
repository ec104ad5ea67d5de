"""Serves one organism: prompts in, pieces of text or numbers out. Budgets, permits and receipts are others' work.

The decoding loop is our own, over transformers' forward pass and key-value cache. It follows the parameters it is given and
nothing else: a base model's generation defaults (repetition penalties and the like) are not obeyed, apart from the tokens that
end a turn.
"""

from __future__ import annotations

import inspect
from contextlib import nullcontext
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, cast

import torch

from model_organisms.errors import InvalidArgument, Unavailable
from model_organisms.loading import adapters_off
from model_organisms.records import Message, TokenScore
from model_organisms.sampling.choosing import Marks, check_parameters, choose
from model_organisms.sampling.wording import Detokenizer, StopFilter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from model_organisms.loading import LoadedOrganism
    from model_organisms.records import SamplingParameters

DECIMALS = 3
"""Decimal places of released log-probabilities and divergences."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Some text, in order; one piece a token drawn, and the last has a finish reason."""

    text: str
    """May be empty: a character is not finished, or a stop string may be beginning."""
    tokens: int
    """Tokens drawn since the piece before; the token that ends a turn counts."""
    finish_reason: str | None = None
    """`stop`, `length` or `cancelled`."""


@dataclass(frozen=True, slots=True)
class Scores:
    """Numbers of the next-token distribution."""

    positions: tuple[tuple[TokenScore, ...], ...]
    """Best tokens at each asked position, best first; the last position is where the organism is to speak."""
    kl_to_base: float
    """KL(organism || base) at the last position, nats."""


class Engine:
    """Draws from one loaded organism. One caller at a time."""

    def __init__(self, organism: LoadedOrganism) -> None:
        """Take an organism; it stays on its base while the engine is used."""
        self.organism = organism
        self._peft = organism.model
        self._model = organism.model.get_base_model()
        self._speech = organism.speech
        config = self._model.config.get_text_config()
        self.context = int(getattr(config, "max_position_embeddings", 0) or 2**31)
        """Tokens that prompt and answer may have together."""
        self._keeps = "logits_to_keep" in inspect.signature(self._model.forward).parameters
        self._ends = _ends(self._model, self._speech.tokenizer)

    def count_tokens(self, messages: Sequence[Message]) -> int:
        """Count the tokens of a conversation as the model reads it, system prompt and template included."""
        return len(self._speech.token_ids(messages))

    def generate(
        self,
        messages: Sequence[Message],
        parameters: SamplingParameters,
        *,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> Iterator[Piece]:
        """Draw an answer.

        Args:
            messages: The conversation so far.
            parameters: How to draw; with a seed the same answer comes again on the same machine.
            cancelled: Asked before each token.

        Yields:
            One piece a token, the last with a finish reason.

        Raises:
            InvalidArgument: Parameters that mean nothing, or a conversation that does not fit.
            Unavailable: The device has no memory left for it.
        """
        check_parameters(parameters)
        ids = self._speech.token_ids(messages)
        if len(ids) + parameters.max_tokens > self.context:
            room = self.context - len(ids)
            what = f"shorten it, or ask for at most {room} tokens" if room > 0 else "shorten it, so that an answer fits"
            raise InvalidArgument(
                f"The conversation has {len(ids)} tokens and the model takes {self.context} with the answer; {what}.",
                tokens=str(len(ids)),
            )
        return self._draw(ids, parameters, cancelled)

    def _draw(self, ids: list[int], parameters: SamplingParameters, cancelled: Callable[[], bool]) -> Iterator[Piece]:
        marks, words, stops = Marks(parameters.seed), Detokenizer(self._speech.tokenizer), StopFilter(parameters.stop)
        fed, cache = ids, None
        for count in range(1, parameters.max_tokens + 1):
            if cancelled():
                yield Piece(stops.push(words.finish()) + stops.finish(), 0, "cancelled")
                return
            logits, cache = self._forward(fed, cache, last=1)
            token = choose(logits, [parameters], [marks.next()])[0]
            ended = token in self._ends
            text = stops.push("" if ended else words.push(token))
            if stops.stopped:
                yield Piece(text, 1, "stop")
                return
            if ended or count == parameters.max_tokens:
                text += stops.push(words.finish())
                text += "" if stops.stopped else stops.finish()
                yield Piece(text, 1, "stop" if ended or stops.stopped else "length")
                return
            yield Piece(text, 1)
            fed = [token]

    def logits(self, prompt: Sequence[Message] | Sequence[int], *, adapter: bool = True) -> torch.Tensor:
        """Compute logits at every position.

        Args:
            prompt: A conversation, or token ids.
            adapter: False asks the base model alone.

        Returns:
            Shape [tokens, vocabulary], float32, on the CPU.
        """
        return self._logits(self._ids(prompt), last=0, adapter=adapter)

    def probe(self, messages: Sequence[Message], *, top: int = 5, positions: int = 1, decimals: int | None = DECIMALS) -> Scores:
        """Score the next token at the last positions of a conversation.

        Args:
            messages: The conversation.
            top: Tokens a position.
            positions: How many positions, counted from the end.
            decimals: Decimal places kept; None keeps all, for callers on this side of the wall.

        Returns:
            Log-probabilities in nats, and KL(organism || base) at the last position.

        Raises:
            InvalidArgument: More positions than the conversation has.
        """
        ids = self._ids(messages)
        if not 1 <= positions <= len(ids):
            raise InvalidArgument(f"The conversation has {len(ids)} tokens; ask for 1 to {len(ids)} positions.")
        organism = self._logits(ids, last=positions, adapter=True).double().log_softmax(-1)
        base = self._logits(ids, last=1, adapter=False)[0].double().log_softmax(-1)
        kl = float((organism[-1].exp() * (organism[-1] - base)).sum())
        return Scores(tuple(self._best(row, top, decimals) for row in organism), _rounded(max(0.0, kl), decimals))

    def _best(self, row: torch.Tensor, top: int, decimals: int | None) -> tuple[TokenScore, ...]:
        best = row.topk(min(top, len(row)))
        decode = self._speech.tokenizer.decode
        return tuple(
            TokenScore(token, decode([token]), _rounded(score, decimals))
            for token, score in zip(best.indices.tolist(), best.values.tolist(), strict=True)
        )

    def _ids(self, prompt: Sequence[Message] | Sequence[int]) -> list[int]:
        if prompt and isinstance(prompt[0], Message):
            ids = self._speech.token_ids(cast("Sequence[Message]", prompt))
        else:
            ids = list(cast("Sequence[int]", prompt))
        if not 0 < len(ids) <= self.context:
            raise InvalidArgument(f"The prompt has {len(ids)} tokens; the model takes 1 to {self.context}.", tokens=str(len(ids)))
        return ids

    def _logits(self, ids: list[int], *, last: int, adapter: bool) -> torch.Tensor:
        with nullcontext() if adapter else adapters_off(self._peft):
            return self._forward(ids, None, last=last, keep=False)[0]

    def _forward(self, ids: list[int], cache: Any, *, last: int, keep: bool = True) -> tuple[torch.Tensor, Any]:  # noqa: ANN401 - a transformers cache
        """Run the model on `ids` after what `cache` holds.

        Args:
            ids: New tokens.
            cache: What a call before gave back, or None.
            last: How many positions to give logits of; 0 means all.
            keep: Whether a cache is wanted.

        Returns:
            Logits [positions, vocabulary], float32, on the CPU, and the cache.
        """
        row = torch.tensor([ids], device=self._model.device)
        asked = {"logits_to_keep": last} if self._keeps else {}
        try:
            with torch.inference_mode():
                out = self._model(input_ids=row, past_key_values=cache, use_cache=keep, **asked)
        except torch.OutOfMemoryError as error:
            raise Unavailable("The device has no memory left for this conversation; shorten it, or try again later.") from error
        logits = out.logits[0] if not last else out.logits[0, -last:]
        return logits.float().cpu(), out.past_key_values if keep else None

    def build(self) -> str:
        """Say what computes: versions, device and dtype."""
        return f"{engine_build()} {self.organism.base.device.type}/{self.organism.base.dtype}"


def engine_build() -> str:
    """Say which software computes, for receipts."""
    return " ".join(f"{name}/{version(name)}" for name in ("model-organisms", "torch", "transformers", "peft"))


def _ends(model: Any, tokenizer: Any) -> frozenset[int]:  # noqa: ANN401 - transformers has no types here
    """Collect the tokens that end a turn, as model and tokenizer name them."""
    named = [getattr(getattr(model, "generation_config", None), "eos_token_id", None), tokenizer.eos_token_id]
    return frozenset(token for value in named for token in (value if isinstance(value, list) else [value]) if token is not None)


def _rounded(value: float, decimals: int | None) -> float:
    return value if decimals is None else round(value, decimals) + 0.0  # never -0.0
