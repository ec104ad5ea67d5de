"""Steps a batch: who reads, who gets the next token, who leaves. A place in the batch is a slot of the cache.

Answers being drawn have slots 0, 1, 2 and so on; a long prompt that is read chunk by chunk has a slot behind them. So the rows of
every forward lie side by side, and nothing is gathered.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import torch

from model_organisms.errors import Internal, InvalidArgument, LoadingFailed, ModelOrganismsError, Unavailable
from model_organisms.sampling.answering import Row
from model_organisms.sampling.choosing import NONE, choose
from model_organisms.sampling.forward import extent
from model_organisms.sampling.waiting import Line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from model_organisms.records import Steer
    from model_organisms.sampling.answering import Answer, Piece
    from model_organisms.sampling.bank import Bank
    from model_organisms.sampling.forward import Forward
    from model_organisms.sampling.mixing import Mix, Mixer

NO_MEMORY = "The device has no memory left for this conversation; shorten it, or try again later."


class Interventions(Protocol):
    """Changes or reads hidden states row by row, by hooks of its own on the base's layers."""

    def compose(self, rows: Sequence[Row]) -> None:
        """Hear what stands in each row of the next forward; no rows: no hook may stay on the base."""


class Batch:
    """The rows of one engine.

    - an answer's organism is held in the bank from its row to its end;
    - what one answer fails of ends that answer alone.
    """

    def __init__(self, forward: Forward, bank: Bank, mixer: Mixer, *, rows: int, chunk: int) -> None:
        """Begin empty.

        Args:
            forward: The base's.
            bank: Where organisms are.
            mixer: Of that bank.
            rows: How many are answered at once.
            chunk: Tokens of prompts read in a step beside answers.
        """
        self._forward, self._bank, self._mixer = forward, bank, mixer
        self._cache = forward.cache
        self.line = Line(rows, chunk, self._cache.fits)
        self.interventions: list[Interventions] = []
        self._answers: list[Answer] = []
        self._long_slot = 0
        self._told: list[tuple[int, Piece]] = []
        mixer.stand_aside = lambda: self._tell(())

    @property
    def busy(self) -> bool:
        """Whether a step has anything to do or to tell."""
        return bool(self._answers or len(self.line) or self._told)

    @property
    def inside(self) -> list[Answer]:
        """Those who have a row, or come to one next."""
        return [*self._answers, *self.line.inside]

    @property
    def all(self) -> list[Answer]:
        """Everybody, waiting or answered."""
        return [*self.inside, *self.line.waiting]

    def step(self) -> list[tuple[int, Piece]]:
        """Give everybody the next token.

        Steps: 1. who waits gets a free row, 2. those who are being answered get their next token, 3. some prompts are read, and
        those read to the end get their first.
        """
        self.line.admit(self._answers, self._hold)
        self._place_long(len(self._answers))
        if self._answers:
            self._answer()
        if read := self.line.next(len(self._answers)):
            self._join([answer for answer, _ in read], [count for _, count in read])
        if not self._answers and not self.line.long:
            self.rest()
        return self.told()

    def told(self) -> list[tuple[int, Piece]]:
        """Give the pieces that wait to be told, each once."""
        told, self._told = self._told, []
        return told

    def end(self, answer: Answer, piece: Piece | None) -> None:
        """End an answer, wherever it is; the next step tells the piece, if there is one."""
        if piece:
            self._told.append((answer.ticket, piece))
        if answer in self.line.waiting:
            self.line.waiting.remove(answer)
            return
        if answer in self.line.joining:
            self.line.joining.remove(answer)
        elif answer is self.line.long:
            self._cache.clear(self._long_slot, answer.touched)
            self.line.long = None
        elif answer in self._answers:
            self._leave(self._answers.index(answer))
        answer.ended = True
        if answer.organism:
            self._bank.release(answer.organism)

    def compose(self, rows: Sequence[Row], mixes: Sequence[Mix | None]) -> None:
        """Say what stands in the rows of the next forward, to all whom it concerns."""
        self._mixer.compose(mixes)
        self._tell(rows)

    def _tell(self, rows: Sequence[Row]) -> None:
        for one in self.interventions:
            one.compose(rows)

    def rest(self) -> None:
        """Leave the base bare, and give the cache back; nobody has a slot."""
        self.compose((), ())
        self._cache.release()

    def _hold(self, answer: Answer) -> bool:
        """Hold an answer's organism in the bank, if it fits beside those of the others; one that cannot come ends it alone."""
        organism = answer.organism
        if organism is None:
            return True
        if not self._bank.fits(organism):
            return False
        try:
            if organism not in self._bank.resident:
                self.compose((), ())  # the last step's organisms make room, where they are not in use
            self._bank.weights(organism)
        except Exception as error:  # noqa: BLE001 - as in `_run`
            self._fail([answer], error)
            return False
        self._bank.hold(organism)
        return True

    def _answer(self) -> None:
        """Give those who are answered their next token."""
        answers = [*self._answers]
        logits = self._run(answers, [1] * len(answers), 0)
        if logits is not None:
            self._draw(answers, logits)

    def _join(self, answers: list[Answer], counts: list[int]) -> None:
        """Read prompts; those read to the end are answered from now on."""
        first, long = len(self._answers), self.line.long
        if answers[0] is long:
            self._place_long(first)
            logits = self._run(answers, counts, first)
            if logits is None or long.unread:
                return
            self.line.long = None
        else:
            logits = self._run(answers, counts, first)
            if logits is None:  # some have ended of it
                self.line.joining.extendleft(answer for answer in reversed(answers) if not answer.ended)
                return
        self._answers += answers
        self._draw(answers, logits)

    def _run(self, answers: list[Answer], counts: list[int], first: int) -> torch.Tensor | None:
        """Run the next tokens of some answers in slots that lie side by side.

        Args:
            answers: Whose.
            counts: How many of each.
            first: Slot of the first; a long prompt that has one of the slots moves behind them.

        Returns:
            Logits, shape [rows, vocabulary]; None where there was no memory, and the last of the answers has ended of it, or
            where something unforeseen happened, and all have.
        """
        tokens = [answer.upcoming(count) for answer, count in zip(answers, counts, strict=True)]
        starts = [answer.fed for answer in answers]
        width = max(map(len, tokens))
        rows = [
            Row(answer.organism, answer.parameters, width - len(some), answer.fed, len(some) >= answer.unread, answer.touch)
            for answer, some in zip(answers, tokens, strict=True)
        ]
        try:
            self._make_room(first + len(answers), extent(tokens, starts))
            if answers[0] is not self.line.long and first <= self._long_slot < first + len(answers):
                self._place_long(first + len(answers))
            self.compose(rows, [answer.mix for answer in answers])
            for answer in answers:
                answer.touched = max(answer.touched, answer.fed + width)
            logits = self._forward.run(first, tokens, starts)
        except Exception as error:  # noqa: BLE001 - whatever it is, nobody waits for ever and no organism stays held
            self._take_back(answers, first)
            self._fail(answers[-1:] if is_memory(error) else answers, error)
            return None
        for answer, some in zip(answers, tokens, strict=True):
            answer.fed += len(some)
        return logits

    def _take_back(self, answers: list[Answer], first: int) -> None:
        """Empty the slots of those who were to come into them by a forward that failed."""
        for slot, answer in enumerate(answers, first):
            if answer.touched and answer not in self._answers and answer is not self.line.long:
                self._cache.clear(slot, answer.touched)
                answer.touched = 0

    def _fail(self, answers: Sequence[Answer], error: Exception) -> None:
        for answer in answers:
            self.end(answer, answer.fail(_told(error)))

    def _make_room(self, slots: int, tokens: int) -> None:
        """See that the cache has so many slots of so many tokens, and one more for a long prompt."""
        long = self.line.long
        held = [*self._answers, *([long] if long else [])]
        used = max(len(self._answers), self._long_slot + 1 if long and long.touched else 0)
        written = max((answer.touched for answer in held), default=0)
        self._cache.reserve(max(slots + (long is not None), used), max(tokens, written), used=used, written=written)

    def _place_long(self, slot: int) -> None:
        """Move the long prompt, if there is one, to a free slot."""
        long = self.line.long
        if long and long.touched and slot != self._long_slot:
            self._cache.move(self._long_slot, slot, long.touched)
        self._long_slot = slot

    def _draw(self, answers: list[Answer], logits: torch.Tensor) -> None:
        """Choose everybody's next token; who ends leaves, the last first, so that the others' slots stay side by side."""
        try:
            tokens = choose(logits, [answer.parameters for answer in answers], [answer.mark() for answer in answers])
        except Exception as error:  # noqa: BLE001 - as in `_run`
            self._fail(answers, error)
            return
        for answer, token in reversed(list(zip(answers, tokens, strict=True))):
            if token == NONE:
                piece = answer.fail(no_numbers(answer.mix.scale if answer.mix else 1.0, answer.parameters.steer))
            else:
                piece = answer.take(token)
            if piece.finish_reason:
                self.end(answer, piece)
            else:
                self._told.append((answer.ticket, piece))

    def _leave(self, slot: int) -> None:
        """Empty a slot; the last of those who are answered takes it."""
        self._cache.clear(slot, self._answers[slot].touched)
        last = self._answers.pop()
        if slot < len(self._answers):
            self._cache.move(len(self._answers), slot, last.touched)
            self._answers[slot] = last


def is_memory(error: BaseException) -> bool:
    """Tell whether the device had no memory; on a CPU torch says so in words alone."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "allocate memory" in str(error)


def no_numbers(scale: float, steers: Sequence[Steer]) -> ModelOrganismsError:
    """Say why logits are not numbers, and what to lower.

    Args:
        scale: Dose of the organism.
        steers: How it was steered.
    """
    if scale not in {0.0, 1.0}:
        more = " or steer it less" if steers else ""
        return InvalidArgument(f"At a dose of {scale:g} the logits are not numbers; lower the dose{more}.", field="scale")
    if steers:
        return InvalidArgument("Steered so, the logits are not numbers; lower the strengths.", field="steer")
    return LoadingFailed(
        "The organism's logits are not numbers, so nothing can be drawn from it: its weights overflow on this base model."
    )


def _told(error: Exception) -> ModelOrganismsError:
    """Say what a forward failed of in words for those it was for; the cause stays with it."""
    if isinstance(error, ModelOrganismsError):
        return error
    told = Unavailable(NO_MEMORY) if is_memory(error) else Internal("The engine failed in the middle of this answer; ask again.")
    told.__cause__ = error
    return told
