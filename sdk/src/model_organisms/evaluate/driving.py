"""Drives an engine from one thread for many who ask at once, so that one batch answers them; of Inspect it knows nothing."""

from __future__ import annotations

import queue
import threading
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from model_organisms.errors import Conflict

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from model_organisms.records import Message, SamplingParameters
    from model_organisms.sampling import Engine, Organism
    from model_organisms.sampling.answering import Piece


@dataclass(frozen=True, slots=True)
class Drawn:
    """One answer."""

    text: str
    prompt: tuple[int, ...]
    """Ids of the conversation."""
    tokens: tuple[int, ...]
    """Ids of the answer, the token that ended the turn included."""
    finish_reason: str


@dataclass(slots=True)
class _Question:
    organism: Organism | None
    messages: Sequence[Message]
    parameters: SamplingParameters
    answer: Future[Drawn]
    prompt: tuple[int, ...] = ()
    text: list[str] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)

    def take(self, piece: Piece) -> None:
        self.text.append(piece.text)
        if piece.token is not None:
            self.tokens.append(piece.token)
        if piece.error is not None:
            self._end(piece.error)
        elif piece.finish_reason:
            self._end(Drawn("".join(self.text), self.prompt, tuple(self.tokens), piece.finish_reason))

    def fail(self, error: BaseException) -> None:
        self._end(error)

    def _end(self, told: Drawn | BaseException) -> None:
        """Tell whoever waits; who has cancelled waits no more."""
        if self.answer.cancelled() or not self.answer.set_running_or_notify_cancel():
            return
        if isinstance(told, Drawn):
            self.answer.set_result(told)
        else:
            self.answer.set_exception(told)


class Driver:
    """An engine and the thread that steps it. Close it, or the thread goes on waiting.

    Args:
        engine: Nobody else may drive it; `alone` lends it between two steps.
    """

    def __init__(self, engine: Engine) -> None:
        """Start the thread."""
        self.engine = engine
        self._line: queue.SimpleQueue[_Question | None] = queue.SimpleQueue()
        self._asked: dict[int, _Question] = {}
        self._guests: list[None] = []
        self._turn = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="drives-engine", daemon=True)
        self._thread.start()

    def ask(self, organism: Organism | None, messages: Sequence[Message], parameters: SamplingParameters) -> Future[Drawn]:
        """Ask; the question joins the batch at the next step.

        Args:
            organism: Who is to answer; None is the bare base.
            messages: The conversation.
            parameters: How to draw.

        Returns:
            The answer to come, or what `Engine.submit` raises; cancelling it takes the question out of the batch.

        Raises:
            Conflict: The driver is closed.
        """
        if self._closed:
            raise Conflict("This engine's driver is closed; make another.")
        answer: Future[Drawn] = Future()
        self._line.put(_Question(organism, tuple(messages), parameters, answer))
        return answer

    @contextmanager
    def alone(self) -> Iterator[Engine]:
        """Lend the engine while the block runs, between two steps; those who are being answered wait."""
        self._guests.append(None)
        with self._turn:
            try:
                yield self.engine
            finally:
                self._guests.pop()
                self._turn.notify_all()

    def close(self) -> None:
        """End the thread; questions that are under way end with `Conflict`."""
        self._closed = True
        self._line.put(None)
        self._thread.join()

    def _run(self) -> None:
        while self._take_in():
            with self._turn:
                self._turn.wait_for(lambda: not self._guests)
                self._step()
        for question in self._asked.values():
            question.fail(Conflict("The engine was closed while it answered; ask again."))

    def _take_in(self) -> bool:
        """Hand what was asked to the engine, waiting where nothing is under way; False once it is closed."""
        wait = not self._asked
        while wait or not self._line.empty():
            question = self._line.get()
            wait = False
            if question is None:
                return False
            try:
                with self._turn:
                    question.prompt = tuple(self.engine.speech(question.organism).token_ids(question.messages))
                    ticket = self.engine.submit(question.organism, question.prompt, question.parameters)
            except Exception as error:  # noqa: BLE001 - it is told to whoever asked
                question.fail(error)
            else:
                self._asked[ticket] = question
        return True

    def _step(self) -> None:
        for ticket in [ticket for ticket, question in self._asked.items() if question.answer.cancelled()]:
            self.engine.cancel(ticket)
        try:
            told = self.engine.step() if self.engine.busy else []
        except Exception as error:  # noqa: BLE001 - as above
            for ticket, failed in self._asked.items():
                self.engine.cancel(ticket)
                failed.fail(error)
            self._asked.clear()
            return
        for ticket, piece in told:
            if (question := self._asked.get(ticket)) is not None:
                question.take(piece)
                if piece.finish_reason or piece.error:
                    del self._asked[ticket]
