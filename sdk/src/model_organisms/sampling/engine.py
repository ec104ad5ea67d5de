"""Serves many organisms over one base model, in one batch: prompts in, pieces of text or numbers out.

    engine = mo.Engine(base)
    organism = engine.add(files, known_answer=provenance.known_answer)
    for piece in engine.generate(organism, messages, parameters): ...

A request joins the batch at the next step and leaves it as it ends; each row has its own organism, length and way to draw.
Budgets, permits and receipts are others' work. The decoding loop is our own: it follows the parameters it is given and nothing
else, so a base model's generation defaults (repetition penalties and the like) are not obeyed, apart from the tokens that end a
turn.

waiting.py   who comes next                    batch.py     the rows, step by step
forward.py   the base's forward over the cache cache.py     keys and values of many rows
steering.py  changes of hidden states          probing.py   numbers of them
reading.py   conversations for numbers, beside the batch
answering.py one request, prompt to last piece choosing.py  one token a row from logits
"""

from __future__ import annotations

from collections import deque
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from model_organisms.errors import ConfigurationInvalid, InvalidArgument
from model_organisms.loading.speech import speech
from model_organisms.records import Measure, Message, SamplingParameters
from model_organisms.sampling.answering import Answer, Piece, end_tokens
from model_organisms.sampling.bank import Bank
from model_organisms.sampling.batch import Batch, no_numbers
from model_organisms.sampling.choosing import check_parameters
from model_organisms.sampling.forward import Forward
from model_organisms.sampling.mixing import Mix, Mixer
from model_organisms.sampling.probing import Measured, best_tokens, check_inquiry, divergences, readings
from model_organisms.sampling.reading import Reader, drained
from model_organisms.sampling.scoring import DECIMALS, Scores, score
from model_organisms.sampling.steering import Directions, Steering, mean_difference

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Mapping, Sequence

    import torch

    from model_organisms.loading import LoadedBase, Speech
    from model_organisms.records import Inquiry
    from model_organisms.sampling.bank import Organism
    from model_organisms.sampling.batch import Interventions

    Prompt: TypeAlias = Sequence[Message] | Sequence[int]

_CHUNK = {"cpu": 64, "cuda": 512}
"""Tokens of prompts read in a step beside answers: about as much work as a step or two of a full batch."""


class Engine:
    """Many organisms over one base. One thread drives it."""

    def __init__(
        self,
        base: LoadedBase,
        *,
        rows: int = 32,
        adapter_bytes: int = 2 << 30,
        cache_bytes: int = 2 << 30,
        context: int | None = None,
    ) -> None:
        """Make ready; the base stays as it is while nobody is answered.

        Args:
            base: The base model, without anything on it.
            rows: How many are answered at once; others wait in order.
            adapter_bytes: Memory that organisms may take on the device; who is not used makes room and comes back when asked for.
            cache_bytes: Memory that keys and values of conversations may take.
            context: Tokens that prompt and answer may have together, at most the model's own limit.

        Raises:
            Conflict: The base carries an organism of `loading.attach`.
            ConfigurationInvalid: A budget is none, or there is no row.
            LoadingFailed: This architecture cannot be served many at once.
        """
        if rows < 1 or cache_bytes < 1:
            raise ConfigurationInvalid(
                f"An engine of {rows} rows and {cache_bytes} bytes of cache answers nobody; give at least 1."
            )
        self.base = base
        self.bank = Bank(base, budget=adapter_bytes)
        self.mixer = Mixer(base, self.bank)
        self._forward = Forward(base, cache_bytes)
        chunk = _CHUNK.get(base.device.type, _CHUNK["cuda"])
        self.directions = Directions(int(base.model.config.get_text_config().hidden_size), base.device)
        """Vectors that requests may name, an organism's own by owner."""
        self._steering = Steering(base.model, self.directions)
        self._batch = Batch(self._forward, self.bank, self.mixer, rows=rows, chunk=chunk)
        self._batch.interventions.append(self._steering)
        self._reader = Reader(self._forward, self._batch, self._steering, chunk=chunk)
        own = int(getattr(base.model.config.get_text_config(), "max_position_embeddings", 0) or 2**31)
        self.context = min(own, context or own)
        """Tokens that prompt and answer may have together."""
        self._boxes: dict[int, deque[Piece]] = {}
        self._others: list[tuple[int, Piece]] = []
        self._next = 1
        self._vocabulary = int(base.model.get_input_embeddings().num_embeddings)
        self._speech = speech({}, base.tokenizer, vocabulary=self._vocabulary)

    @property
    def interventions(self) -> list[Interventions]:
        """Those who are told before each forward what stands in its rows; add to it what changes or reads hidden states."""
        return self._batch.interventions

    @property
    def cache_used(self) -> int:
        """Bytes that keys and values take now; never more than `cache_bytes`."""
        return self._forward.cache.bytes

    def add(
        self, files: Mapping[str, bytes | memoryview], *, known_answer: Mapping[str, Any] | None = None, version_digest: str = ""
    ) -> Organism:
        """Take an organism in; see `Bank.add`, which says what is checked and raised. `files` must stay until it is removed."""
        return self.bank.add(files, known_answer=known_answer, version_digest=version_digest)

    def remove(self, organism: Organism) -> None:
        """Cancel an organism's requests, wipe its weights and forget it.

        Raises:
            Conflict: It is not of this engine.
        """
        for answer in self._batch.all:
            if answer.organism is organism:
                self._batch.end(answer, answer.cut())
        self.bank.remove(organism)
        self.directions.drop(organism)

    def submit(self, organism: Organism | None, prompt: Prompt, parameters: SamplingParameters, *, scale: float = 1.0) -> int:
        """Ask for an answer; it joins at the next step, or as soon as a row is free.

        Args:
            organism: Who is to answer; None is the bare base.
            prompt: A conversation, or token ids.
            parameters: How to draw; with a seed the same answer comes again, whatever else is in the batch (docs/engine.md says
                how exactly).
            scale: Dose of the organism: 1 is as published, 0 the bare base.

        Returns:
            A ticket; `step` tells it with each piece.

        Raises:
            InvalidArgument: Parameters that mean nothing, or what does not fit.
            Conflict: The organism is not of this engine.
        """
        answer = self._answer(organism, prompt, parameters, scale)
        self._batch.line.waiting.append(answer)
        return answer.ticket

    def cancel(self, ticket: int) -> None:
        """End a request between two steps; `told` or the next step tells its last piece. One that has ended stays ended."""
        for answer in self._batch.all:
            if answer.ticket == ticket:
                self._batch.end(answer, answer.cut())

    @property
    def busy(self) -> bool:
        """Whether a step has anything to do or to tell."""
        return self._batch.busy or bool(self._others)

    def step(self) -> list[tuple[int, Piece]]:
        """Draw the next token of everybody; on the way some prompts are read (`Batch.step`).

        Returns:
            Tickets and pieces, one a token. Pieces of `generate` go to it instead.
        """
        self._advance()
        return self.told()

    def told(self) -> list[tuple[int, Piece]]:
        """Give without a step what waits to be told: last pieces of those who were cancelled, and what came beside `generate`."""
        self._sort(self._batch.told())
        told, self._others = self._others, []
        return told

    def generate(
        self,
        organism: Organism | None,
        messages: Prompt,
        parameters: SamplingParameters,
        *,
        scale: float = 1.0,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> Iterator[Piece]:
        """Draw one answer, stepping until it ends; others in the batch go on meanwhile, and `step` tells their pieces later.

        Args:
            organism: As for `submit`.
            messages: As `submit`'s prompt.
            parameters: As for `submit`.
            scale: As for `submit`.
            cancelled: Asked before each step.

        Yields:
            One piece a token, the last with a finish reason.

        Raises:
            InvalidArgument: As for `submit`.
            Conflict: As for `submit`.
            Unavailable: The device has no memory left for it.
        """
        return self._pieces(self._answer(organism, messages, parameters, scale), cancelled)

    def _pieces(self, answer: Answer, cancelled: Callable[[], bool]) -> Iterator[Piece]:
        box: deque[Piece] = deque()
        self._boxes[answer.ticket] = box
        self._batch.line.waiting.append(answer)
        try:
            while True:
                if cancelled():
                    self.cancel(answer.ticket)
                while not box:
                    self._advance()
                piece = box.popleft()
                if piece.error:
                    raise piece.error
                yield piece
                if piece.finish_reason:
                    return
        finally:
            if answer in self._batch.all:
                self._batch.end(answer, None)  # nobody listens any more
            del self._boxes[answer.ticket]

    def _advance(self) -> None:
        self._sort(self._batch.step())

    def _sort(self, pieces: list[tuple[int, Piece]]) -> None:
        """Lay each piece where it is looked for."""
        for ticket, piece in pieces:
            if ticket in self._boxes:
                self._boxes[ticket].append(piece)
            else:
                self._others.append((ticket, piece))

    def logits(self, organism: Organism | None, prompt: Prompt, *, scale: float = 1.0, last: int = 0) -> torch.Tensor:
        """Compute logits at every position, or at the last ones.

        Args:
            organism: Whose; None asks the bare base.
            prompt: A conversation, or token ids.
            scale: Dose of the organism.
            last: How many positions, counted back from the last; 0 is all.

        Returns:
            Shape [positions, vocabulary], float32, on the CPU.

        Raises:
            InvalidArgument: A prompt that does not fit.
            Conflict: The organism is not of this engine.
            Unavailable: The device has no memory left for it.
        """
        return self._reader.whole(organism, self._ids(organism, prompt), last, scale=scale)

    def probe(
        self,
        organism: Organism,
        messages: Prompt,
        *,
        top: int = 5,
        positions: int = 1,
        decimals: int | None = DECIMALS,
    ) -> Scores:
        """Score the next token at the last positions of a conversation.

        Args:
            organism: Whose.
            messages: The conversation, or token ids.
            top: Tokens a position.
            positions: How many positions, counted from the end.
            decimals: Decimal places kept; None keeps all, for callers on this side of the wall.

        Returns:
            Log-probabilities in nats, and KL(organism || base) at the last position.

        Raises:
            InvalidArgument: More positions than the conversation has, or no token a position.
        """
        if top < 1:
            raise InvalidArgument(f"top is {top}; ask for at least 1 token a position.", field="top")
        ids = self._ids(organism, messages)
        if not 1 <= positions <= len(ids):
            raise InvalidArgument(f"The conversation has {len(ids)} tokens; ask for 1 to {len(ids)} positions.")
        on, off = self._reader.whole(organism, ids, positions), self._reader.whole(None, ids, 1)
        return score(on, off[-1], self.speech(organism).tokenizer.decode, top=top, decimals=decimals)

    def measure(self, organism: Organism | None, messages: Prompt, inquiry: Inquiry) -> Measured:
        """Read scores, divergence and hidden states at the end of a conversation, unrounded.

        Args:
            organism: Whose, None for the bare base; directions are its own.
            messages: The conversation, or token ids.
            inquiry: What is asked.

        Raises:
            InvalidArgument: It asks for what is not there, or what it changes overflows.
            LoadingFailed: The organism overflows by itself.
            Conflict: The organism is not of this engine.
            Unavailable: The device has no memory left for it.
        """
        return drained(self.measuring(organism, messages, inquiry))

    def measuring(self, organism: Organism | None, messages: Prompt, inquiry: Inquiry) -> Generator[bool, None, Measured]:
        """Do what `measure` does, pausing between chunks of the conversation, for who steps meanwhile.

        Yields:
            True: something is held until it goes on or is closed (`Reader.read`).
        """
        ids = self._ids(organism, messages)
        check_inquiry(inquiry, layers=self._steering.layers, tokens=len(ids))
        vectors = [self.directions.get(name, owner=organism) for name in inquiry.directions]
        changed = self._steering.touch(inquiry.steer, organism)
        scale = 1.0 if inquiry.scale is None else inquiry.scale
        pushes = changed.pushes if changed else ()
        seen = yield from self._reader.read(organism, ids, inquiry.positions, scale=scale, pushes=pushes, layers=inquiry.layers)
        if not seen.logits.amax(-1).isfinite().all():
            raise no_numbers(scale, inquiry.steer)
        asked, decoder = inquiry.measures, self.speech(organism).tokenizer
        kl: tuple[float, ...] = ()
        if Measure.KL in asked:
            yield True
            base = yield from self._reader.read(None, ids, inquiry.positions)
            kl = divergences(seen.logits, base.logits)
        scores = best_tokens(seen.logits, decoder) if Measure.LOGPROBS in asked else ()
        return Measured(scores, kl, readings(inquiry, seen.states, vectors))

    def contrast(self, organism: Organism, positive: Sequence[Prompt], negative: Sequence[Prompt], layer: int) -> torch.Tensor:
        """Take the difference of two means of hidden states at the last position of prompts; `directions.keep` keeps it.

        Args:
            organism: Whose.
            positive: Conversations, or token ids.
            negative: Those whose mean is taken off.
            layer: After which layer.

        Returns:
            Shape [hidden], float64, on the CPU.

        Raises:
            InvalidArgument: No prompts on a side, one that does not fit, or a layer that is not there.
        """
        if not (positive and negative):
            raise InvalidArgument("A contrast has prompts on both sides; give some.", field="contrast")
        sides = ([drained(self.last_state(organism, prompt, layer)) for prompt in side] for side in (positive, negative))
        return mean_difference(*sides)

    def last_state(self, organism: Organism, prompt: Prompt, layer: int) -> Generator[bool, None, torch.Tensor]:
        """Read the hidden state at the last position of a prompt, pausing between its chunks, for who steps meanwhile.

        Args:
            organism: Whose.
            prompt: A conversation, or token ids.
            layer: After which layer.

        Yields:
            True, as `measuring` does; it returns a hidden state of shape [hidden].

        Raises:
            InvalidArgument: A prompt that does not fit, or a layer that is not there.
        """
        seen = yield from self._reader.read(organism, self._ids(organism, prompt), 1, layers=(layer,))
        return seen.states[layer][0]

    def count_tokens(self, organism: Organism | None, messages: Sequence[Message]) -> int:
        """Count the tokens of a conversation as the model reads it, system prompt and template included."""
        return len(self.speech(organism).token_ids(messages))

    def speech(self, organism: Organism | None) -> Speech:
        """Give the tokenizer, template and system prompt of an organism, or the base's."""
        return organism.speech if organism else self._speech

    def build(self) -> str:
        """Say what computes: versions, device and dtype."""
        return f"{engine_build()} {self.base.device.type}/{self.base.dtype}"

    def _answer(self, organism: Organism | None, prompt: Prompt, parameters: SamplingParameters, scale: float) -> Answer:
        """Look at a request before anything is done for it."""
        check_parameters(parameters)
        touch = self._steering.touch(parameters.steer, organism)
        scale = scale if parameters.scale is None else parameters.scale
        if organism is not None:
            self.bank.layout(organism)  # refuses one of another engine, and one that was removed
        mix = None if organism is None else Mix(organism, scale)
        told = self.speech(organism)
        ids = self._ids(organism, prompt)
        if (room := self.context - len(ids)) < parameters.max_tokens:
            what = f"shorten it, or ask for at most {room} tokens" if room > 0 else "shorten it, so that an answer fits"
            raise InvalidArgument(
                f"The conversation has {len(ids)} tokens and the model takes {self.context} with the answer; {what}.",
                tokens=str(len(ids)),
            )
        ends = end_tokens(self.base.model, told.tokenizer)
        answer = Answer(self._next, mix, ids, parameters, speech=told, ends=ends, touch=touch)
        if not self._forward.cache.fits(1, answer.need):
            raise InvalidArgument(
                f"Conversation and answer take {answer.need * self._forward.cache.token_bytes:,} bytes of cache, and there are "
                f"{self._forward.cache.budget:,}; shorten it, ask for fewer tokens, or raise `cache_bytes`.",
                tokens=str(len(ids)),
            )
        self._next += 1
        return answer

    def _ids(self, organism: Organism | None, prompt: Prompt) -> list[int]:
        if not prompt or isinstance(prompt[0], Message):
            ids = self.speech(organism).token_ids(cast("Sequence[Message]", prompt))
        else:
            ids = [int(token) for token in cast("Sequence[int]", prompt)]
        if not 0 < len(ids) <= self.context:
            raise InvalidArgument(
                f"The prompt has {len(ids)} tokens and the model takes 1 to {self.context}; "
                f"{'shorten it' if ids else 'write one'}.",
                tokens=str(len(ids)),
            )
        if min(ids) < 0 or max(ids) >= self._vocabulary:
            raise InvalidArgument(f"Token ids go from 0 to {self._vocabulary - 1}; the prompt has others.")
        return ids


def engine_build() -> str:
    """Say which software computes, for receipts."""
    return " ".join(f"{name}/{version(name)}" for name in ("model-organisms", "torch", "transformers", "peft"))
